//! Recovery: from what a directory holds to open logs.
//!
//! ```text
//!   checkpoint ─► journal groups behind it, to their places ─► each log written since: forward from its safe point
//!   while frames are intact ─► cut ─► sync what was touched
//! ```
//!
//! What is cut was never acknowledged. Damage before intact frames is told (naming file and offset) and refuses the
//! directory: nothing is skipped silently. The time it takes depends on what was written since the checkpoint, not on what
//! is stored: a log that nothing was written to is not even opened.

mod scan;

pub(crate) use scan::{LOOK_BEHIND_BYTES, later_frame};

use crate::LogId;
use crate::checkpoint::{self, Checkpoint, LogEntry};
use crate::disk::{Disk, DiskFile, Sync};
use crate::epochs::EpochEnds;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::{self, Durable, FIRST_GROUP, Found, NO_JOURNAL, ReplayRun, replay};
use crate::log_state::{Closing, LogState, Segment};
use crate::producers::Producers;
use crate::segment::{FOLDER, NameKind, OpenSegments, Pool, SegmentHeader, SegmentId, SparseIndex};
use crate::watermarks::Marks;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use tidemill_types::{Epoch, MonotonicMs, SequenceIndex};

/// What recovery found.
pub(crate) struct Recovered {
    pub logs: Vec<(LogId, LogState)>,
    pub journal: Found,
    pub next_group: u64,
}

/// What recovery works with.
pub(crate) struct Recovery<'a> {
    pub disk: &'a Arc<dyn Disk>,
    pub pool: &'a Pool,
    pub open: &'a OpenSegments,
    pub epoch: Epoch,
    pub now: MonotonicMs,
    /// Segments that go once nothing refuses the directory any more.
    pub leaving: RefCell<Vec<SegmentId>>,
}

/// One log on its way back.
struct Reviving {
    id: LogId,
    state: LogState,
    /// Segment files by number, with their size.
    files: BTreeMap<u64, u64>,
    /// What the journal holds of it, in order.
    runs: Vec<ReplayRun>,
    /// No checkpoint knows it, frames were in flight at the checkpoint, or the journal announces frames.
    is_named: bool,
}

/// What a directory is known to have used: the catalog that belongs to it has counted at least as much. To open it with another
/// would remove the logs that this one does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    /// The last epoch in which it was opened.
    pub epoch: Epoch,
    /// The highest log that has a file.
    pub log: LogId,
    /// Its name; 0 if its checkpoint does not tell.
    pub directory: u32,
    /// It is a copy that was not opened yet.
    pub is_copy: bool,
}

/// What the directory has used; none of a new one.
///
/// Errors: [`ErrorKind::Damaged`] if the checkpoint is not intact, or is missing though there are segments; [`ErrorKind::Io`];
/// [`ErrorKind::Refused`] for one of a later version.
pub fn used(disk: &dyn Disk) -> Result<Option<Used>> {
    let Some(checkpoint) = Checkpoint::read(disk)? else {
        return match newest_log(disk)? {
            None => Ok(None),
            Some(_) => Err(no_checkpoint(disk, "there are segments")),
        };
    };
    let log = newest_log(disk)?.unwrap_or(LogId::new(0));
    let Checkpoint { epoch, directory, next_group, .. } = checkpoint;
    Ok(Some(Used { epoch, log, directory, is_copy: next_group == NO_JOURNAL }))
}

/// Whether no start has ever come so far as to make anything of records here.
///
/// Errors: [`ErrorKind::Io`].
pub fn is_unused(disk: &dyn Disk) -> Result<bool> {
    let list = |folder| disk.list(folder).map_err(|e| Error::io(format!("cannot list {}", disk.path()), e));
    let is_of_records = |name: &str| name == checkpoint::NAME || name.starts_with(journal::PREFIX);
    Ok(list(FOLDER)?.is_empty() && !list("")?.iter().any(|(name, _)| is_of_records(name)))
}

/// The highest log that has a segment.
fn newest_log(disk: &dyn Disk) -> Result<Option<LogId>> {
    let names = disk.list(FOLDER).map_err(|e| Error::io(format!("cannot list {FOLDER}"), e))?;
    let logs = names.iter().filter_map(|(name, _)| match SegmentId::parse(name) {
        Some((id, NameKind::Segment)) => Some(id.log),
        _ => None,
    });
    Ok(logs.max())
}

