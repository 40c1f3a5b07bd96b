//! The collector: looks after time. Seals batches that have lingered, fails records whose deadline has passed.
//!
//! Lanes with an open batch stand in a queue, oldest first; each lane at most once, so the queue is bounded by the shards.

use crate::lane::Lane;
use crate::producer::Shared;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

#[derive(Default)]
pub(crate) struct LingerQueue {
    lanes: Mutex<VecDeque<(Instant, Arc<Lane>)>>,
    begun: Notify,
}

impl LingerQueue {
    /// A lane has an open batch since that moment.
    pub(crate) fn add(&self, since: Instant, lane: Arc<Lane>) {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.push_back((since, lane));
        if lanes.len() == 1 {
            self.begun.notify_one();
        }
    }
    fn oldest(&self) -> Option<Instant> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner).front().map(|(since, _)| *since)
    }
    fn take_if(&self, opened_before: Instant) -> Option<Arc<Lane>> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.pop_front_if(|(since, _)| *since <= opened_before).map(|(_, lane)| lane)
    }
}

/// Runs until the producer ends it.
pub(crate) async fn run(shared: Arc<Shared>) {
    let linger = shared.config.linger;
    // deadlines are kept to a twentieth, or a quarter of a second
    let period =
        (shared.config.record_deadline / 20).clamp(Duration::from_millis(5), Duration::from_millis(250));
    let mut next_sweep = Instant::now() + period;
    loop {
        let due = shared.linger.oldest().map(|since| since + linger);
        tokio::select! {
            () = sleep_until(due.map_or(next_sweep, |due| due.min(next_sweep))) => {}
            () = shared.linger.begun.notified(), if due.is_none() => continue,
        }
        let now = Instant::now();
        if let Some(opened_before) = now.checked_sub(linger) {
            while let Some(lane) = shared.linger.take_if(opened_before) {
                if let Some(since) = lane.linger(opened_before) {
                    shared.linger.add(since, lane);
                }
            }
        }
        if now >= next_sweep {
            next_sweep = now + period;
            if shared.limiter.used() > 0 {
                shared.streams.lanes().iter().for_each(|lane| lane.expire(now));
            }
        }
    }
}
