//! The directory as it is, for who may not change a byte of it: everything that would is refused.
//!
//! Not here: making a directory, direct writes; a missing directory is an error.

use super::map::FileMap;
use super::{
    AlignedBuffer, Disk, DiskFile, LOCK_NAME, Sync, WriteMode, check_folder, check_name, check_range,
};
use crate::sync::Mutex;
use bytes::Bytes;
use rustix::fs::FlockOperation;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A directory of the operating system that is only read.
#[derive(Debug)]
pub struct ReadOnlyDisk {
    dir: PathBuf,
    lock: Mutex<Option<File>>,
}

impl ReadOnlyDisk {
    /// The directory must be there and be one of a broker: it has the folder `segments`.
    pub fn open(dir: &Path) -> io::Result<Self> {
        if !dir.join("segments").is_dir() {
            let message = format!("{} is not the data directory of a broker", dir.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, message));
        }
        Ok(Self { dir: dir.to_owned(), lock: Mutex::new(None) })
    }
}

fn refused<T>() -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::PermissionDenied, "the directory is only read"))
}

impl Disk for ReadOnlyDisk {
    /// Sees to it that no broker has the directory, and that none takes it meanwhile. The lock itself is left as it is.
    fn lock(&self) -> io::Result<()> {
        let mut held = self.lock.lock();
        if held.is_some() {
            return Ok(());
        }
        let file = match File::open(self.dir.join(LOCK_NAME)) {
            Ok(file) => file,
            // no broker was ever there, and what would be locked would have to be made
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let message =
                    format!("a broker has the data directory {}; stop it first", self.dir.display());
                return Err(io::Error::new(io::ErrorKind::WouldBlock, message));
            }
            Err(error) => return Err(error.into()),
        }
        *held = Some(file);
        Ok(())
    }

    fn list(&self, folder: &str) -> io::Result<Vec<(String, u64)>> {
        check_folder(folder)?;
        let mut found = Vec::new();
        for entry in self.dir.join(folder).read_dir()? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            // what is not ours may have any name
            let Ok(name) = entry.file_name().into_string() else { continue };
            if metadata.is_file() && !(folder.is_empty() && name == LOCK_NAME) {
                found.push((name, metadata.len()));
            }
        }
        found.sort();
        Ok(found)
    }

    fn open(&self, name: &str, _mode: WriteMode) -> io::Result<Arc<dyn DiskFile>> {
        check_name(name)?;
        let file = File::open(self.dir.join(name))?;
        let bytes = file.metadata()?.len();
        Ok(Arc::new(ReadOnlyFile { file, bytes, map: FileMap::default() }))
    }

    fn create(&self, _name: &str, _bytes: u64, _mode: WriteMode) -> io::Result<Arc<dyn DiskFile>> {
        refused()
    }
    fn rename(&self, _from: &str, _to: &str) -> io::Result<()> {
        refused()
    }
    fn remove(&self, _name: &str) -> io::Result<()> {
        refused()
    }
    fn sync_dir(&self, _folder: &str) -> io::Result<()> {
        refused()
    }
    fn path(&self) -> String {
        self.dir.display().to_string()
    }
}

struct ReadOnlyFile {
    file: File,
    bytes: u64,
    map: FileMap,
}

impl DiskFile for ReadOnlyFile {
    fn len(&self) -> u64 {
        self.bytes
    }
    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        check_range(self.bytes, offset, into.len())?;
        self.file.read_exact_at(into, offset)
    }
    fn map(&self, offset: u64, bytes: usize) -> io::Result<Bytes> {
        self.map.range(&self.file, self.bytes, offset, bytes)
    }
    fn ready(&self, offset: u64, bytes: usize) -> io::Result<()> {
        self.map.ready(&self.file, self.bytes, (offset, bytes), false)
    }
    fn write(&self, _offset: u64, _pieces: &[&[u8]], _sync: Sync) -> io::Result<()> {
        refused()
    }
    fn write_aligned(&self, _offset: u64, _buffer: &AlignedBuffer, _sync: Sync) -> io::Result<()> {
        refused()
    }
    fn sync(&self) -> io::Result<()> {
        refused()
    }
    fn start_write_back(&self, _offset: u64, _bytes: u64) -> io::Result<()> {
        refused()
    }
    fn give_back(&self, _offset: u64, _bytes: u64) -> io::Result<()> {
        refused()
    }
}
