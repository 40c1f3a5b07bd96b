//! One log: its segments one behind the other, each frame against its checksums and the order of the log.

use super::{Bridge, Finding, Mend, Report, Severity};
use crate::LogId;
use crate::checkpoint::{LogEntry, SegmentEntry};
use crate::damage::{Frames, Lying};
use crate::disk::{Disk, WriteMode};
use crate::journal::{Durable, ReplayRun};
use crate::recovery::{LOOK_BEHIND_BYTES, later_frame};
use crate::segment::{SegmentHeader, SegmentId, SparseIndex};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use tidemill_types::limits::FRAME_RECORDS_MAX;
use tidemill_types::{Frame, FrameError, FrameHeader, FrameKind, SequenceIndex, TimestampMs};

/// What is known of a log before its files are read.
pub(super) struct Log<'a> {
    pub(super) id: LogId,
    pub(super) entry: Option<&'a LogEntry>,
    /// Segment files by number, with their size.
    pub(super) files: BTreeMap<u64, u64>,
    /// Segments that have an index beside them.
    pub(super) indexes: BTreeSet<u64>,
    /// What the journal holds of it behind the checkpoint, in order.
    pub(super) runs: &'a [ReplayRun],
    pub(super) durable: Durable,
}

/// How far the walk has come.
struct Walk<'r> {
    log: LogId,
    report: &'r mut Report,
    /// The index that comes next; none before the first frame.
    next: Option<SequenceIndex>,
    /// Arrival of the newest intact frame.
    arrival: TimestampMs,
    /// It is closed; or what lies behind can only be told when what was found is mended.
    ended: bool,
    /// Where the newest segment of the log ends, and how large its file is.
    end: Option<(SegmentId, usize, usize)>,
}

/// What is wrong with a file of the log.
struct Wrong {
    severity: Severity,
    records: Option<(SequenceIndex, SequenceIndex)>,
    mend: Option<Mend>,
}

impl Wrong {
    fn damage(mend: impl Into<Option<Mend>>) -> Self {
        Self { severity: Severity::Damage, records: None, mend: mend.into() }
    }
    /// Bad bytes in the place of these records.
    fn bridged(bridge: Bridge) -> Self {
        // where no number is free nothing can be put that takes one
        let lost = (bridge.first < bridge.next).then_some(bridge);
        let records = lost.map(|bridge| (bridge.first, last_before(bridge.next)));
        Self { records, ..Self::damage(lost.map(Mend::Bridge)) }
    }
    fn aid(id: SegmentId) -> Self {
        Self { severity: Severity::Aid, records: None, mend: Some(Mend::DropIndex(id)) }
    }
}

impl Walk<'_> {
    fn found(&mut self, file: &str, offset: u64, what: String, wrong: Wrong) {
        let (file, log) = (file.to_owned(), Some(self.log));
        let Wrong { severity, records, mend } = wrong;
        self.report.findings.push(Finding { file, offset, severity, log, records, what, mend });
    }
    /// Counts an intact frame, the next of the log.
    fn take(&mut self, header: &FrameHeader) {
        if header.kind != FrameKind::Lost {
            self.report.frames += 1;
            self.report.records += u64::from(header.count);
        }
        self.next = Some(header.next());
        self.arrival = header.arrival;
        self.ended |= header.kind == FrameKind::Close;
    }
    /// Whether a frame is the next of the log.
    fn is_next(&self, header: &FrameHeader) -> bool {
        header.log == self.log.get() && self.next.is_none_or(|next| header.first.follows(next))
    }
}

