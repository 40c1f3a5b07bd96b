//! One log: its segments one behind the other, each frame against its checksums and the order of the log.

mod tail;

use super::{Bridge, Finding, Mend, Report, Severity};
use crate::LogId;
use crate::checkpoint::{LogEntry, SegmentEntry};
use crate::damage::{Frames, Lying};
use crate::disk::{Disk, WriteMode};
use crate::journal::{Durable, ReplayRun};
use crate::recovery::LOOK_BEHIND_BYTES;
use crate::segment::{SegmentHeader, SegmentId, SparseIndex};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
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
    /// It ends where the checkpoint says.
    pub(super) is_copy: bool,
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
    end: Option<End>,
}

/// Where the newest segment of the log ends.
#[derive(Clone, Copy)]
struct End {
    id: SegmentId,
    at: u64,
    capacity: u64,
    /// The header of one that is not there yet: the next start makes it from what the journal holds.
    unmade: Option<SegmentHeader>,
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
        let unmade = self.held().map(|run| run.segment).filter(|segment| {
            let number = segment.id.number;
            number >= first && !self.files.contains_key(&number) && !known.contains_key(&number)
        });
        let mut unmade: BTreeMap<u64, SegmentHeader> =
            unmade.map(|segment| (segment.id.number, segment)).collect();
        for (&number, &bytes) in self.files.range(first..) {
            while let Some(segment) = unmade.first_entry().filter(|segment| *segment.key() < number) {
                self.verify_unmade(segment.remove(), &mut walk);
            }
            walk.report.files += 1;
            walk.report.bytes += bytes;
            let behind = known.get(&(number + 1)).map(|next| next.base);
            let behind = behind.or(self.entry.map(|entry| entry.durable));
            self.verify_segment(disk, (number, bytes), known.get(&number).copied(), behind, &mut walk);
            progress(walk.report.bytes);
        }
        for segment in unmade.into_values() {
            self.verify_unmade(segment, &mut walk);
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
        if known.is_none() && self.is_copy {
            return;
        }
        let id = self.segment(number);
        let file = id.file();
        if let Some(entry) = known.filter(|entry| entry.capacity != size) {
            let what = format!("it has {size} bytes where {} belong", entry.capacity);
            walk.found(&file, size, what, Wrong::damage(Mend::Whole(self.header(entry))));
        }
        let bytes = match read_all(disk, &file, size) {
            Ok(bytes) => bytes,
            Err((at, error)) => {
                let own = header_in(disk, &file).filter(|own| own.id == id && own.capacity == size);
                let told = self.held().find(|run| run.segment.id == id).map(|run| run.segment);
                let header = known.map(|entry| self.header(entry)).or(own).or(told);
                let header =
                    header.unwrap_or(SegmentHeader { id, base: self.expected(walk), capacity: size });
                walk.ended = true;
                let wrong = Wrong::damage(Mend::Whole(header));
                return walk.found(&file, at, format!("it cannot be read: {error}"), wrong);
            }
        };
        let header = bytes.first_chunk::<{ SegmentHeader::BYTES }>().and_then(SegmentHeader::decode);
        let own = header.filter(|header| header.id == id && header.capacity == size);
        // one that is not on the device is put there by the next start, as the journal has it
        let told = self.held().find(|run| run.segment.id == id && run.segment.capacity == size);
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
        let follows = own.is_some_and(|header| header.base.follows(self.expected(walk)));
        if known.is_none() && (!follows || walk.ended) {
            let window =
                bytes.slice(SegmentHeader::BYTES.min(bytes.len())..bytes.len().min(LOOK_BEHIND_BYTES));
            if !self.behind_the_end((id, size), &window, own, walk) {
                return;
            }
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
        if is_last && !walk.ended && !self.is_copy {
            // an epoch may have begun since the last frame: what is older than its first number is not to come
            let begins = own.filter(|_| known.is_none()).map(|header| header.base);
            walk.next = walk.next.max(begins).max(self.entry.map(|entry| entry.durable));
            self.walk_open(id, &bytes, end, walk);
        }
        if self.indexes.contains(&number) && known.is_some() && !is_last {
            verify_index(disk, id, size, &bytes, walk);
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
                ((SegmentHeader::BYTES + range.start) as u64, (SegmentHeader::BYTES + range.end) as u64),
                (first, next),
                &why,
            );
        }
    }
}

impl Walk<'_> {
    /// Tells bad bytes in the place of these records, and goes on behind them.
    fn bridge(
        &mut self,
        segment: SegmentId,
        (from, to): (u64, u64),
        (first, next): (SequenceIndex, SequenceIndex),
        why: &FrameError,
    ) {
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

/// The header of a segment, if the disk can give it.
fn header_in(disk: &dyn Disk, name: &str) -> Option<SegmentHeader> {
    let mut head = [0; SegmentHeader::BYTES];
    disk.open(name, WriteMode::Buffered).and_then(|file| file.read(0, &mut head)).ok()?;
    SegmentHeader::decode(&head)
}

/// The bytes of a file, all of which the disk can give; or where it cannot.
fn read_all(disk: &dyn Disk, name: &str, size: u64) -> Result<Bytes, (u64, std::io::Error)> {
    const STEP: u64 = 4096;
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let file = disk.open(name, WriteMode::Buffered).map_err(|error| (0, error))?;
    let bytes = file.map(0, size).map_err(|error| (0, error))?;
    let Err(error) = file.ready(0, size) else { return Ok(bytes) };
    let mut pages = (0..size as u64).step_by(STEP as usize);
    let is_bad = |at: &u64| file.ready(*at, (size as u64 - at).min(STEP) as usize).is_err();
    Err((pages.find(is_bad).unwrap_or(0), error))
}