/// Recovers the logs `live`; files of others are removed.
pub(crate) fn recover(work: &Recovery<'_>, live: &[LogId]) -> Result<Recovered> {
    let checkpoint = Checkpoint::read(&**work.disk)?;
    if let Some(checkpoint) = &checkpoint
        && work.epoch <= checkpoint.epoch
    {
        return Err(old_catalog(work.epoch, checkpoint.epoch));
    }
    // a process that was killed may not have come to it; what is removed below must not go before the name it goes by
    work.disk.sync_dir("").map_err(|e| Error::io("cannot sync the data directory", e))?;
    let (mut files, sidecars) = list_segments(work)?;
    let mut logs = revive(work, checkpoint.as_ref(), &mut files, live)?;
    remove_sidecars(work, &sidecars, &logs)?;
    for (id, numbers) in files {
        leave(work, id, numbers.into_keys());
    }
    let from = checkpoint.as_ref().map_or(NO_JOURNAL, |checkpoint| checkpoint.next_group);
    let mut touched = BTreeSet::new();
    let (next_group, journal) = replay(&**work.disk, from, |group| {
        let Some(checkpoint) = &checkpoint else {
            return Err(no_checkpoint(&**work.disk, "the journal holds records"));
        };
        if group.is_before(checkpoint.epoch) {
            return Ok(()); // cut by a start since: the file that comes in its place is missing
        }
        for run in group.runs {
            if let Some(log) = logs.get_mut(&run.segment.id.log) {
                log.take_run(run);
            }
        }
        Ok(())
    })?;
    for name in &journal.unfinished {
        remove(work, name)?;
    }
    let durable = checkpoint.as_ref().map_or(Durable::Later, |checkpoint| checkpoint.durable);
    for log in logs.values_mut() {
        if from == NO_JOURNAL {
            // a copy ends where its checkpoint says: what lies behind is of one that broke off
            let behind = log.files.split_off(&log.state.next_segment);
            leave(work, log.id, behind.into_keys());
        } else if log.may_hold_more() {
            put_back(work, log, &mut touched)?;
            scan::forward(work, log, durable, &mut touched)?;
        }
        log.begin_epoch(work.epoch)?;
    }
    // what was put back or found must be durable before anybody reads it; what was cut away again need not
    let is_kept = |id: SegmentId| logs.get(&id.log).is_some_and(|log| log.files.contains_key(&id.number));
    work.open.sync(&touched, is_kept)?;
    remove_left(work)?;
    let logs = logs.into_iter().map(|(id, log)| (id, log.state)).collect();
    Ok(Recovered { logs, journal, next_group: next_group.max(FIRST_GROUP) })
}

impl Reviving {
    /// Notes what a journal group holds of it.
    fn take_run(&mut self, run: ReplayRun) {
        let first = self.state.segments.front().map_or(self.state.next_segment, |segment| segment.number);
        if run.bytes.is_empty() {
            self.is_named = true; // an announcement
        } else if run.segment.id.number >= first {
            self.runs.push(run);
        }
    }

    /// Where the last run ends, by segment and offset.
    fn replayed_end(&self) -> Option<(u64, u64)> {
        self.runs.iter().map(|run| (run.segment.id.number, run.offset + run.bytes.len() as u64)).max()
    }

    /// Whether anything was written to it after the checkpoint: the journal names every log before its first frame that
    /// lies in a segment alone.
    fn may_hold_more(&self) -> bool {
        let unknown_files =
            self.files.keys().next_back().is_some_and(|number| *number >= self.state.next_segment);
        self.is_named || !self.runs.is_empty() || unknown_files
    }

    /// Numbers go on with the first of the new epoch.
    fn begin_epoch(&mut self, epoch: Epoch) -> Result<()> {
        let first = epoch.first_index();
        let durable = self.state.marks.durable();
        if durable > first {
            return Err(old_catalog(epoch, durable.epoch()));
        }
        let horizon = if self.state.segments.is_empty() { first } else { self.state.marks.horizon() };
        self.state.marks = Marks::new(horizon, first, first);
        self.state.epochs = EpochEnds::of_ended(durable);
        Ok(())
    }
}

