//! A checkpoint made anew, from what segments and journal say of themselves. What the journal holds goes to its places first, as at
//! a start: without that, what a power loss took from a segment, and only from there, would count as lost.
//!
//! What it cannot know: how far records had been trimmed within the oldest segment (the catalog's retention trims again), and
//! that a log without frames was sealed (the catalog knows). Every log counts as written to, so that the next start looks at
//! it.

use super::{Keep, io, read_what_can_be};
use crate::LogId;
use crate::checkpoint::{Checkpoint, LogEntry, SegmentEntry};
use crate::damage::{Frames, Lying};
use crate::disk::{Disk, Sync, WriteMode};
use crate::error::Result;
use crate::journal::{self, Durable, ReplayGroup, ReplayRun, Survey};
use crate::producers::{Batch, Producers};
use crate::recovery::old_catalog;
use crate::segment::{FOLDER, NameKind, SegmentHeader, SegmentId, SparseIndex};
use crate::verify::Bridge;
use bytes::Bytes;
use std::collections::BTreeMap;
use tidemill_types::{Epoch, FrameKind, MonotonicMs, SequenceIndex, TimestampMs};

type Files = BTreeMap<LogId, BTreeMap<u64, u64>>;

/// The checkpoint of a directory that has lost its own. `epoch` is the last one that was used.
pub(super) fn rebuild(disk: &dyn Disk, epoch: Epoch, keep: Keep<'_>) -> Result<Checkpoint> {
    let mut files = Files::new();
    for (name, bytes) in disk.list(FOLDER).map_err(io("list", FOLDER))? {
        if let Some((id, NameKind::Segment)) = SegmentId::parse(&name) {
            files.entry(id.log).or_default().insert(id.number, bytes);
        }
    }
    let Survey { mut groups, whole, next_group, durable } = journal::survey(disk)?;
    let first = entries(disk, &files, durable)?;
    let of_logs = first.values().map(|log| log.durable).filter(|index| *index != SequenceIndex::ZERO);
    let newest = of_logs.map(SequenceIndex::epoch).chain(groups.iter().filter_map(ReplayGroup::epoch)).max();
    if let Some(newest) = newest.filter(|newest| *newest > epoch) {
        return Err(old_catalog(epoch, newest));
    }
    // a start makes all safe that was before it: what an older group holds may have been cut, and other frames be in its place
    let needed = groups.iter().position(|group| group.epoch() >= newest).unwrap_or(groups.len());
    put_back(disk, &groups[needed..], &files, keep)?;
    let mut logs = if needed == groups.len() { first } else { entries(disk, &files, durable)? };
    groups.drain(..needed.max(whole));
    // of a log without a file the journal may hold all there is; what it holds of a trimmed one does not begin a segment
    let runs = groups.iter().flat_map(|group| &group.runs);
    for run in runs.filter(|run| run.offset == SegmentHeader::BYTES as u64) {
        let SegmentId { log, number } = run.segment.id;
        logs.entry(log).or_insert_with(|| LogEntry { next_segment: number, ..empty(log) });
    }
    let next_group = groups.first().map_or(next_group, |group| group.number);
    let epoch = newest.unwrap_or(epoch);
    Ok(Checkpoint { next_group, epoch, directory: 0, durable, logs: logs.into_values().collect() })
}

/// What the segments say.
fn entries(disk: &dyn Disk, files: &Files, durable: Durable) -> Result<BTreeMap<LogId, LogEntry>> {
    files.iter().map(|(log, numbers)| Ok((*log, log_entry(disk, *log, numbers, durable)?))).collect()
}

/// Frames of the journal to their places in the segments that are there; the others are made by the next start.
fn put_back(disk: &dyn Disk, groups: &[ReplayGroup], files: &Files, keep: Keep<'_>) -> Result<()> {
    let mut of_segments: BTreeMap<SegmentId, Vec<&ReplayRun>> = BTreeMap::new();
    for run in groups.iter().flat_map(|group| &group.runs).filter(|run| !run.bytes.is_empty()) {
        let id = run.segment.id;
        if files.get(&id.log).and_then(|numbers| numbers.get(&id.number)) == Some(&run.segment.capacity) {
            of_segments.entry(id).or_default().push(run);
        }
    }
    for (id, runs) in of_segments {
        let name = id.file();
        let file = disk.open(&name, WriteMode::Buffered).map_err(io("open", &name))?;
        let mut put = |at: u64, right: &[u8]| {
            let mut old = vec![0; right.len()];
            read_what_can_be(&*file, at, &mut old);
            if old == right {
                return Ok(());
            }
            keep(&name, at, &old)?;
            file.write(at, &[right], Sync::None)
        };
        let cannot = || io("put journal frames back into", &name);
        put(0, &runs[0].segment.encode()).map_err(cannot())?;
        for stretch in runs.chunk_by(|one, next| one.offset + one.bytes.len() as u64 == next.offset) {
            let bytes: Vec<u8> = stretch.iter().flat_map(|run| run.bytes.iter().copied()).collect();
            put(stretch[0].offset, &bytes).map_err(cannot())?;
        }
        file.sync().map_err(io("sync", &name))?;
    }
    Ok(())
}

