//! Backup of a running broker, and restoring it.
//!
//! ```text
//!   Engine::backup ─► records: a snapshot of all logs ─► metadata: every row, right after it ─► segments ─► checkpoint
//!   Receiving ──────► DEST/segments … ─► DEST/metadata.redb ─► DEST/checkpoint                   (a data directory without journal)
//!   restore ────────► verify ─► copy ─► epochs far above, another lineage, another secret
//! ```
//!
//! The metadata is that of a moment later than the records': it may know more shards, which are then empty, never fewer. A restored
//! directory goes on a thousand epochs later, so that it gives out no sequence number that the original has given out
//! since, and no iterator of the one is good for the other.

use crate::directory::{self, backup_mark};
use crate::error::{Error, ErrorKind, Result};
use crate::store::redb::{FILE_NAME, RedbStore};
use crate::store::{Batch, Store};
use bytes::Bytes;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use tidemill_storage as storage;
use tidemill_storage::backup::{Held, Part, Receiver, Snapshot, held};
use tidemill_storage::disk::{Disk, real::RealDisk};
use tokio::sync::mpsc;

/// Parts that wait for who takes them: of a MiB each.
const WAITING_MAX: usize = 4;
/// Where the metadata of a copy lies until the copy is whole.
const INCOMING: &str = "incoming";
/// A restored directory goes on so many epochs later.
const EPOCHS_SKIPPED: u32 = 1000;

/// A key of the metadata store and its value.
pub type Row = (Bytes, Bytes);

/// A copy on its way: the metadata, and the rest part by part.
pub struct Backup {
    /// Names the directory.
    pub lineage: u64,
    /// Every row of the metadata store.
    pub rows: Vec<Row>,
    parts: mpsc::Receiver<Result<BackupPart>>,
}

/// A part of a copy.
#[derive(Debug)]
pub enum BackupPart {
    /// Of a segment.
    Segment(Part),
    /// The checkpoint, which is the end.
    Checkpoint(Bytes),
}

impl Backup {
    pub(crate) fn start(lineage: u64, rows: Vec<Row>, snapshot: Snapshot, held: Vec<Held>) -> Self {
        let (sender, parts) = mpsc::channel(WAITING_MAX);
        tokio::task::spawn_blocking(move || {
            let mut give = |part| {
                let gone = |_| storage::Error::stopped("nobody takes the backup any more");
                sender.blocking_send(Ok(BackupPart::Segment(part))).map_err(gone)
            };
            let copied = snapshot.copy(&held, &mut give);
            let end = copied
                .map(BackupPart::Checkpoint)
                .map_err(|e| Error::from_storage("the backup broke off", e));
            let _ = sender.blocking_send(end); // nobody takes it: nobody needs to know
        });
        Self { lineage, rows, parts }
    }

    /// The next part; none behind the checkpoint. Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<BackupPart>> {
        self.parts.recv().await
    }
}

/// What a backup folder holds.
#[derive(Debug)]
pub struct HeldBackup {
    /// Of which directory it is a copy; 0 if it holds nothing.
    pub lineage: u64,
    /// Its segments.
    pub segments: Vec<Held>,
}

/// A backup folder that is being filled. Blocks.
pub struct Receiving {
    dir: PathBuf,
    disk: RealDisk,
}

/// What came of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    /// Segments of the copy.
    pub segments: usize,
    /// Bytes that were written.
    pub bytes: u64,
}

impl Receiving {
    /// Opens the folder, or makes it, for this process alone.
    ///
    /// Errors: `Unavailable` if it cannot be used, or another process has it; `Precondition` if it is no backup.
    pub fn open(dir: &Path) -> Result<(Self, HeldBackup)> {
        let cannot = |e: io::Error| {
            Error::caused(ErrorKind::Unavailable, format!("cannot use {} for a backup", dir.display()), e)
        };
        if dir.is_dir() && dir.read_dir().map_err(cannot)?.next().is_some() && !is_backup(dir) {
            let message = format!("{} is neither empty nor a backup", dir.display());
            return Err(Error::new(ErrorKind::Precondition, message));
        }
        let disk = RealDisk::new(dir).map_err(cannot)?;
        disk.lock().map_err(cannot)?;
        let nothing = HeldBackup { lineage: 0, segments: Vec::new() };
        let there = if dir.join(FILE_NAME).is_file() {
            let lineage = directory::lineage_of(&RedbStore::verified(dir)?)?;
            let segments = held(&disk).map_err(|e| Error::from_storage("cannot read the backup", e))?;
            HeldBackup { lineage, segments }
        } else {
            nothing
        };
        Ok((Self { dir: dir.to_owned(), disk }, there))
    }

