//! The judge of a simulation: what clients were told against what is stored in the end.
//!
//! The log is held to be linearizable: every record that was acknowledged is there once, where its producer was told, and the
//! order of a shard contradicts no client: a record acknowledged before another was put stands before it. Consumers are held
//! to their own promises: each lease epoch is one processor, each processor sees a stretch of the log without gap from its checkpoint on,
//! checkpoints that were kept are kept, children come after parents, and in the end everything was processed.

use super::hosts::{read_payload, stream_key};
use super::world::{Answer, Facts, Id, Session};
use std::collections::{BTreeMap, BTreeSet};
use tidemill_consumer::Checkpoint;
use tidemill_engine::Engine;
use tidemill_types::{AnySequenceNumber, Position, Shard, ShardId, TimestampMs};

/// What does not hold.
pub(crate) type Verdict = Result<(), String>;

/// A record as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub number: AnySequenceNumber,
    pub id: Id,
    pub key: String,
    pub arrival: TimestampMs,
}

/// All that is stored.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Log {
    pub shards: Vec<Shard>,
    pub records: BTreeMap<ShardId, Vec<Stored>>,
}

impl Log {
    pub(crate) async fn read(engine: &Engine) -> Result<Self, String> {
        let told = |error: tidemill_engine::Error| format!("the log cannot be read: {error}");
        let stream = engine.stream(&stream_key()).map_err(told)?;
        let mut log = Self { shards: stream.shards(), records: BTreeMap::new() };
        for shard in &log.shards {
            let mut from = stream.resolve(shard.id, Position::TrimHorizon).await.map_err(told)?;
            let records = log.records.entry(shard.id).or_default();
            loop {
                let page = stream.read_records(shard.id, from, 10_000, 1 << 20).await.map_err(told)?;
                for record in &page.records {
                    let number = record.number.into();
                    let id =
                        read_payload(&record.data).ok_or(format!("{number} of {} is corrupt", shard.id))?;
                    records.push(Stored { number, id, key: record.key.clone(), arrival: record.arrival });
                }
                if page.records.is_empty() && page.next == from {
                    break;
                }
                from = page.next;
            }
        }
        Ok(log)
    }
    pub(crate) fn count(&self) -> usize {
        self.records.values().map(Vec::len).sum()
    }
    fn all(&self) -> impl Iterator<Item = (ShardId, &Stored)> {
        self.records.iter().flat_map(|(shard, records)| records.iter().map(|record| (*shard, record)))
    }
    /// Whether `later` comes after `earlier` by split and merge.
    fn descends(&self, later: ShardId, earlier: ShardId) -> bool {
        let parents =
            |id| self.shards.iter().find(|shard| shard.id == id).into_iter().flat_map(Shard::parents);
        let mut above: Vec<ShardId> = parents(later).collect();
        while let Some(shard) = above.pop() {
            if shard == earlier {
                return true;
            }
            above.extend(parents(shard));
        }
        false
    }
}

/// Whether everything holds.
pub(crate) fn judge(facts: &Facts, log: &Log, ordered: &[bool]) -> Verdict {
    if let Some(panic) = facts.panics.first() {
        return Err(format!("something panicked: {panic}"));
    }
    if let Some(wrong) = facts.wrong.first() {
        return Err(wrong.clone());
    }
    stored_as_told(facts, log)?;
    numbers_and_times_rise(log)?;
    no_client_contradicts(facts, log)?;
    keys_keep_their_order(log, ordered)?;
    sessions_follow_the_log(facts, log)?;
    checkpoints_are_kept(facts)?;
    children_come_after_parents(facts, log)?;
    all_processed(facts, log)
}

/// What is stored was put, once; what is acknowledged is stored, there; what is refused is not.
fn stored_as_told(facts: &Facts, log: &Log) -> Verdict {
    let mut places = BTreeMap::new();
    for (shard, record) in log.all() {
        let put = facts.puts.get(&record.id).ok_or(format!("{} was never put", record.id))?;
        if put.key != record.key {
            return Err(format!("{} has the key {}, not {}", record.id, record.key, put.key));
        }
        if let Some(other) = places.insert(record.id, (shard, record.number)) {
            return Err(format!(
                "{} is stored twice: at {other:?} and {:?}",
                record.id,
                (shard, record.number)
            ));
        }
    }
    for (id, put) in &facts.puts {
        match (put.answered, places.get(id)) {
            (Some((_, Answer::Stored { shard, number })), found) if found != Some(&(shard, number)) => {
                return Err(format!("{id} was acknowledged at {shard} {number}, found at {found:?}"));
            }
            (Some((_, Answer::NotStored(kind))), Some(found)) => {
                return Err(format!("{id} was refused as {kind:?}, found at {found:?}"));
            }
            _ => {}
        }
    }
    Ok(())
}

fn numbers_and_times_rise(log: &Log) -> Verdict {
    for (shard, records) in &log.records {
        for pair in records.windows(2) {
            if pair[0].number >= pair[1].number || pair[0].arrival > pair[1].arrival {
                return Err(format!("{shard} is out of order: {:?} before {:?}", pair[0], pair[1]));
            }
        }
    }
    Ok(())
}

/// No record stands behind one that was put after it was acknowledged itself.
fn no_client_contradicts(facts: &Facts, log: &Log) -> Verdict {
    for (shard, records) in &log.records {
        let mut newest = (0, None);
        for record in records {
            let put = &facts.puts[&record.id];
            if let Some((at, Answer::Stored { .. })) = put.answered
                && at < newest.0
            {
                return Err(format!(
                    "{shard}: {} was acknowledged before {:?} was put, and stands behind it",
                    record.id, newest.1
                ));
            }
            newest = newest.max((put.put_at, Some(record.id)));
        }
    }
    Ok(())
}

