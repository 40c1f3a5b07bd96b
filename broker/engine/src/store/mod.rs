//! The metadata interface: ordered keys and values, changed by all-or-nothing batches of conditional writes.
//!
//! It keeps what must survive besides the records: streams, shards, leases, the epoch. Nothing above it may assume a
//! local file: [`redb`] is the one for a single machine, a cluster will bring its own. Keys in use and the bytes of
//! each value are described in FORMAT.md beside this crate.
//!
//! ```text
//!   caller ─ reserve ─ send ─►┐
//!   caller ─ reserve ─ send ─►├─ queue ─► writer thread: one commit for all that wait ─► each caller's own verdict
//!   caller ─ reserve ─ send ─►┘
//! ```
//!
//! The store itself is blocking and is read only while a directory is opened; afterwards the writer thread owns it
//! (see [`writer`]) and what is known of it lives in memory.

mod contained;
pub(crate) mod memory;
pub(crate) mod redb;
pub(crate) mod row;
#[cfg(test)]
mod suite;
pub(crate) mod writer;

use crate::error::Result;
use bytes::Bytes;

/// What must be true of a key for a batch to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expect {
    /// It has no value.
    Absent,
    /// It has exactly this value.
    Value(Bytes),
}

/// Changes that happen together or not at all, and the conditions on which they happen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Batch {
    pub(crate) conditions: Vec<(Bytes, Expect)>,
    /// The new value of a key; none removes it.
    pub(crate) changes: Vec<(Bytes, Option<Bytes>)>,
}

impl Batch {
    /// One key gets a value, whatever it had.
    pub(crate) fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self { conditions: Vec::new(), changes: vec![(key.into(), Some(value.into()))] }
    }
    /// One key gets a value if it has what is expected.
    pub(crate) fn compare_and_set(key: impl Into<Bytes>, expect: Expect, value: impl Into<Bytes>) -> Self {
        let key = key.into();
        Self { conditions: vec![(key.clone(), expect)], changes: vec![(key, Some(value.into()))] }
    }
}

/// What a batch came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is durable.
    Done,
    /// A condition did not hold; nothing was changed.
    Refused,
}

/// A store of metadata. Calls block.
pub(crate) trait Store: Send + 'static {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>>;
    /// All keys that begin with `prefix`, ascending, with their values.
    fn scan(&self, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>>;
    /// Judges and does the batches one by one, in order, and makes all of them durable at once. An error of kind
    /// `Unavailable` means that none was done; `UnknownOutcome`, that some may have been.
    fn commit(&mut self, group: &[Batch]) -> Result<Vec<Verdict>>;
}
