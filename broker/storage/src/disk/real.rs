//! The operating system's disk.
//!
//! With `unsafe`: a system call that the safe bindings lack; the map of a file (`map`) is the other place. A file has up to two
//! descriptors: one through the page cache, and one past it for direct writes. What a kernel or file system refuses
//! (direct writes, synchronous vectored writes, preallocation) is done the slower way, with the same promises.
//!
//! Not here: what the bytes mean, when to sync.

use super::map::FileMap;
use super::{
    AlignedBuffer, Disk, DiskFile, LOCK_NAME, Sync, WriteMode, check_aligned, check_folder, check_name,
    check_range, check_rename,
};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};
use bytes::Bytes;
use rustix::fs::FlockOperation;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, IoSlice, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tracing::warn;

/// Pieces that one system call takes.
const PIECES_PER_CALL: usize = 1024;
/// Zeros written at a time where the file system cannot preallocate.
const ZEROS_BYTES: usize = 1 << 20;

/// A directory of the operating system.
#[derive(Debug)]
pub struct RealDisk {
    dir: PathBuf,
    lock: Mutex<Option<File>>,
    refused: Arc<Refused>,
}

/// What the file system turned out not to do.
#[derive(Debug)]
struct Refused {
    dir: PathBuf,
    direct: AtomicBool,
    #[cfg(target_os = "linux")]
    synchronous: AtomicBool,
}

impl RealDisk {
    /// Makes the directory and the folder `segments` in it, for the owner alone, if they are missing.
    pub fn new(dir: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir.join("segments"))?;
        let refused = Refused {
            dir: dir.to_owned(),
            direct: AtomicBool::new(false),
            #[cfg(target_os = "linux")]
            synchronous: AtomicBool::new(false),
        };
        Ok(Self { dir: dir.to_owned(), lock: Mutex::new(None), refused: Arc::new(refused) })
    }

    fn file(&self, file: File, path: &Path, mode: WriteMode) -> io::Result<Arc<dyn DiskFile>> {
        let bytes = file.metadata()?.len();
        let direct = match mode {
            WriteMode::Buffered => None,
            WriteMode::Direct => self.refused.open_direct(path)?,
        };
        let refused = Arc::clone(&self.refused);
        Ok(Arc::new(RealFile { file, direct, mode, bytes, map: FileMap::default(), refused }))
    }
}

impl Disk for RealDisk {
    fn lock(&self) -> io::Result<()> {
        let mut held = self.lock.lock();
        if held.is_some() {
            return Ok(()); // whoever keeps other files in the directory locks it before storage does
        }
        let path = self.dir.join(LOCK_NAME);
        let mut options = OpenOptions::new();
        let mut file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                let _ = Read::by_ref(&mut file).take(20).read_to_string(&mut holder);
                let holder = match holder.trim() {
                    "" => "another process".to_owned(),
                    pid => format!("process {pid}"),
                };
                let dir = self.dir.display();
                let message =
                    format!("{holder} has the data directory {dir}; stop it or choose another directory");
                return Err(io::Error::new(io::ErrorKind::WouldBlock, message));
            }
            Err(refused) => return Err(refused.into()),
        }
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())?;
        *held = Some(file);
        Ok(())
    }

    fn list(&self, folder: &str) -> io::Result<Vec<(String, u64)>> {
        check_folder(folder)?;
        let mut found = Vec::new();
        for entry in self.dir.join(folder).read_dir()? {
            let entry = entry?;
            let name = entry.file_name().into_string();
            let name = name.map_err(|name| {
                io::Error::other(format!("unexpected file {name:?} in the data directory"))
            })?;
            let metadata = entry.metadata()?;
            if metadata.is_file() && !(folder.is_empty() && name == LOCK_NAME) {
                found.push((name, metadata.len()));
            }
        }
        found.sort();
        Ok(found)
    }

    fn create(&self, name: &str, bytes: u64, mode: WriteMode) -> io::Result<Arc<dyn DiskFile>> {
        check_name(name)?;
        let path = self.dir.join(name);
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        let made = allocate(&file, bytes).and_then(|()| self.file(file, &path, mode));
        made.inspect_err(|_| {
            if let Err(error) = std::fs::remove_file(&path) {
                warn!(path = %path.display(), %error, "a file that could not be allocated could not be removed either");
            }
        })
    }

    fn open(&self, name: &str, mode: WriteMode) -> io::Result<Arc<dyn DiskFile>> {
        check_name(name)?;
        let path = self.dir.join(name);
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        self.file(file, &path, mode)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        check_rename(from, to)?;
        std::fs::rename(self.dir.join(from), self.dir.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        check_name(name)?;
        std::fs::remove_file(self.dir.join(name))
    }

    fn sync_dir(&self, folder: &str) -> io::Result<()> {
        check_folder(folder)?;
        File::open(self.dir.join(folder))?.sync_all()
    }

    fn path(&self) -> String {
        self.dir.display().to_string()
    }
}

impl Refused {
    /// A descriptor for writes past the page cache, if the file system has such.
    fn open_direct(&self, path: &Path) -> io::Result<Option<File>> {
        #[cfg(target_os = "linux")]
        {
            if self.direct.load(Ordering::Relaxed) {
                return Ok(None);
            }
            match OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(path) {
                Ok(file) => return Ok(Some(file)),
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
                Err(error) => return Err(error),
            }
        }
        let _ = path;
        self.direct_writes();
        Ok(None)
    }

    /// Notes that there are no direct writes, and says so the first time.
    fn direct_writes(&self) {
        if !self.direct.swap(true, Ordering::Relaxed) {
            let dir = self.dir.display();
            warn!(%dir, "the file system refuses direct writes, so the journal is written through the page cache and synced; durability is the same, commits are slower");
        }
    }
}

