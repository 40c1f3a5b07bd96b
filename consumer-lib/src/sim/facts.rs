//! What the judge knows of one shard: its records and what became of them, and its lease as the store must have it.

use crate::place::{Checkpoint, PendingCheckpoint};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tidemill_types::{AnySequenceNumber, WorkerId};

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Pending,
    /// The application began behind it.
    Before,
    Processed {
        session: usize,
    },
    GivenUp,
}

/// A lease as it was taken.
#[derive(Debug, Clone)]
pub(super) struct Taken {
    pub(super) at: Duration,
    pub(super) instance: usize,
    pub(super) by_force: bool,
    pub(super) from: Checkpoint,
    pub(super) pending: Option<PendingCheckpoint>,
}

#[derive(Debug)]
pub(super) struct ShardFacts {
    pub(super) parents: Vec<u32>,
    pub(super) closed: bool,
    pub(super) deleted: bool,
    /// It was closed when it was first taken.
    pub(super) begun_closed: bool,
    pub(super) places: Vec<(AnySequenceNumber, u64)>,
    pub(super) fates: Vec<Fate>,
    pub(super) dead_letters: BTreeSet<usize>,
    /// No fate before this one is pending.
    settled: usize,
    pub(super) owner: Option<WorkerId>,
    pub(super) successor: Option<WorkerId>,
    /// Who asked the holder for the lease, and until when the holder has time for that.
    pub(super) asks: BTreeMap<WorkerId, Duration>,
    pub(super) epoch: u64,
    pub(super) expires: Duration,
    /// Nothing: never taken.
    pub(super) checkpoint: Option<Checkpoint>,
    pub(super) pending: Option<PendingCheckpoint>,
    pub(super) taken: BTreeMap<u64, Taken>,
    /// Under which epoch which session ran.
    pub(super) sessions: BTreeMap<u64, usize>,
    /// Until when which instance may think that it holds the lease.
    pub(super) grants: BTreeMap<(usize, u64), Duration>,
}

impl ShardFacts {
    pub(super) fn new(parents: &[u32]) -> Self {
        Self {
            parents: parents.to_vec(),
            closed: false,
            deleted: false,
            begun_closed: false,
            places: Vec::new(),
            fates: Vec::new(),
            dead_letters: BTreeSet::new(),
            settled: 0,
            owner: None,
            successor: None,
            asks: BTreeMap::new(),
            epoch: 0,
            expires: Duration::ZERO,
            checkpoint: None,
            pending: None,
            taken: BTreeMap::new(),
            sessions: BTreeMap::new(),
            grants: BTreeMap::new(),
        }
    }
    /// How many records a checkpoint covers.
    pub(super) fn covered(&self, checkpoint: Checkpoint) -> usize {
        match checkpoint {
            Checkpoint::AtTimestamp | Checkpoint::TrimHorizon | Checkpoint::Latest => 0,
            Checkpoint::At { number, sub } => self.places.partition_point(|place| *place <= (number, sub)),
            Checkpoint::ShardEnd => self.places.len(),
        }
    }
    /// How many records from the first on are not pending.
    pub(super) fn settled(&mut self) -> usize {
        let more = self.fates[self.settled..].iter().take_while(|fate| **fate != Fate::Pending).count();
        self.settled += more;
        self.settled
    }
    pub(super) fn is_ended(&self) -> bool {
        self.checkpoint == Some(Checkpoint::ShardEnd)
    }
    pub(super) fn is_held_by_another(&self, worker: &WorkerId, now: Duration) -> bool {
        self.owner.as_ref().is_some_and(|owner| owner != worker) && now < self.expires
    }
}

/// A checkpoint as the trace shows it.
pub(super) fn short(checkpoint: Checkpoint) -> String {
    match checkpoint {
        Checkpoint::At { number, sub } => format!("{number}.{sub}"),
        other => format!("{other:?}"),
    }
}