/// A producer that keeps order has stored the records of a key as it has put them.
fn keys_keep_their_order(log: &Log, ordered: &[bool]) -> Verdict {
    let mut by_key: BTreeMap<_, Vec<(Id, ShardId, &Stored)>> = BTreeMap::new();
    for (shard, record) in log.all().filter(|(_, record)| ordered[usize::from(record.id.producer)]) {
        by_key.entry((&*record.key, record.id.life)).or_default().push((record.id, shard, record));
    }
    for ((key, _), mut records) in by_key {
        records.sort_by_key(|(id, ..)| *id);
        for pair in records.windows(2) {
            let ((first, in_first, at_first), (second, in_second, at_second)) = (pair[0], pair[1]);
            let kept = match in_first == in_second {
                true => at_first.number < at_second.number,
                false => log.descends(in_second, in_first),
            };
            if !kept {
                return Err(format!(
                    "of key {key}, {first} in {in_first} does not stand before {second} in {in_second}"
                ));
            }
        }
    }
    Ok(())
}

/// Each processor has seen the log, from its checkpoint on, without a gap; nobody has seen what is not there.
fn sessions_follow_the_log(facts: &Facts, log: &Log) -> Verdict {
    let nothing = Vec::new();
    let mut epochs = BTreeMap::new();
    for session in &facts.sessions {
        let Session { shard, epoch, worker, from, processed, .. } = session;
        let before = epochs.insert(*shard, *epoch);
        if before.is_some_and(|before| before > *epoch) {
            return Err(format!("{shard}: {worker} began under {epoch}, after {before:?}"));
        }
        let records = log.records.get(shard).unwrap_or(&nothing);
        let begin = match from {
            Checkpoint::At { number, .. } => records.partition_point(|record| record.number <= *number),
            _ => 0,
        };
        let (saw, there) =
            (processed.iter().map(|(number, _)| *number), records[begin..].iter().map(|r| r.number));
        if let Some((saw, there)) = saw.zip(there).find(|(saw, there)| saw != there) {
            return Err(format!("{shard}: {worker} under {epoch} saw {saw} where {there} is stored"));
        }
        if begin + processed.len() > records.len() {
            return Err(format!("{shard}: {worker} under {epoch} saw records behind the end of the log"));
        }
    }
    Ok(())
}

/// A processor begins behind everything that was kept under earlier leases, and where the one before it began or asked for:
/// under a lease nobody else moves the checkpoint.
fn checkpoints_are_kept(facts: &Facts) -> Verdict {
    for session in &facts.sessions {
        let Session { shard, worker, epoch, from, .. } = session;
        let earlier = facts.sessions.iter().filter(|other| other.shard == *shard && other.epoch < *epoch);
        let number = match from {
            Checkpoint::At { number, .. } => Some(*number),
            _ => None,
        };
        for other in earlier.clone() {
            let kept = other.checkpoints.iter().filter(|asked| asked.is_kept).map(|asked| asked.number).max();
            if kept > number {
                let (other, before) = (&other.worker, other.epoch);
                return Err(format!(
                    "{shard}: {worker} began under {epoch} behind {from:?}, but {other} has kept {kept:?} under {before}"
                ));
            }
        }
        let Some(before) = earlier.max_by_key(|other| other.epoch) else { continue };
        if before.from != *from && before.checkpoints.iter().all(|asked| Some(asked.number) != number) {
            return Err(format!(
                "{shard}: {worker} began under {epoch} behind {from:?}, where {before:?} was not"
            ));
        }
    }
    Ok(())
}

/// When each record was processed first.
fn first_seen(facts: &Facts) -> BTreeMap<(ShardId, AnySequenceNumber), u64> {
    let mut seen = BTreeMap::new();
    for session in &facts.sessions {
        for (number, at) in &session.processed {
            let first = seen.entry((session.shard, *number)).or_insert(*at);
            *first = (*first).min(*at);
        }
    }
    seen
}

fn children_come_after_parents(facts: &Facts, log: &Log) -> Verdict {
    let seen = first_seen(facts);
    for shard in &log.shards {
        let Some(begun) = facts.sessions.iter().filter(|s| s.shard == shard.id).map(|s| s.began_at).min()
        else {
            continue;
        };
        for parent in shard.parents() {
            let of_parent = log.records.get(&parent).into_iter().flatten();
            let late =
                of_parent.filter(|record| seen.get(&(parent, record.number)).is_none_or(|at| *at > begun));
            if let Some(record) = late.map(|record| record.id).next() {
                return Err(format!(
                    "{} was begun before {record} of its parent {parent} was processed",
                    shard.id
                ));
            }
        }
    }
    Ok(())
}

fn all_processed(facts: &Facts, log: &Log) -> Verdict {
    match unprocessed(facts, log).next() {
        Some((shard, record)) => Err(format!("{} in {shard} was never processed", record.id)),
        None => Ok(()),
    }
}

/// What is stored and nobody has processed.
pub(crate) fn unprocessed<'a>(facts: &'a Facts, log: &'a Log) -> impl Iterator<Item = (ShardId, &'a Stored)> {
    let seen: BTreeSet<_> = first_seen(facts).into_keys().collect();
    log.all().filter(move |(shard, record)| !seen.contains(&(*shard, record.number)))
}
