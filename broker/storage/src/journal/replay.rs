//! Replay: finds the journal's files, walks their groups in order from the checkpoint on, stops where they end.
//!
//! A torn group can only be the newest. If a bad group is followed by an intact one, and the file's groups were made durable
//! one by one, the bad one was durable once: that is damage, and is told, never skipped.

use super::format::{Durable, FileHeader, ReplayGroup, decode_group};
use super::{PREFIX, SUFFIX};
use crate::bytes_le::u64_at;
use crate::checkpoint;
use crate::disk::{ALIGNMENT, Disk, DiskFile, WriteMode};
use crate::error::{Error, ErrorKind, Result};
use bytes::Bytes;
use std::sync::Arc;

/// The files of a journal and what is free to give out.
pub(crate) struct Found {
    pub files: Vec<Arc<dyn DiskFile>>,
    /// Files that were never allocated whole; whoever owns the directory removes them.
    pub unfinished: Vec<String>,
    pub next_generation: u64,
    pub next_id: u64,
}

/// What a journal directory holds.
pub(super) struct Listed {
    pub(super) found: Found,
    pub(super) readable: Vec<Readable>,
    /// Files without an intact header.
    pub(super) headless: Vec<(String, Bytes)>,
    /// Files that have another size than their header says.
    pub(super) misshapen: Vec<Readable>,
}

pub(super) struct Readable {
    pub(super) name: String,
    pub(super) header: FileHeader,
    /// Only its header may be touched before it is ready.
    pub(super) bytes: Bytes,
    file: Arc<dyn DiskFile>,
}

impl Readable {
    /// An error if the disk cannot give all of it.
    fn ready(&self) -> Result<()> {
        ready(&*self.file, &self.name, self.bytes.len())
    }
}

fn ready(file: &dyn DiskFile, name: &str, bytes: usize) -> Result<()> {
    file.ready(0, bytes).map_err(|e| Error::io(format!("cannot read {name}"), e))
}

/// The number of a directory's first group.
pub(crate) const FIRST_GROUP: u64 = 1;
/// Instead of the number of the next group: no journal belongs to it. So says the checkpoint of a copy; a directory that was
/// opened has a file of its journal always.
pub(crate) const NO_JOURNAL: u64 = 0;

/// Hands every group from `from` on to `apply`, in order. Returns the number of the next group, and the files.
pub(crate) fn replay(
    disk: &dyn Disk,
    from: u64,
    mut apply: impl FnMut(ReplayGroup) -> Result<()>,
) -> Result<(u64, Found)> {
    let Listed { found, mut readable, headless, misshapen } = find(disk)?;
    if let Some(Readable { name, header, bytes, .. }) = misshapen.first() {
        let (there, expected) = (bytes.len(), header.file_bytes);
        let message = format!("{name} has {there} bytes where {expected} belong (offset {there})");
        return Err(Error::new(ErrorKind::Damaged, message).at(name, there as u64));
    }
    if found.files.is_empty() && from != NO_JOURNAL {
        let message = format!("the journal is missing from {}: no file of it is there", disk.path());
        return Err(Error::new(ErrorKind::Damaged, message));
    }
    if from == NO_JOURNAL {
        readable.iter().try_for_each(Readable::ready)?;
    }
    if from == NO_JOURNAL && readable.iter().any(|file| groups(&file.bytes).next().is_some()) {
        let what = "the checkpoint is missing or that of a backup, but the journal holds records; run `tidemill repair`";
        return Err(Error::new(ErrorKind::Damaged, what).at(checkpoint::NAME, 0));
    }
    readable.sort_by_key(|file| file.header.generation);
    let begin = readable.iter().rposition(|file| file.header.first_group <= from).unwrap_or(0);
    let mut next = from;
    for (at, file) in readable.iter().enumerate().skip(begin) {
        if file.header.first_group > next {
            let before = at.checked_sub(1).map_or("the journal", |before| readable[before].name.as_str());
            // groups that nobody was told to be durable may be lost, and all behind them then is void
            if readable[at.saturating_sub(1)].header.durable == Durable::Later {
                break;
            }
            return Err(Error::new(
                ErrorKind::Damaged,
                format!(
                    "{before} is damaged: group {next} is missing, {} goes on with {}",
                    file.name, file.header.first_group
                ),
            )
            .at(before, 0));
        }
        file.ready()?;
        next = walk(file, next, &mut apply)?;
    }
    for (name, content) in &headless {
        holds_nothing(name, content, next)?;
    }
    Ok((next, found))
}

/// A group that is intact, wherever it lies.
#[derive(Clone, Copy)]
pub(super) struct Lying {
    pub(super) at: usize,
    pub(super) generation: u64,
    pub(super) number: u64,
}

