//! Since when the wall clock has run evenly: nothing is let go of for its age before that much is certain.
//!
//! Records are stamped by the wall clock and let go of by it. A host without a clock of its own starts where it was shut down
//! and is set right minutes later; one whose battery is empty starts years away. Either way what was put a minute ago looks
//! older than its retention, and what is let go of does not come back. So:
//!
//! - Once the clock was set by more than [`STEP_MS`], a stream lets go of records again only when its retention has passed by
//!   the clock as it is since.
//! - A start at which the clock is by more than that later than the newest record may be right, and the broker was off; or
//!   the clock is wrong. For [`START_HOLD_MS`] nothing is let go of: what sets clocks has set this one by then. A start within
//!   that time, or after a crash in it, begins it anew, whatever has been stamped meanwhile.
//!
//! The metadata store remembers all of it ([`Known`]), so that no start forgets. What is not seen: a clock that starts ahead and
//! stays so for longer, and one that is set in smaller steps.

use crate::directory;
use crate::error::Result;
use crate::shared::Shared;
use crate::store::Store;
use crate::store::writer::Metadata;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tidemill_types::{Clock, MonotonicMs, TimestampMs};
use tracing::{info, warn};

/// A clock that gains or loses more than this between two looks was set. The shortest retention is a day.
const STEP_MS: u64 = 3_600_000;
/// From a start whose clock may be ahead: time services set a clock within seconds to minutes of having a network.
const START_HOLD_MS: u64 = 600_000;
/// Between tries to remember what could not be remembered: after a failure the store is opened anew, all of it verified.
const RETRY_MS: u64 = 10_000;

/// What the metadata store remembers of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Known {
    /// Since then it has run evenly. The epoch: for as long as is known.
    pub(crate) even_from: TimestampMs,
    /// The latest arrival that a start has found in the future: it says nothing about the clock of later starts.
    pub(crate) ahead: TimestampMs,
    /// A start has found it much later than the newest record, and has not run for long enough since.
    pub(crate) is_doubtful: bool,
}

/// Whether what is old may go.
#[derive(Debug, Default)]
pub(crate) struct EvenTime {
    /// Wall time, ms.
    from: AtomicU64,
    /// Monotonic time, ms: nothing is let go of before.
    held_until: AtomicU64,
    /// By how much the wall clock is ahead of the one that nobody sets, ms: as it was at the last look.
    ahead: AtomicU64,
}

impl EvenTime {
    /// Of a clock that is looked at for the first time.
    pub(crate) fn new(clock: &dyn Clock) -> Self {
        let ahead = ahead_of(clock.now(), clock).into();
        Self { ahead, ..Self::default() }
    }

    /// `kept_since` if what arrived before may be let go of; otherwise the beginning of time, before which nothing arrived.
    pub(crate) fn certain(
        &self,
        kept_since: TimestampMs,
        now: TimestampMs,
        clock: &dyn Clock,
    ) -> TimestampMs {
        let is_held = clock.monotonic().get() < self.held_until.load(Ordering::Relaxed);
        let is_set = self.is_set(ahead_of(now, clock));
        let from = TimestampMs::new(self.from.load(Ordering::Relaxed));
        if is_held || is_set || kept_since < from { TimestampMs::default() } else { kept_since }
    }

    fn is_set(&self, ahead: u64) -> bool {
        distance(ahead, self.ahead.load(Ordering::Acquire)) > STEP_MS
    }

    /// Whether the clock was set since the last look, at the time `now`: then it runs evenly from now on.
    fn look(&self, now: TimestampMs, clock: &dyn Clock) -> bool {
        let ahead = ahead_of(now, clock);
        let is_set = self.is_set(ahead);
        if is_set {
            self.from.store(now.get(), Ordering::Relaxed); // before it passes for even again
        }
        self.ahead.store(ahead, Ordering::Release);
        is_set
    }
}

/// By how much `now` is ahead of the clock that nobody sets: a number on a circle, for a wall clock may show less than that.
fn ahead_of(now: TimestampMs, clock: &dyn Clock) -> u64 {
    now.get().wrapping_sub(clock.monotonic_with_sleep().get())
}

fn distance(a: u64, b: u64) -> u64 {
    a.wrapping_sub(b).cast_signed().unsigned_abs()
}

/// What a start knows of its clock: `newest` are the arrivals of the newest records of all logs.
fn judged(known: Known, newest: impl Iterator<Item = TimestampMs>, now: TimestampMs) -> Known {
    let (mut latest, mut latest_past) = (None, None);
    for arrival in newest {
        latest = latest.max(Some(arrival));
        if arrival <= now {
            latest_past = latest_past.max(Some(arrival));
        }
    }
    let soon = TimestampMs::new(now.get().saturating_add(STEP_MS));
    let ahead = latest.filter(|latest| *latest > soon.max(known.ahead));
    let was_set_back = ahead.is_some() || known.even_from > soon;
    // what was in the future is past: time has gone by, or the clock, which had been set back, was put right
    let has_come = known.ahead > TimestampMs::default() && known.ahead <= now;
    let is_late = |newest: TimestampMs| now.get().saturating_sub(newest.get()) > STEP_MS;
    Known {
        even_from: if was_set_back || has_come { now } else { known.even_from },
        ahead: ahead.unwrap_or(if has_come { TimestampMs::default() } else { known.ahead }),
        is_doubtful: known.is_doubtful || (latest.is_some() && latest_past.is_none_or(is_late)),
    }
}

