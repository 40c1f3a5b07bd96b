//! Whether a worker has caught up: everything that it may process was processed up to the newest record.
//!
//! Its own shards tell that themselves. Besides, nothing may be left to take, and every lease of another worker must have
//! shown a sign of life since (taken or renewed) or be no longer held by another, so that the shards of a worker that has
//! just died are waited for and taken, not left behind. How long others' leases last is theirs to know: no time is set.

use crate::look::Rows;
use crate::shard::ShardRef;
use std::collections::BTreeMap;
use std::time::Duration;
use tidemill_types::{LeaseEpoch, WorkerId};
use tokio::time::Instant;

/// Epoch and counter of leases.
type Signs = BTreeMap<ShardRef, (LeaseEpoch, u64)>;

#[derive(Debug)]
pub(crate) struct Outlook {
    lease: Duration,
    /// Whether the last round left nothing to take, and nothing has happened since that may have changed that.
    settled: bool,
    /// Whether there was a round yet.
    looked: bool,
    /// Others' leases at the last round.
    others: Signs,
    /// While the own shards have caught up: others' leases as they were then, without those seen alive or free since.
    waiting: Option<Signs>,
    /// Since when the worker has held no lease.
    idle: Option<Instant>,
}

impl Outlook {
    pub(crate) fn new(lease: Duration) -> Self {
        Self { lease, settled: false, looked: false, others: Signs::new(), waiting: None, idle: None }
    }

    /// Takes note of a round; `left` says whether there is a lease this worker may yet take.
    pub(crate) fn note(&mut self, rows: &Rows, me: &WorkerId, left: bool) {
        let of_others =
            rows.iter().filter(|(_, (row, _))| row.expires_in_ms > 0 && row.owner.as_ref() != Some(me));
        self.others = of_others.map(|(shard, (row, _))| (shard.clone(), (row.epoch, row.counter))).collect();
        self.settled = !left;
        self.looked = true;
        if let Some(silent) = &mut self.waiting {
            silent.retain(|shard, sign| match self.others.get(shard) {
                // a counter that fell is that of a broker that has restarted: no sign of the worker
                Some(now) if now.0 == sign.0 && now.1 <= sign.1 => {
                    *sign = *now;
                    true
                }
                _ => false,
            });
        }
    }

    /// Whether there was a round yet.
    pub(crate) fn has_looked(&self) -> bool {
        self.looked
    }

    /// Something changed; only the next round can tell.
    pub(crate) fn unsettle(&mut self) {
        self.settled = false;
    }

    /// Whether the worker has caught up, given that it holds no lease (`idle`) or that all it holds has (`own`).
    pub(crate) fn is_caught_up(&mut self, idle: bool, own: bool) -> bool {
        let idle_for =
            if idle { self.idle.get_or_insert_with(Instant::now).elapsed() } else { Duration::ZERO };
        self.idle = self.idle.filter(|_| idle);
        if !self.settled || !own || (idle && idle_for < self.lease) {
            self.waiting = None;
            return false;
        }
        self.waiting.get_or_insert_with(|| self.others.clone()).is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place::Checkpoint;
    use crate::record::tests::{at, shard};
    use crate::store::LeaseRow;

    const LEASE: Duration = Duration::from_secs(10);

    fn lease_of(owner: &str, epoch: u64, counter: u64, expires_in_ms: u64) -> Rows {
        let row = LeaseRow {
            owner: Some(WorkerId::new(owner).unwrap()),
            epoch: LeaseEpoch::new(epoch),
            counter,
            expires_in_ms,
            ..LeaseRow::untaken(shard(0))
        };
        BTreeMap::from([(at(0), (row, Checkpoint::TrimHorizon))])
    }
    fn rows(owner: &str, counter: u64) -> Rows {
        lease_of(owner, 1, counter, 5000)
    }
    /// A worker whose own shards have caught up, and which waits for a sign of another's lease.
    fn waiting_for(counter: u64) -> (Outlook, WorkerId) {
        let (mut outlook, me) = (Outlook::new(LEASE), WorkerId::new("me").unwrap());
        outlook.note(&rows("other", counter), &me, false);
        assert!(!outlook.is_caught_up(false, true));
        (outlook, me)
    }

    #[tokio::test(start_paused = true)]
    async fn a_lone_worker_has_caught_up_as_soon_as_its_shards_have() {
        let (mut outlook, me) = (Outlook::new(LEASE), WorkerId::new("me").unwrap());
        assert!(!outlook.is_caught_up(false, true), "before the first round");
        outlook.note(&rows("me", 1), &me, false);
        assert!(!outlook.is_caught_up(false, false));
        assert!(outlook.is_caught_up(false, true));
        outlook.unsettle();
        assert!(!outlook.is_caught_up(false, true));
    }

    #[test]
    fn a_silent_lease_of_another_worker_is_waited_for_until_it_is_renewed_or_taken_by_another() {
        for sign in [rows("other", 2), lease_of("third", 2, 0, 5000)] {
            let (mut outlook, me) = waiting_for(1);
            outlook.note(&rows("other", 1), &me, false);
            assert!(!outlook.is_caught_up(false, true), "it has not spoken");
            outlook.note(&sign, &me, false);
            assert!(outlook.is_caught_up(false, true));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_worker_is_waited_for_as_long_as_its_lease_lasts_not_as_long_as_ours() {
        let (mut outlook, me) = waiting_for(1);
        for _ in 0..50 {
            tokio::time::advance(LEASE).await;
            outlook.note(&rows("other", 1), &me, false);
            assert!(!outlook.is_caught_up(false, true), "its shard would be left behind");
        }
        outlook.note(&lease_of("other", 1, 1, 0), &me, true);
        assert!(!outlook.is_caught_up(false, true), "it ran out and is to be taken");
        outlook.note(&rows("me", 2), &me, false);
        assert!(!outlook.is_caught_up(false, false), "it is taken and is to be processed");
        assert!(outlook.is_caught_up(false, true));
    }

    #[test]
    fn a_counter_that_a_restarted_broker_began_anew_is_no_sign_of_life() {
        let (mut outlook, me) = waiting_for(7);
        for _ in 0..2 {
            outlook.note(&rows("other", 0), &me, false);
            assert!(!outlook.is_caught_up(false, true), "only the broker has spoken");
        }
        outlook.note(&rows("other", 1), &me, false);
        assert!(outlook.is_caught_up(false, true));
    }

    #[test]
    fn signs_of_life_from_before_the_own_shards_caught_up_do_not_count() {
        let (mut outlook, me) = waiting_for(1);
        assert!(!outlook.is_caught_up(false, false), "an own shard fell behind");
        outlook.note(&rows("other", 2), &me, false);
        assert!(!outlook.is_caught_up(false, true), "the sign is older than this");
        outlook.note(&rows("other", 3), &me, false);
        assert!(outlook.is_caught_up(false, true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_without_leases_waits_one_lease_time() {
        let (mut outlook, me) = (Outlook::new(LEASE), WorkerId::new("me").unwrap());
        outlook.note(&BTreeMap::new(), &me, false);
        assert!(!outlook.is_caught_up(true, true));
        tokio::time::advance(LEASE).await;
        assert!(outlook.is_caught_up(true, true));
    }
}
