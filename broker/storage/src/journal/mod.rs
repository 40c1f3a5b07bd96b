//! The journal: one log for the small frames of all shards, so that one write makes them all durable.
//!
//! Its files are preallocated and written once before use (a direct write into written blocks costs half of one into fresh
//! blocks), filled one after the other, and used again once a checkpoint no longer needs them:
//!
//! ```text
//!   spare ──rotate──► current ──full──► used ──checkpoint passed it──► spare
//! ```
//!
//! Files start small and double with the load up to sixteen times the first, all together never above the limit; at
//! the limit the committer waits for a checkpoint.
//!
//! Not here: where frames live in segments, who waits for them.

mod format;
mod mend;
mod replay;

pub(crate) use format::{Durable, RUN_HEAD_BYTES, ReplayGroup, ReplayRun};
pub(crate) use mend::{Survey, mend, survey};
pub(crate) use replay::{FIRST_GROUP, Found, NO_JOURNAL, replay};

use crate::disk::{ALIGNMENT, AlignedBuffer, Disk, DiskFile, Sync, WriteMode};
use crate::error::{Error, ErrorKind, Result};
use crate::log_state::Run;
use crate::settings::Settings;
use format::{FileHeader, GROUP_HEAD_BYTES, encode_group_heads};
use std::collections::VecDeque;
use std::sync::Arc;

pub(crate) const PREFIX: &str = "journal-";
const SUFFIX: &str = ".log";
/// Files double up to this many times the first.
const GROWTH_MAX: u64 = 16;
/// Groups are bounded: a larger write gains nothing and makes the next one wait.
const GROUP_BYTES_MAX: usize = 2 << 20;

/// Whether a group can be written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Ready,
    /// All files hold what no checkpoint covers yet.
    NeedsCheckpoint,
}

struct JournalFile {
    file: Arc<dyn DiskFile>,
    bytes: u64,
}

struct Current {
    file: JournalFile,
    generation: u64,
    offset: u64,
}

/// See the module's header.
pub(crate) struct Journal {
    disk: Arc<dyn Disk>,
    bytes_first: u64,
    bytes_max: u64,
    durable: Durable,
    current: Option<Current>,
    /// Full files, with the number of the first group *behind* each.
    used: VecDeque<(JournalFile, u64)>,
    spares: Vec<JournalFile>,
    /// Files that were filled since the last timed sync; at most the used ones.
    rotated: Vec<Arc<dyn DiskFile>>,
    total_bytes: u64,
    largest: u64,
    next_group: u64,
    next_generation: u64,
    next_id: u64,
}

/// A file that is being prepared outside the committer.
pub(crate) struct Preparation {
    name: String,
    bytes: u64,
}

