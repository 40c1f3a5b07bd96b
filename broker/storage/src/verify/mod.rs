//! Verification: everything a directory holds against its checksums, its order and its checkpoint, without changing a byte.
//!
//! ```text
//!  checkpoint ─► journal groups behind it ─► each log: segment by segment, frame by frame, to where it ends
//!                                        └─► the indexes beside full segments
//! ```
//!
//! Why: damage must be found before somebody needs what it hit. It goes on behind what it finds, so that one report names
//! all. It tells damage by the rules of recovery (FORMAT.md): what lies behind the end of a log or a journal means nothing,
//! and a torn end is none. With each finding goes what would mend it (`Mend`), which [`crate::repair`] carries out. Not
//! here: the catalog (the engine's).

mod segments;

use crate::LogId;
use crate::checkpoint::{Checkpoint, LogEntry};
use crate::disk::Disk;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::{self, Durable, NO_JOURNAL, ReplayRun, replay};
use crate::segment::{FOLDER, NameKind, SegmentHeader, SegmentId};
use segments::Log;
use std::collections::{BTreeMap, BTreeSet};
use tidemill_types::limits::FRAME_RECORDS_MAX;
use tidemill_types::{FrameHeader, SequenceIndex, TimestampMs};

/// How bad a [`Finding`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Records, or what is needed to find them, are not what was written. Reads of them fail, or the directory is refused.
    Damage,
    /// An aid that is made anew by itself.
    Aid,
}

/// Something that is not what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Name of the file within the directory.
    pub file: String,
    /// Where in it.
    pub offset: u64,
    /// How bad it is.
    pub severity: Severity,
    /// The log it belongs to, if it is of one.
    pub log: Option<LogId>,
    /// First and last index of the records that cannot be read, if that is known.
    pub records: Option<(SequenceIndex, SequenceIndex)>,
    /// What is wrong, for people.
    pub what: String,
    /// What makes the rest usable again; none where only a backup helps.
    pub(crate) mend: Option<Mend>,
}

impl Finding {
    /// Whether `tidemill repair` can make the rest usable again.
    pub fn can_be_mended(&self) -> bool {
        self.mend.is_some()
    }
}

/// What makes a directory usable again, at the cost of the records that a finding names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mend {
    /// Frames that say "lost" in the place of bad bytes.
    Bridge(Bridge),
    /// A segment's own header.
    Header(SegmentHeader),
    /// A segment's file of the right size, with what is there of it.
    Whole(SegmentHeader),
    /// An index goes; it is made anew from its segment.
    DropIndex(SegmentId),
    /// A checkpoint made anew from the segments and the journal.
    Checkpoint,
    /// Groups that carry nothing in the place of bad ones, or a header made anew.
    Journal,
}

/// Bad bytes of a segment, and the indexes that had their frames there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bridge {
    pub(crate) segment: SegmentId,
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) first: SequenceIndex,
    pub(crate) next: SequenceIndex,
    pub(crate) arrival: TimestampMs,
}

impl Bridge {
    /// The fewest bytes that can stand for the records from `first` up to `next`. How far an epoch that is over had come is not known:
    /// one frame does.
    pub(crate) fn bytes_min(first: SequenceIndex, next: SequenceIndex) -> u64 {
        let frames = if first.epoch() == next.epoch() {
            next.get().saturating_sub(first.get()).div_ceil(u64::from(FRAME_RECORDS_MAX))
        } else {
            1
        };
        frames.saturating_mul(FrameHeader::BYTES as u64)
    }
}

/// What a verification saw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Files that were read.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Intact frames.
    pub frames: u64,
    /// Records in them.
    pub records: u64,
    /// In the order in which they were found.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether anything is lost or in danger.
    pub fn is_damaged(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Damage)
    }

    fn damage(&mut self, file: impl Into<String>, offset: u64, what: impl Into<String>, mend: Mend) {
        self.findings.push(Finding {
            file: file.into(),
            offset,
            severity: Severity::Damage,
            log: None,
            records: None,
            what: what.into(),
            mend: Some(mend),
        });
    }
}

