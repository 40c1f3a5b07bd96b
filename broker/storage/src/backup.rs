//! A copy of all logs at one moment, taken while they are written to, and laid down somewhere else.
//!
//! ```text
//!   Storage::snapshot ─► a checkpoint of that moment, kept in memory
//!   Snapshot::copy ────► what of each segment is not held already ─► checkpoint        (segments only grow, so bytes up to
//!   Receiver ──────────► segments, synced ─► checkpoint ─► what is no longer named goes   the noted end never change)
//! ```
//!
//! Why: a copy of files that are being written is no copy of any moment. A laid-down copy is a data directory without a journal:
//! `verify` reads it, and a broker could open it. It ends where its checkpoint says, whatever lies behind, and the checkpoint goes
//! last, so an earlier copy in the same place stays whole until the new one is (but for segments that a power loss has taken from the
//! original, modes `interval` and `os`: those are written anew in their place). Not here: the catalog (the engine's), how parts travel.

use crate::LogId;
use crate::checkpoint::{Checkpoint, LogEntry, SegmentEntry, entry_of};
use crate::disk::{Disk, DiskFile, Sync, WriteMode};
use crate::error::{Error, ErrorKind, Result};
use crate::journal::NO_JOURNAL;
use crate::segment::{FOLDER, SegmentId};
use crate::storage::Storage;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tidemill_types::{FrameHeader, SequenceIndex};

/// Bytes of a segment in one part.
const PART_BYTES: u64 = 1 << 20;

/// A segment that an earlier copy holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Whose it is.
    pub log: LogId,
    /// Which of the log's.
    pub number: u64,
    /// Index of its first frame.
    pub base: SequenceIndex,
    /// Size of the file.
    pub capacity: u64,
    /// Up to where it is there.
    pub end: u64,
    /// The index behind the last frame that is there.
    pub next: SequenceIndex,
}

/// A piece of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Whose it is.
    pub log: LogId,
    /// Which of the log's.
    pub number: u64,
    /// Size of the file.
    pub capacity: u64,
    /// Where the bytes belong.
    pub offset: u64,
    /// The bytes.
    pub bytes: Bytes,
}

/// All logs at one moment.
pub struct Snapshot {
    storage: Arc<Storage>,
    checkpoint: Checkpoint,
}

impl Storage {
    /// Notes where every log stands: everything acknowledged before the call is within. Blocks for as long as a write group
    /// takes.
    pub fn snapshot(self: &Arc<Self>) -> Snapshot {
        let shared = &self.shared;
        let settled = shared.committer.lock();
        let now = shared.clock.monotonic();
        let mut logs: Vec<_> = shared.logs.read().values().map(|log| entry_of(log, now)).collect();
        drop(settled);
        // the copy ends where the checkpoint says
        logs.iter_mut().for_each(|log| log.in_flight = false);
        let checkpoint = Checkpoint {
            next_group: NO_JOURNAL,
            epoch: shared.epoch,
            directory: 0, // what is made of the copy has a name of its own
            durable: shared.written_durable(),
            logs,
        };
        Snapshot { storage: self.clone(), checkpoint }
    }
}

impl Snapshot {
    /// Gives every part that is not held; then the checkpoint of the copy. What has been trimmed since is left out, and so
    /// are the records before it. Blocks on the disk.
    ///
    /// Errors: those of reading a segment, and of `give`, which ends the copy.
    pub fn copy(mut self, held: &[Held], give: &mut dyn FnMut(Part) -> Result<()>) -> Result<Bytes> {
        let held: BTreeMap<_, _> = held.iter().map(|held| ((held.log, held.number), held)).collect();
        for log in &mut self.checkpoint.logs {
            let mut gone = 0;
            for (at, segment) in log.segments.iter().enumerate() {
                let behind = log.segments.get(at + 1).map_or(log.durable, |next| next.base);
                let known = held.get(&(log.id, segment.number));
                let known = known.filter(|held| is_beginning(&self.storage, held, segment, behind));
                let from = known.map_or(0, |held| held.end);
                if !copy_segment(&self.storage, log.id, segment, from, give)? {
                    gone = at + 1;
                }
            }
            forget(log, gone);
        }
        Ok(self.checkpoint.encode().into())
    }
}

