//! When leases run out, by this process's own monotonic clock: a counter that has not moved for the lease time since it was
//! last *seen* to move. No time of any clock is in the table.
//!
//! ```text
//!  first seen: free ─► run out        held ─► as if just renewed        counter moved ─► renewed
//! ```
//!
//! Here, too, is how long a holder that was asked for its lease may take: only the asker knows that, others give it the
//! time that the KCL gives, from when they first see it.

use super::row::Row;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// What the KCL gives a holder to hand over, before the lease time is added.
const HANDOFF: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Sights {
    lease: Duration,
    seen: Mutex<HashMap<String, Sight>>,
}

#[derive(Debug, Clone)]
struct Sight {
    counter: u64,
    holder: Option<String>,
    moved: Instant,
    handoff: Option<Handoff>,
}

/// Somebody waits for a lease.
#[derive(Debug, Clone)]
struct Handoff {
    from: String,
    to: String,
    deadline: Instant,
}

/// What a row says at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Left {
    /// Until it runs out; zero when it has, or when nobody holds it.
    pub(super) lease: Duration,
    /// Until its successor may take it by force; zero when it may, or when there is none.
    pub(super) handoff: Duration,
}

impl Sights {
    pub(super) fn new(lease: Duration) -> Self {
        Self { lease, seen: Mutex::default() }
    }

    /// Takes note of a row that was read until `now`.
    pub(super) fn note(&self, row: &Row, now: Instant) -> Left {
        let mut seen = self.seen.lock();
        let sight = seen.entry(row.key.clone()).or_insert_with(|| Sight {
            counter: row.counter,
            holder: None,
            moved: now,
            handoff: None,
        });
        if sight.counter != row.counter {
            (sight.counter, sight.moved) = (row.counter, now);
        }
        sight.holder = row.holder().map(str::to_owned);
        let lease = match row.holder() {
            Some(_) => (sight.moved + self.lease).saturating_duration_since(now),
            None => Duration::ZERO,
        };
        let (Some(from), Some(to)) = (row.holder(), row.successor()) else {
            // a read that is a moment old may not show yet what was asked: the deadline stays
            return Left { lease, handoff: Duration::ZERO };
        };
        let known = sight.handoff.take().filter(|handoff| handoff.from == from && handoff.to == to);
        let handoff = known.unwrap_or_else(|| Handoff {
            from: from.to_owned(),
            to: to.to_owned(),
            deadline: now + HANDOFF + self.lease,
        });
        let left = handoff.deadline.saturating_duration_since(now);
        sight.handoff = Some(handoff);
        Left { lease, handoff: left }
    }

    /// Who held a lease when it was last seen; nothing for one that was not seen.
    pub(super) fn last_holder(&self, key: &str) -> Option<String> {
        self.seen.lock().get(key)?.holder.clone()
    }

    /// This worker moved a counter by a request sent at `sent`.
    pub(super) fn moved(&self, key: &str, counter: u64, sent: Instant) {
        if let Some(sight) = self.seen.lock().get_mut(key) {
            (sight.counter, sight.moved) = (counter, sent);
        }
    }

    /// `from` was asked to hand a lease over to `to` until `deadline`.
    pub(super) fn asked(&self, key: &str, from: &str, to: &str, deadline: Instant) {
        if let Some(sight) = self.seen.lock().get_mut(key) {
            sight.handoff = Some(Handoff { from: from.to_owned(), to: to.to_owned(), deadline });
        }
    }

    /// A handoff is over.
    pub(super) fn taken(&self, key: &str) {
        if let Some(sight) = self.seen.lock().get_mut(key) {
            sight.handoff = None;
        }
    }

    /// Forgets rows that are no more.
    pub(super) fn keep(&self, wanted: impl Fn(&str) -> bool) {
        self.seen.lock().retain(|key, _| wanted(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place::Checkpoint;

    const LEASE: Duration = Duration::from_secs(10);

    fn row(owner: Option<&str>, checkpoint_owner: Option<&str>, counter: u64) -> Row {
        Row {
            key: "shardId-000000000000".into(),
            owner: owner.map(str::to_owned),
            checkpoint_owner: checkpoint_owner.map(str::to_owned),
            counter,
            checkpoint: Checkpoint::TrimHorizon,
            pending: None,
            bytes_per_s: 0,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_runs_out_when_its_counter_stands_still_for_the_lease_time() {
        let (sights, begun) = (Sights::new(LEASE), Instant::now());
        let second = Duration::from_secs(1);
        assert_eq!(sights.note(&row(Some("other"), None, 5), begun).lease, LEASE);
        assert_eq!(sights.note(&row(Some("other"), None, 5), begun + 4 * second).lease, 6 * second);
        assert_eq!(sights.note(&row(Some("other"), None, 6), begun + 9 * second).lease, LEASE);
        assert_eq!(sights.note(&row(Some("other"), None, 6), begun + 19 * second).lease, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_holds_is_free_at_once() {
        let sights = Sights::new(LEASE);
        assert_eq!(sights.note(&row(None, None, 0), Instant::now()).lease, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_handoff_under_way_does_not_keep_a_dead_holder_alive() {
        let (sights, begun) = (Sights::new(LEASE), Instant::now());
        sights.note(&row(Some("other"), None, 5), begun);
        let asked = row(Some("next"), Some("other"), 5);
        assert_eq!(sights.note(&asked, begun + LEASE / 2).lease, LEASE / 2);
        assert_eq!(sights.note(&asked, begun + LEASE).lease, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn the_asker_keeps_its_own_deadline_and_a_handoff_begun_by_another_has_that_of_the_kcl() {
        let (sights, begun) = (Sights::new(LEASE), Instant::now());
        sights.note(&row(Some("other"), None, 5), begun);
        sights.asked("shardId-000000000000", "other", "me", begun + LEASE);
        let asked = row(Some("me"), Some("other"), 5);
        assert_eq!(sights.note(&asked, begun + LEASE / 2).handoff, LEASE / 2);
        assert_eq!(sights.note(&asked, begun + LEASE).handoff, Duration::ZERO);
        sights.taken("shardId-000000000000");
        for (to, from) in [("me", "third"), ("fourth", "third")] {
            let foreign = row(Some(to), Some(from), 9);
            assert_eq!(sights.note(&foreign, begun + LEASE).handoff, HANDOFF + LEASE);
            assert_eq!(sights.note(&foreign, begun + 2 * LEASE).handoff, HANDOFF);
        }
    }
}
