//! Memory that the machine really has. A virtual machine gets its memory from the host when it first touches it, and may give
//! back what it frees; then writing into fresh page cache measures the host's page faults (0.45 GB/s seen), not the disk or
//! the broker. A page cache that is full, as a broker's is after a while, hands out memory that is there.
//!
//! So a file without blocks is read, which costs no disk, until little memory is free.

use anyhow::{Context, Result};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Left to programs.
const LEFT_FREE_BYTES: u64 = 2 << 30;
const FILE_BYTES_MAX: u64 = 256 << 30;

/// A file that fills the page cache; removed with its directory.
pub(crate) struct Ballast(File);

impl Ballast {
    pub(crate) fn new(dir: &Path) -> Result<Self> {
        let meminfo =
            std::fs::read_to_string("/proc/meminfo").context("cannot tell how much memory there is")?;
        let line = meminfo.lines().find(|line| line.starts_with("MemAvailable:"));
        let kib: u64 = line.and_then(|line| line.split_whitespace().nth(1)).unwrap_or("0").parse()?;
        let path = dir.join("ballast");
        let bytes = (kib << 10).saturating_sub(LEFT_FREE_BYTES).min(FILE_BYTES_MAX);
        File::create(&path)?.set_len(bytes)?;
        Ok(Self(File::open(&path)?))
    }

    /// Reads what is no longer in the page cache.
    pub(crate) fn fill(&self) -> Result<()> {
        let mut from = &self.0;
        std::io::Seek::rewind(&mut from)?;
        let mut piece = vec![0; 1 << 20];
        while from.read(&mut piece)? > 0 {}
        Ok(())
    }
}
