//! How far a shard is processed, in the order and with the words of the KCL, whatever service the records come from.

use crate::error::{Error, ErrorKind, Result};
use bytes::Bytes;
use tidemill_types::{AnySequenceNumber, TimestampMs};

/// How far an application has processed a shard. Checkpoints of one shard only move forward, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Checkpoint {
    /// Nothing yet; start at the time that the application begins at
    /// ([`InitialPosition::AtTimestamp`](crate::InitialPosition::AtTimestamp)).
    AtTimestamp,
    /// Nothing yet; start at the oldest record kept.
    TrimHorizon,
    /// Nothing yet; start at what arrives after the shard is first read.
    Latest,
    /// Everything up to and including this record (of an aggregated one, this sub-record).
    At {
        /// The last record processed.
        number: AnySequenceNumber,
        /// Within an aggregated record, the last sub-record processed; 0 elsewhere.
        sub: u64,
    },
    /// The shard was closed and all its records are processed.
    ShardEnd,
}

/// A checkpoint that was prepared and not yet committed: the first half of a two-phase checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PendingCheckpoint {
    /// How far it reaches.
    pub at: Checkpoint,
    /// What the application stored beside it, at most [`PendingCheckpoint::STATE_BYTES_MAX`].
    pub state: Bytes,
}

impl PendingCheckpoint {
    /// Most bytes of state, 4 KiB: a lease row stays small.
    pub const STATE_BYTES_MAX: usize = 4 * 1024;

    pub(crate) fn new(at: Checkpoint, state: Bytes) -> Result<Self> {
        if state.len() > Self::STATE_BYTES_MAX {
            let told = format!(
                "the state of a prepared checkpoint has at most {} bytes, found {}",
                Self::STATE_BYTES_MAX,
                state.len()
            );
            return Err(Error::new(ErrorKind::Invalid, told));
        }
        Ok(Self { at, state })
    }
}

/// Where to read a shard from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadFrom {
    /// The oldest record kept.
    TrimHorizon,
    /// What arrives from now on.
    Latest,
    /// The first record that arrived at this time or later.
    AtTime(TimestampMs),
    /// Right behind this record; of an aggregated one, behind this sub-record.
    Behind { number: AnySequenceNumber, sub: u64 },
}

impl ReadFrom {
    /// Behind a checkpoint, for an application that begins at `initial_time` if it says so.
    pub(crate) fn behind(checkpoint: Checkpoint, initial_time: Option<TimestampMs>) -> Self {
        match (checkpoint, initial_time) {
            (Checkpoint::At { number, sub }, _) => Self::Behind { number, sub },
            // a store may have no word for a time; a shard not begun then begins at its oldest record
            (Checkpoint::AtTimestamp | Checkpoint::TrimHorizon, Some(time)) => Self::AtTime(time),
            (Checkpoint::AtTimestamp | Checkpoint::TrimHorizon, None) => Self::TrimHorizon,
            // nothing is taken at its end; to read such a shard again from its newest record finds the end at once
            (Checkpoint::Latest | Checkpoint::ShardEnd, _) => Self::Latest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_order_as_those_of_the_kcl_do() {
        let at = |number: u128, sub| {
            let number = number.to_string().parse().unwrap();
            Checkpoint::At { number, sub }
        };
        let rising = [
            Checkpoint::AtTimestamp,
            Checkpoint::TrimHorizon,
            Checkpoint::Latest,
            at(0, 0),
            at(9, 0),
            at(9, 1),
            at(10, 0),
            at(u128::MAX, 7),
            Checkpoint::ShardEnd,
        ];
        assert!(rising.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn an_application_that_begins_at_a_time_does_so_in_every_shard_it_has_not_begun() {
        let time = Some(TimestampMs::new(5));
        for not_begun in [Checkpoint::AtTimestamp, Checkpoint::TrimHorizon] {
            assert_eq!(ReadFrom::behind(not_begun, time), ReadFrom::AtTime(TimestampMs::new(5)));
            assert_eq!(ReadFrom::behind(not_begun, None), ReadFrom::TrimHorizon);
        }
        let number = AnySequenceNumber::ZERO;
        let begun = Checkpoint::At { number, sub: 3 };
        assert_eq!(ReadFrom::behind(begun, time), ReadFrom::Behind { number, sub: 3 });
    }
}
