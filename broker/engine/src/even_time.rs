//! Since when the wall clock has run evenly: nothing is let go of for its age before that much is certain.
//!
//! Records are stamped by the wall clock and let go of by it. A host without a clock of its own starts where it was shut down
//! and is set right minutes later; one whose battery is empty starts years away. Either way what was put a minute ago looks
//! older than its retention, and what is let go of does not come back. So:
//!
//! - Once the clock was set by more than [`STEP_MS`], a stream lets go of records again only when its retention has passed by
//!   the clock as it is since. The metadata store remembers when that was.
//! - A start at which the clock is by more than that later than the newest record may be right, and the broker was off; or
//!   the clock is wrong. For [`START_HOLD_MS`] nothing is let go of: what sets clocks has set this one by then.
//!
//! What is not seen: a clock that starts ahead and stays so for longer, and one that is set in smaller steps. A shorter
//! retention lets go at once of what it says, by the clock as it is ([`crate::catalog::update`]).

use crate::directory;
use crate::shared::Shared;
use crate::store::writer::Metadata;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tidemill_types::{MonotonicMs, TimestampMs};
use tracing::{info, warn};

/// A clock that gains or loses more than this between two looks was set. The shortest retention is a day.
const STEP_MS: u64 = 3_600_000;
/// From a start whose clock may be ahead: time services set a clock within seconds to minutes of having a network.
const START_HOLD_MS: u64 = 600_000;

/// What is known of the wall clock.
#[derive(Debug, Default)]
pub(crate) struct EvenTime {
    /// Wall time, ms: since then it has run evenly. 0: as long as is known.
    from: AtomicU64,
    /// Monotonic time, ms: nothing is let go of before.
    held_until: AtomicU64,
}

impl EvenTime {
    fn from(&self) -> TimestampMs {
        TimestampMs::new(self.from.load(Ordering::Relaxed))
    }

    /// `kept_since` if what arrived before may be let go of; otherwise the beginning of time, before which nothing arrived.
    pub(crate) fn certain(&self, kept_since: TimestampMs, monotonic: MonotonicMs) -> TimestampMs {
        let is_held = monotonic.get() < self.held_until.load(Ordering::Relaxed);
        if is_held || kept_since < self.from() { TimestampMs::default() } else { kept_since }
    }
}

/// Watches the clock from a start on.
pub(crate) struct Watch {
    shared: Arc<Shared>,
    metadata: Metadata,
    last: (TimestampMs, MonotonicMs),
    /// By the metadata store.
    remembered: TimestampMs,
}

impl Watch {
    /// At a start: `remembered` is what the metadata store does, `newest` the arrival of the newest record.
    pub(crate) fn begin(
        remembered: TimestampMs,
        newest: Option<TimestampMs>,
        shared: Arc<Shared>,
        metadata: Metadata,
    ) -> Self {
        let (now, monotonic) = (shared.clock().now(), shared.clock().monotonic());
        let newest = newest.unwrap_or(now);
        let was_set_back = remembered.max(newest).get() > now.get().saturating_add(STEP_MS);
        let from = if was_set_back { now } else { remembered };
        shared.even_time().from.store(from.get(), Ordering::Relaxed);
        if now.get().saturating_sub(newest.get()) > STEP_MS {
            info!(
                newest = newest.get(),
                now = now.get(),
                minutes = START_HOLD_MS / 60_000,
                "the clock is much later than the newest record: old records are let go of from so many minutes on"
            );
            let until = monotonic.plus_ms(START_HOLD_MS);
            shared.even_time().held_until.store(until.get(), Ordering::Relaxed);
        }
        Self { shared, metadata, last: (now, monotonic), remembered }
    }

