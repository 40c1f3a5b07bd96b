//! What a person sees while the demo runs: two bars and a few sentences, on stderr, the bars only on a terminal.

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::watch;
use tokio::task::JoinHandle;

#[derive(Clone)]
pub(super) struct Progress {
    bars: MultiProgress,
    produced: ProgressBar,
    counted: ProgressBar,
}

impl Progress {
    pub(super) fn new(events: usize) -> Self {
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{prefix:>13} {bar:40} {pos:>6}/{len} {per_sec}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = |prefix: &'static str| {
            let bar = ProgressBar::new(events as u64).with_style(style.clone()).with_prefix(prefix);
            bars.add(bar)
        };
        let (produced, counted) = (bar("acknowledged"), bar("counted"));
        Self { bars, produced, counted }
    }

    /// A sentence above the bars; without a terminal, a line.
    pub(super) fn say(&self, text: &str) {
        if self.bars.is_hidden() {
            eprintln!("{text}");
        } else {
            // a terminal that went away is no reason to fail
            let _ = self.bars.println(text);
        }
    }

    pub(super) fn acknowledged(&self) {
        self.produced.inc(1);
    }

    /// Moves the other bar with what is counted.
    pub(super) fn follow(&self, mut counted: watch::Receiver<usize>) -> JoinHandle<()> {
        let bar = self.counted.clone();
        tokio::spawn(async move {
            while counted.changed().await.is_ok() {
                let position = *counted.borrow_and_update() as u64;
                bar.set_position(position);
            }
        })
    }

    pub(super) fn finish(&self, counted: usize) {
        self.counted.set_position(counted as u64);
        self.produced.finish();
        self.counted.finish();
    }
}
