//! A lease as its holder sees it: held until a moment on this process's own monotonic clock, or lost for good.
//!
//! ```text
//!  held ──(told by the store, or the moment passed)──► lost, never held again under this epoch
//!    └──(a successor asked)──► held, and to be handed over in order
//! ```
//!
//! The moment is counted from *before* the request that took or renewed the lease was sent, so it never lies after the
//! judgement of others. A process that was paused finds the moment passed when it wakes, before it hears of anything.

use crate::shard::ShardRef;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tidemill_types::LeaseEpoch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

#[derive(Debug)]
pub(crate) struct Hold {
    at: ShardRef,
    epoch: LeaseEpoch,
    until: Mutex<Instant>,
    told: AtomicBool,
    lost: CancellationToken,
    asked: CancellationToken,
    /// Bytes processed since the throughput was last taken.
    bytes: AtomicU64,
    bytes_per_s: AtomicU64,
}

impl Hold {
    pub(crate) fn new(at: ShardRef, epoch: LeaseEpoch, until: Instant) -> Self {
        Self {
            at,
            epoch,
            until: Mutex::new(until),
            told: AtomicBool::new(false),
            lost: CancellationToken::new(),
            asked: CancellationToken::new(),
            bytes: AtomicU64::new(0),
            bytes_per_s: AtomicU64::new(0),
        }
    }
    pub(crate) fn at(&self) -> &ShardRef {
        &self.at
    }
    pub(crate) fn epoch(&self) -> LeaseEpoch {
        self.epoch
    }
    /// Whether work may be done now. Once false, always false.
    pub(crate) fn is_held(&self) -> bool {
        let passed = Instant::now() >= *self.until.lock();
        #[cfg(test)]
        let passed = passed && !crate::sim::bugs::is_planted(crate::sim::bugs::Bug::BlindHold);
        if passed {
            self.lost.cancel();
        }
        !self.lost.is_cancelled()
    }
    /// The moment it runs out unless it is renewed.
    pub(crate) fn until(&self) -> Instant {
        #[cfg(test)]
        if crate::sim::bugs::is_planted(crate::sim::bugs::Bug::BlindHold) {
            return Instant::now() + Duration::from_secs(3600);
        }
        *self.until.lock()
    }
    /// It was renewed; too late if the moment has passed.
    pub(crate) fn extend(&self, until: Instant) {
        let mut current = self.until.lock();
        if Instant::now() < *current {
            *current = until.max(*current);
        }
    }
    /// The store says that somebody else has it, or nobody.
    pub(crate) fn lost_by_word(&self) {
        self.told.store(true, Ordering::Relaxed);
        self.lost.cancel();
    }
    /// Whether the store itself said that it is lost, so that there is nothing to give back.
    pub(crate) fn is_lost_by_word(&self) -> bool {
        self.told.load(Ordering::Relaxed)
    }
    /// A successor waits for it, or its stream is no longer wanted: finish and give it back.
    pub(crate) fn ask(&self) {
        self.asked.cancel();
    }
    /// Waits until it is to be given back.
    pub(crate) async fn asked(&self) {
        self.asked.cancelled().await;
    }
    pub(crate) fn is_asked(&self) -> bool {
        self.asked.is_cancelled()
    }
    /// So much more was processed under it.
    pub(crate) fn processed(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
    /// Takes what was processed in `elapsed` into the average. Half of it is news (as in the KCL).
    pub(crate) fn measure(&self, elapsed: Duration) {
        let bytes = self.bytes.swap(0, Ordering::Relaxed);
        let seconds = elapsed.as_secs_f64().max(0.001);
        let now = (bytes as f64 / seconds) as u64;
        let before = self.bytes_per_s.load(Ordering::Relaxed);
        let average = if before == 0 { now } else { before / 2 + now / 2 };
        self.bytes_per_s.store(average, Ordering::Relaxed);
    }
    /// Bytes a second, on average.
    pub(crate) fn bytes_per_s(&self) -> u64 {
        self.bytes_per_s.load(Ordering::Relaxed)
    }
    /// Waits until it is lost.
    pub(crate) async fn lost(&self) {
        while self.is_held() {
            tokio::select! {
                () = self.lost.cancelled() => {}
                () = sleep_until(self.until()) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_types::{ShardId, StreamName};

    fn hold(lease: Duration) -> Hold {
        let at = ShardRef::new(StreamName::new("s").unwrap(), ShardId::new(0).unwrap());
        Hold::new(at, LeaseEpoch::new(1), Instant::now() + lease)
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_was_paused_knows_that_its_lease_ran_out_even_if_a_renewal_comes_in_then() {
        let hold = hold(Duration::from_secs(1));
        assert!(hold.is_held());
        tokio::time::advance(Duration::from_secs(1)).await;
        hold.extend(Instant::now() + Duration::from_secs(1));
        assert!(!hold.is_held());
        assert!(!hold.is_lost_by_word());
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewed_lease_is_lost_only_after_the_renewed_time() {
        let hold = hold(Duration::from_secs(1));
        let begun = Instant::now();
        tokio::time::advance(Duration::from_millis(900)).await;
        hold.extend(Instant::now() + Duration::from_secs(1));
        hold.lost().await;
        assert!(begun.elapsed() >= Duration::from_millis(1900), "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn throughput_is_an_average_that_half_follows_the_news() {
        let hold = hold(Duration::from_secs(1));
        let second = Duration::from_secs(1);
        let told = [4000, 2000, 0].map(|bytes| {
            hold.processed(bytes);
            hold.measure(second);
            hold.bytes_per_s()
        });
        assert_eq!(told, [4000, 3000, 1500]);
    }
}
