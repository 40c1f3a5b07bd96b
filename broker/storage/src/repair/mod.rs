//! Repair: makes a damaged directory usable again, at the cost of the records that the damage hit, and of no others.
//!
//! ```text
//!  verify ─► what is damaged, and what would mend it ─► the bytes as they were go to quarantine ─► mend ─► verify …
//! ```
//!
//! Why: the broker skips nothing silently, so somebody has to say that what is lost is lost. Bad bytes of a segment become
//! frames that say so and take the numbers of the lost records, so that no number is ever used again and all that is around
//! them stays where it is. What it does not do: bring lost records back; mend the metadata store.

mod bridge;
mod checkpoint;

use crate::checkpoint::Checkpoint;
use crate::disk::{Disk, DiskFile, Sync, WriteMode};
use crate::error::{Error, ErrorKind, Result};
use crate::journal;
use crate::segment::{FOLDER, SegmentHeader};
use crate::verify::{Finding, Mend, verify};
use tidemill_types::Epoch;

/// Each round mends what the round before has laid open; more than these do not help.
const ROUNDS_MAX: usize = 8;
/// A segment that is being made anew.
const NEW_NAME: &str = "segments/repair.new";

/// Takes the bytes of a file at an offset as they were before they are replaced; they are durable when it returns.
pub type Keep<'a> = &'a mut dyn FnMut(&str, u64, &[u8]) -> std::io::Result<()>;

/// What a repair did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repaired {
    /// What was mended, in order.
    pub mended: Vec<Finding>,
    /// What was not, with why it cannot be.
    pub left: Vec<Finding>,
}

/// Mends what can be mended. `epoch` is the one in which the directory was last opened, as the catalog says. The directory must
/// be locked. Blocks; reads everything at least twice.
///
/// Errors: those of [`verify`]; [`ErrorKind::Io`] and [`ErrorKind::Full`] if something cannot be written: what was mended
/// until then stays so, and a second call goes on.
pub fn repair(
    disk: &dyn Disk,
    epoch: Epoch,
    keep: Keep<'_>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Repaired> {
    let mut repaired = Repaired::default();
    for _ in 0..ROUNDS_MAX {
        let (next, rest) = next_round(verify(disk, progress)?.findings);
        if next.is_empty() {
            repaired.left = rest;
            return Ok(repaired);
        }
        for finding in next {
            mend(disk, &finding, epoch, keep)?;
            repaired.mended.push(finding);
        }
    }
    repaired.left = verify(disk, progress)?.findings;
    Ok(repaired)
}

/// Findings to mend now, and the others. While the checkpoint is damaged nothing else is known for sure, and so on down to the
/// frames.
fn next_round(findings: Vec<Finding>) -> (Vec<Finding>, Vec<Finding>) {
    let rank = |finding: &Finding| match &finding.mend {
        Some(Mend::Checkpoint) => Some(0),
        Some(Mend::Journal) => Some(1),
        Some(Mend::Whole(_) | Mend::Header(_)) => Some(2),
        Some(Mend::Bridge(_) | Mend::DropIndex(_)) => Some(3),
        None => None,
    };
    let first = findings.iter().filter_map(rank).min();
    findings.into_iter().partition(|finding| rank(finding).is_some() && rank(finding) == first)
}

fn mend(disk: &dyn Disk, finding: &Finding, epoch: Epoch, keep: Keep<'_>) -> Result<()> {
    match finding.mend.as_ref() {
        None => Ok(()),
        Some(Mend::Checkpoint) => {
            keep_file(disk, &finding.file, keep)?;
            checkpoint::rebuild(disk, epoch, keep)?.write(disk)
        }
        Some(Mend::Journal) => mend_journal(disk, keep),
        Some(Mend::Whole(header)) => make_whole(disk, header, keep),
        Some(Mend::Header(header)) => write_header(disk, header, keep),
        Some(Mend::DropIndex(id)) => {
            keep_file(disk, &id.index_file(), keep)?;
            bridge::drop_index(disk, *id)
        }
        Some(Mend::Bridge(bridge)) => bridge::lay(disk, bridge, keep),
    }
}

