//! What an operator may choose about storage, with defaults that work.

use crate::error::{Error, ErrorKind, Result};

/// What an acknowledgement promises. It decides who waits, not where bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The record is on the device: it survives power loss.
    Device,
    /// The record is with the operating system, which syncs every so many milliseconds: a power loss may take that
    /// much, the crash of the process takes nothing.
    Interval {
        /// Milliseconds between syncs.
        ms: u64,
    },
    /// The record is with the operating system: a power loss may take what it has not written back yet.
    Os,
}

/// Sizes and modes of one storage directory.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What an acknowledgement promises. Default: the device.
    pub durability: Durability,
    /// All journal files together, at most. Default 1 GiB, at least 64 MiB.
    pub journal_bytes_max: u64,
    /// The first journal file; later ones double up to sixteen times this. Default 16 MiB, a multiple of 4 KiB.
    pub journal_file_bytes: u64,
    /// A checkpoint is written when so many journal bytes have come since the last one. Default 256 MiB.
    pub checkpoint_bytes: u64,
    /// Frames of one shard and group that together reach this go straight to the segment. Default 64 KiB.
    pub direct_bytes_min: usize,
    /// The first segment of a shard; later ones grow fourfold up to the maximum. Default 64 KiB.
    pub segment_bytes_min: u64,
    /// Default 128 MiB.
    pub segment_bytes_max: u64,
    /// Recycled segments kept at hand, at most; a full disk takes them back. Default 16, that is 2 GiB: blocks that were written
    /// before take synchronous writes faster than new ones. Full load behind a stream that was deleted took 1,390 MB/s with 4, 1,600
    /// with 16, 1,710 with 32 (medians of 6).
    pub pool_segments_max: usize,
    /// Segments that may be open and mapped while nobody reads them. Default 1,024; those that are not used are closed
    /// after some seconds.
    pub open_segments_max: usize,
    /// Threads that write large frames; they wait for the device most of the time. Default 4: at full load over 8 shards, on 2 cores,
    /// that took 878 MB/s where 2 took 725 and 6 took 814 (medians of 7, interleaved), and without waiting for the device the same.
    pub direct_threads: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            durability: Durability::Device,
            journal_bytes_max: 1 << 30,
            journal_file_bytes: 16 << 20,
            checkpoint_bytes: 256 << 20,
            direct_bytes_min: 64 << 10,
            segment_bytes_min: 64 << 10,
            segment_bytes_max: 128 << 20,
            pool_segments_max: 16,
            open_segments_max: 1024,
            direct_threads: 4,
        }
    }
}

impl Settings {
    /// Whether the sizes fit each other; says which do not.
    pub fn check(&self) -> Result<()> {
        let bad = |what: &str| Err(Error::new(ErrorKind::Refused, format!("storage settings: {what}")));
        if !self.journal_file_bytes.is_multiple_of(4096) || self.journal_file_bytes < 64 << 10 {
            return bad("journal_file_bytes must be a multiple of 4096 and at least 64 KiB");
        }
        if self.journal_bytes_max < self.journal_file_bytes * 4 {
            return bad("journal_bytes_max must be at least four journal files");
        }
        if self.segment_bytes_min < 16 << 10 || self.segment_bytes_max < self.segment_bytes_min {
            return bad("segments must have at least 16 KiB, and the largest must not be below the smallest");
        }
        if self.segment_bytes_max > 512 << 20 {
            return bad("segment_bytes_max must not pass 512 MiB");
        }
        if (self.direct_bytes_min as u64) * 4 > self.journal_file_bytes {
            return bad("direct_bytes_min must not pass a quarter of a journal file");
        }
        if matches!(self.durability, Durability::Interval { ms: 0 }) {
            return bad("the sync interval must be at least 1 ms");
        }
        if self.direct_threads == 0 {
            return bad("direct_threads must be at least 1");
        }
        Ok(())
    }
}
