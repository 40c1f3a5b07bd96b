//! Sequence numbers: the address of a record within a shard, and the positions a reader may start from.
//!
//! A number is handed to users as Kinesis users know it: an opaque, increasing decimal of 56 digits. Written as
//! 47 hexadecimal digits it reads (the layout of AWS, version 2):
//!
//! ```text
//!  2 | created_s 9 | nibble 1 | index 16           | 00 | time_s 9 | shard 8 | 2
//!      shard made    of shard   epoch 20 counter 43       arrival
//! ```
//!
//! Inside, only the [`SequenceIndex`] matters: the rest repeats facts about the shard, so that a number used on
//! another shard or an earlier stream of the same name is recognised. The epoch is the high part of the index and is
//! bumped, durably, each time the log is opened: a number is never used twice, even when a tail was lost.

mod any;

pub use any::AnySequenceNumber;

use crate::error::{Error, Result};
use crate::shard::ShardId;
use crate::time::TimestampMs;
use std::fmt;
use std::str::FromStr;

const COUNTER_BITS: u32 = 43;
const INDEX_BITS: u32 = 63;
const SECONDS_MAX: u64 = (1 << 36) - 1;

/// How often the log has been opened: the high part of every [`SequenceIndex`] made since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(u32);

impl Epoch {
    /// Epochs go up to this, a million openings.
    pub const MAX: Self = Self((1 << (INDEX_BITS - COUNTER_BITS)) - 1);

    /// From a stored number; an error past [`Epoch::MAX`].
    pub fn new(value: u32) -> Result<Self> {
        if value > Self::MAX.0 {
            return Err(Error::new(format!("an epoch is at most {}, found {value}", Self::MAX.0)));
        }
        Ok(Self(value))
    }
    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
    /// The first index of this epoch. Counters start at 1, so that no record ever carries a shard's starting number.
    pub const fn first_index(self) -> SequenceIndex {
        SequenceIndex(((self.0 as u64) << COUNTER_BITS) | 1)
    }
}

/// The part of a sequence number that orders the records of one shard: epoch and counter, 63 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceIndex(u64);

impl SequenceIndex {
    /// Before every record.
    pub const ZERO: Self = Self(0);
    /// After every record.
    pub const MAX: Self = Self((1 << INDEX_BITS) - 1);

    /// From a stored number; an error past 63 bits.
    pub fn new(value: u64) -> Result<Self> {
        if value > Self::MAX.0 {
            return Err(Error::new(format!("a sequence index has 63 bits, found {value:#x}")));
        }
        Ok(Self(value))
    }
    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
    /// The epoch this index was made in.
    pub const fn epoch(self) -> Epoch {
        Epoch((self.0 >> COUNTER_BITS) as u32)
    }
    /// Whether this may be the next index of a log where `expected` is next: it is that one, or the first of a later epoch
    /// (where nothing was written yet, [`SequenceIndex::ZERO`], of any epoch).
    pub fn follows(self, expected: Self) -> bool {
        let begins_epoch = self == self.epoch().first_index();
        self == expected || (begins_epoch && (self.epoch() > expected.epoch() || expected == Self::ZERO))
    }
    /// The index right after this one; stays at [`SequenceIndex::MAX`].
    pub const fn next(self) -> Self {
        self.plus(1)
    }
    /// The index `count` after this one; stays at [`SequenceIndex::MAX`].
    pub const fn plus(self, count: u64) -> Self {
        let sum = self.0.saturating_add(count);
        if sum > Self::MAX.0 { Self::MAX } else { Self(sum) }
    }
}

impl fmt::Display for SequenceIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch().0, self.0 & ((1 << COUNTER_BITS) - 1))
    }
}

/// The full sequence number of a record, as users see it. Orders as the decimal number orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SequenceNumber {
    created_s: u64,
    shard: ShardId,
    index: SequenceIndex,
    time_s: u64,
}

impl SequenceNumber {
    /// The number of the record `index` of `shard`, which was created at `created`, arrived at `time`.
    ///
    /// An arrival before the shard's creation (a clock that was set back) counts as the creation.
    pub fn new(created: TimestampMs, shard: ShardId, index: SequenceIndex, time: TimestampMs) -> Self {
        let created_s = created.seconds().min(SECONDS_MAX);
        Self { created_s, shard, index, time_s: time.seconds().clamp(created_s, SECONDS_MAX) }
    }
    /// The number before every record of a shard.
    pub fn starting(created: TimestampMs, shard: ShardId) -> Self {
        Self::new(created, shard, SequenceIndex::ZERO, created)
    }
    /// When the shard was created, in seconds since the epoch.
    pub const fn shard_created_s(self) -> u64 {
        self.created_s
    }
    /// The shard this number belongs to.
    pub const fn shard(self) -> ShardId {
        self.shard
    }
    /// The place within the shard.
    pub const fn index(self) -> SequenceIndex {
        self.index
    }
    /// When the record arrived, in seconds since the epoch.
    pub const fn time_s(self) -> u64 {
        self.time_s
    }
    /// The number of the record `count` after this one in the same batch (same arrival).
    pub const fn plus(self, count: u64) -> Self {
        Self { index: self.index.plus(count), ..self }
    }