/// Whether what is held is the beginning of the segment, behind which `behind` comes. Not after a power loss has taken what had been
/// copied (modes `interval` and `os`): there the log has gone on with other frames, from a place before the end of the copy on.
fn is_beginning(storage: &Storage, held: &Held, segment: &SegmentEntry, behind: SequenceIndex) -> bool {
    if (held.base, held.capacity) != (segment.base, segment.capacity) || held.end > segment.end {
        return false;
    }
    if held.end == segment.end {
        return behind.follows(held.next);
    }
    let id = SegmentId { log: held.log, number: held.number };
    let head = storage.shared.open_segments.get(id).and_then(|open| {
        open.ready(held.end, FrameHeader::BYTES)?;
        open.bytes(held.end, FrameHeader::BYTES)
    });
    let header = head.ok().and_then(|head| FrameHeader::decode(&head).ok());
    header.is_some_and(|header| header.log == held.log.get() && header.first.follows(held.next))
}

/// Takes the first segments out of a log.
fn forget(log: &mut LogEntry, count: usize) {
    log.segments.drain(..count);
    let first = log.segments.first().map_or(log.durable, |first| first.base);
    if count > 0 {
        log.horizon = log.horizon.max(first);
    }
    if log.segments.is_empty() {
        log.index.clear();
    }
}

/// Whether the segment is still there.
fn copy_segment(
    storage: &Storage,
    log: LogId,
    segment: &SegmentEntry,
    from: u64,
    give: &mut dyn FnMut(Part) -> Result<()>,
) -> Result<bool> {
    if from >= segment.end {
        return Ok(true);
    }
    let id = SegmentId { log, number: segment.number };
    // held open, it is neither removed nor used again
    let open = match storage.shared.open_segments.get(id) {
        Ok(open) => open,
        Err(_) if !storage.shared.holds(id) => return Ok(false),
        Err(error) => return Err(error),
    };
    if !storage.shared.holds(id) {
        return Ok(false);
    }
    let mut offset = from;
    while offset < segment.end {
        let length = (segment.end - offset).min(PART_BYTES);
        let length = usize::try_from(length).expect("a part fits in memory");
        let bytes = open.bytes(offset, length)?;
        open.ready(offset, length)?;
        give(Part { log, number: segment.number, capacity: segment.capacity, offset, bytes })?;
        offset += length as u64;
    }
    Ok(true)
}

/// What a copy in this directory holds; nothing if there is none.
pub fn held(disk: &dyn Disk) -> Result<Vec<Held>> {
    let Some(checkpoint) = Checkpoint::read(disk)? else { return Ok(Vec::new()) };
    let list = disk.list(FOLDER).map_err(|e| Error::io(format!("cannot list {FOLDER}"), e))?;
    let sizes: BTreeMap<_, _> = list.into_iter().collect();
    let of_log = |log: &LogEntry| {
        let behind = log.segments.iter().skip(1).map(|next| next.base).chain([log.durable]);
        let of_segment = |(segment, next): (&SegmentEntry, SequenceIndex)| Held {
            log: log.id,
            number: segment.number,
            base: segment.base,
            capacity: segment.capacity,
            end: segment.end,
            next,
        };
        log.segments.iter().zip(behind).map(of_segment).collect::<Vec<_>>()
    };
    let held = checkpoint.logs.iter().flat_map(of_log).filter(|held| {
        let file = SegmentId { log: held.log, number: held.number }.file();
        let name = file.rsplit('/').next().unwrap_or_default();
        sizes.get(name) == Some(&held.capacity)
    });
    Ok(held.collect())
}

/// The checkpoint of the copy in this directory.
///
/// Errors: [`ErrorKind::Damaged`] if there is none.
pub fn checkpoint(disk: &dyn Disk) -> Result<Bytes> {
    let none = || Error::new(ErrorKind::Damaged, format!("{} has no checkpoint", disk.path()));
    Ok(Checkpoint::read(disk)?.ok_or_else(none)?.encode().into())
}

