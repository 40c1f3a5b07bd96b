//! A lease as its holder sees it: held until a moment on this process's own monotonic clock, or lost for good.
//!
//! ```text
//!  held ──(told by the broker, or the moment passed)──► lost, never held again under this epoch
//! ```
//!
//! The moment is counted from *before* the request that took or renewed the lease was sent, so it never lies after the
//! broker's own judgement. A process that was paused finds the moment passed when it wakes, before it hears of anything.

use crate::record::ShardRef;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
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
}

impl Hold {
    pub(crate) fn new(at: ShardRef, epoch: LeaseEpoch, until: Instant) -> Self {
        Self {
            at,
            epoch,
            until: Mutex::new(until),
            told: AtomicBool::new(false),
            lost: CancellationToken::new(),
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
        if passed {
            self.lost.cancel();
        }
        !self.lost.is_cancelled()
    }
    /// The moment it runs out unless it is renewed.
    pub(crate) fn until(&self) -> Instant {
        *self.until.lock()
    }
    /// It was renewed; too late if the moment has passed.
    pub(crate) fn extend(&self, until: Instant) {
        let mut current = self.until.lock();
        if Instant::now() < *current {
            *current = until.max(*current);
        }
    }
    /// The broker says that somebody else has it, or nobody.
    pub(crate) fn lost_by_word(&self) {
        self.told.store(true, Ordering::Relaxed);
        self.lost.cancel();
    }
    /// Whether the broker itself said that it is lost, so that there is nothing to give back.
    pub(crate) fn is_lost_by_word(&self) -> bool {
        self.told.load(Ordering::Relaxed)
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
    use std::time::Duration;
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
}