/// Watches the clock from a start on.
pub(crate) struct Watch {
    shared: Arc<Shared>,
    metadata: Metadata,
    known: Known,
    /// By the metadata store.
    remembered: Known,
    /// It is told then.
    tell_at: MonotonicMs,
}

/// Judges the clock of a start, and has `store` remember it before anything is taken. Blocks.
pub(crate) fn begin(
    store: &mut dyn Store,
    newest: impl Iterator<Item = TimestampMs>,
    shared: &Shared,
) -> Result<Known> {
    let (now, monotonic) = (shared.clock().now(), shared.clock().monotonic());
    let remembered = directory::known_time(store)?;
    let mut known = judged(remembered, newest, now);
    if shared.even_time().look(now, &**shared.clock()) {
        known.even_from = now; // since the process began
    }
    if known != remembered {
        store.commit(&[directory::known_time_batch(known)])?;
    }
    if known.is_doubtful {
        info!(
            now = now.get(),
            minutes = START_HOLD_MS / 60_000,
            "the clock is much later than the newest record: old records are let go of from so many minutes on"
        );
        let until = monotonic.plus_ms(START_HOLD_MS);
        shared.even_time().held_until.store(until.get(), Ordering::Relaxed);
    }
    shared.even_time().from.store(known.even_from.get(), Ordering::Relaxed);
    Ok(known)
}

impl Watch {
    /// From a start that has found this.
    pub(crate) fn new(known: Known, shared: Arc<Shared>, metadata: Metadata) -> Self {
        Self { shared, metadata, known, remembered: known, tell_at: MonotonicMs::default() }
    }

