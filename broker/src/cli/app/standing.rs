//! Why a shard is worked on or not, in plain words. Pure: from the leases of the application on the stream.

use super::text;
use std::fmt;
use tidemill_proto::client::LeaseDescription;
use tidemill_types::{Checkpoint, ShardId, WorkerId};

/// What a shard is up to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing<'a> {
    /// All its records are processed, and there will be no more.
    Done,
    /// A worker works on it.
    Held(&'a WorkerId),
    /// A worker works on it and is to hand it over.
    HandingOver { from: &'a WorkerId, to: &'a WorkerId, left_ms: u64 },
    /// What came before it is not processed yet.
    WaitsForParent(Parent<'a>),
    /// Its holder has let the lease run out.
    Expired(&'a WorkerId),
    /// Nobody works on it.
    Free,
}

/// A shard that another one came from, and how far the application is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parent<'a> {
    shard: ShardId,
    records_behind: Option<u64>,
    worker: Option<&'a WorkerId>,
}

impl<'a> Standing<'a> {
    /// The standing of `lease` among `all` leases of the application on the stream.
    pub(super) fn of(lease: &'a LeaseDescription, all: &'a [LeaseDescription]) -> Self {
        if is_done(lease) {
            return Self::Done;
        }
        if let Some(from) = holder(lease) {
            return match &lease.successor {
                Some(to) => Self::HandingOver { from, to, left_ms: lease.handoff_in_ms },
                None => Self::Held(from),
            };
        }
        // a parent that is not listed has expired: nobody waits for it
        let parents = lease.shard.parents().filter_map(|id| all.iter().find(|other| other.shard.id == id));
        let unfinished = parents.filter(|parent| !is_done(parent));
        if let Some(parent) = unfinished.max_by_key(|parent| parent.records_behind) {
            return Self::WaitsForParent(Parent {
                shard: parent.shard.id,
                records_behind: parent.records_behind,
                worker: holder(parent),
            });
        }
        lease.owner.as_ref().map_or(Self::Free, Self::Expired)
    }

    /// For programs.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Held(_) => "held",
            Self::HandingOver { .. } => "handing-over",
            Self::WaitsForParent(_) => "waits-for-parent",
            Self::Expired(_) => "expired",
            Self::Free => "free",
        }
    }
}

fn is_done(lease: &LeaseDescription) -> bool {
    lease.checkpoint == Some(Checkpoint::ShardEnd)
}

fn holder(lease: &LeaseDescription) -> Option<&WorkerId> {
    lease.owner.as_ref().filter(|_| lease.expires_in_ms > 0)
}

impl fmt::Display for Standing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("processed to its end"),
            Self::Held(by) => write!(f, "held by worker {by}"),
            Self::HandingOver { from, to, left_ms: 0 } => {
                write!(f, "handoff from worker {from} to {to} under way, overdue: {to} may take it by force")
            }
            Self::HandingOver { from, to, left_ms } => {
                write!(f, "handoff from worker {from} to {to} under way, {} left", text::duration(*left_ms))
            }
            Self::WaitsForParent(parent) => write!(f, "waits for parent {parent}"),
            Self::Expired(by) => write!(f, "expired: worker {by} has not renewed its lease"),
            Self::Free => f.write_str("free: no worker has taken it"),
        }
    }
}

impl fmt::Display for Parent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, which ", self.shard)?;
        match self.records_behind {
            Some(0) => f.write_str("has no record left but is not ended")?,
            Some(1) => f.write_str("is 1 record behind")?,
            Some(records) => write!(f, "is {records} records behind")?,
            None => f.write_str("is not processed to its end")?,
        }
        match self.worker {
            Some(worker) => write!(f, " under worker {worker}"),
            None => f.write_str(" and held by no worker"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_types::{HashKeyRange, LeaseEpoch, Shard, ShardState, TimestampMs};

    fn lease(id: u32, parents: [Option<u32>; 2]) -> LeaseDescription {
        let [parent, adjacent_parent] = parents.map(|id| id.map(|id| ShardId::new(id).unwrap()));
        LeaseDescription {
            shard: Shard {
                id: ShardId::new(id).unwrap(),
                parent,
                adjacent_parent,
                range: HashKeyRange::ALL,
                created: TimestampMs::new(0),
                state: ShardState::Open,
            },
            owner: None,
            epoch: LeaseEpoch::default(),
            checkpoint: None,
            pending: None,
            expires_in_ms: 0,
            successor: None,
            handoff_in_ms: 0,
            bytes_per_s: 0,
            records_behind: None,
            millis_behind: None,
        }
    }

    fn held(by: &str, lease: LeaseDescription) -> LeaseDescription {
        LeaseDescription { owner: Some(WorkerId::new(by).unwrap()), expires_in_ms: 900, ..lease }
    }

    fn why(lease: &LeaseDescription, all: &[LeaseDescription]) -> String {
        Standing::of(lease, all).to_string()
    }

    #[test]
    fn each_standing_is_told_in_plain_words() {
        let free = lease(0, [None, None]);
        assert_eq!(why(&free, &[]), "free: no worker has taken it");
        let held = held("a", free.clone());
        assert_eq!(why(&held, &[]), "held by worker a");
        let expired = LeaseDescription { expires_in_ms: 0, ..held.clone() };
        assert_eq!(why(&expired, &[]), "expired: worker a has not renewed its lease");
        let successor = Some(WorkerId::new("b").unwrap());
        let handing = LeaseDescription { successor, handoff_in_ms: 4_200, ..held.clone() };
        assert_eq!(why(&handing, &[]), "handoff from worker a to b under way, 4.2 s left");
        let overdue = LeaseDescription { handoff_in_ms: 0, ..handing };
        assert!(why(&overdue, &[]).ends_with("b may take it by force"));
        let done = LeaseDescription { checkpoint: Some(Checkpoint::ShardEnd), ..held };
        assert_eq!(why(&done, &[]), "processed to its end");
    }

    #[test]
    fn a_shard_waits_for_the_parent_that_is_furthest_behind() {
        let behind = |records, lease| LeaseDescription { records_behind: Some(records), ..lease };
        let parents = [behind(12, held("a", lease(0, [None, None]))), behind(7, lease(1, [None, None]))];
        let child = lease(2, [Some(0), Some(1)]);
        assert_eq!(
            why(&child, &parents),
            "waits for parent shardId-000000000000, which is 12 records behind under worker a"
        );
        let done = LeaseDescription { checkpoint: Some(Checkpoint::ShardEnd), ..parents[0].clone() };
        assert_eq!(
            why(&child, &[done.clone(), parents[1].clone()]),
            "waits for parent shardId-000000000001, which is 7 records behind and held by no worker"
        );
        // one that is gone is not waited for, nor one that is done
        assert_eq!(why(&child, &[done]), "free: no worker has taken it");
        assert_eq!(why(&held("b", child.clone()), &parents), "held by worker b");
        let all = [lease(0, [None, None])];
        assert!(why(&child, &all).contains("is not processed to its end and held by no worker"));
    }
}
