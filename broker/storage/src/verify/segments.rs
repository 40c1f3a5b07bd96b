//! One log: its segments one behind the other, each frame against its checksums and the order of the log.

use super::{Finding, Report, Severity};
use crate::LogId;
use crate::checkpoint::{LogEntry, SegmentEntry};
use crate::disk::{Disk, WriteMode};
use crate::journal::{Durable, ReplayRun};
use crate::recovery::{LOOK_BEHIND_BYTES, later_frame};
use crate::segment::{SegmentHeader, SegmentId, SparseIndex};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use tidemill_types::{Frame, FrameError, FrameHeader, FrameKind, SequenceIndex};

/// Where the log's number stands in the header of a frame.
const LOG_OFFSET: usize = 16;

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
    ended: bool,
}

impl Walk<'_> {
    fn found(
        &mut self,
        file: &str,
        offset: u64,
        severity: Severity,
        records: Option<(SequenceIndex, SequenceIndex)>,
        what: String,
    ) {
        let (file, log) = (file.to_owned(), Some(self.log));
        self.report.findings.push(Finding { file, offset, severity, log, records, what });
    }
    fn damage(&mut self, file: &str, offset: u64, what: String) {
        self.found(file, offset, Severity::Damage, None, what);
    }
    /// Counts an intact frame, the next of the log.
    fn take(&mut self, header: &FrameHeader) {
        self.report.frames += 1;
        self.report.records += u64::from(header.count);
        self.next = Some(header.next());
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
        let mut walk = Walk { log: self.id, report, next: None, ended: false };
        for number in known.keys().filter(|number| !self.files.contains_key(number)) {
            let file = self.segment(*number).file();
            walk.damage(&file, 0, "the file is missing".to_owned());
        }
        // what lies before the first was trimmed
        for (&number, &bytes) in self.files.range(first..) {
            walk.report.files += 1;
            walk.report.bytes += bytes;
            self.verify_segment(disk, number, bytes, known.get(&number).copied(), &mut walk);
            progress(walk.report.bytes);
        }
    }

    fn segment(&self, number: u64) -> SegmentId {
        SegmentId { log: self.id, number }
    }

    fn verify_segment(
        &self,
        disk: &dyn Disk,
        number: u64,
        size: u64,
        known: Option<&SegmentEntry>,
        walk: &mut Walk<'_>,
    ) {
        let id = self.segment(number);
        let file = id.file();
        if let Some(entry) = known.filter(|entry| entry.capacity != size) {
            walk.damage(&file, size, format!("it has {size} bytes where {} belong", entry.capacity));
        }
        let read =
            || disk.open(&file, WriteMode::Buffered)?.map(0, usize::try_from(size).unwrap_or(usize::MAX));
        let bytes = match read() {
            Ok(bytes) => bytes,
            Err(error) => return walk.damage(&file, 0, format!("it cannot be read: {error}")),
        };
        let header = bytes.first_chunk::<{ SegmentHeader::BYTES }>().and_then(SegmentHeader::decode);
        let own = header.filter(|header| header.id == id && header.capacity == size);
        match (own, known) {
            (Some(header), Some(entry)) if header.base != entry.base => {
                walk.damage(&file, 32, format!("it begins at {} where {} belongs", header.base, entry.base));
            }
            (Some(_), _) => {}
            (None, Some(_)) => walk.damage(&file, 0, "its header is not intact".to_owned()),
            (None, None) => self.headless(&file, &bytes, walk),
        }
        // one that the checkpoint does not know is part of the log if it follows
        let follows = own.is_some_and(|header| walk.next.is_none_or(|next| header.base.follows(next)));
        if known.is_none() && (!follows || walk.ended) {
            return;
        }
        let begin = SegmentHeader::BYTES as u64;
        let end = known.map_or(begin, |entry| entry.end.min(size));
        self.walk_known(&file, &bytes, end, known, walk);
        let is_last =
            self.entry.is_none_or(|entry| entry.segments.last().is_none_or(|last| last.number <= number));
        if is_last && !walk.ended {
            self.walk_open(id, &bytes, end, walk);
        }
        if self.indexes.contains(&number) && known.is_some() && !is_last {
            verify_index(disk, id, size, &bytes, walk);
        }
    }

    /// A file without a header of its own was never begun, unless a frame lies where the first belongs.
    fn headless(&self, file: &str, bytes: &Bytes, walk: &mut Walk<'_>) {
        if bytes.len() > SegmentHeader::BYTES
            && let Ok(frame) = Frame::decode(&bytes.slice(SegmentHeader::BYTES..))
            && walk.is_next(frame.header())
        {
            let first = frame.header().first;
            walk.damage(file, 0, format!("its header is not intact, but frame {first} behind it is"));
        }
    }

    /// The frames up to `end`, which the checkpoint has promised.
    fn walk_known(
        &self,
        file: &str,
        bytes: &Bytes,
        end: u64,
        known: Option<&SegmentEntry>,
        walk: &mut Walk<'_>,
    ) {
        if let Some(entry) = known {
            let expected = walk.next.filter(|next| entry.base.follows(*next)).unwrap_or(entry.base);
            walk.next = Some(expected);
        }
        let (mut at, end) = (SegmentHeader::BYTES, usize::try_from(end).unwrap_or(bytes.len()));
        while at < end {
            at = match Frame::decode(&bytes.slice(at..end)) {
                Ok(frame) if walk.is_next(frame.header()) => {
                    walk.take(frame.header());
                    at + frame.header().frame_bytes as usize
                }
                Ok(frame) => {
                    let header = *frame.header();
                    let expected = walk.next.map_or_else(String::new, |next| next.to_string());
                    let what = format!(
                        "a frame of log {:x} at {} lies where {expected} of log {:x} belongs",
                        header.log,
                        header.first,
                        self.id.get()
                    );
                    walk.damage(file, at as u64, what);
                    if header.log == self.id.get() {
                        walk.next = Some(header.next());
                    }
                    at + header.frame_bytes as usize
                }
                Err(error) => self.behind_bad(file, bytes, at..end, &error, walk),
            };
        }
    }

    /// Tells a bad frame; returns where the next intact one begins, or the end.
    fn behind_bad(
        &self,
        file: &str,
        bytes: &Bytes,
        range: std::ops::Range<usize>,
        error: &FrameError,
        walk: &mut Walk<'_>,
    ) -> usize {
        let (at, end) = (range.start, range.end);
        if let Ok(header) = FrameHeader::decode(&bytes[at..end])
            && header.log == self.id.get()
            && at + header.frame_bytes as usize <= end
        {
            let records = Some((header.first, header.last()));
            walk.found(file, at as u64, Severity::Damage, records, error.to_string());
            walk.next = Some(header.next());
            return at + header.frame_bytes as usize;
        }
        let found = intact_frame(&bytes.slice(..end), at + 1, self.id);
        let first = walk.next;
        let last = found.map(|(_, header)| header.first);
        let records = first.zip(last).filter(|(first, behind)| first < behind);
        let records = records.map(|(first, behind)| (first, last_before(behind)));
        walk.found(file, at as u64, Severity::Damage, records, error.to_string());
        if let Some((_, header)) = found {
            walk.next = Some(header.first);
        }
        found.map_or(end, |(at, _)| at)
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
        let file = id.file();
        let behind =
            |run: &&ReplayRun| run.segment.id == id && run.offset > at as u64 && !run.bytes.is_empty();
        if self.runs.iter().any(|run| behind(&run)) {
            walk.damage(&file, at as u64, "frames that the journal holds lie behind it".to_owned());
        } else if self.durable == Durable::EachGroup && !walk.ended {
            let window = bytes.slice(at..bytes.len().min(at.saturating_add(LOOK_BEHIND_BYTES)));
            let expected = walk.next.unwrap_or(SequenceIndex::ZERO);
            if let Some((found, header)) = later_frame(&window, self.id.get(), expected) {
                let what = format!(
                    "the frame there is not intact, but that of {} at {} is",
                    header.first,
                    at + found
                );
                walk.damage(&file, at as u64, what);
            }
        }
    }
}

/// The last index before `index`, in its epoch.
fn last_before(index: SequenceIndex) -> SequenceIndex {
    SequenceIndex::new(index.get().saturating_sub(1)).unwrap_or(index)
}

/// The first intact frame of the log that begins at `from` or behind it.
fn intact_frame(bytes: &Bytes, from: usize, log: LogId) -> Option<(usize, FrameHeader)> {
    let needle = log.get().to_le_bytes();
    let rest = bytes.get(from..)?;
    memchr::memmem::find_iter(rest, &needle).find_map(|found| {
        let at = (from + found).checked_sub(LOG_OFFSET).filter(|at| *at >= from)?;
        let frame = Frame::decode(&bytes.slice(at..)).ok()?;
        (frame.header().log == log.get()).then(|| (at, *frame.header()))
    })
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
    let aid = |walk: &mut Walk<'_>, what: String| walk.found(&file, 0, Severity::Aid, None, what);
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
