//! The seam to the disk: a directory of files. Three implementations: the operating system's ([`real`]), the same without
//! the right to change anything ([`read_only`]), and one in memory that loses, tears and fails what a disk may lose, tear
//! and fail ([`fault`]).
//!
//! Names are relative, made of our own ids, at most one folder deep (`segments/…`); others are refused with
//! `InvalidInput`, and so are ranges outside of a file. Every call may block.
//! Not here: retries, caching, any knowledge of what the bytes mean.

mod aligned;
mod alive;
pub mod fault;
mod map;
pub mod read_only;
pub mod real;
#[cfg(test)]
mod tests;

pub use aligned::AlignedBuffer;

use bytes::Bytes;
use std::io;
use std::path::{Component, Path};
use std::sync::Arc;

/// How writes to a file become durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteMode {
    /// Through the page cache; durable by [`DiskFile::sync`], or per write by [`Sync::Data`].
    Buffered,
    /// Past the page cache; offset, length and memory aligned to [`ALIGNMENT`] (see [`AlignedBuffer`]); each write is
    /// durable when it returns. Where the file system refuses, the file is opened buffered with synchronous writes
    /// and `Disk::open` says so once in the log.
    Direct,
}

/// Whether one write waits for the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// It does not.
    None,
    /// The data, and what is needed to find it, is on the device when the write returns.
    Data,
}

/// Direct writes are aligned to this, in offset, length and memory.
pub const ALIGNMENT: usize = 4096;

/// A directory, with the folder `segments` in it. Dropping it releases its lock.
pub trait Disk: Send + std::marker::Sync + 'static {
    /// Takes the directory for this process, or says who has it (`io::ErrorKind::WouldBlock`).
    /// Taking it twice is taking it once.
    fn lock(&self) -> io::Result<()>;
    /// Names of the files in `folder` ("" is the directory itself), without the folder, in order, with their sizes.
    /// The lock and folders are not among them.
    fn list(&self, folder: &str) -> io::Result<Vec<(String, u64)>>;
    /// Makes a new file of `bytes` that are allocated, not sparse, and read as zero (or, after a crash, as anything).
    /// Mode 0600. Fails if it exists. A failure leaves no file behind.
    fn create(&self, name: &str, bytes: u64, mode: WriteMode) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file for reading and writing.
    fn open(&self, name: &str, mode: WriteMode) -> io::Result<Arc<dyn DiskFile>>;
    /// Gives a file another name in its folder, replacing what had it. Durable after [`Disk::sync_dir`].
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a name; readers keep what they have. Durable after [`Disk::sync_dir`].
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations, renames and removals in `folder` durable.
    fn sync_dir(&self, folder: &str) -> io::Result<()>;
    /// The directory, for messages.
    fn path(&self) -> String;
}

/// An open file. Its size never changes after [`Disk::create`].
#[expect(clippy::len_without_is_empty, reason = "the size of a file is no count of what is within")]
pub trait DiskFile: Send + std::marker::Sync + 'static {
    /// Size in bytes.
    fn len(&self) -> u64;
    /// Writes all the pieces, one behind the other, at `offset`; within the file.
    fn write(&self, offset: u64, pieces: &[&[u8]], sync: Sync) -> io::Result<()>;
    /// Like `write` with one aligned buffer, for files opened [`WriteMode::Direct`]. `sync` says whether to wait for the
    /// device.
    fn write_aligned(&self, offset: u64, buffer: &AlignedBuffer, sync: Sync) -> io::Result<()>;
    /// Fills `into` from `offset`; an error at the end of the file.
    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;
    /// The bytes from a read-only map, which is made at the first call and lives until the file is closed and the last `Bytes` of it
    /// is gone.
    /// They show later writes too.
    fn map(&self, offset: u64, bytes: usize) -> io::Result<Bytes>;
    /// Reads a range of the map in. A page of it that the disk cannot give ends the process when it is touched (SIGBUS); here it
    /// is an error. Linux from 5.14 on; elsewhere it does nothing.
    fn ready(&self, offset: u64, bytes: usize) -> io::Result<()>;
    /// Waits until all writes so far are durable.
    fn sync(&self) -> io::Result<()>;
    /// Asks the operating system to begin writing back a range; waits for nothing, promises nothing.
    fn start_write_back(&self, offset: u64, bytes: u64) -> io::Result<()>;
    /// Gives the blocks of a range back, of a file that has no name any more and that nobody reads: it reads as zeros then.
    /// May do nothing; then they go with the file.
    fn give_back(&self, offset: u64, bytes: u64) -> io::Result<()>;
}

/// The name of the lock; no file of ours may have it.
const LOCK_NAME: &str = "lock";

/// Whether `name` stays within the directory: one name, or a folder and a name.
fn check_name(name: &str) -> io::Result<()> {
    let mut parts = 0;
    let plain = Path::new(name).components().all(|part| {
        parts += 1;
        matches!(part, Component::Normal(_))
    });
    if plain && (1..=2).contains(&parts) && name != LOCK_NAME && !name.ends_with('/') && !name.contains('\0')
    {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("{name:?} is not a name of a file in the data directory"),
    ))
}

/// Whether both names are in one folder, so that one [`Disk::sync_dir`] makes the change durable.
fn check_rename(from: &str, to: &str) -> io::Result<()> {
    check_name(from)?;
    check_name(to)?;
    if Path::new(from).parent() == Path::new(to).parent() {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{from} and {to} are in different folders")))
}

/// Whether `folder` is the directory itself or a folder in it.
fn check_folder(folder: &str) -> io::Result<()> {
    if folder.is_empty() || (check_name(folder).is_ok() && !folder.contains('/')) {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("{folder:?} is not a folder in the data directory"),
    ))
}

/// The end of a range, if it lies within a file of `file_bytes`.
fn check_range(file_bytes: u64, offset: u64, bytes: usize) -> io::Result<u64> {
    match offset.checked_add(bytes as u64) {
        Some(end) if end <= file_bytes => Ok(end),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{bytes} bytes at {offset} do not lie within a file of {file_bytes} bytes"),
        )),
    }
}

/// Whether a write may go past the page cache.
fn check_aligned(mode: WriteMode, offset: u64, buffer: &AlignedBuffer) -> io::Result<()> {
    let aligned = offset.is_multiple_of(ALIGNMENT as u64) && buffer.len().is_multiple_of(ALIGNMENT);
    if mode == WriteMode::Direct && aligned {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("an aligned write of {} bytes at {offset} to a file opened {mode:?}", buffer.len()),
    ))
}
