//! Whether a worker has caught up: everything that it may process was processed up to the newest record.
//!
//! Its own shards tell that themselves. Besides, nothing may be left to take, and every lease of another worker must be
//! seen to be alive (renewed, given back or run out since), so that the shards of a worker that has just died are
//! waited for and taken, not left behind.

use crate::look::Rows;
use crate::record::ShardRef;
use std::collections::BTreeMap;
use std::time::Duration;
use tidemill_types::{LeaseEpoch, WorkerId};
use tokio::time::Instant;

type Signs = BTreeMap<ShardRef, (LeaseEpoch, u64)>;

#[derive(Debug)]
pub(crate) struct Outlook {
    lease: Duration,
    /// Whether the last round left nothing to take, and nothing has happened since that may have changed that.
    settled: bool,
    /// When the last round was noted; nothing before the first.
    noted: Option<Instant>,
    /// Epoch and counter of others' leases at the last round.
    others: Signs,
    /// Since when the own shards have caught up, and others' leases not seen alive since.
    waiting: Option<(Instant, Signs)>,
    /// Since when the worker has held no lease.
    idle: Option<Instant>,
}

impl Outlook {
    pub(crate) fn new(lease: Duration) -> Self {
        Self { lease, settled: false, noted: None, others: Signs::new(), waiting: None, idle: None }
    }

    /// Takes note of a round; `left` says whether there is a lease this worker may yet take.
    pub(crate) fn note(&mut self, rows: &Rows, me: &WorkerId, left: bool) {
        let of_others =
            rows.iter().filter(|(_, (row, _))| row.expires_in_ms > 0 && row.owner.as_ref() != Some(me));
        self.others = of_others.map(|(shard, (row, _))| (shard.clone(), (row.epoch, row.counter))).collect();
        self.settled = !left;
        self.noted = Some(Instant::now());
        if let Some((_, silent)) = &mut self.waiting {
            silent.retain(|shard, sign| self.others.get(shard) == Some(sign));
        }
    }

    /// Whether there was a round yet.
    pub(crate) fn has_looked(&self) -> bool {
        self.noted.is_some()
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
        let others = &self.others;
        let (since, silent) = self.waiting.get_or_insert_with(|| (Instant::now(), others.clone()));
        // a lease that was alive then and was not renewed has run out by now, and would have been seen free
        silent.is_empty() || self.noted >= Some(*since + self.lease)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::shard;
    use crate::store::LeaseRow;
    use tidemill_types::{Checkpoint, StreamName};

    const LEASE: Duration = Duration::from_secs(10);

    fn rows(owner: &str, counter: u64) -> Rows {
        let shard = shard(0);
        let at = ShardRef::new(StreamName::new("s").unwrap(), shard.id);
        let row = LeaseRow {
            shard,
            owner: Some(WorkerId::new(owner).unwrap()),
            epoch: LeaseEpoch::new(1),
            counter,
            checkpoint: None,
            expires_in_ms: 5000,
        };
        BTreeMap::from([(at, (row, Checkpoint::TrimHorizon))])
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

    #[tokio::test(start_paused = true)]
    async fn a_silent_lease_of_another_worker_is_waited_for_until_it_speaks_or_runs_out() {
        let (mut outlook, me) = (Outlook::new(LEASE), WorkerId::new("me").unwrap());
        outlook.note(&rows("other", 1), &me, false);
        assert!(!outlook.is_caught_up(false, true));
        outlook.note(&rows("other", 1), &me, false);
        assert!(!outlook.is_caught_up(false, true), "it has not spoken");
        outlook.note(&rows("other", 2), &me, false);
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