/// Gives a new file its blocks, all of them.
fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    #[cfg(target_os = "linux")]
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, bytes) {
        Ok(()) => return Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {}
        Err(refused) => return Err(no_room(refused.into())),
    }
    let zeros = vec![0; ZEROS_BYTES];
    let mut at = 0;
    while at < bytes {
        let piece = usize::try_from(bytes - at).map_or(ZEROS_BYTES, |left| left.min(ZEROS_BYTES));
        file.write_all_at(&zeros[..piece], at).map_err(no_room)?;
        at += piece as u64;
    }
    Ok(())
}

/// To whoever asked for blocks, a spent quota is a full disk.
fn no_room(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::QuotaExceeded => io::Error::new(io::ErrorKind::StorageFull, error),
        _ => error,
    }
}

/// An open file of the operating system.
struct RealFile {
    file: File,
    direct: Option<File>,
    mode: WriteMode,
    bytes: u64,
    map: FileMap,
    refused: Arc<Refused>,
}

impl RealFile {
    /// One write of as many bytes as the system takes, durable when it returns if `sync` says so.
    fn write_some(&self, to: &File, offset: u64, pieces: &[IoSlice<'_>], sync: Sync) -> io::Result<usize> {
        let pieces = &pieces[..pieces.len().min(PIECES_PER_CALL)];
        #[cfg(target_os = "linux")]
        if sync == Sync::Data && !self.refused.synchronous.load(Ordering::Relaxed) {
            use rustix::io::{Errno, ReadWriteFlags, pwritev2};
            match pwritev2(to, pieces, offset, ReadWriteFlags::DSYNC) {
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                    self.refused.synchronous.store(true, Ordering::Relaxed)
                }
                written => return Ok(written?),
            }
        }
        let written = rustix::io::pwritev(to, pieces, offset)?;
        if sync == Sync::Data {
            to.sync_data()?;
        }
        Ok(written)
    }

    fn write_pieces(
        &self,
        to: &File,
        mut offset: u64,
        mut pieces: &mut [IoSlice<'_>],
        sync: Sync,
    ) -> io::Result<()> {
        IoSlice::advance_slices(&mut pieces, 0); // drops empty pieces in front
        while !pieces.is_empty() {
            let written = match self.write_some(to, offset, pieces, sync) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            offset += written as u64;
            IoSlice::advance_slices(&mut pieces, written);
        }
        Ok(())
    }

    /// Writes past the page cache; `false` if the file system refuses.
    fn write_direct(&self, offset: u64, buffer: &AlignedBuffer, sync: Sync) -> io::Result<bool> {
        let Some(direct) = self.direct.as_ref().filter(|_| !self.refused.direct.load(Ordering::Relaxed))
        else {
            return Ok(false);
        };
        match self.write_pieces(direct, offset, &mut [IoSlice::new(buffer.as_slice())], sync) {
            Ok(()) => Ok(true),
            // the offset, the length and the memory are aligned: it is direct writes as such that are refused, or a
            // short write has left the alignment, and then writing the same bytes again the other way is right too
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                self.refused.direct_writes();
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

impl DiskFile for RealFile {
    fn len(&self) -> u64 {
        self.bytes
    }

    fn write(&self, offset: u64, pieces: &[&[u8]], sync: Sync) -> io::Result<()> {
        check_range(self.bytes, offset, pieces.iter().map(|piece| piece.len()).sum())?;
        let mut pieces: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        self.write_pieces(&self.file, offset, &mut pieces, sync)?;
        if sync == Sync::Data { super::alive::check(&self.file) } else { Ok(()) }
    }

    fn write_aligned(&self, offset: u64, buffer: &AlignedBuffer, sync: Sync) -> io::Result<()> {
        check_aligned(self.mode, offset, buffer)?;
        check_range(self.bytes, offset, buffer.len())?;
        if self.write_direct(offset, buffer, sync)? {
            return Ok(());
        }
        self.write_pieces(&self.file, offset, &mut [IoSlice::new(buffer.as_slice())], sync)
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        check_range(self.bytes, offset, into.len())?;
        self.file.read_exact_at(into, offset)
    }

    fn map(&self, offset: u64, bytes: usize) -> io::Result<Bytes> {
        self.map.range(&self.file, self.bytes, offset, bytes)
    }

    fn ready(&self, offset: u64, bytes: usize) -> io::Result<()> {
        self.map.ready(&self.file, self.bytes, (offset, bytes), true)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn start_write_back(&self, offset: u64, bytes: u64) -> io::Result<()> {
        start_write_back(&self.file, offset, bytes)
    }

    fn give_back(&self, offset: u64, bytes: u64) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        {
            use rustix::fs::{FallocateFlags, fallocate};
            fallocate(&self.file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, bytes)?;
        }
        #[cfg(not(target_os = "linux"))]
        let _ = (offset, bytes);
        Ok(())
    }
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn start_write_back(file: &File, offset: u64, bytes: u64) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let offset = i64::try_from(offset).map_err(io::Error::other)?;
    let bytes = i64::try_from(bytes).map_err(io::Error::other)?;
    // SAFETY: the call takes no pointer; the descriptor is open for as long as `file` is borrowed.
    let done = unsafe { libc::sync_file_range(file.as_raw_fd(), offset, bytes, libc::SYNC_FILE_RANGE_WRITE) };
    match done {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            error if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EOPNOTSUPP | libc::ESPIPE)) => {
                Ok(())
            }
            error => Err(error),
        },
    }
}

#[cfg(not(target_os = "linux"))]
fn start_write_back(_file: &File, _offset: u64, _bytes: u64) -> io::Result<()> {
    Ok(())
}
