//! Who should hold which lease: a pure plan, the same for every worker that sees the same leases.
//!
//! Each worker plans for all workers it sees (the owners, and itself) and does only its own part of the plan:
//!
//! ```text
//!  1. free leases go one by one to whoever has fewest       (ties: the smaller worker id)
//!  2. while most ≥ fewest + 2: one lease moves from the worker with most to the one with fewest
//! ```
//!
//! The whole difference is made up in one round. A balanced state (most ≤ fewest + 1) has an empty plan, so no two workers
//! steal back and forth. Workers that see different states may want the same lease; the epoch of the lease lets one of
//! them have it and the next round evens out. A worker without leases is seen by nobody but itself: it joins by stealing.
//!
//! What another worker should have taken but has not for a while (`waited`) is taken by anybody: that worker may be full,
//! or hold off after failures. Not here: which leases may be taken at all (lineage), time, and the taking (supervisor).

use crate::record::ShardRef;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use tidemill_types::WorkerId;

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
}

/// What this worker should do now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan<'a> {
    /// Free leases to take.
    pub(crate) take: Vec<&'a ShardRef>,
    /// Leases to take from their holders.
    pub(crate) steal: Vec<&'a ShardRef>,
}

/// The part of `me` in spreading `leases` evenly, when `me` may hold `capacity` leases.
pub(crate) fn plan<'a>(leases: &[Candidate<'a>], me: &'a WorkerId, capacity: usize) -> Plan<'a> {
    let mut loads: BTreeMap<&WorkerId, Vec<&ShardRef>> = BTreeMap::from([(me, Vec::new())]);
    let mut free = Vec::new();
    for lease in leases {
        match lease.holder {
            Holder::Nobody { waited } => free.push((lease.shard, waited)),
            Holder::Worker(worker) => loads.entry(worker).or_default().push(lease.shard),
        }
    }
    loads.values_mut().for_each(|held| held.sort());
    free.sort();

    let mut plan = Plan::default();
    let mut overdue = Vec::new();
    for (shard, waited) in free {
        let Some(taker) = fewest(&loads, me, capacity) else { break };
        loads.entry(taker).or_default().push(shard);
        if taker == me {
            plan.take.push(shard);
        } else if waited {
            overdue.push(shard);
        }
    }
    if overdue.is_empty() {
        plan.steal = moves_to(me, loads, capacity);
    } else {
        overdue.truncate(capacity.saturating_sub(loads[me].len()));
        plan.take.append(&mut overdue);
    }
    plan
}

/// Evens out `loads` and returns what moves to `me`.
fn moves_to<'a>(
    me: &'a WorkerId,
    mut loads: BTreeMap<&'a WorkerId, Vec<&'a ShardRef>>,
    capacity: usize,
) -> Vec<&'a ShardRef> {
    let mut mine = Vec::new();
    while let Some(to) = fewest(&loads, me, capacity) {
        let most = loads.iter().max_by_key(|(worker, held)| (held.len(), Reverse(**worker)));
        let from = *most.expect("this worker is always among them").0;
        if loads[from].len() < loads[to].len() + 2 {
            break;
        }
        let moved = loads.get_mut(from).and_then(Vec::pop).expect("holds at least two");
        loads.entry(to).or_default().push(moved);
        if to == me {
            mine.push(moved);
        }
    }
    mine
}

/// The worker with fewest leases; `me` only while it is not full.
fn fewest<'a>(
    loads: &BTreeMap<&'a WorkerId, Vec<&'a ShardRef>>,
    me: &WorkerId,
    capacity: usize,
) -> Option<&'a WorkerId> {
    let takers = loads.iter().filter(|(worker, held)| **worker != me || held.len() < capacity);
    takers.min_by_key(|(worker, held)| (held.len(), **worker)).map(|(worker, _)| *worker)
}

#[cfg(test)]
#[path = "assign_tests.rs"]
mod tests;
