//! A look at a process each second, while something else is done to it.

use crate::process::Server;
use crate::vitals::Vitals;
use anyhow::Result;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;
use tokio::time::Instant;

const EVERY: Duration = Duration::from_secs(1);

/// One look at a process.
struct Look {
    seconds: f64,
    /// Not of files.
    memory_mib: f64,
    cpu: Duration,
    descriptors: usize,
    maps: usize,
}

/// What was seen of a process.
pub(super) struct Watched<T> {
    /// What was done meanwhile.
    pub(super) done: T,
    looks: Vec<Look>,
}

impl<T> Watched<T> {
    /// Seconds since the start, and mebibytes that are not of files.
    pub(super) fn memory(&self) -> Vec<(f64, f64)> {
        self.looks.iter().map(|look| (look.seconds, look.memory_mib)).collect()
    }
    pub(super) fn peak_mib(&self) -> f64 {
        self.looks.iter().map(|look| look.memory_mib).fold(0.0, f64::max)
    }
    /// Processor time over time between two looks, at most.
    pub(super) fn peak_cores(&self) -> f64 {
        let pairs = self.looks.windows(2);
        let used =
            pairs.map(|pair| (pair[1].cpu - pair[0].cpu).as_secs_f64() / (pair[1].seconds - pair[0].seconds));
        used.fold(0.0, f64::max)
    }
    pub(super) fn peak_descriptors(&self) -> f64 {
        self.looks.iter().map(|look| look.descriptors as f64).fold(0.0, f64::max)
    }
    pub(super) fn peak_maps(&self) -> f64 {
        self.looks.iter().map(|look| look.maps as f64).fold(0.0, f64::max)
    }
}

/// Does something to a broker and watches it.
pub(super) fn watch<T>(broker: &Server, act: impl FnOnce() -> Result<T>) -> Result<Watched<T>> {
    let vitals = broker.vitals();
    let (finish, finished) = mpsc::channel::<()>();
    let (done, looks) = std::thread::scope(|scope| {
        let looking = scope.spawn(move || look_until(vitals, &finished));
        let done = act();
        drop(finish);
        (done, looking.join().expect("looking does not panic"))
    });
    Ok(Watched { done: done?, looks: looks? })
}

fn look_until(vitals: Vitals, finished: &mpsc::Receiver<()>) -> Result<Vec<Look>> {
    let began = Instant::now();
    let mut looks = Vec::new();
    loop {
        looks.push(Look {
            seconds: began.elapsed().as_secs_f64(),
            memory_mib: vitals.anonymous_bytes()? as f64 / f64::from(1 << 20),
            cpu: vitals.cpu_time()?,
            descriptors: vitals.descriptors()?,
            maps: vitals.maps()?,
        });
        if finished.recv_timeout(EVERY) != Err(RecvTimeoutError::Timeout) {
            return Ok(looks);
        }
    }
}
