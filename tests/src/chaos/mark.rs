//! Places in a shard, and the names of records.

use anyhow::{Context, Error, Result};
use std::fmt;
use std::str::FromStr;
use tidemill_types::Checkpoint;

/// How far a shard is processed, by the index of the last record. In this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// Nothing yet; from the oldest record.
    TrimHorizon,
    /// Nothing yet; from the newest.
    Latest,
    /// Up to and with this index and sub-sequence number.
    At(u64, u64),
    /// All of a closed shard.
    ShardEnd,
}

impl Mark {
    /// Whether a record at `index` is processed.
    pub fn covers(self, index: u64) -> bool {
        self >= Self::At(index, 0)
    }
}

impl From<Checkpoint> for Mark {
    fn from(checkpoint: Checkpoint) -> Self {
        match checkpoint {
            Checkpoint::TrimHorizon => Self::TrimHorizon,
            Checkpoint::Latest => Self::Latest,
            Checkpoint::At { number, sub } => Self::At(number.index().get(), sub),
            Checkpoint::ShardEnd => Self::ShardEnd,
        }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TrimHorizon => f.write_str("horizon"),
            Self::Latest => f.write_str("latest"),
            Self::At(index, sub) => write!(f, "{index}.{sub}"),
            Self::ShardEnd => f.write_str("end"),
        }
    }
}

impl FromStr for Mark {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "horizon" => Self::TrimHorizon,
            "latest" => Self::Latest,
            "end" => Self::ShardEnd,
            at => {
                let (index, sub) = at.split_once('.').with_context(|| format!("no mark: {at}"))?;
                Self::At(index.parse()?, sub.parse()?)
            }
        })
    }
}

const KEY_SHIFT: u32 = 40;
const INCARNATION_SHIFT: u32 = 48;

/// Which record it is: the `counter`-th that a producer has put under its key in this run of it. It is the id of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId(u64);

impl RecordId {
    /// From its parts. A key belongs to one producer; its `incarnation` counts its runs.
    pub fn new(incarnation: u16, key: u8, counter: u64) -> Self {
        assert!(counter < 1 << KEY_SHIFT, "a counter of 40 bits");
        Self(u64::from(incarnation) << INCARNATION_SHIFT | u64::from(key) << KEY_SHIFT | counter)
    }
    /// From the id of a payload.
    pub fn from_payload(id: u64) -> Self {
        Self(id)
    }
    /// As the id of a payload.
    pub fn get(self) -> u64 {
        self.0
    }
    /// The run of its producer.
    pub fn incarnation(self) -> u64 {
        self.0 >> INCARNATION_SHIFT
    }
    /// Its key.
    pub fn key(self) -> u8 {
        u8::try_from(self.0 >> KEY_SHIFT & 0xff).expect("eight bits")
    }
    /// How many the run had put under the key before.
    pub fn counter(self) -> u64 {
        self.0 & ((1 << KEY_SHIFT) - 1)
    }
    /// The partition key it is put with.
    pub fn partition_key(self) -> String {
        format!("key-{}", self.key())
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.key(), self.incarnation(), self.counter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_record_id_come_back() {
        let id = RecordId::new(65_535, 255, (1 << 40) - 1);
        assert_eq!((id.incarnation(), id.key(), id.counter()), (65_535, 255, (1 << 40) - 1));
        assert_eq!(RecordId::new(3, 2, 1).to_string(), "2/3/1");
    }

    #[test]
    fn marks_are_ordered_and_come_back_from_text() {
        let marks =
            [Mark::TrimHorizon, Mark::Latest, Mark::At(1, 0), Mark::At(1, 5), Mark::At(2, 0), Mark::ShardEnd];
        assert!(marks.is_sorted());
        for mark in marks {
            assert_eq!(mark.to_string().parse::<Mark>().unwrap(), mark);
        }
        assert!(Mark::At(3, 0).covers(3) && !Mark::At(3, 0).covers(4) && !Mark::Latest.covers(0));
        assert!(Mark::ShardEnd.covers(u64::MAX));
    }
}