    /// Looks whether the clock was set since the last look, and has the metadata store remember it. What could not be
    /// remembered is tried again by the next look.
    pub(crate) async fn look(&mut self) {
        let clock = self.shared.clock();
        let (now, monotonic) = (clock.now(), clock.monotonic());
        let (then, before) = std::mem::replace(&mut self.last, (now, monotonic));
        let expected = then.get().saturating_add(monotonic.since(before));
        let even = self.shared.even_time();
        if now.get().abs_diff(expected) > STEP_MS {
            even.from.store(now.get(), Ordering::Relaxed);
            warn!(
                expected,
                now = now.get(),
                "the clock was set: every stream keeps its records for one more retention from now"
            );
        }
        let from = even.from();
        if self.remembered == from {
            return;
        }
        match self.metadata.commit(directory::even_from_batch(from)).await {
            Ok(_) => self.remembered = from,
            Err(error) if self.shared.check_open().is_ok() => {
                warn!(%error, "it could not be noted that the clock was set");
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::one_stream::OneStream;
    use crate::settings::Settings;
    use crate::store::memory::MemoryStore;
    use tidemill_types::Clock;

    const HOUR_MS: u64 = 3_600_000;
    const DAY_MS: u64 = 24 * HOUR_MS;

    /// A clock that is watched.
    struct Watched {
        one: OneStream,
        store: MemoryStore,
        watch: Watch,
    }

    impl Watched {
        fn from(remembered: u64, newest: Option<u64>) -> Self {
            let (one, store) = (OneStream::new(Settings::default()), MemoryStore::default());
            let (metadata, writer) = Metadata::new(Box::new(store.clone()));
            std::thread::spawn(move || writer.run());
            let (remembered, newest) = (TimestampMs::new(remembered), newest.map(TimestampMs::new));
            let watch = Watch::begin(remembered, newest, Arc::clone(&one.shared), metadata);
            Self { one, store, watch }
        }
        fn now(&self) -> u64 {
            self.one.clock.now().get()
        }
        /// Whether records of the last day are all that is kept.
        fn lets_go(&self) -> bool {
            let since = self.one.clock.now().saturating_sub_ms(DAY_MS);
            self.one.shared.even_time().certain(since, self.one.clock.monotonic()) == since
        }
        async fn pass(&mut self, ms: u64) {
            for _ in 0..24 {
                self.one.clock.advance_ms(ms / 24);
                self.watch.look().await;
            }
        }
        async fn set(&mut self, wall: u64) {
            self.one.clock.set_wall(TimestampMs::new(wall));
            self.watch.look().await;
        }
        fn remembered(&self) -> u64 {
            directory::even_from(&self.store).unwrap().get()
        }
    }

    #[tokio::test]
    async fn a_clock_that_was_set_lets_go_of_nothing_for_one_retention() {
        let mut watched = Watched::from(0, None);
        watched.pass(5 * DAY_MS).await;
        assert!(watched.lets_go());
        assert_eq!(watched.remembered(), 0, "nothing happened");
        for wall in [watched.now() + 10_000 * DAY_MS, watched.now(), 10 * DAY_MS, watched.now()] {
            watched.set(wall).await;
            assert_eq!(watched.remembered(), wall);
            assert!(!watched.lets_go());
            watched.pass(DAY_MS - HOUR_MS).await;
            assert!(!watched.lets_go());
            watched.pass(2 * HOUR_MS).await;
            assert!(watched.lets_go());
        }
        let wall = watched.now() + STEP_MS / 2;
        watched.set(wall).await;
        assert!(watched.lets_go(), "it is put right a little all the time");
    }

    #[tokio::test]
    async fn a_start_long_after_the_newest_record_waits_for_the_clock_to_be_set() {
        let now = Watched::from(0, None).now();
        let mut watched = Watched::from(0, Some(now - 10 * DAY_MS));
        assert!(!watched.lets_go());
        watched.pass(START_HOLD_MS - 24).await;
        assert!(!watched.lets_go());
        watched.pass(48).await;
        assert!(watched.lets_go(), "the broker was off");
        assert!(Watched::from(0, Some(now - STEP_MS / 2)).lets_go(), "it was started again");
        // the clock was wrong
        let mut watched = Watched::from(0, Some(now - 10 * DAY_MS));
        watched.pass(START_HOLD_MS / 2).await;
        watched.set(now - 10 * DAY_MS).await;
        watched.pass(START_HOLD_MS).await;
        assert!(!watched.lets_go());
    }

    #[tokio::test]
    async fn a_start_remembers_that_the_clock_was_set_and_does_not_believe_a_time_that_is_to_come() {
        let now = Watched::from(0, None).now();
        assert!(!Watched::from(now - HOUR_MS, None).lets_go());
        assert!(Watched::from(now - DAY_MS, None).lets_go());
        for mut ahead in
            [Watched::from(now + 1000 * DAY_MS, None), Watched::from(0, Some(now + 1000 * DAY_MS))]
        {
            assert!(!ahead.lets_go());
            ahead.pass(DAY_MS + HOUR_MS).await;
            assert!(ahead.lets_go(), "it was set back while the broker was off");
            assert_eq!(ahead.remembered(), now);
        }
    }
}
