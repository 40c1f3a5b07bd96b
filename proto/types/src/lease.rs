//! Leases: the right of one worker to process one shard, and how far it has come.

use crate::error::{Error, Result};
use crate::limits::{LEASE_STATE_BYTES_MAX, WORKER_ID_BYTES_MAX};
use crate::sequence::SequenceNumber;
use bytes::Bytes;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Who holds a lease: 1 to 256 printable characters, unique among the workers of an application.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(Arc<str>);

impl WorkerId {
    /// Checks and takes the id.
    pub fn new(text: &str) -> Result<Self> {
        let fits = !text.is_empty() && text.len() <= WORKER_ID_BYTES_MAX;
        if !fits || text.chars().any(char::is_control) {
            return Err(Error::new(format!(
                "a worker id must have 1 to {WORKER_ID_BYTES_MAX} bytes without control characters, found {text:?}"
            )));
        }
        Ok(Self(text.into()))
    }
    /// The id as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for WorkerId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::new(text)
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The fencing counter of a lease: rises with every change of owner; work done under a lower one is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LeaseEpoch(u64);

impl LeaseEpoch {
    /// From the number.
    pub const fn new(value: u64) -> Self {
        Self(value)
    }
    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
    /// The epoch after this one.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for LeaseEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// How far an application has processed a shard. Checkpoints of one shard only move forward, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Checkpoint {
    /// Nothing yet; start at the oldest record kept.
    TrimHorizon,
    /// Nothing yet; start at what arrives after the shard is first read.
    Latest,
    /// Everything up to and including this record (of an aggregated one, this sub-record).
    At {
        /// The last record processed.
        number: SequenceNumber,
        /// Within an aggregated record, the last sub-record processed; 0 elsewhere. [`Checkpoint::WHOLE`] stands for all of
        /// them, whatever the record holds.
        sub: u64,
    },
    /// The shard was closed and all its records are processed.
    ShardEnd,
}

impl Checkpoint {
    /// The sub-record of one who does not know what a record holds, and means all of it.
    pub const WHOLE: u64 = u64::MAX;
}

/// A checkpoint that was announced and not made yet, with what the application needs to complete it or take it back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingCheckpoint {
    at: Checkpoint,
    state: Bytes,
}

impl PendingCheckpoint {
    /// Checks and takes both; `state` is the application's own, at most 4 KiB.
    pub fn new(at: Checkpoint, state: Bytes) -> Result<Self> {
        if state.len() > LEASE_STATE_BYTES_MAX {
            return Err(Error::new(format!(
                "the state of a prepared checkpoint has at most {LEASE_STATE_BYTES_MAX} bytes, found {}",
                state.len()
            )));
        }
        Ok(Self { at, state })
    }
    /// Where the checkpoint is to be.
    pub const fn at(&self) -> Checkpoint {
        self.at
    }
    /// What the application keeps with it.
    pub const fn state(&self) -> &Bytes {
        &self.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_of_a_prepared_checkpoint_is_bounded() {
        let prepared = |bytes| PendingCheckpoint::new(Checkpoint::Latest, Bytes::from(vec![7; bytes]));
        assert_eq!(prepared(LEASE_STATE_BYTES_MAX).unwrap().state().len(), LEASE_STATE_BYTES_MAX);
        assert!(prepared(LEASE_STATE_BYTES_MAX + 1).is_err());
    }

    #[test]
    fn worker_ids_refuse_what_would_break_a_log_line() {
        for bad in ["", "a\nb", "\u{7f}", &"x".repeat(257)] {
            assert!(WorkerId::new(bad).is_err(), "{bad:?} was taken");
        }
        assert!(WorkerId::new("host-1:4711 ü").is_ok());
    }
}