    /// Looks whether the clock was set since the last look, and has the metadata store remember it. What could not be
    /// remembered is tried again later. Gives the time that it saw.
    pub(crate) async fn look(&mut self) -> TimestampMs {
        let (clock, even) = (self.shared.clock(), self.shared.even_time());
        let (now, monotonic) = (clock.now(), clock.monotonic());
        if even.look(now, &**clock) {
            self.known.even_from = now;
            warn!(
                now = now.get(),
                "the clock was set: every stream keeps its records for one more retention from now"
            );
        }
        if self.known.is_doubtful && monotonic.get() >= even.held_until.load(Ordering::Relaxed) {
            self.known.is_doubtful = false;
        }
        if self.known != self.remembered && monotonic >= self.tell_at {
            self.tell_at = monotonic.plus_ms(RETRY_MS);
            match self.metadata.commit(directory::known_time_batch(self.known)).await {
                Ok(_) => (self.remembered, self.tell_at) = (self.known, monotonic),
                Err(error) if self.shared.check_open().is_ok() => {
                    warn!(%error, "it could not be noted that the clock was set");
                }
                Err(_) => {}
            }
        }
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::one_stream::OneStream;
    use crate::settings::Settings;
    use crate::store::memory::MemoryStore;

    const HOUR_MS: u64 = 3_600_000;
    const DAY_MS: u64 = 24 * HOUR_MS;

    /// A clock that is watched.
    struct Watched {
        one: OneStream,
        store: MemoryStore,
        watch: Watch,
    }

    impl Watched {
        fn start(one: OneStream, mut store: MemoryStore, newest: &[u64]) -> Self {
            let newest = newest.iter().copied().map(TimestampMs::new);
            // a process knows only what it finds
            one.shared.even_time().held_until.store(0, Ordering::Relaxed);
            let known = begin(&mut store, newest, &one.shared).unwrap();
            let (metadata, writer) = Metadata::new(Box::new(store.clone()));
            std::thread::spawn(move || writer.run());
            let watch = Watch::new(known, Arc::clone(&one.shared), metadata);
            Self { one, store, watch }
        }
        fn new(newest: &[u64]) -> Self {
            Self::start(OneStream::new(Settings::default()), MemoryStore::default(), newest)
        }
        /// The broker is started again at this time.
        fn again(self, wall: u64, newest: &[u64]) -> Self {
            self.one.clock.set_wall(TimestampMs::new(wall));
            Self::start(self.one, self.store, newest)
        }
        fn now(&self) -> u64 {
            self.one.clock.now().get()
        }
        /// Whether records of the last day are all that is kept.
        fn lets_go(&self) -> bool {
            let since = self.one.clock.now().saturating_sub_ms(DAY_MS);
            self.one.shared.even_time().certain(since, self.one.clock.now(), &*self.one.clock) == since
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
        fn remembered(&self) -> Known {
            directory::known_time(&self.store).unwrap()
        }
    }

    const NOW: u64 = 1_700_000_000_000;

    #[tokio::test]
    async fn a_clock_that_was_set_lets_go_of_nothing_for_one_retention() {
        let mut watched = Watched::new(&[]);
        watched.pass(5 * DAY_MS).await;
        assert!(watched.lets_go());
        assert_eq!(watched.remembered(), Known::default(), "nothing happened");
        for wall in [watched.now() + 10_000 * DAY_MS, watched.now(), 10 * DAY_MS, watched.now()] {
            watched.set(wall).await;
            assert_eq!(watched.remembered().even_from.get(), wall);
            assert!(!watched.lets_go());
            watched.pass(DAY_MS - HOUR_MS).await;
            assert!(!watched.lets_go());
            watched = watched.again(wall + DAY_MS - HOUR_MS, &[wall + 10 * HOUR_MS, wall + DAY_MS - HOUR_MS]);
            assert!(!watched.lets_go(), "a start does not forget");
            watched.pass(2 * HOUR_MS).await;
            assert!(watched.lets_go());
        }
        let wall = watched.now() + STEP_MS / 2;
        watched.set(wall).await;
        assert!(watched.lets_go(), "it is put right a little all the time");
        watched.one.clock.set_wall(TimestampMs::new(wall + 40 * DAY_MS));
        assert!(!watched.lets_go(), "nobody has looked yet");
    }

    #[tokio::test]
    async fn what_could_not_be_remembered_is_tried_again_after_a_while() {
        let mut watched = Watched::new(&[]);
        let wall = watched.now() + 40 * DAY_MS;
        watched.store.set_failing(true);
        watched.set(wall).await;
        watched.store.set_failing(false);
        watched.one.clock.advance_ms(RETRY_MS - 1);
        watched.watch.look().await;
        assert_eq!(watched.remembered(), Known::default(), "a store that fails is not asked all the time");
        assert!(!watched.lets_go());
        watched.one.clock.advance_ms(1);
        watched.watch.look().await;
        assert_eq!(watched.remembered().even_from.get(), wall);
    }

    #[tokio::test]
    async fn a_start_long_after_the_newest_record_waits_for_the_clock_to_be_set() {
        let old = NOW - 10 * DAY_MS;
        let mut watched = Watched::new(&[old, old - 5]);
        assert!(!watched.lets_go());
        watched.pass(START_HOLD_MS - 24).await;
        assert!(!watched.lets_go());
        watched.pass(48).await;
        assert!(watched.lets_go(), "the broker was off");
        let now = watched.now();
        assert!(watched.again(now, &[old, now]).lets_go(), "it was started again");
        assert!(Watched::new(&[NOW - STEP_MS / 2]).lets_go(), "it was started again");
        // the clock was wrong
        let mut watched = Watched::new(&[old]);
        watched.pass(START_HOLD_MS / 2).await;
        watched.set(old).await;
        watched.pass(START_HOLD_MS).await;
        assert!(!watched.lets_go());
    }

    /// What was stamped by a clock that is ahead does not vouch for it.
    #[tokio::test]
    async fn a_start_within_the_wait_of_another_begins_it_anew() {
        let old = NOW - 10 * DAY_MS;
        let mut watched = Watched::new(&[old]);
        for _ in 0..3 {
            watched.pass(START_HOLD_MS / 2).await;
            let now = watched.now();
            watched = watched.again(now, &[old, now]);
            assert!(!watched.lets_go());
        }
        watched.pass(START_HOLD_MS + 24).await;
        assert!(watched.lets_go());
        let now = watched.now();
        assert!(watched.again(now + 1000, &[now]).lets_go());
    }

    #[tokio::test]
    async fn what_was_stamped_ahead_keeps_back_for_one_retention_and_no_longer() {
        let later = NOW + 1000 * DAY_MS;
        let mut watched = Watched::new(&[later]);
        assert!(!watched.lets_go(), "the clock was set back while the broker was off");
        for hour in 1..24 {
            watched.pass(HOUR_MS).await;
            watched = watched.again(NOW + hour * HOUR_MS, &[later, NOW + hour * HOUR_MS]);
            assert!(!watched.lets_go(), "hour {hour}");
        }
        watched.pass(2 * HOUR_MS).await;
        assert!(watched.lets_go());
        let now = watched.now();
        let watched = watched.again(now, &[later, now]);
        assert!(watched.lets_go());
        assert!(!watched.again(now, &[later + 1, now]).lets_go(), "it was ahead once more");
    }

    /// An empty battery: the clock of one start is a month behind, and right again at the next.
    #[tokio::test]
    async fn a_clock_that_was_behind_and_is_put_right_while_the_broker_is_off_is_noticed() {
        let behind = Watched::new(&[]).again(NOW - 30 * DAY_MS, &[NOW - 5]);
        assert!(!behind.lets_go());
        let mut right = behind.again(NOW + HOUR_MS / 6, &[NOW - 5, NOW - 30 * DAY_MS + 5]);
        right.pass(DAY_MS - HOUR_MS).await;
        assert!(!right.lets_go(), "what was put in between is an hour old");
        right.pass(2 * HOUR_MS).await;
        assert!(right.lets_go());
        assert_eq!(right.remembered().ahead.get(), 0);
    }
}