impl Log<'_> {
    /// Reads the log. `progress` is told the bytes of the directory that are done.
    pub(super) fn verify(&self, disk: &dyn Disk, report: &mut Report, progress: &mut dyn FnMut(u64)) {
        let first = self
            .entry
            .map_or(0, |entry| entry.segments.first().map_or(entry.next_segment, |segment| segment.number));
        let known: BTreeMap<u64, &SegmentEntry> =
            self.entry.iter().flat_map(|entry| &entry.segments).map(|s| (s.number, s)).collect();
        let arrival = TimestampMs::default();
        let mut walk = Walk { log: self.id, report, next: None, arrival, ended: false, end: None };
        for (number, entry) in known.iter().filter(|(number, _)| !self.files.contains_key(number)) {
            let file = self.segment(*number).file();
            let wrong = Wrong::damage(Mend::Whole(self.header(entry)));
            let behind = known.get(&(number + 1)).map(|next| next.base);
            let behind = behind.unwrap_or_else(|| self.entry.map_or(entry.base, |entry| entry.durable));
            let records = (entry.base < behind).then(|| (entry.base, last_before(behind)));
            walk.found(&file, 0, "the file is missing".to_owned(), Wrong { records, ..wrong });
        }
        // what lies before the first was trimmed
        for (&number, &bytes) in self.files.range(first..) {
            walk.report.files += 1;
            walk.report.bytes += bytes;
            let behind = known.get(&(number + 1)).map(|next| next.base);
            let behind = behind.or(self.entry.map(|entry| entry.durable));
            self.verify_segment(disk, (number, bytes), known.get(&number).copied(), behind, &mut walk);
            progress(walk.report.bytes);
        }
    }

    fn segment(&self, number: u64) -> SegmentId {
        SegmentId { log: self.id, number }
    }

    /// The header that the checkpoint says a segment has.
    fn header(&self, entry: &SegmentEntry) -> SegmentHeader {
        SegmentHeader { id: self.segment(entry.number), base: entry.base, capacity: entry.capacity }
    }

    /// `behind` is the index that comes behind the segment, as far as the checkpoint knows.
    fn verify_segment(
        &self,
        disk: &dyn Disk,
        (number, size): (u64, u64),
        known: Option<&SegmentEntry>,
        behind: Option<SequenceIndex>,
        walk: &mut Walk<'_>,
    ) {
        let id = self.segment(number);
        let file = id.file();
        if let Some(entry) = known.filter(|entry| entry.capacity != size) {
            let what = format!("it has {size} bytes where {} belong", entry.capacity);
            walk.found(&file, size, what, Wrong::damage(Mend::Whole(self.header(entry))));
        }
        let read =
            || disk.open(&file, WriteMode::Buffered)?.map(0, usize::try_from(size).unwrap_or(usize::MAX));
        let bytes = match read() {
            Ok(bytes) => bytes,
            Err(error) => {
                return walk.found(&file, 0, format!("it cannot be read: {error}"), Wrong::damage(None));
            }
        };
        let header = bytes.first_chunk::<{ SegmentHeader::BYTES }>().and_then(SegmentHeader::decode);
        let own = header.filter(|header| header.id == id && header.capacity == size);
        // one that is not on the device is put there by the next start, as the journal has it
        let told = self.runs.iter().find(|run| run.segment.id == id && run.segment.capacity == size);
        let own = own.or(told.map(|run| run.segment));
        match (own, known) {
            (Some(header), Some(entry)) if header.base != entry.base => {
                let what = format!("it begins at {} where {} belongs", header.base, entry.base);
                walk.found(&file, 32, what, Wrong::damage(Mend::Header(self.header(entry))));
            }
            (Some(_), _) => {}
            (None, Some(entry)) => {
                let wrong = Wrong::damage(Mend::Header(self.header(entry)));
                walk.found(&file, 0, "its header is not intact".to_owned(), wrong);
            }
            (None, None) => self.headless(id, &bytes, walk),
        }
        // one that the checkpoint does not know is part of the log if it follows
        let follows = own.is_some_and(|header| walk.next.is_none_or(|next| header.base.follows(next)));
        if known.is_none() && (!follows || walk.ended) {
            return self.behind_the_end(id, &bytes, own, walk);
        }
        let begin = SegmentHeader::BYTES as u64;
        let end = known.map_or(begin, |entry| entry.end.min(size));
        if let Some(entry) = known {
            let begun = walk.next.filter(|next| entry.base.follows(*next)).unwrap_or(entry.base);
            walk.next = Some(begun);
            self.walk_known(id, &bytes, end, behind.unwrap_or(begun), walk);
        }
        let is_last =
            self.entry.is_none_or(|entry| entry.segments.last().is_none_or(|last| last.number <= number));
        if is_last && !walk.ended {
            // an epoch may have begun since the last frame: what is older than its first number is not to come
            let begins = own.filter(|_| known.is_none()).map(|header| header.base);
            walk.next = walk.next.max(begins).max(self.entry.map(|entry| entry.durable));
            self.walk_open(id, &bytes, end, walk);
        }
        if self.indexes.contains(&number) && known.is_some() && !is_last {
            verify_index(disk, id, size, &bytes, walk);
        }
    }

    /// A segment that does not follow the log: if something in it was written when what lies before it was durable, the end before it
    /// is damage, and not an end.
    fn behind_the_end(&self, id: SegmentId, bytes: &Bytes, own: Option<SegmentHeader>, walk: &mut Walk<'_>) {
        if walk.ended || self.durable != Durable::EachGroup || bytes.len() <= SegmentHeader::BYTES {
            return;
        }
        let expected = walk.next.or(self.entry.map(|entry| entry.durable)).unwrap_or(SequenceIndex::ZERO);
        let window = bytes.slice(SegmentHeader::BYTES..bytes.len().min(LOOK_BEHIND_BYTES));
        let holds_run = self.runs.iter().any(|run| run.segment.id == id && !run.bytes.is_empty());
        if !holds_run && later_frame(&window, self.id.get(), expected).is_none() {
            return;
        }
        walk.ended = true;
        let why = FrameError::Malformed(
            "the log ends here, but the next segment goes on behind records that are missing",
        );
        match (own, walk.end) {
            (Some(header), Some((end, at, size))) if header.base > expected => {
                let frames = (header.base.get() - expected.get()).div_ceil(u64::from(FRAME_RECORDS_MAX));
                let frames = if header.base.epoch() == expected.epoch() { frames } else { 1 };
                let room = usize::try_from(frames).unwrap_or(usize::MAX).saturating_mul(FrameHeader::BYTES);
                if room <= size.saturating_sub(at) {
                    return walk.bridge(end, at..at + room, (expected, header.base), &why);
                }
                walk.found(&end.file(), at as u64, why.to_string(), Wrong::damage(None));
            }
            (None, _) => {
                let header = SegmentHeader { id, base: expected, capacity: bytes.len() as u64 };
                let what = "its header is not intact, but frames behind it are".to_owned();
                walk.found(&id.file(), 0, what, Wrong::damage(Mend::Header(header)));
            }
            _ => {
                let what = format!("it does not go on where the log ends, at {expected}");
                walk.found(&id.file(), 0, what, Wrong::damage(None));
            }
        }
    }

    /// A file without a header of its own was never begun, unless a frame lies where the first belongs.
    fn headless(&self, id: SegmentId, bytes: &Bytes, walk: &mut Walk<'_>) {
        if bytes.len() > SegmentHeader::BYTES
            && let Ok(frame) = Frame::decode(&bytes.slice(SegmentHeader::BYTES..))
            && walk.is_next(frame.header())
        {
            let base = frame.header().first;
            let header = SegmentHeader { id, base, capacity: bytes.len() as u64 };
            let what = format!("its header is not intact, but frame {base} behind it is");
            walk.found(&id.file(), 0, what, Wrong::damage(Mend::Header(header)));
        }
    }

    /// The frames up to `end`, which the checkpoint has promised; behind them the log goes on with `behind`.
    fn walk_known(&self, id: SegmentId, bytes: &Bytes, end: u64, behind: SequenceIndex, walk: &mut Walk<'_>) {
        let end = usize::try_from(end).unwrap_or(bytes.len()).max(SegmentHeader::BYTES).min(bytes.len());
        let frames = bytes.slice(SegmentHeader::BYTES.min(end)..end);
        let expected = walk.next.unwrap_or(SequenceIndex::ZERO);
        for lying in Frames::new(self.id, &frames).expecting(expected) {
            let (range, first, next, why) = match lying {
                Lying::Frame(at, header) => match Frame::decode(&frames.slice(at..)) {
                    Ok(_) => {
                        walk.take(&header);
                        continue;
                    }
                    Err(why) => (at..at + header.frame_bytes as usize, header.first, header.next(), why),
                },
                Lying::Bad(bad) => {
                    let first = walk.next.unwrap_or(expected);
                    (bad.at..bad.end, first, bad.next.unwrap_or(behind).max(first), bad.why)
                }
            };
            walk.bridge(
                id,
                SegmentHeader::BYTES + range.start..SegmentHeader::BYTES + range.end,
                (first, next),
                &why,
            );
        }
    }

    /// What was written since the checkpoint: it ends where there is no next frame, neither here nor in the journal.
    fn walk_open(&self, id: SegmentId, bytes: &Bytes, from: u64, walk: &mut Walk<'_>) {
        let mut at = usize::try_from(from).unwrap_or(bytes.len());
        while at < bytes.len() && !walk.ended {
            if let Some(run) = self.runs.iter().find(|run| run.segment.id == id && run.offset == at as u64) {
                let mut inside = 0;
                while inside < run.bytes.len()
                    && let Ok(header) = FrameHeader::decode(&run.bytes[inside..])
                {
                    walk.take(&header);
                    inside += header.frame_bytes as usize;
                }
                if inside > 0 {
                    at += inside;
                    continue;
                }
            }
            match Frame::decode(&bytes.slice(at..)) {
                Ok(frame) if walk.is_next(frame.header()) => {
                    walk.take(frame.header());
                    at += frame.header().frame_bytes as usize;
                }
                _ => break,
            }
        }
        walk.end = Some((id, at, bytes.len()));
        let expected = walk.next.unwrap_or(SequenceIndex::ZERO);
        let behind =
            |run: &&ReplayRun| run.segment.id == id && run.offset > at as u64 && !run.bytes.is_empty();
        let run = self.runs.iter().filter(behind).min_by_key(|run| run.offset);
        let run = run.map(|run| (usize::try_from(run.offset).unwrap_or(bytes.len()), run));
        // between here and there, large frames may lie that the journal does not have
        let end =
            run.as_ref().map_or(bytes.len(), |(offset, _)| *offset).min(at.saturating_add(LOOK_BEHIND_BYTES));
        let later = (self.durable == Durable::EachGroup && !walk.ended)
            .then(|| later_frame(&bytes.slice(at..end.max(at).min(bytes.len())), self.id.get(), expected))
            .flatten();
        let (to, next, why) = match (later, run) {
            (Some((found, header)), _) => {
                (at + found, header.first, "the frame there is not intact, but one behind it is")
            }
            (None, Some((offset, run))) => {
                let next = FrameHeader::decode(&run.bytes).map_or(expected, |header| header.first);
                (offset, next, "frames that the journal holds lie behind it")
            }
            (None, None) => return,
        };
        walk.bridge(id, at..to, (expected, next), &FrameError::Malformed(why));
        walk.ended = true;
    }
}