    /// The 188 bits, high part first.
    fn bits(self) -> (u64, u128) {
        let nibble = u64::from(self.shard.get() & 0xf);
        let index = self.index.0;
        // hex digits: 1 + 9 + 1 + 4 of index = 15 → hi; 12 of index + 2 + 9 + 8 + 1 = 32 → lo
        let hi = (2 << 56) | (self.created_s << 20) | (nibble << 16) | (index >> 48);
        let lo = (u128::from(index & 0xffff_ffff_ffff) << 80)
            | (u128::from(self.time_s) << 36)
            | (u128::from(self.shard.get()) << 4)
            | 2;
        (hi, lo)
    }

    fn from_bits(hi: u64, lo: u128) -> Option<Self> {
        let shard = ShardId::new(u32::try_from((lo >> 4) & 0xffff_ffff).ok()?).ok()?;
        let index = ((hi & 0xffff) << 48) | u64::try_from(lo >> 80).ok()?;
        let number = Self {
            created_s: (hi >> 20) & SECONDS_MAX,
            shard,
            index: SequenceIndex::new(index).ok()?,
            time_s: u64::try_from((lo >> 36) & u128::from(SECONDS_MAX)).ok()?,
        };
        (number.bits() == (hi, lo)).then_some(number)
    }
}

impl PartialOrd for SequenceNumber {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for SequenceNumber {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.bits().cmp(&other.bits())
    }
}

const TEN_19: u64 = 10_000_000_000_000_000_000;

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (hi, lo) = self.bits();
        let mut limbs = [hi, (lo >> 64) as u64, lo as u64];
        let mut parts = [0u64; 3];
        for part in &mut parts {
            let mut rest = 0u64;
            for limb in &mut limbs {
                let value = (u128::from(rest) << 64) | u128::from(*limb);
                *limb = (value / u128::from(TEN_19)) as u64;
                rest = (value % u128::from(TEN_19)) as u64;
            }
            *part = rest;
        }
        // the constant leading digit makes every number at least 2·16^46 > 10^38, so all three parts are needed
        write!(f, "{}{:019}{:019}", parts[2], parts[1], parts[0])
    }
}

impl FromStr for SequenceNumber {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        text.parse::<AnySequenceNumber>()?.try_into()
    }
}

/// Where a reader starts in a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// The oldest record that is still kept.
    TrimHorizon,
    /// Only records that arrive from now on.
    Latest,
    /// At this record, or the first kept one after it.
    At(SequenceNumber),
    /// Right after this record.
    After(SequenceNumber),
    /// The first record that arrived at or after this time.
    AtTime(TimestampMs),
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn number(created_s: u64, index: u64, time_s: u64, shard: u32) -> SequenceNumber {
        SequenceNumber::new(
            TimestampMs::new(created_s * 1000),
            ShardId::new(shard).unwrap(),
            SequenceIndex::new(index).unwrap(),
            TimestampMs::new(time_s * 1000),
        )
    }

    #[test]
    fn numbers_print_as_those_of_aws() {
        let vectors = [
            (1_700_000_000, 0, 1_700_000_000, 3, "49646437577175378652512468275250536580403374760793210930"),
            (1_700_000_000, 1, 1_700_000_005, 3, "49646437577175378652512468275251745506222989733565300786"),
            (
                1_700_000_000,
                (1 << 63) - 1,
                1_700_000_100,
                3,
                "49646437577186529025111733586820095513720091184319168562",
            ),
            (
                1_701_746_677,
                26054,
                1_701_760_152,
                0,
                "49647060812288014558888668248263847763900017820167045122",
            ),
            (
                1_649_914_545,
                6_071_978,
                1_649_930_048,
                3,
                "49628566489653659107048838082246518393102916603510521906",
            ),
            (1_420_070_400, 0, 1_420_070_400, 0, "49546555358178450850136703013797527057916422114018066434"),
        ];
        for (created, index, time, shard, text) in vectors {
            let made = number(created, index, time, shard);
            assert_eq!(made.to_string(), text);
            assert_eq!(text.parse::<SequenceNumber>().unwrap(), made);
        }
    }

    #[test]
    fn numbers_refuse_other_texts() {
        for bad in [
            "",
            "0",
            "1",
            "x",
            "-1",
            "49646437577175378652512468275250536580403374760793210931",
            &"9".repeat(129),
        ] {
            assert!(bad.parse::<SequenceNumber>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn every_epoch_begins_above_all_earlier_ones() {
        let early = Epoch::new(7).unwrap().first_index().plus(1 << 42);
        assert!(early < Epoch::new(8).unwrap().first_index());
        assert_eq!(Epoch::new(8).unwrap().first_index().epoch().get(), 8);
        assert!(Epoch::new(1 << 20).is_err());
    }

    proptest! {
        #[test]
        fn numbers_print_as_they_parse_and_order_by_index(
            created in 0u64..(1 << 36), shard in 0u32..(1 << 31), a in 0u64..(1 << 63), b in 0u64..(1 << 63), late in 0u64..100_000,
        ) {
            let (one, two) = (number(created, a, created + late, shard), number(created, b, created, shard));
            prop_assert_eq!(one.to_string().parse::<SequenceNumber>().unwrap(), one);
            if a != b {
                prop_assert_eq!(one.cmp(&two), a.cmp(&b));
            }
            let (x, y) = (one.to_string(), two.to_string());
            prop_assert_eq!((x.len(), &x).cmp(&(y.len(), &y)), one.cmp(&two));
        }
    }
}
