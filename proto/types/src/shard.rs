//! A shard: one ordered log of a stream, holding a range of the hash space.

use crate::error::{Error, Result};
use crate::hash_key::HashKeyRange;
use crate::sequence::{SequenceIndex, SequenceNumber};
use crate::time::TimestampMs;
use std::fmt;
use std::str::FromStr;

/// The number of a shard within its stream; never used again there. Prints as `shardId-000000000000`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(u32);

impl ShardId {
    /// From the number; an error above 2^31−1 (Kinesis).
    pub fn new(value: u32) -> Result<Self> {
        if value > i32::MAX as u32 {
            return Err(Error::new(format!("a shard number is at most 2147483647, found {value}")));
        }
        Ok(Self(value))
    }
    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shardId-{:012}", self.0)
    }
}

impl FromStr for ShardId {
    type Err = Error;
    /// As lax as Kinesis: what follows the first `-`, or the whole text, is the number.
    fn from_str(text: &str) -> Result<Self> {
        let digits = text.split_once('-').map_or(text, |(_, digits)| digits);
        let number = if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None };
        number.and_then(|n| Self::new(n).ok()).ok_or_else(|| {
            Error::new(format!("not a shard id: {text:?}; expected such as shardId-000000000000"))
        })
    }
}

/// Whether a shard takes records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShardState {
    /// It takes records.
    Open,
    /// It was split or merged: no record carries an index above `ending`.
    Closed {
        /// The last index of the shard.
        ending: SequenceIndex,
        /// When it was closed.
        closed: TimestampMs,
    },
}

/// What is known of one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Its number in the stream.
    pub id: ShardId,
    /// The shard it came from by split or merge (of a merge, the lower one).
    pub parent: Option<ShardId>,
    /// Of a merge, the upper parent.
    pub adjacent_parent: Option<ShardId>,
    /// The hash keys it holds.
    pub range: HashKeyRange,
    /// When it was created; part of its sequence numbers. A child's second is above its parents'.
    pub created: TimestampMs,
    /// Open or closed.
    pub state: ShardState,
}

impl Shard {
    /// Whether it takes records.
    pub fn is_open(&self) -> bool {
        self.state == ShardState::Open
    }
    /// The full number of the record `index` that arrived at `time`.
    pub fn number(&self, index: SequenceIndex, time: TimestampMs) -> SequenceNumber {
        SequenceNumber::new(self.created, self.id, index, time)
    }
    /// The number before all its records.
    pub fn starting_number(&self) -> SequenceNumber {
        SequenceNumber::starting(self.created, self.id)
    }
    /// Of a closed shard, the number at or after its last record.
    pub fn ending_number(&self) -> Option<SequenceNumber> {
        match self.state {
            ShardState::Open => None,
            ShardState::Closed { ending, closed } => Some(self.number(ending, closed)),
        }
    }
    /// The shards it came from.
    pub fn parents(&self) -> impl Iterator<Item = ShardId> {
        self.parent.into_iter().chain(self.adjacent_parent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shard_ids_parse_as_laxly_as_kinesis() {
        for text in ["shardId-000000000007", "shardId-7", "a-7", "7"] {
            assert_eq!(text.parse::<ShardId>().unwrap().to_string(), "shardId-000000000007");
        }
        for bad in ["", "shardId-", "shardId-x", "shardId--1", "2147483648", "shardId-99999999999"] {
            assert!(bad.parse::<ShardId>().is_err(), "{bad:?} was taken");
        }
    }
}