impl Walk<'_> {
    /// Tells bad bytes in the place of these records, and goes on behind them.
    fn bridge(
        &mut self,
        segment: SegmentId,
        at: std::ops::Range<usize>,
        (first, next): (SequenceIndex, SequenceIndex),
        why: &FrameError,
    ) {
        let (from, to) = (at.start as u64, at.end as u64);
        // where an epoch lies between, what is known to be missing are the numbers of the later one
        let begins = next.epoch().first_index();
        let first = if begins < next { first.max(begins) } else { first };
        let bridge = Bridge { segment, from, to, first, next, arrival: self.arrival };
        self.found(&segment.file(), from, why.to_string(), Wrong::bridged(bridge));
        self.next = Some(next);
    }
}

/// The index before `index`.
fn last_before(index: SequenceIndex) -> SequenceIndex {
    SequenceIndex::new(index.get().saturating_sub(1)).unwrap_or(index)
}

/// The index beside a full segment: its checksum, and that each entry points at the frame it names.
fn verify_index(disk: &dyn Disk, id: SegmentId, capacity: u64, segment: &Bytes, walk: &mut Walk<'_>) {
    let file = id.index_file();
    let read = || {
        let opened = disk.open(&file, WriteMode::Buffered)?;
        let mut bytes = vec![0; usize::try_from(opened.len()).map_err(std::io::Error::other)?];
        opened.read(0, &mut bytes)?;
        std::io::Result::Ok(bytes)
    };
    let aid = |walk: &mut Walk<'_>, what: String| walk.found(&file, 0, what, Wrong::aid(id));
    let bytes = match read() {
        Ok(bytes) => bytes,
        Err(error) => return aid(walk, format!("it cannot be read: {error}")),
    };
    walk.report.files += 1;
    walk.report.bytes += bytes.len() as u64;
    let Some(index) = SparseIndex::decode(id, capacity, &bytes) else {
        return aid(walk, "it is not intact; it is made anew from the segment when it is needed".to_owned());
    };
    let points = |entry: &crate::segment::IndexEntry| {
        let at = usize::try_from(entry.offset).ok()?;
        FrameHeader::decode(segment.get(at..)?).ok().filter(|header| header.first == entry.first)
    };
    if let Some(entry) = index.entries().iter().find(|entry| points(entry).is_none()) {
        aid(walk, format!("it says that {} begins at {}, where it does not", entry.first, entry.offset));
    }
}