/// The intact groups of a file, whatever its header says and whatever lies between them; also those of its former lives.
pub(super) fn groups(content: &Bytes) -> impl Iterator<Item = Lying> {
    let mut at = ALIGNMENT;
    std::iter::from_fn(move || {
        while at + ALIGNMENT <= content.len() {
            let (begin, generation) = (at, u64_at(content, at + 8));
            let group = decode_group(&content.slice(at..), generation);
            at += group.as_ref().map_or(ALIGNMENT, |group| group.file_bytes);
            if let Some(group) = group {
                return Some(Lying { at: begin, generation, number: group.number });
            }
        }
        None
    })
}

/// A header is durable before the first group behind it: a file without one that holds a group still needed is damaged.
fn holds_nothing(name: &str, content: &Bytes, next: u64) -> Result<()> {
    let Some(needed) = groups(content).find(|group| group.number >= next) else { return Ok(()) };
    let number = needed.number;
    let message =
        format!("{name} is damaged at offset 0: its header is not intact, but group {number} behind it is");
    Err(Error::new(ErrorKind::Damaged, message).at(name, 0))
}

/// The files of a journal, all bytes of which can be touched.
pub(super) fn find_whole(disk: &dyn Disk) -> Result<Listed> {
    let listed = find(disk)?;
    listed.readable.iter().chain(&listed.misshapen).try_for_each(Readable::ready)?;
    Ok(listed)
}

fn find(disk: &dyn Disk) -> Result<Listed> {
    let mut found = Found { files: Vec::new(), unfinished: Vec::new(), next_generation: 1, next_id: 0 };
    let (mut readable, mut headless, mut misshapen) = (Vec::new(), Vec::new(), Vec::new());
    let names = disk.list("").map_err(|e| Error::io(format!("cannot list {}", disk.path()), e))?;
    for (name, bytes) in names {
        let Some(id) = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(SUFFIX)) else { continue };
        found.next_id = found.next_id.max(u64::from_str_radix(id, 16).unwrap_or(0) + 1);
        if bytes == 0 {
            found.unfinished.push(name);
            continue;
        }
        let open = |mode| disk.open(&name, mode).map_err(|e| Error::io(format!("cannot open {name}"), e));
        let file = open(WriteMode::Buffered)?;
        let mapped = usize::try_from(bytes).expect("journal files fit in memory maps");
        let content = file.map(0, mapped).map_err(|e| Error::io(format!("cannot read {name}"), e))?;
        ready(&*file, &name, mapped.min(ALIGNMENT))?;
        let header = FileHeader::decode(&content);
        if let Some(header) = header.as_ref().filter(|header| header.file_bytes != bytes) {
            misshapen.push(Readable { name, header: *header, bytes: content, file });
            continue;
        }
        if bytes < 2 * ALIGNMENT as u64 || !bytes.is_multiple_of(ALIGNMENT as u64) {
            found.unfinished.push(name);
            continue;
        }
        // opened anew: a map lives as long as its file is open, and the journal keeps its files
        found.files.push(open(WriteMode::Direct)?);
        match header {
            None => {
                ready(&*file, &name, mapped)?;
                headless.push((name, content));
            }
            Some(header) => {
                found.next_generation = found.next_generation.max(header.generation + 1);
                readable.push(Readable { name, header, bytes: content, file });
            }
        }
    }
    Ok(Listed { found, readable, headless, misshapen })
}

/// Walks one file; returns the number after its last group.
fn walk(file: &Readable, from: u64, apply: &mut impl FnMut(ReplayGroup) -> Result<()>) -> Result<u64> {
    let mut expected = file.header.first_group;
    let mut at = ALIGNMENT;
    while at < file.bytes.len() {
        match decode_group(&file.bytes.slice(at..), file.header.generation) {
            Some(group) if group.number == expected => {
                at += group.file_bytes;
                if group.number >= from {
                    apply(group)?;
                }
                expected += 1;
            }
            _ => {
                if file.header.durable == Durable::EachGroup {
                    no_group_behind(file, at, expected)?;
                }
                break;
            }
        }
    }
    Ok(expected.max(from))
}

fn no_group_behind(file: &Readable, bad: usize, expected: u64) -> Result<()> {
    let mut at = bad + ALIGNMENT;
    while at < file.bytes.len() {
        if let Some(group) = decode_group(&file.bytes.slice(at..), file.header.generation)
            && group.number > expected
        {
            return Err(Error::new(
                ErrorKind::Damaged,
                format!(
                    "{} is damaged at offset {bad}: group {expected} is not intact, but group {} behind it is",
                    file.name, group.number
                ),
            )
            .at(&file.name, bad as u64));
        }
        at += ALIGNMENT;
    }
    Ok(())
}
