//! What a person sees while a measurement runs: a bar on stderr, if that is a terminal and no JSON is asked for.

use super::meter::Window;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// A bar moves so often.
const TICK: Duration = Duration::from_millis(100);
/// Places of a full bar.
const FULL: u64 = 1000;

/// Whether bars are shown. `Clone` is cheap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    Shown,
    Hidden,
}

impl Progress {
    /// A bar that follows the window until it is dropped.
    pub(super) fn watch(self, name: &str, window: &Arc<Window>) -> Bar {
        let target = match self {
            Self::Shown => ProgressDrawTarget::stderr(),
            Self::Hidden => ProgressDrawTarget::hidden(),
        };
        let style = ProgressStyle::with_template("{prefix:>24} {bar:30} {elapsed} {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar =
            ProgressBar::with_draw_target(Some(FULL), target).with_style(style).with_prefix(name.to_owned());
        // not a terminal: nothing to move
        let moving = (!bar.is_hidden()).then(|| tokio::spawn(follow(bar.clone(), Arc::clone(window))));
        Bar { bar, moving }
    }
}

async fn follow(bar: ProgressBar, window: Arc<Window>) {
    loop {
        bar.set_position((window.passed() * FULL as f64) as u64);
        bar.set_message(format!("{} records", window.counted()));
        tokio::time::sleep(TICK).await;
    }
}

/// A bar on the screen; dropping it takes it away.
pub(super) struct Bar {
    bar: ProgressBar,
    moving: Option<JoinHandle<()>>,
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(moving) = &self.moving {
            moving.abort();
        }
        self.bar.finish_and_clear();
    }
}
