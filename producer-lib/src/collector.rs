//! The collector: looks after time. Seals batches that have lingered, fails records whose deadline has passed.
//!
//! Lanes with an open batch stand in a queue, oldest first; each lane at most once, so the queue is bounded by the shards.

use crate::lane::Lane;
use crate::producer::Shared;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

#[derive(Default)]
pub(crate) struct LingerQueue {
    lanes: Mutex<VecDeque<(Instant, Arc<Lane>)>>,
    begun: Notify,
    /// The shortest time that a record was given to live, in milliseconds; zero if none was.
    shortest_ms: AtomicU64,
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
    /// A record lives only this long: deadlines are looked at accordingly.
    pub(crate) fn look_often_enough_for(&self, time_to_live: Duration) {
        let ms = u64::try_from(time_to_live.as_millis()).unwrap_or(u64::MAX);
        let shorter = |known: u64| (known == 0 || ms < known).then_some(ms);
        let _ = self.shortest_ms.fetch_update(Ordering::Relaxed, Ordering::Relaxed, shorter);
    }
    /// How often to look at deadlines: they are kept to a twentieth, or a quarter of a second.
    fn period(&self, record_deadline: Duration) -> Duration {
        let shortest = match self.shortest_ms.load(Ordering::Relaxed) {
            0 => record_deadline,
            ms => record_deadline.min(Duration::from_millis(ms)),
        };
        (shortest / 20).clamp(Duration::from_millis(5), Duration::from_millis(250))
    }
    fn oldest(&self) -> Option<Instant> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner).front().map(|(since, _)| *since)
    }
    fn take_if(&self, opened_before: Instant) -> Option<Arc<Lane>> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.pop_front_if(|(since, _)| *since <= opened_before).map(|(_, lane)| lane)
    }
}

/// Waits until a moment. One that has come costs no timer, which would take up to a millisecond, only a turn of the others.
async fn wait_until(moment: Instant) {
    if moment <= Instant::now() {
        return tokio::task::yield_now().await;
    }
    sleep_until(moment).await;
}

/// Runs until the producer ends it.
pub(crate) async fn run(shared: Arc<Shared>) {
    let linger = shared.config.linger;
    let period = || shared.linger.period(shared.config.record_deadline);
    let mut next_sweep = Instant::now() + period();
    loop {
        let due = shared.linger.oldest().map(|since| since + linger);
        tokio::select! {
            () = wait_until(due.map_or(next_sweep, |due| due.min(next_sweep))) => {}
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
            next_sweep = now + period();
            if shared.limiter.used() > 0 {
                shared.streams.lanes().iter().for_each(|lane| lane.expire(now));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_moment_that_has_come_is_not_waited_for_and_one_to_come_is() {
        let began = Instant::now();
        wait_until(began).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        wait_until(began + Duration::from_millis(7)).await;
        assert!(began.elapsed() >= Duration::from_millis(7));
    }
}