    /// Takes the segments.
    pub fn receiver(&self) -> Receiver<'_> {
        Receiver::new(&self.disk)
    }

    /// Makes what came the content of the folder, marked as a backup: no broker opens it.
    pub fn finish(&self, segments: Receiver<'_>, mut rows: Vec<Row>, checkpoint: &[u8]) -> Result<Copied> {
        rows.push(backup_mark());
        self.put(segments, &rows, checkpoint)
    }

    fn put(&self, mut segments: Receiver<'_>, rows: &[Row], checkpoint: &[u8]) -> Result<Copied> {
        let from_storage = |e| Error::from_storage("the backup cannot be finished", e);
        segments.sync().map_err(from_storage)?;
        write_rows(&self.dir, rows)?;
        let bytes = segments.bytes();
        let segments = segments.finish(checkpoint).map_err(from_storage)?;
        Ok(Copied { segments, bytes })
    }
}

/// One that was begun, or a copy that is whole: neither has a journal.
fn is_backup(dir: &Path) -> bool {
    let has_journal = dir.read_dir().is_ok_and(|mut entries| {
        entries
            .any(|entry| entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("journal-")))
    });
    dir.join("segments").is_dir() && !has_journal
}

/// A new metadata store with these rows takes the place of the one in `dir`.
fn write_rows(dir: &Path, rows: &[Row]) -> Result<()> {
    let incoming = dir.join(INCOMING);
    let cannot = |e: io::Error| {
        Error::caused(ErrorKind::Unavailable, format!("cannot write {}", incoming.display()), e)
    };
    match std::fs::remove_dir_all(&incoming) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(cannot(error)),
        _ => {}
    }
    DirBuilder::new().mode(0o700).create(&incoming).map_err(cannot)?;
    let changes = rows.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect();
    let mut store = RedbStore::open(&incoming)?;
    store.commit(&[Batch { conditions: Vec::new(), changes }])?;
    drop(store);
    std::fs::rename(incoming.join(FILE_NAME), dir.join(FILE_NAME))
        .and_then(|()| std::fs::remove_dir_all(&incoming))
        .and_then(|()| File::open(dir)?.sync_all())
        .map_err(cannot)
}

/// Makes a data directory from a backup, which is verified first. `progress` is told how many bytes of how many are done, first
/// of the check, then of the copy. Blocks.
///
/// Errors: `Damaged` if the backup is; `Precondition` if `from` is none, or there is something at `to`; `Unavailable` if a file cannot
/// be read or written: what is at `to` then is to be removed.
pub fn restore(from: &Path, to: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<Copied> {
    if from.is_dir() && !is_backup(from) {
        let message =
            format!("{} is no backup; of a data directory, make one with `tidemill backup`", from.display());
        return Err(Error::new(ErrorKind::Precondition, message));
    }
    let checked = crate::verify::verify(from, progress)?;
    if checked.is_damaged() {
        let message = format!("{} is damaged: `tidemill verify` tells where", from.display());
        return Err(Error::new(ErrorKind::Damaged, message));
    }
    let cannot = |what: &str, at: &Path| {
        let message = format!("cannot {what} {}", at.display());
        move |e: io::Error| Error::caused(ErrorKind::Unavailable, message.clone(), e)
    };
    if to.exists() && to.read_dir().map_err(cannot("use", to))?.next().is_some() {
        let message = format!("{} is not empty; restore into a new directory", to.display());
        return Err(Error::new(ErrorKind::Precondition, message));
    }
    let source = storage::disk::read_only::ReadOnlyDisk::open(from).map_err(cannot("read", from))?;
    source.lock().map_err(cannot("use", from))?;
    let disk = RealDisk::new(to).map_err(cannot("make", to))?;
    disk.lock().map_err(cannot("use", to))?;
    let from_storage = |e| Error::from_storage("cannot copy the backup", e);
    let all = held(&source).map_err(from_storage)?;
    let checkpoint = storage::backup::checkpoint(&source).map_err(from_storage)?;
    let total = all.iter().map(|segment| segment.end).sum();
    let receiving = Receiving { dir: to.to_owned(), disk };
    let mut receiver = receiving.receiver();
    for segment in &all {
        storage::backup::copy_file(&source, segment, &mut receiver).map_err(from_storage)?;
        progress(receiver.bytes(), total);
    }
    let rows = directory::restored(RedbStore::verified(from)?.scan(b"")?, EPOCHS_SKIPPED)?;
    receiving.put(receiver, &rows, &checkpoint)
}