/// An epoch that is not above every one used before could give a number a second meaning.
pub(crate) fn old_catalog(epoch: Epoch, used: Epoch) -> Error {
    let (epoch, used) = (epoch.get(), used.get());
    let message = format!(
        "the catalog begins epoch {epoch} but the log has used epoch {used}; was an older catalog put back?"
    );
    Error::new(ErrorKind::Refused, message)
}

fn no_checkpoint(disk: &dyn Disk, what: &str) -> Error {
    let message =
        format!("the file checkpoint is missing from {}, but {what}; run `tidemill repair`", disk.path());
    Error::new(ErrorKind::Damaged, message)
}

type Files = BTreeMap<LogId, BTreeMap<u64, u64>>;

/// Segment files by log and number, and whose sidecars there are. Files of the pool are taken over.
fn list_segments(work: &Recovery<'_>) -> Result<(Files, Vec<SegmentId>)> {
    let mut files = Files::new();
    let mut sidecars = Vec::new();
    let names = work.disk.list(FOLDER).map_err(|e| Error::io(format!("cannot list {FOLDER}"), e))?;
    for (name, bytes) in names {
        match SegmentId::parse(&name) {
            Some((id, NameKind::Segment)) => {
                files.entry(id.log).or_default().insert(id.number, bytes);
            }
            Some((id, NameKind::Index)) => sidecars.push(id),
            None if work.pool.adopt(&name, bytes)? => {}
            None => {
                tracing::warn!(file = %name, "a file in the segments folder is not known; it is left alone")
            }
        }
    }
    Ok((files, sidecars))
}

/// Removes the indexes of segments that are gone or that were not full at the checkpoint: those may end otherwise than an
/// index says that was written meanwhile.
fn remove_sidecars(
    work: &Recovery<'_>,
    sidecars: &[SegmentId],
    logs: &BTreeMap<LogId, Reviving>,
) -> Result<()> {
    for id in sidecars {
        let segments = logs.get(&id.log).map(|log| &log.state.segments);
        let full = segments.and_then(|all| Some(all.front()?.number..all.back()?.number));
        if !full.is_some_and(|full| full.contains(&id.number)) {
            remove(work, &id.index_file())?;
        }
    }
    Ok(())
}

/// The live logs as the checkpoint knows them, each with its files.
fn revive(
    work: &Recovery<'_>,
    checkpoint: Option<&Checkpoint>,
    files: &mut Files,
    live: &[LogId],
) -> Result<BTreeMap<LogId, Reviving>> {
    if checkpoint.is_none() && !files.is_empty() {
        return Err(no_checkpoint(&**work.disk, "there are segments"));
    }
    let known: HashMap<LogId, &LogEntry> =
        checkpoint.iter().flat_map(|checkpoint| &checkpoint.logs).map(|log| (log.id, log)).collect();
    let mut logs = BTreeMap::new();
    for &id in live {
        let mut numbers = files.remove(&id).unwrap_or_default();
        let state = match known.get(&id) {
            Some(entry) => {
                let first = entry.segments.first().map_or(entry.next_segment, |segment| segment.number);
                let kept = numbers.split_off(&first);
                leave(work, id, std::mem::replace(&mut numbers, kept).into_keys());
                known_state(id, entry, &numbers, work.now)?
            }
            None => LogState {
                marks: Marks::new(SequenceIndex::ZERO, SequenceIndex::ZERO, SequenceIndex::ZERO),
                ..LogState::empty(work.epoch)
            },
        };
        let is_named = known.get(&id).is_none_or(|entry| entry.in_flight);
        logs.insert(id, Reviving { id, state, files: numbers, runs: Vec::new(), is_named });
    }
    Ok(logs)
}

