//! A look at a process each second, while something else is done to it.

use crate::process::Server;
use crate::vitals::Vitals;
use anyhow::Result;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;
use tokio::time::Instant;

const EVERY: Duration = Duration::from_secs(1);

/// What was seen of a process.
pub(super) struct Watched<T> {
    /// What was done meanwhile.
    pub(super) done: T,
    /// Seconds since the start, and mebibytes that are not of files.
    pub(super) memory: Vec<(f64, f64)>,
    /// Processor time over time, in cores.
    pub(super) cores: f64,
}

impl<T> Watched<T> {
    pub(super) fn peak_mib(&self) -> f64 {
        self.memory.iter().map(|(_, mib)| *mib).fold(0.0, f64::max)
    }
}

/// Does something to a broker and watches it.
pub(super) fn watch<T>(broker: &Server, act: impl FnOnce() -> Result<T>) -> Result<Watched<T>> {
    let vitals = broker.vitals();
    let (began, before) = (Instant::now(), vitals.cpu_time()?);
    let (finish, finished) = mpsc::channel::<()>();
    let (done, memory) = std::thread::scope(|scope| {
        let looking = scope.spawn(move || look(vitals, began, &finished));
        let done = act();
        drop(finish);
        (done, looking.join().expect("looking does not panic"))
    });
    let used = vitals.cpu_time()?.saturating_sub(before);
    Ok(Watched { done: done?, memory: memory?, cores: used.as_secs_f64() / began.elapsed().as_secs_f64() })
}

fn look(vitals: Vitals, began: Instant, finished: &mpsc::Receiver<()>) -> Result<Vec<(f64, f64)>> {
    let mut seen = Vec::new();
    loop {
        seen.push((began.elapsed().as_secs_f64(), vitals.anonymous_bytes()? as f64 / f64::from(1 << 20)));
        if finished.recv_timeout(EVERY) != Err(RecvTimeoutError::Timeout) {
            return Ok(seen);
        }
    }
}