/// Reads everything and compares. `progress` is told how many bytes of how many are done. The directory must be locked.
/// Blocks for as long as it takes to read all of it.
///
/// Errors: [`ErrorKind::Io`] if the directory cannot be listed; [`ErrorKind::Refused`] for one of a later version.
/// Everything else is a finding.
pub fn verify(disk: &dyn Disk, progress: &mut dyn FnMut(u64, u64)) -> Result<Report> {
    let mut report = Report::default();
    let folders = ["", FOLDER].map(|folder| {
        disk.list(folder).map_err(|e| Error::io(format!("cannot list {folder} of {}", disk.path()), e))
    });
    let [top, segments] = folders;
    let (top, segments) = (top?, segments?);
    let total = top.iter().chain(&segments).map(|(_, bytes)| bytes).sum();
    let has_journal = top.iter().any(|(name, bytes)| *bytes > 0 && name.starts_with(journal::PREFIX));
    let checkpoint = read_checkpoint(disk, has_journal || !segments.is_empty(), &mut report)?;
    let of_journal: u64 = top.iter().map(|(_, bytes)| bytes).sum();
    let runs = read_journal(disk, checkpoint.as_ref(), &mut report)?;
    report.files += top.len() as u64;
    report.bytes += of_journal;
    progress(report.bytes, total);
    let sizes = |kind: NameKind| {
        let of_kind = segments.iter().filter_map(move |(name, bytes)| match SegmentId::parse(name) {
            Some((id, found)) if found == kind => Some((id, *bytes)),
            _ => None,
        });
        of_kind.collect::<BTreeMap<SegmentId, u64>>()
    };
    let (files, indexes) = (sizes(NameKind::Segment), sizes(NameKind::Index));
    let entries: BTreeMap<LogId, &LogEntry> =
        checkpoint.iter().flat_map(|checkpoint| &checkpoint.logs).map(|log| (log.id, log)).collect();
    let logs: BTreeSet<LogId> = files.keys().map(|id| id.log).chain(entries.keys().copied()).collect();
    // a copy ends where its checkpoint says: what lies behind is of one that broke off
    let is_copy = checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.next_group == NO_JOURNAL);
    for id in logs {
        let of_log = |id: LogId| SegmentId { log: id, number: 0 }..=SegmentId { log: id, number: u64::MAX };
        let log = Log {
            id,
            entry: entries.get(&id).copied(),
            files: files.range(of_log(id)).map(|(segment, bytes)| (segment.number, *bytes)).collect(),
            indexes: indexes.range(of_log(id)).map(|(segment, _)| segment.number).collect(),
            runs: runs.get(&id).map_or(&[][..], Vec::as_slice),
            durable: checkpoint.as_ref().map_or(Durable::Later, |checkpoint| checkpoint.durable),
            is_copy,
        };
        log.verify(disk, &mut report, &mut |bytes| progress(bytes, total));
    }
    progress(total, total);
    Ok(report)
}

fn read_checkpoint(disk: &dyn Disk, is_needed: bool, report: &mut Report) -> Result<Option<Checkpoint>> {
    match Checkpoint::read(disk) {
        Ok(None) if is_needed => {
            let what = "the file is missing, but there are segments or a journal";
            report.damage(crate::checkpoint::NAME, 0, what, Mend::Checkpoint);
            Ok(None)
        }
        Ok(checkpoint) => Ok(checkpoint),
        Err(error) if error.kind() == ErrorKind::Refused => Err(error),
        Err(error) => {
            report.damage(crate::checkpoint::NAME, 0, error.to_string(), Mend::Checkpoint);
            Ok(None)
        }
    }
}

/// What the journal holds of each log, in order. Without a checkpoint nobody knows what of it is still needed.
fn read_journal(
    disk: &dyn Disk,
    checkpoint: Option<&Checkpoint>,
    report: &mut Report,
) -> Result<BTreeMap<LogId, Vec<ReplayRun>>> {
    let mut runs: BTreeMap<LogId, Vec<ReplayRun>> = BTreeMap::new();
    let Some(checkpoint) = checkpoint else { return Ok(runs) };
    let replayed = replay(disk, checkpoint.next_group, |group| {
        if !group.is_before(checkpoint.epoch) {
            for run in group.runs {
                runs.entry(run.segment.id.log).or_default().push(run);
            }
        }
        Ok(())
    });
    match replayed {
        Ok(_) => Ok(runs),
        Err(error) if error.kind() == ErrorKind::Refused => Err(error),
        Err(error) => {
            let (file, offset) = error.place().unwrap_or(("the journal", 0));
            let mend = if file == crate::checkpoint::NAME { Mend::Checkpoint } else { Mend::Journal };
            report.damage(file, offset, error.to_string(), mend);
            Ok(runs)
        }
    }
}