fn empty(id: LogId) -> LogEntry {
    LogEntry {
        id,
        horizon: SequenceIndex::ZERO,
        durable: SequenceIndex::ZERO,
        next_segment: 0,
        newest: None,
        sealed: false,
        in_flight: true,
        segments: Vec::new(),
        index: Vec::new(),
        producers: Vec::new(),
    }
}

/// A segment, read from its front.
struct Found {
    entry: SegmentEntry,
    index: SparseIndex,
    next: SequenceIndex,
    sealed: bool,
}

fn log_entry(disk: &dyn Disk, id: LogId, numbers: &BTreeMap<u64, u64>, durable: Durable) -> Result<LogEntry> {
    let mut log = empty(id);
    let mut producers = Producers::default();
    let mut contents = Vec::new();
    for (&number, &bytes) in numbers {
        let name = SegmentId { log: id, number }.file();
        let length = usize::try_from(bytes).expect("segments fit in memory maps");
        let file = disk.open(&name, WriteMode::Buffered).map_err(io("open", &name))?;
        let content = if file.ready(0, length).is_ok() {
            file.map(0, length).map_err(io("read", &name))?
        } else {
            let mut copy = vec![0; length]; // told and mended once there is a checkpoint
            read_what_can_be(&*file, 0, &mut copy);
            copy.into()
        };
        contents.push((number, content));
    }
    let bases: Vec<_> = contents.iter().map(|(number, content)| base_of(id, *number, content)).collect();
    for (at, (number, content)) in contents.iter().enumerate() {
        let Some(base) = bases[at] else { continue };
        let gap = log.segments.last().is_some_and(|last| last.number + 1 != *number);
        if gap || (log.durable != SequenceIndex::ZERO && base < log.durable) {
            break; // what lies behind a hole is left to the next start, which tells it
        }
        let limit = bases.get(at + 1).copied().flatten();
        let mut found = read_segment(id, *number, base, content, limit, &mut producers);
        // what is missing at the end of one that another follows: a power loss has cut the log there, or it is to be told
        let missing = limit.filter(|limit| !limit.follows(found.next));
        let is_cut = missing.is_some() && durable == Durable::Later;
        if let Some(limit) = missing.filter(|_| !is_cut) {
            let behind = found.entry.end.saturating_add(Bridge::bytes_min(found.next, limit));
            found.entry.end = behind.min(found.entry.capacity);
        }
        log.next_segment = number + 1;
        log.durable = limit.filter(|_| !is_cut).unwrap_or(found.next);
        log.newest = log.newest.max(Some(found.entry.last_arrival));
        log.sealed = found.sealed;
        log.index = found.index.entries().to_vec();
        log.segments.push(found.entry);
        if is_cut {
            break;
        }
    }
    log.horizon = log.segments.first().map_or(log.durable, |first| first.base);
    log.producers = producers.snapshot(MonotonicMs::default());
    Ok(log)
}

/// The first index of a segment: its header says it, or else its first frame.
fn base_of(log: LogId, number: u64, content: &Bytes) -> Option<SequenceIndex> {
    let header = content.first_chunk::<{ SegmentHeader::BYTES }>().and_then(SegmentHeader::decode);
    if let Some(header) = header.filter(|header| header.id == SegmentId { log, number }) {
        return Some(header.base);
    }
    let frames = content.get(SegmentHeader::BYTES..)?;
    let frames = content.slice_ref(frames);
    match Frames::new(log, &frames).next()? {
        Lying::Frame(_, header) => Some(header.first),
        Lying::Bad(_) => None,
    }
}

/// Reads a segment up to where the next one begins, or, if there is none, to where no frame follows.
fn read_segment(
    log: LogId,
    number: u64,
    base: SequenceIndex,
    content: &Bytes,
    limit: Option<SequenceIndex>,
    producers: &mut Producers,
) -> Found {
    let begin = SegmentHeader::BYTES as u64;
    let capacity = content.len() as u64;
    let (first_arrival, last_arrival) = (TimestampMs::default(), TimestampMs::default());
    let entry = SegmentEntry { number, base, capacity, end: begin, first_arrival, last_arrival };
    let mut found = Found { entry, index: SparseIndex::new(capacity), next: base, sealed: false };
    let frames = content.slice(SegmentHeader::BYTES..);
    for lying in Frames::new(log, &frames).expecting(base) {
        let (at, header) = match lying {
            Lying::Frame(at, header) if limit.is_none_or(|limit| header.first < limit) => (at, header),
            // only where another segment follows is it known that the log went on
            Lying::Bad(_) if limit.is_some() => continue,
            _ => break,
        };
        let offset = begin + at as u64;
        if found.entry.end == begin {
            found.entry.first_arrival = header.arrival;
        }
        found.entry.last_arrival = header.arrival;
        found.entry.end = offset + u64::from(header.frame_bytes);
        found.index.note(&header, offset);
        found.next = header.next();
        producers.note(header.producer, Batch::of(&header), MonotonicMs::default());
        if header.kind == FrameKind::Close {
            found.sealed = true;
            break;
        }
    }
    found
}