fn io(what: &str, file: &str) -> impl Fn(std::io::Error) -> Error {
    let what = format!("cannot {what} {file}");
    move |error| Error::io(what.clone(), error)
}

/// Gives all of a file, if it is there, to quarantine.
fn keep_file(disk: &dyn Disk, name: &str, keep: Keep<'_>) -> Result<()> {
    let file = match disk.open(name, WriteMode::Buffered) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io("open", name)(error)),
    };
    let mut bytes = vec![0; usize::try_from(file.len()).expect("files fit in memory")];
    read_what_can_be(&*file, 0, &mut bytes);
    keep(name, 0, &bytes).map_err(io("keep a copy of", name))
}

/// Fills `into` with what the disk can give; the rest is zeros. Whether that was all.
fn read_what_can_be(file: &dyn DiskFile, offset: u64, into: &mut [u8]) -> bool {
    const PAGE: usize = 4096;
    if file.read(offset, into).is_ok() {
        return true;
    }
    for (at, page) in (offset..).step_by(PAGE).zip(into.chunks_mut(PAGE)) {
        if file.read(at, page).is_err() {
            page.fill(0);
        }
    }
    false
}

/// Bad groups become groups that carry nothing. What they had carried may lie in the segments all the same, so every log is
/// looked at by the next start.
fn mend_journal(disk: &dyn Disk, keep: Keep<'_>) -> Result<()> {
    let Some(mut checkpoint) = Checkpoint::read(disk)? else {
        return Err(Error::new(ErrorKind::Damaged, "the journal cannot be mended without a checkpoint"));
    };
    for log in &mut checkpoint.logs {
        log.in_flight = true;
    }
    checkpoint.write(disk)?;
    journal::mend(disk, &checkpoint, keep)
}

fn write_header(disk: &dyn Disk, header: &SegmentHeader, keep: Keep<'_>) -> Result<()> {
    let name = header.id.file();
    let file = disk.open(&name, WriteMode::Buffered).map_err(io("open", &name))?;
    let mut bytes = [0; SegmentHeader::BYTES];
    file.read(0, &mut bytes)
        .and_then(|()| keep(&name, 0, &bytes))
        .and_then(|()| file.write(0, &[&header.encode()], Sync::None))
        .and_then(|()| file.sync())
        .map_err(io("write the header of", &name))
}

/// Behind the name of a file that was made anew because the disk could not give all of it: it stays, for it may be able to later. So
/// does the first of several.
const UNREADABLE: &str = ".unreadable";

/// The file made anew with the size it should have: what there is of it, and zeros, also for what the disk cannot give.
fn make_whole(disk: &dyn Disk, header: &SegmentHeader, keep: Keep<'_>) -> Result<()> {
    const STEP: usize = 1 << 20;
    let name = header.id.file();
    keep_file(disk, &name, keep)?;
    match disk.remove(NEW_NAME) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(io("remove", NEW_NAME)(error));
        }
        _ => {}
    }
    let new = disk.create(NEW_NAME, header.capacity, WriteMode::Buffered).map_err(io("make", NEW_NAME))?;
    let mut is_all = true;
    let aside = format!("{name}{UNREADABLE}");
    let set_aside = disk.open(&aside, WriteMode::Buffered).ok();
    let is_aside = set_aside.is_some();
    // a repair that was cut short may have come no further than to move it
    if let Some(old) = disk.open(&name, WriteMode::Buffered).ok().or(set_aside) {
        let there = old.len().min(header.capacity);
        let mut buffer = vec![0; STEP];
        for offset in (0..there).step_by(STEP) {
            let length = usize::try_from(there - offset).unwrap_or(STEP).min(STEP);
            is_all &= read_what_can_be(&*old, offset, &mut buffer[..length]);
            new.write(offset, &[&buffer[..length]], Sync::None).map_err(io("copy", &name))?;
        }
    }
    new.write(0, &[&header.encode()], Sync::None)
        .and_then(|()| new.sync())
        .and_then(|()| if is_all || is_aside { Ok(()) } else { disk.rename(&name, &aside) })
        .and_then(|()| disk.rename(NEW_NAME, &name))
        .and_then(|()| disk.sync_dir(FOLDER))
        .map_err(io("make", &name))
}