fn known_state(
    id: LogId,
    entry: &LogEntry,
    files: &BTreeMap<u64, u64>,
    now: MonotonicMs,
) -> Result<LogState> {
    let mut segments = VecDeque::with_capacity(entry.segments.len());
    for (at, known) in entry.segments.iter().enumerate() {
        let file = SegmentId { log: id, number: known.number }.file();
        match files.get(&known.number) {
            Some(bytes) if *bytes == known.capacity => {}
            Some(bytes) => {
                let message =
                    format!("{file} has {bytes} bytes where {} belong (offset {bytes})", known.capacity);
                return Err(Error::new(ErrorKind::Damaged, message));
            }
            None => return Err(Error::new(ErrorKind::Damaged, format!("{file} is missing (offset 0)"))),
        }
        let last = at + 1 == entry.segments.len();
        segments.push_back(Segment {
            number: known.number,
            base: known.base,
            capacity: known.capacity,
            placed_end: known.end,
            durable_end: known.end,
            first_arrival: known.first_arrival,
            last_arrival: known.last_arrival,
            index: last.then(|| SparseIndex::from_entries(known.capacity, entry.index.clone())),
            birth_synced: true,
        });
    }
    let mut producers = Producers::default();
    for (producer, batches) in &entry.producers {
        for batch in batches {
            producers.note(*producer, *batch, now);
        }
    }
    Ok(LogState {
        segments,
        marks: Marks::new(entry.horizon, entry.durable, entry.durable),
        epochs: EpochEnds::of_ended(entry.durable),
        next_segment: entry.next_segment,
        producers,
        newest: entry.newest,
        closing: if entry.sealed { Closing::Sealed } else { Closing::Open },
        deleted: false,
        announced: 0,
    })
}

/// Puts what the journal holds of a log to its places: one segment after the other, so that each is opened once.
fn put_back(work: &Recovery<'_>, log: &mut Reviving, touched: &mut BTreeSet<SegmentId>) -> Result<()> {
    let runs = std::mem::take(&mut log.runs);
    for of_segment in runs.chunk_by(|one, next| one.segment == next.segment) {
        let segment = of_segment[0].segment;
        let file = own_file(work, log, &segment)?;
        for stretch in of_segment.chunk_by(|one, next| one.offset + one.bytes.len() as u64 == next.offset) {
            let pieces: Vec<&[u8]> = stretch.iter().map(|run| &run.bytes[..]).collect();
            file.write(stretch[0].offset, &pieces, Sync::None).map_err(|e| not_put_back(&segment, e))?;
        }
        touched.insert(segment.id);
    }
    log.runs = runs;
    Ok(())
}

fn not_put_back(segment: &SegmentHeader, error: std::io::Error) -> Error {
    Error::io(format!("cannot put journal frames back into {}", segment.id.file()), error)
}

/// The file of a segment with its header; made anew if its name never reached the device.
fn own_file(work: &Recovery<'_>, log: &mut Reviving, segment: &SegmentHeader) -> Result<Arc<dyn DiskFile>> {
    let id = segment.id;
    if log.files.get(&id.number) != Some(&segment.capacity) {
        remove(work, &id.file())?;
        work.pool.make(id, segment.capacity)?;
        log.files.insert(id.number, segment.capacity);
    }
    let file = work.open.get(id)?.file.clone();
    // the header too: after a failed sync the page cache may show what the device never got
    file.write(0, &[&segment.encode()], Sync::None).map_err(|e| not_put_back(segment, e))?;
    Ok(file)
}

fn remove(work: &Recovery<'_>, name: &str) -> Result<()> {
    match work.disk.remove(name) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format!("cannot remove {name}"), e))
        }
        _ => Ok(()),
    }
}

/// These segments of a log are to go.
fn leave(work: &Recovery<'_>, log: LogId, numbers: impl Iterator<Item = u64>) {
    work.leaving.borrow_mut().extend(numbers.map(|number| SegmentId { log, number }));
}

fn remove_left(work: &Recovery<'_>) -> Result<()> {
    let leaving = work.leaving.take();
    for id in &leaving {
        work.open.take(*id);
        remove(work, &id.index_file())?;
        remove(work, &id.file())?;
    }
    if leaving.is_empty() {
        return Ok(());
    }
    work.disk.sync_dir(FOLDER).map_err(|e| Error::io(format!("cannot sync {FOLDER}"), e))
}
