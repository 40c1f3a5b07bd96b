//! Moving the checkpoints of an application: where each shard goes, as a plan.
//!
//! ```text
//!   position ─► goals: which shards, and what for ─► place: the checkpoint that means it (reads the log)
//!            ─► plan: the leases after it, or why not ─► the table: written as one batch
//! ```
//!
//! Goals and plan are pure. What a reset does not do: tell workers; those that hold a lease find out that it is lost.

use super::row::Row;
use crate::error::{Error, ErrorKind, Result};
use crate::shard::handle::ShardHandle;
use std::collections::{BTreeMap, HashSet};
use tidemill_types::{
    Checkpoint, MonotonicMs, Position, SequenceIndex, SequenceNumber, Shard, ShardId, TimestampMs, WorkerId,
};

/// What becomes of workers that hold what an operator changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holders {
    /// Nothing is changed while there is one.
    Respect,
    /// They lose their leases.
    Fence,
}

/// Whether what an operator asks for is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It is only told what would be done.
    Rehearse,
    /// It is done.
    Apply,
}

/// One shard before and after a reset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResetRow {
    /// The shard.
    pub shard: ShardId,
    /// Its checkpoint before; none if nobody had ever taken the lease.
    pub before: Option<Checkpoint>,
    /// Its checkpoint after; as before, if the reset does not concern it.
    pub after: Option<Checkpoint>,
    /// Who holds its lease, or held it until the reset.
    pub owner: Option<WorkerId>,
}

/// What a shard's checkpoint is to mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    Oldest,
    Newest,
    /// The first record that arrived then or later comes next.
    Since(TimestampMs),
    /// The record with this number comes next.
    Before(SequenceIndex),
    /// The record behind this one comes next.
    After(SequenceNumber),
}

/// The shards that a position concerns. One with a number concerns the shard that has it, and those that came from it.
pub(super) fn goals(shards: &[Shard], to: Position) -> BTreeMap<ShardId, Goal> {
    let all = |goal| shards.iter().map(|shard| (shard.id, goal)).collect();
    let (number, goal) = match to {
        Position::TrimHorizon => return all(Goal::Oldest),
        Position::Latest => return all(Goal::Newest),
        Position::AtTime(time) => return all(Goal::Since(time)),
        Position::At(number) => (number, Goal::Before(number.index())),
        Position::After(number) => (number, Goal::After(number)),
    };
    let mut concerned = HashSet::from([number.shard()]);
    let mut goals = BTreeMap::from([(number.shard(), goal)]);
    // children have higher ids than their parents
    let mut in_order: Vec<_> = shards.iter().collect();
    in_order.sort_by_key(|shard| shard.id);
    for shard in in_order {
        if shard.parents().any(|parent| concerned.contains(&parent)) {
            concerned.insert(shard.id);
            goals.insert(shard.id, Goal::Oldest);
        }
    }
    goals
}

/// The checkpoint that means a goal in a shard. Reads the log where the goal is a time or a number.
pub(super) fn place(handle: &ShardHandle, goal: Goal) -> Result<Checkpoint> {
    let failed = |e| Error::from_storage("could not find the place of a checkpoint", e);
    let (log, shard) = (handle.log(), handle.shard());
    let is_done = |from| match shard.is_open() {
        true => Ok(false),
        false => log.records_from(from).map(|records| records == 0).map_err(failed),
    };
    let before = |index| {
        if is_done(index)? {
            return Ok(Checkpoint::ShardEnd);
        }
        Ok(match log.record_before(index).map_err(failed)? {
            Some((index, arrival)) => {
                Checkpoint::At { number: shard.number(index, arrival), sub: Checkpoint::WHOLE }
            }
            None => Checkpoint::TrimHorizon,
        })
    };
    match goal {
        Goal::Oldest => Ok(Checkpoint::TrimHorizon),
        Goal::Newest if shard.is_open() => Ok(Checkpoint::Latest),
        Goal::Newest => Ok(Checkpoint::ShardEnd),
        Goal::Since(time) => before(log.seek_time(time).map_err(failed)?),
        Goal::Before(index) => before(index),
        Goal::After(number) if is_done(number.index().next())? => Ok(Checkpoint::ShardEnd),
        Goal::After(number) => Ok(Checkpoint::At { number, sub: Checkpoint::WHOLE }),
    }
}

/// The leases after their checkpoints were moved. `Conflict` if a worker that is to be respected holds one of them.
pub(super) fn plan(
    known: Option<&BTreeMap<ShardId, Row>>,
    targets: &BTreeMap<ShardId, Checkpoint>,
    holders: Holders,
    now: MonotonicMs,
) -> Result<BTreeMap<ShardId, Row>> {
    let of = |shard: &ShardId| known.and_then(|known| known.get(shard));
    if holders == Holders::Respect {
        check_unheld(targets.keys().filter_map(|shard| Some((*shard, of(shard)?))), now)?;
    }
    let moved = |(shard, to): (&ShardId, &Checkpoint)| (*shard, Row::moved(of(shard), *to, now));
    Ok(targets.iter().map(moved).collect())
}

/// `Conflict` if a worker holds one of these leases.
pub(super) fn check_unheld<'a>(
    leases: impl Iterator<Item = (ShardId, &'a Row)>,
    now: MonotonicMs,
) -> Result<()> {
    let mut held = leases.filter_map(|(shard, row)| Some((shard, row.holder(now)?)));
    let Some((shard, worker)) = held.next() else { return Ok(()) };
    let others = match held.count() {
        0 => String::new(),
        1 => ", and another lease is held".to_owned(),
        more => format!(", and {more} other leases are held"),
    };
    let message = format!(
        "worker {worker} holds the lease of {shard}{others}: stop the workers of the application first, or force it, \
         which takes their leases from them"
    );
    Err(Error::new(ErrorKind::Conflict, message))
}

#[cfg(test)]
mod tests;