/// Copies a held segment from one directory to another, as far as it is there.
pub fn copy_file(from: &dyn Disk, segment: &Held, to: &mut Receiver<'_>) -> Result<()> {
    let Held { log, number, capacity, end, .. } = *segment;
    let name = SegmentId { log, number }.file();
    let cannot = |e| Error::io(format!("cannot read {name}"), e);
    let file = from.open(&name, WriteMode::Buffered).map_err(cannot)?;
    for offset in (0..end).step_by(usize::try_from(PART_BYTES).expect("a part fits in memory")) {
        let mut bytes =
            vec![0; usize::try_from((end - offset).min(PART_BYTES)).expect("a part fits in memory")];
        file.read(offset, &mut bytes).map_err(cannot)?;
        to.take(&Part { log, number, capacity, offset, bytes: bytes.into() })?;
    }
    Ok(())
}

/// Lays down a copy, beside an earlier one in the same directory if there is one.
pub struct Receiver<'a> {
    disk: &'a dyn Disk,
    open: Option<(SegmentId, Arc<dyn DiskFile>)>,
    bytes: u64,
}

impl<'a> Receiver<'a> {
    /// Into this directory, which must be locked.
    pub fn new(disk: &'a dyn Disk) -> Self {
        Self { disk, open: None, bytes: 0 }
    }

    /// Bytes of parts so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Lays down a part. Those of one segment come one behind the other.
    pub fn take(&mut self, part: &Part) -> Result<()> {
        let id = SegmentId { log: part.log, number: part.number };
        let file = match &self.open {
            Some((open, file)) if *open == id => file.clone(),
            _ => {
                self.sync()?;
                let file = self.file(id, part.capacity)?;
                self.open = Some((id, file.clone()));
                file
            }
        };
        let cannot = |e| Error::io(format!("cannot write {}", id.file()), e);
        file.write(part.offset, &[&part.bytes], Sync::None).map_err(cannot)?;
        self.bytes += part.bytes.len() as u64;
        Ok(())
    }

    fn file(&self, id: SegmentId, capacity: u64) -> Result<Arc<dyn DiskFile>> {
        let name = id.file();
        if let Ok(file) = self.disk.open(&name, WriteMode::Buffered) {
            if file.len() == capacity {
                return Ok(file);
            }
            self.remove(&name)?;
        }
        let made = self.disk.create(&name, capacity, WriteMode::Buffered);
        made.map_err(|e| Error::io(format!("cannot make {name}"), e))
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.disk.remove(name).map_err(|e| Error::io(format!("cannot remove {name}"), e))
    }

    /// Makes what was laid down durable.
    pub fn sync(&mut self) -> Result<()> {
        if let Some((id, file)) = self.open.take() {
            file.sync().map_err(|e| Error::io(format!("cannot sync {}", id.file()), e))?;
        }
        self.disk.sync_dir(FOLDER).map_err(|e| Error::io(format!("cannot sync {FOLDER}"), e))
    }

    /// Makes this the copy that the directory holds, and removes segments that it does not name. What belongs beside it must be
    /// there already. Returns how many segments it has.
    ///
    /// Errors: [`ErrorKind::Damaged`] if the bytes are no checkpoint or name segments that are not there; [`ErrorKind::Io`],
    /// [`ErrorKind::Full`].
    pub fn finish(mut self, checkpoint: &[u8]) -> Result<usize> {
        self.sync()?;
        let checkpoint = Checkpoint::decode(checkpoint)?;
        let list = self.disk.list(FOLDER).map_err(|e| Error::io(format!("cannot list {FOLDER}"), e))?;
        let there: BTreeMap<String, u64> =
            list.into_iter().map(|(name, bytes)| (format!("{FOLDER}/{name}"), bytes)).collect();
        let mut named = BTreeSet::new();
        for log in &checkpoint.logs {
            for segment in &log.segments {
                let file = SegmentId { log: log.id, number: segment.number }.file();
                if there.get(&file) != Some(&segment.capacity) {
                    return Err(Error::new(ErrorKind::Damaged, format!("{file} did not come whole")));
                }
                named.insert(file);
            }
        }
        checkpoint.write(self.disk)?;
        for name in there.keys().filter(|name| !named.contains(*name)) {
            self.remove(name)?;
        }
        self.sync()?;
        Ok(named.len())
    }
}
