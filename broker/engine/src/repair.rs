//! Repair of a data directory that no broker has: see `tidemill_storage::repair`. Here: whose epoch it is, and the quarantine.

use crate::directory;
use crate::error::{Error, ErrorKind, Result};
use crate::store::redb::{FILE_NAME, RedbStore};
use crate::verify::Owners;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use tidemill_storage::disk::{Disk, real::RealDisk};
use tidemill_storage::repair::Repaired;
use tidemill_types::TimestampMs;

/// What a repair did.
#[derive(Debug)]
pub struct Repair {
    /// To the files.
    pub files: Repaired,
    /// Whose logs they are.
    pub owners: Owners,
    /// Where the bytes lie that were replaced, if any were.
    pub quarantine: Option<PathBuf>,
}

/// Mends what can be mended of a data directory, at the cost of the records that the damage hit. What is replaced is kept in
/// a folder `quarantine-…` of the directory, one file for each stretch, named for file and offset. `now` names the folder.
/// `progress` is told how many bytes of how many are read, again from the front in each round. Blocks.
///
/// Errors: `Unavailable` if the directory cannot be used or a broker has it; `Invalid` if a later version wrote it; `Damaged` if the
/// metadata store is, which only a backup helps; otherwise those of the disk.
pub fn repair(data_dir: &Path, now: TimestampMs, progress: &mut dyn FnMut(u64, u64)) -> Result<Repair> {
    let cannot = |e| Error::caused(ErrorKind::Unavailable, "cannot repair", e);
    if !data_dir.join("segments").is_dir() {
        let message = format!("{} is not the data directory of a broker", data_dir.display());
        return Err(Error::new(ErrorKind::Unavailable, message));
    }
    let disk = RealDisk::new(data_dir).map_err(cannot)?;
    disk.lock().map_err(cannot)?;
    let _metadata = lock_metadata(data_dir)?;
    let store = RedbStore::verified(data_dir)?;
    let used = tidemill_storage::used(&disk).unwrap_or_default(); // a checkpoint that is not intact is mended
    let (catalog, epoch) = directory::read(&store, used)?;
    let owners = Owners::new(&catalog);
    let mut quarantine =
        Quarantine { folder: data_dir.join(format!("quarantine-{}", now.get())), used: false };
    let mut keep = |file: &str, offset: u64, bytes: &[u8]| quarantine.keep(file, offset, bytes);
    let files = tidemill_storage::repair::repair(&disk, epoch, &mut keep, progress)
        .map_err(|e| Error::from_storage("the repair broke off; run it again", e))?;
    Ok(Repair { files, owners, quarantine: quarantine.used.then_some(quarantine.folder) })
}

/// Takes the lock under which a broker has its metadata store: the directory's own goes by a file that somebody may have deleted.
/// None if there is no store.
fn lock_metadata(data_dir: &Path) -> Result<Option<File>> {
    let path = data_dir.join(FILE_NAME);
    let cannot = |e| Error::caused(ErrorKind::Unavailable, format!("cannot use {}", path.display()), e);
    let file = match OpenOptions::new().read(true).write(true).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(cannot(error)),
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::Error(error)) => Err(cannot(error)),
        Err(TryLockError::WouldBlock) => {
            let message = format!("a broker has {}; stop it first", path.display());
            Err(Error::new(ErrorKind::Unavailable, message))
        }
    }
}

/// Where bytes go before they are replaced.
struct Quarantine {
    folder: PathBuf,
    used: bool,
}

impl Quarantine {
    fn keep(&mut self, file: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if !self.used {
            DirBuilder::new().mode(0o700).recursive(true).create(&self.folder)?;
            self.used = true;
        }
        let name = format!("{}@{offset}", file.replace('/', "_"));
        // a second repair of the same place adds what it finds; what was kept first stays
        let mut options = OpenOptions::new();
        let mut kept = options.create(true).append(true).mode(0o600).open(self.folder.join(name))?;
        kept.write_all(bytes)?;
        kept.sync_all()?;
        File::open(&self.folder)?.sync_all()?;
        self.folder.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
    }
}