impl Journal {
    /// Takes over the files that replay is done with: used, until the first checkpoint frees them.
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        settings: &Settings,
        durable: Durable,
        found: Found,
        next_group: u64,
    ) -> Self {
        let used: VecDeque<_> =
            found.files.into_iter().map(|f| (JournalFile { bytes: f.len(), file: f }, next_group)).collect();
        Self {
            disk,
            bytes_first: settings.journal_file_bytes,
            bytes_max: settings.journal_bytes_max,
            durable,
            current: None,
            total_bytes: used.iter().map(|(file, _)| file.bytes).sum(),
            largest: used.iter().map(|(file, _)| file.bytes).max().unwrap_or(0),
            used,
            spares: Vec::new(),
            rotated: Vec::new(),
            next_group,
            next_generation: found.next_generation,
            next_id: found.next_id,
        }
    }

    /// Most bytes of frames that one group takes.
    pub(crate) fn group_bytes_max(&self) -> usize {
        GROUP_BYTES_MAX.min(usize::try_from(self.bytes_first / 4).unwrap_or(usize::MAX))
    }

    /// Number of the next group; all below it are durable (in mode `device`) and handed back to the caller.
    pub(crate) fn next_group(&self) -> u64 {
        self.next_group
    }
    pub(crate) fn total_bytes(&self) -> u64 {
        self.total_bytes
    }
    /// The files that were written since the last call, for syncs on a timer.
    pub(crate) fn take_unsynced(&mut self) -> Vec<Arc<dyn DiskFile>> {
        let mut files = std::mem::take(&mut self.rotated);
        files.extend(self.current.as_ref().map(|current| current.file.file.clone()));
        files
    }

    /// Sees to it that the largest group of `runs` runs, and `slack` bytes more, fit the current file, if need be by
    /// turning to the next one.
    pub(crate) fn ensure_room(&mut self, runs: usize, slack: usize) -> Result<Room> {
        // opened on a full disk: what recovery cut must not be written over before a checkpoint says so
        if self.current.is_none() && !self.used.is_empty() {
            return Ok(Room::NeedsCheckpoint);
        }
        let needed = file_bytes_of(runs, self.group_bytes_max() + slack) as u64;
        if self.current.as_ref().is_some_and(|current| current.offset + needed <= current.file.bytes) {
            return Ok(Room::Ready);
        }
        let next = match self.spares.pop() {
            Some(spare) => spare,
            None => match self.grow()? {
                Some(file) => file,
                None => return Ok(Room::NeedsCheckpoint),
            },
        };
        self.begin(next)?;
        Ok(Room::Ready)
    }

    /// A new file, if there may be another one.
    fn grow(&mut self) -> Result<Option<JournalFile>> {
        let bytes = self.next_size();
        if self.total_bytes + bytes > self.bytes_max && self.total_bytes > 0 {
            return Ok(None);
        }
        let name = self.next_name();
        match self.disk.create(&name, bytes, WriteMode::Direct) {
            Ok(file) => {
                self.total_bytes += bytes;
                self.largest = self.largest.max(bytes);
                Ok(Some(JournalFile { file, bytes }))
            }
            // a full disk: what a checkpoint frees may do
            Err(_) if !self.used.is_empty() => Ok(None),
            Err(e) => {
                Err(Error::io(format!("cannot allocate {bytes} bytes of journal"), e)
                    .with_kind(ErrorKind::Full))
            }
        }
    }

    fn next_size(&self) -> u64 {
        let doubled = (self.largest * 2).clamp(self.bytes_first, self.bytes_first * GROWTH_MAX);
        // the last file may be a smaller one, so that the limit is used up
        let left = self.bytes_max.saturating_sub(self.total_bytes) / self.bytes_first * self.bytes_first;
        if left >= self.bytes_first { doubled.min(left) } else { doubled }
    }

    fn next_name(&mut self) -> String {
        let name = name_of(self.next_id);
        self.next_id += 1;
        name
    }

    /// Turns to `file`: its header, durable, begins a new generation.
    fn begin(&mut self, file: JournalFile) -> Result<()> {
        let header = FileHeader {
            generation: self.next_generation,
            first_group: self.next_group,
            file_bytes: file.bytes,
            durable: self.durable,
        };
        let mut block = AlignedBuffer::with_capacity(ALIGNMENT);
        block.extend_from_slice(&header.encode());
        block.pad_to_alignment();
        let written = file.file.write_aligned(0, &block, Sync::Data).and_then(|()| self.disk.sync_dir(""));
        if let Err(error) = written {
            self.spares.push(file);
            return Err(Error::io("cannot begin a journal file", error).with_kind(ErrorKind::Poisoned));
        }
        self.next_generation += 1;
        if let Some(full) = self.current.take() {
            self.rotated.push(full.file.file.clone());
            self.used.push_back((full.file, self.next_group));
        }
        self.current = Some(Current { file, generation: header.generation, offset: ALIGNMENT as u64 });
        Ok(())
    }

    /// Writes all runs as one group. The frames lie in `buffer` from the returned offset on, in order. There must be room
    /// ([`Journal::ensure_room`]).
    pub(crate) fn append(
        &mut self,
        buffer: &mut AlignedBuffer,
        runs: &[&Run],
        sync: Sync,
    ) -> std::io::Result<usize> {
        let current = self.current.as_mut().expect("room was made");
        let places: Vec<_> = runs.iter().map(|run| (run.segment, run.offset, run.bytes)).collect();
        let heads = GROUP_HEAD_BYTES + runs.len() * RUN_HEAD_BYTES;
        buffer.clear();
        buffer.extend_zeros(heads);
        encode_group_heads(buffer.as_mut_slice(), current.generation, self.next_group, &places);
        for frame in runs.iter().flat_map(|run| &run.frames) {
            buffer.extend_from_slice(&frame.head);
            buffer.extend_from_slice(&frame.body);
        }
        buffer.pad_to_alignment();
        assert!(current.offset + buffer.len() as u64 <= current.file.bytes, "room was made for the group");
        current.file.file.write_aligned(current.offset, buffer, sync)?;
        current.offset += buffer.len() as u64;
        self.next_group += 1;
        Ok(heads)
    }

    /// A checkpoint covers all groups below `group`: files that hold nothing else are spare again.
    pub(crate) fn release(&mut self, group: u64) {
        while self.used.front().is_some_and(|(_, behind)| *behind <= group) {
            let Some((file, _)) = self.used.pop_front() else { break };
            // one that a crash left half allocated has no room for a group
            if file.bytes >= self.bytes_first {
                self.spares.push(file);
            }
        }
        if self.used.is_empty() {
            self.rotated.clear(); // what they held is safe in the segments
        }
    }

    /// What to prepare so that the next turn finds a written file: none while there is a spare, the current file is less
    /// than half full, or the limit is reached.
    pub(crate) fn plan_spare(&mut self) -> Option<Preparation> {
        let half_full = self.current.as_ref().is_some_and(|current| current.offset * 2 > current.file.bytes);
        let bytes = self.next_size();
        if !self.spares.is_empty() || !half_full || self.total_bytes + bytes > self.bytes_max {
            return None;
        }
        self.total_bytes += bytes;
        Some(Preparation { name: self.next_name(), bytes })
    }

    /// The first file of a new directory.
    pub(crate) fn plan_first(&mut self) -> Preparation {
        self.total_bytes += self.bytes_first;
        Preparation { name: self.next_name(), bytes: self.bytes_first }
    }

    /// Takes in the outcome of a preparation.
    pub(crate) fn prepared(&mut self, plan: &Preparation, file: Option<Arc<dyn DiskFile>>) {
        match file {
            Some(file) => {
                self.largest = self.largest.max(plan.bytes);
                self.spares.insert(0, JournalFile { file, bytes: plan.bytes });
            }
            None => self.total_bytes -= plan.bytes,
        }
    }
}

