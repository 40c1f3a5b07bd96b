//! Promises about one owner of a shard.

use super::Verdict;
use crate::chaos::history::History;
use crate::chaos::mark::RecordId;
use anyhow::{Result, bail, ensure};
use std::collections::HashMap;
use std::time::Duration;

/// Within an owner numbers rise, from behind the checkpoint it began with, and so do the counters of each key.
pub(super) fn in_order(history: &History) -> Result<()> {
    for session in &history.sessions {
        let mut last: Option<u64> = None;
        let mut keys: HashMap<(u8, u64), RecordId> = HashMap::new();
        for (index, id) in session.records() {
            ensure!(
                !session.from.covers(index),
                "{session} processed {index} though it began behind {}",
                session.from
            );
            if let Some(before) = last.replace(index) {
                ensure!(before < index, "{session} processed {index} after {before}");
            }
            if let Some(before) = keys.insert((id.key(), id.incarnation()), id) {
                ensure!(before < id, "{session} processed record {id} after {before} of the same key");
            }
        }
        let moments: Vec<u64> = session.batches.iter().map(|batch| batch.at).collect();
        ensure!(moments.is_sorted(), "calls of {session} overlap");
    }
    Ok(())
}

/// An epoch of a lease has one owner: nobody else processes under it, nor is listed as its holder.
pub(super) fn one_owner_per_epoch(history: &History) -> Result<()> {
    let mut processing: HashMap<(u32, u64), String> = HashMap::new();
    let mut owners: HashMap<(u32, u64), String> = HashMap::new();
    for session in &history.sessions {
        let Some(epoch) = session.epoch else { continue };
        let other = processing.insert((session.shard, epoch), session.to_string());
        ensure!(
            other.is_none(),
            "two processors under one epoch: {} and {session}",
            other.unwrap_or_default()
        );
        owners.insert((session.shard, epoch), session.worker.clone());
    }
    for row in &history.sightings {
        let Some(owner) = &row.owner else { continue };
        let known = owners.entry((row.shard, row.epoch)).or_insert_with(|| owner.clone());
        ensure!(
            known == owner,
            "epoch {} of shard {} has two owners: {known} and {owner}",
            row.epoch,
            row.shard
        );
    }
    Ok(())
}

/// Who was paused for longer than a lease lasts processes nothing more under the leases it held before.
pub(super) fn nothing_after_a_pause(history: &History, lease: Duration, verdict: &mut Verdict) -> Result<()> {
    for pause in &history.pauses {
        if u128::from(pause.until - pause.from) < lease.as_nanos() {
            continue;
        }
        let held = |end: Option<u64>| end.is_none_or(|end| end > pause.from);
        let sessions = history.sessions.iter().filter(|session| session.worker == pause.worker);
        for session in sessions.filter(|s| s.began < pause.from && held(s.end.map(|(at, _)| at))) {
            verdict.paused_sessions += 1;
            if let Some(late) = session.batches.iter().find(|batch| batch.at > pause.until) {
                let after = Duration::from_nanos(late.at - pause.until);
                let count = late.records.len();
                bail!(
                    "{session} processed {count} records {after:?} after it woke from a pause longer than its lease"
                );
            }
        }
    }
    Ok(())
}
