//! Promises about records, whoever processed them.

use super::Verdict;
use crate::chaos::history::History;
use crate::chaos::mark::RecordId;
use anyhow::{Result, bail, ensure};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Every acknowledged record is processed at least once.
pub(super) fn all_processed(history: &History, verdict: &mut Verdict) -> Result<()> {
    let mut processed: HashSet<RecordId> = HashSet::new();
    for session in &history.sessions {
        verdict.deliveries += session.records().map(|(_, id)| processed.insert(id)).count();
    }
    verdict.acknowledged = history.acks.len();
    verdict.processed = processed.len();
    let missing: Vec<_> = history.acks.iter().filter(|ack| !processed.contains(&ack.id)).collect();
    if let Some(first) = missing.first() {
        bail!("{} acknowledged records were never processed, such as {first:?}", missing.len());
    }
    Ok(())
}

/// A record is stored once: whoever is told of its place is told of the same, and no other record has it.
pub(super) fn one_place_each(history: &History) -> Result<()> {
    let mut places: HashMap<RecordId, (u32, u64)> = HashMap::new();
    let mut records: HashMap<(u32, u64), RecordId> = HashMap::new();
    let mut note = |id: RecordId, place: (u32, u64)| {
        if let Some(before) = places.insert(id, place).filter(|before| *before != place) {
            bail!("record {id} has two places (shard, index): {before:?} and {place:?}");
        }
        if let Some(other) = records.insert(place, id).filter(|other| *other != id) {
            bail!("records {other} and {id} share the place {place:?}");
        }
        Ok(())
    };
    for ack in &history.acks {
        note(ack.id, (ack.shard, ack.index))?;
    }
    for session in &history.sessions {
        session.records().try_for_each(|(index, id)| note(id, (session.shard, index)))?;
    }
    Ok(())
}

/// For the first time, the records of a key are processed in the order in which they were put: over all workers, from
/// parents to children. Of runs of its producer that order is known of what was acknowledged before the next run began.
pub(super) fn first_deliveries_in_order(history: &History) -> Result<()> {
    let mut owed: HashMap<u8, BTreeMap<u64, HashSet<u64>>> = HashMap::new();
    for ack in &history.acks {
        let runs = owed.entry(ack.id.key()).or_default();
        runs.entry(ack.id.incarnation()).or_default().insert(ack.id.counter());
    }
    let mut last: HashMap<(u8, u64), RecordId> = HashMap::new();
    for id in first_deliveries(history) {
        if let Some(before) = last.insert((id.key(), id.incarnation()), id) {
            ensure!(
                before < id,
                "record {id} was processed for the first time after {before} of the same key"
            );
        }
        let Some(runs) = owed.get_mut(&id.key()) else { continue };
        if let Some(run) = runs.get_mut(&id.incarnation()) {
            run.remove(&id.counter());
        }
        let earlier = runs.range(..id.incarnation()).find_map(|(run, owed)| Some((run, owed.iter().next()?)));
        if let Some((run, counter)) = earlier {
            bail!(
                "record {id} was processed before {}/{run}/{counter}, which was acknowledged before it was put",
                id.key()
            );
        }
        runs.retain(|run, owed| *run >= id.incarnation() || !owed.is_empty());
    }
    Ok(())
}

fn first_deliveries(history: &History) -> Vec<RecordId> {
    let mut batches: Vec<_> = history.sessions.iter().flat_map(|session| &session.batches).collect();
    batches.sort_by_key(|batch| batch.at);
    let mut seen = HashSet::new();
    let ids = batches.into_iter().flat_map(|batch| batch.records.iter().map(|(_, id)| *id));
    ids.filter(|id| seen.insert(*id)).collect()
}
