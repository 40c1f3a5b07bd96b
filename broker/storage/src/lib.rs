//! The durable log: bytes on disk for many shards, and nothing else.
//!
//! What it is: for each shard a log of frames, kept in segments, made durable through one shared journal (small frames)
//! or in place (large ones), with one recovery. Why: the cost of an acknowledged write must depend neither on how many
//! shards are active nor on how much is stored. How it lives: see ARCHITECTURE.md §3 and FORMAT.md beside this crate.
//!
//! It is synchronous and deterministic: threads only drive it (`background.rs`). It knows no async runtime, no wire,
//! no stream names: a shard's log is a [`LogId`].

mod background;
pub mod backup;
mod behind;
mod bytes_le;
mod checkpoint;
mod commit;
mod damage;
mod epochs;
mod error;
mod journal;
mod leaving;
mod log_state;
mod metrics;
mod producers;
mod recovery;
pub mod repair;
mod segment;
mod settings;
mod shard_log;
mod shared;
mod storage;
mod sync;
pub mod verify;
mod watermarks;
mod write_back;

pub mod disk;

pub use error::{Error, ErrorKind, Result};
pub use recovery::{Used, is_unused, used};
pub use settings::{Durability, Settings};
pub use shard_log::{Chunk, ShardLog};
pub use storage::Storage;
pub use watermarks::Marks;

use tidemill_types::{Epoch, SequenceIndex, TimestampMs};

/// The identity of one shard's log; given out by the catalog, never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId(u64);

impl LogId {
    /// From the number.
    pub const fn new(value: u64) -> Self {
        Self(value)
    }
    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// One opening of a directory, as whoever keeps its catalog counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opening {
    /// Above every one before.
    pub epoch: Epoch,
    /// Names the directory in its checkpoints, so that a catalog of another one is told ([`Used`]). 0: it has no name.
    pub directory: u32,
}

impl From<Epoch> for Opening {
    /// Of a directory without a name.
    fn from(epoch: Epoch) -> Self {
        Self { epoch, directory: 0 }
    }
}

/// What an append came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Index of the first record; the others follow without gap.
    pub first: SequenceIndex,
    /// Records.
    pub count: u32,
    /// Arrival time of all of them.
    pub arrival: TimestampMs,
    /// The batch had been stored before: this is the first outcome again.
    pub duplicate: bool,
}

/// Whether storage takes writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Healthy,
    /// The disk has no room; writes resume by themselves when there is.
    Full,
    /// A write or sync failed: what the disk holds is unknown, writes are refused until a restart recovers.
    Poisoned(String),
}

/// Bytes on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Of journal files.
    pub journal_bytes: u64,
    /// Of segments, recycled ones included.
    pub segment_bytes: u64,
}