impl Preparation {
    /// Makes the file and writes all of it once. Slow: runs in the background.
    pub(crate) fn run(&self, disk: &dyn Disk) -> std::io::Result<Arc<dyn DiskFile>> {
        let file = disk.create(&self.name, self.bytes, WriteMode::Direct)?;
        self.fill(disk, &*file).inspect_err(|_| drop(disk.remove(&self.name)))?;
        Ok(file)
    }

    fn fill(&self, disk: &dyn Disk, file: &dyn DiskFile) -> std::io::Result<()> {
        const STEP: usize = 1 << 20;
        let mut zeros = AlignedBuffer::with_capacity(STEP);
        zeros.extend_zeros(STEP.min(usize::try_from(self.bytes).unwrap_or(STEP)));
        let mut at = 0;
        while at + zeros.len() as u64 <= self.bytes {
            file.write_aligned(at, &zeros, Sync::None)?;
            at += zeros.len() as u64;
        }
        file.sync()?;
        disk.sync_dir("")
    }
}

fn name_of(id: u64) -> String {
    format!("{PREFIX}{id:08x}{SUFFIX}")
}

/// What a group of so many runs and frame bytes takes in a file.
fn file_bytes_of(runs: usize, frame_bytes: usize) -> usize {
    (GROUP_HEAD_BYTES + runs * RUN_HEAD_BYTES + frame_bytes).next_multiple_of(ALIGNMENT)
}
