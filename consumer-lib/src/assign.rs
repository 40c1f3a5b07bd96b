//! Who should hold which lease: a pure plan, the same for every worker that sees the same leases.
//!
//! Each worker plans for all workers it sees (the owners, and itself) and does only its own part of the plan:
//!
//! ```text
//!  1. free leases go one by one, the heaviest first, to whoever carries least       (ties: the smaller worker id)
//!  2. while it pays: one lease moves from the worker that carries most to the one that carries least
//! ```
//!
//! By count every lease weighs one, and moving pays while most ≥ least + 2. By throughput a lease weighs the bytes a second
//! that its holder told, and moving pays while a worker carries over a tenth more than the average, and the one that gets
//! the lease then carries less than the other did; the lease that comes nearest to half of the difference moves.
//!
//! The whole difference is made up in one round. A balanced state has an empty plan, so no two workers move leases back and
//! forth. Workers that see different states may want the same lease; its epoch lets one of them have it and the next round
//! evens out. A worker without leases is seen by nobody but itself: it joins by asking for some. A lease that is being
//! handed over counts as its successor's.
//!
//! What another worker should have taken but has not for a while (`waited`) is taken by anybody: that worker may be full,
//! or hold off after failures. Not here: which leases may be taken at all (lineage), time, and the taking (supervisor).

use crate::shard::ShardRef;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use tidemill_types::WorkerId;

/// What is shared out evenly among the workers of an application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Balance {
    /// The number of shards.
    #[default]
    Count,
    /// What is processed, in bytes a second, as the workers last told it: one that holds a busy shard holds fewer. Workers of
    /// one application should all use the same.
    Throughput,
}

/// Who holds a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holder<'a> {
    /// It is free or has run out.
    Nobody { waited: bool },
    /// Held by some worker, perhaps this one.
    Worker(&'a WorkerId),
}

/// A lease that may be worked on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate<'a> {
    pub(crate) shard: &'a ShardRef,
    pub(crate) holder: Holder<'a>,
    pub(crate) bytes_per_s: u64,
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Move {
    /// The shard whose lease moves.
    pub shard: ShardRef,
    /// Who holds it; nobody if it is free or has run out.
    pub from: Option<WorkerId>,
    /// Who is to have it.
    pub to: WorkerId,
}

/// What this worker should do now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan<'a> {
    /// Free leases to take.
    pub(crate) take: Vec<&'a ShardRef>,
    /// Leases to have from their holders.
    pub(crate) steal: Vec<&'a ShardRef>,
}

/// The part of `me` in sharing out `leases`, when `me` may hold `capacity` leases.
pub(crate) fn plan<'a>(
    leases: &[Candidate<'a>],
    me: &'a WorkerId,
    capacity: usize,
    balance: Balance,
) -> Plan<'a> {
    let mut loads = Loads::new(leases, me, capacity, balance);
    let mut plan = Plan::default();
    let mut overdue = Vec::new();
    for (lease, waited) in free(leases, &loads) {
        let Some(taker) = loads.least() else { break };
        loads.give(taker, lease);
        if taker == me {
            plan.take.push(lease.shard);
        } else if waited {
            overdue.push(lease.shard);
        }
    }
    if overdue.is_empty() {
        let mine = moves(&mut loads).into_iter().filter(|(_, _, to)| *to == me);
        plan.steal = mine.map(|(shard, ..)| shard).collect();
    } else {
        overdue.truncate(capacity.saturating_sub(loads.count(me)));
        plan.take.append(&mut overdue);
    }
    plan
}

/// Everything that would move now if `me` joined (or is) among the holders of `leases`, whoever has to do it.
pub(crate) fn dry_run(
    leases: &[Candidate<'_>],
    me: &WorkerId,
    capacity: usize,
    balance: Balance,
) -> Vec<Move> {
    let mut loads = Loads::new(leases, me, capacity, balance);
    let mut all = Vec::new();
    for (lease, _) in free(leases, &loads) {
        let Some(taker) = loads.least() else { break };
        loads.give(taker, lease);
        all.push(Move { shard: lease.shard.clone(), from: None, to: taker.clone() });
    }
    let moved = moves(&mut loads).into_iter();
    all.extend(moved.map(|(shard, from, to)| Move {
        shard: shard.clone(),
        from: Some(from.clone()),
        to: to.clone(),
    }));
    all
}

/// A lease and what it weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Weighed<'a> {
    weight: u64,
    shard: &'a ShardRef,
}

struct Loads<'a> {
    held: BTreeMap<&'a WorkerId, Vec<Weighed<'a>>>,
    me: &'a WorkerId,
    capacity: usize,
    balance: Balance,
    /// What a lease weighs of which nothing is told, and the least that any weighs.
    usual: u64,
    least: u64,
}

