//! The map of a file, made when it is first needed: `unsafe` lives here.
//!
//! Touching a page of a map that the disk cannot give ends the process (SIGBUS). So whoever is about to touch a range has it
//! made ready first ([`FileMap::ready`]), which fails instead. What the system takes out of the page cache in the moment
//! between may still end the process; nothing wrong is given then either.

use super::check_range;
use bytes::Bytes;
use memmap2::Mmap;
use std::fs::File;
use std::io;
use std::sync::{Arc, OnceLock};

/// The map of one file. It lives until the file is closed and the last `Bytes` of it is gone.
#[derive(Default)]
pub(super) struct FileMap(OnceLock<Made>);

struct Made {
    map: Arc<Mmap>,
    bytes: Bytes,
}

struct Owner(Arc<Mmap>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl FileMap {
    /// Bytes of `file`, which has `file_bytes`.
    pub(super) fn range(&self, file: &File, file_bytes: u64, offset: u64, bytes: usize) -> io::Result<Bytes> {
        check_range(file_bytes, offset, bytes)?;
        if bytes == 0 {
            return Ok(Bytes::new());
        }
        let (start, end) = bounds(offset, bytes)?;
        let made = self.made(file)?;
        if end <= made.bytes.len() { Ok(made.bytes.slice(start..end)) } else { Err(shorter()) }
    }

    /// Reads a range in, so that it can be touched. Kernels before Linux 5.14, and other systems, do not do so: then nothing is
    /// certain. `is_ours`: the file may be written; of others a kernel does not tell what is in memory.
    pub(super) fn ready(
        &self,
        file: &File,
        file_bytes: u64,
        (offset, bytes): (u64, usize),
        is_ours: bool,
    ) -> io::Result<()> {
        check_range(file_bytes, offset, bytes)?;
        let (start, end) = bounds(offset, bytes)?;
        let made = self.made(file)?;
        if end > made.bytes.len() {
            return Err(shorter());
        }
        #[cfg(target_os = "linux")]
        if bytes > 0 && !(is_ours && is_in_memory(&made.map[start..end])) {
            match made.map.advise_range(memmap2::Advice::PopulateRead, start, bytes) {
                Err(error) if error.kind() != io::ErrorKind::InvalidInput => return Err(error),
                _ => {}
            }
        }
        #[cfg(not(target_os = "linux"))]
        let _ = (start, &made.map, is_ours);
        Ok(())
    }

    fn made(&self, file: &File) -> io::Result<&Made> {
        if let Some(made) = self.0.get() {
            return Ok(made);
        }
        let map = Arc::new(map_whole(file)?);
        let bytes = Bytes::from_owner(Owner(Arc::clone(&map)));
        Ok(self.0.get_or_init(|| Made { map, bytes }))
    }
}

fn bounds(offset: u64, bytes: usize) -> io::Result<(usize, usize)> {
    let start = usize::try_from(offset).map_err(io::Error::other)?;
    Ok((start, start.checked_add(bytes).ok_or_else(shorter)?))
}

fn shorter() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the file has become shorter since it was opened")
}

/// Whether all pages of a piece of a map are in the page cache: to ask costs a quarter of making them ready once more.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn is_in_memory(piece: &[u8]) -> bool {
    let page = rustix::param::page_size();
    let lead = piece.as_ptr().addr() % page;
    let mut resident = vec![0u8; (lead + piece.len()).div_ceil(page)];
    let first_page = piece.as_ptr().wrapping_sub(lead).cast_mut().cast();
    // SAFETY: the call reads and writes no memory of the range, which is that of a map that lives as long as `piece`, from the
    // beginning of its first page on; `resident` has a byte for each of its pages.
    let asked = unsafe { libc::mincore(first_page, lead + piece.len(), resident.as_mut_ptr()) };
    asked == 0 && resident.iter().all(|page| page & 1 == 1)
}

#[allow(unsafe_code)]
fn map_whole(file: &File) -> io::Result<Mmap> {
    // SAFETY: the bytes of a map must not change under a reader, and the file must not become shorter. Our files never
    // change their size: they are unlinked, not truncated, and the lock keeps other processes of ours away. Bytes that
    // are handed out lie below the durable mark and are not written again while the file has a reader; what is checked
    // by its checksum before it is believed (recovery) is checked in memory of its own or is read with no writer about.
    unsafe { Mmap::map(file) }
}
