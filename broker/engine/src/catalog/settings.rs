//! What a stream is set to: the values that describes show, and the changes that may be asked for.
//!
//! Values only: plans that judge a change are in [`super::update`], rows in [`super::row`].

use std::collections::BTreeMap;
use tidemill_types::limits::{RECORD_BYTES_DEFAULT, RETENTION_HOURS_DEFAULT};

/// Tags of a stream or a consumer: key to value, at most 50.
pub type Tags = BTreeMap<String, String>;

/// Who decides how many shards a stream has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StreamMode {
    /// Its owner, by splitting, merging and scaling.
    #[default]
    Provisioned,
    /// The broker. Its shards have no write quota, and cannot be split or merged by hand.
    OnDemand,
}

/// Who decides which shard takes a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Distribution {
    /// The partition key, or the explicit hash key.
    #[default]
    PartitionKey,
    /// The broker, where a record has no partition key.
    Auto,
}

/// A set of the seven shard-level metrics of Kinesis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MetricSet(u8);

impl MetricSet {
    /// The metrics by name, in the order in which sets are shown; bit `n` stands for the `n`th.
    const NAMES: [&'static str; 7] = [
        "IncomingBytes",
        "IncomingRecords",
        "OutgoingBytes",
        "OutgoingRecords",
        "WriteProvisionedThroughputExceeded",
        "ReadProvisionedThroughputExceeded",
        "IteratorAgeMilliseconds",
    ];
    /// All seven.
    pub const ALL: Self = Self(0x7f);

    /// The set of one metric, or of all for `ALL`; none if there is no such metric.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "ALL" => Some(Self::ALL),
            _ => Self::NAMES.iter().position(|known| *known == name).map(|bit| Self(1 << bit)),
        }
    }
    /// From stored bits; none if one of them has no meaning.
    pub(crate) fn from_bits(bits: u8) -> Option<Self> {
        (bits & !Self::ALL.0 == 0).then_some(Self(bits))
    }
    /// The bits to be stored.
    pub(crate) const fn bits(self) -> u8 {
        self.0
    }
    /// The metrics of either set.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
    /// The metrics of this set that are not in the other.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
    /// The names of its metrics.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.iter().enumerate().filter(move |(bit, _)| self.0 & (1 << bit) != 0).map(|(_, name)| *name)
    }
}

/// How the records of a stream are encrypted on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encryption {
    /// The key that wraps the stream's data key, as its owner named it.
    pub key_id: String,
    /// Which data key of the stream new records are sealed with.
    pub data_key: u32,
}

/// What a stream is set to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSettings {
    /// Hours a record is kept, 24 to 8,760. Default 24.
    pub retention_hours: u32,
    /// Who decides how many shards there are.
    pub mode: StreamMode,
    /// Largest record, data and partition key together, in KiB: 1,024 to 10,240. Default 1,024.
    pub record_kib_max: u32,
    /// Who decides which shard takes a record.
    pub distribution: Distribution,
    /// Throughput to be ready for, in MiB/s; on-demand streams only.
    pub warm_mibps: Option<u32>,
    /// Shard-level metrics that were asked for.
    pub monitoring: MetricSet,
    /// Encryption of new records; none: they lie in the clear.
    pub encryption: Option<Encryption>,
    /// Its tags.
    pub tags: Tags,
    /// Its resource policy, a JSON document that was checked when it was set.
    pub policy: Option<String>,
}

impl StreamSettings {
    /// Largest record, data and partition key together, in bytes.
    pub const fn record_bytes_max(&self) -> usize {
        self.record_kib_max as usize * 1024
    }
}

impl Default for StreamSettings {
    fn default() -> Self {
        Self {
            retention_hours: RETENTION_HOURS_DEFAULT,
            mode: StreamMode::default(),
            record_kib_max: u32::try_from(RECORD_BYTES_DEFAULT / 1024).expect("1,024 fits"),
            distribution: Distribution::default(),
            warm_mibps: None,
            monitoring: MetricSet::default(),
            encryption: None,
            tags: Tags::new(),
            policy: None,
        }
    }
}

/// A change of a stream's settings. Each is one durable step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamUpdate {
    /// To these hours; what was let go of already does not come back.
    IncreaseRetention(u32),
    /// To these hours; older records are gone when this is answered.
    DecreaseRetention(u32),
    /// To this mode; its shards stay as they are.
    Mode {
        /// The mode.
        mode: StreamMode,
        /// With on-demand mode: throughput to be ready for, in MiB/s.
        warm_mibps: Option<u32>,
    },
    /// To this largest record, in KiB.
    RecordLimit(u32),
    /// To this way of choosing shards.
    Distribution(Distribution),
    /// To be ready for this throughput, in MiB/s.
    WarmThroughput(u32),
    /// These metrics besides.
    EnableMonitoring(MetricSet),
    /// These metrics no more.
    DisableMonitoring(MetricSet),
    /// These tags besides; a key that is there gets the new value.
    Tag(Tags),
    /// These keys no more; unknown ones are ignored.
    Untag(Vec<String>),
    /// This resource policy, or none.
    Policy(Option<String>),
    /// New records are sealed with a new data key, wrapped by the key of this id.
    Encrypt {
        /// The wrapping key.
        key_id: String,
    },
    /// New records lie in the clear; older ones stay sealed.
    StopEncryption {
        /// The wrapping key in use.
        key_id: String,
    },
}