impl<'a> Loads<'a> {
    fn new(leases: &[Candidate<'a>], me: &'a WorkerId, capacity: usize, balance: Balance) -> Self {
        let told: Vec<u64> =
            leases.iter().map(|lease| lease.bytes_per_s).filter(|bytes| *bytes > 0).collect();
        let usual = told.iter().sum::<u64>().checked_div(told.len() as u64).unwrap_or(1).max(1);
        // idle shards weigh a little, or one worker would be given all of them
        let least = (usual / 10).max(1);
        let mut loads =
            Self { held: BTreeMap::from([(me, Vec::new())]), me, capacity, balance, usual, least };
        for lease in leases {
            if let Holder::Worker(worker) = lease.holder {
                loads.give(worker, loads.weigh(lease));
            }
        }
        loads
    }
    fn weigh(&self, lease: &Candidate<'a>) -> Weighed<'a> {
        let weight = match (self.balance, lease.bytes_per_s) {
            (Balance::Count, _) => 1,
            (Balance::Throughput, 0) => self.usual,
            (Balance::Throughput, told) => told.max(self.least),
        };
        Weighed { weight, shard: lease.shard }
    }
    fn give(&mut self, to: &'a WorkerId, lease: Weighed<'a>) {
        let held = self.held.entry(to).or_default();
        held.insert(held.partition_point(|other| *other < lease), lease);
    }
    fn count(&self, worker: &WorkerId) -> usize {
        self.held.get(worker).map_or(0, Vec::len)
    }
    fn weight(held: &[Weighed<'_>]) -> u64 {
        held.iter().map(|lease| lease.weight).sum()
    }
    /// Who carries least; `me` only while it is not full.
    fn least(&self) -> Option<&'a WorkerId> {
        let takers =
            self.held.iter().filter(|(worker, held)| **worker != self.me || held.len() < self.capacity);
        takers
            .min_by_key(|(worker, held)| (Self::weight(held), held.len(), **worker))
            .map(|(worker, _)| *worker)
    }
    /// Who carries most.
    fn most(&self) -> &'a WorkerId {
        let most = self.held.iter().max_by_key(|(worker, held)| (Self::weight(held), Reverse(**worker)));
        most.expect("this worker is always among them").0
    }
    /// The place of the lease that should move from one worker to another, if it pays.
    fn pays(&self, from: &WorkerId, to: &WorkerId) -> Option<usize> {
        let (held, most, least) =
            (&self.held[from], Self::weight(&self.held[from]), Self::weight(&self.held[to]));
        let gap = most.checked_sub(least)?;
        match self.balance {
            #[cfg(test)]
            Balance::Count if gap == 1 && crate::sim::bugs::is_planted(crate::sim::bugs::Bug::Restless) => {
                Some(held.len() - 1)
            }
            Balance::Count => (gap >= 2).then(|| held.len() - 1),
            Balance::Throughput => {
                let all: u64 = self.held.values().map(|held| Self::weight(held)).sum();
                let average = all / self.held.len() as u64;
                if most <= average + average / 10 {
                    return None;
                }
                // nearest to half of the difference, and such that the difference gets smaller
                let useful = held.iter().enumerate().filter(|(_, lease)| lease.weight < gap);
                useful
                    .min_by_key(|(_, lease)| (lease.weight.abs_diff(gap / 2), lease.shard))
                    .map(|(at, _)| at)
            }
        }
    }
}

/// Free leases, heaviest first, and whether each has waited.
fn free<'a>(leases: &[Candidate<'a>], loads: &Loads<'a>) -> Vec<(Weighed<'a>, bool)> {
    let mut free: Vec<_> = leases
        .iter()
        .filter_map(|lease| match lease.holder {
            Holder::Nobody { waited } => Some((loads.weigh(lease), waited)),
            Holder::Worker(_) => None,
        })
        .collect();
    free.sort_by_key(|(lease, _)| (Reverse(lease.weight), lease.shard));
    free
}

/// Evens out the loads: which lease moves from whom to whom. A lease moves once.
fn moves<'a>(loads: &mut Loads<'a>) -> Vec<(&'a ShardRef, &'a WorkerId, &'a WorkerId)> {
    let mut moved: Vec<(&ShardRef, &WorkerId, &WorkerId)> = Vec::new();
    let most_moves = loads.held.values().map(Vec::len).sum::<usize>();
    while moved.len() < most_moves
        && let Some(to) = loads.least()
        && let from = loads.most()
        && let Some(at) = loads.pays(from, to)
    {
        let lease = loads.held.get_mut(from).expect("it carries most").remove(at);
        if moved.iter().any(|(shard, ..)| *shard == lease.shard) {
            loads.give(from, lease);
            break;
        }
        loads.give(to, lease);
        moved.push((lease.shard, from, to));
    }
    moved
}

#[cfg(test)]
#[path = "assign_tests.rs"]
mod tests;
