//! Promises about checkpoints: they move forward only, in every view of them.

use super::Lines;
use crate::chaos::history::{History, Sighting};
use crate::chaos::mark::Mark;
use anyhow::{Result, ensure};
use std::collections::HashMap;

/// From one look at the leases to the next, neither a checkpoint nor an epoch goes back.
pub(super) fn rows_never_move_back(history: &History) -> Result<()> {
    let mut last: HashMap<u32, &Sighting> = HashMap::new();
    for row in &history.sightings {
        let Some(before) = last.insert(row.shard, row) else { continue };
        ensure!(before.mark <= row.mark, "a checkpoint moved back: {before:?}, then {row:?}");
        ensure!(before.epoch <= row.epoch, "an epoch went back: {before:?}, then {row:?}");
    }
    Ok(())
}

/// An owner starts at or behind everything that owners before it saw stored, and goes forward from there.
pub(super) fn owners_never_move_back(lines: &Lines<'_>) -> Result<()> {
    for line in lines.0.values() {
        let mut reached = Mark::TrimHorizon;
        for session in line {
            let from = session.from;
            ensure!(from >= reached, "{session} started at {from}, though {reached} had been stored before");
            let marks: Vec<Mark> = session.stored.iter().map(|(_, mark)| *mark).collect();
            ensure!(marks.is_sorted(), "the checkpoint of {session} moved back: {marks:?}");
            reached = marks.into_iter().fold(reached, Mark::max);
        }
    }
    Ok(())
}

/// A row that was asked for after a checkpoint was seen stored holds it, or a later one.
pub(super) fn rows_know_what_owners_stored(history: &History) -> Result<()> {
    let mut stored: HashMap<u32, Vec<(u64, Mark)>> = HashMap::new();
    for session in &history.sessions {
        stored.entry(session.shard).or_default().extend(&session.stored);
    }
    for seen in stored.values_mut() {
        seen.sort();
        // the furthest up to each moment
        let mut reached = Mark::TrimHorizon;
        for (_, mark) in seen {
            reached = reached.max(*mark);
            *mark = reached;
        }
    }
    for row in &history.sightings {
        let Some(seen) = stored.get(&row.shard) else { continue };
        let before = seen.partition_point(|(at, _)| *at < row.asked);
        let Some((at, mark)) = before.checked_sub(1).map(|at| seen[at]) else { continue };
        ensure!(row.mark >= Some(mark), "{mark} was stored at {at}, yet later the row was {row:?}");
    }
    Ok(())
}
