//! The producer's few knobs, each with a default that works and bounds that are checked.

use crate::aggregator::{Packing, Terms};
use crate::batch::Returned;
use crate::error::{Error, Result};
use crate::lane::Manner;
use crate::limiter::Limiter;
use crate::retrier::Policy;
#[cfg(feature = "aws")]
use crate::sink::aws::Aws;
use std::sync::Arc;
use std::time::Duration;
use tidemill_proto::client::{Dial, Endpoint};
use tidemill_types::ProducerId;
#[cfg(feature = "discard")]
use tidemill_types::limits::SHARDS_PER_STREAM_MAX;
use tidemill_types::limits::{FRAME_RECORDS_MAX, PRODUCER_BATCHES_IN_FLIGHT_MAX};

const MIB: usize = 1024 * 1024;
/// A broker recognises a repeated batch until its producer has been silent for 15 min. What is tried no longer than this is
/// never repeated to a broker that has forgotten it.
const RECORD_DEADLINE_MAX: Duration = Duration::from_secs(600);
pub(crate) const RECORD_DEADLINE_MIN: Duration = Duration::from_millis(100);

/// Whom to put to.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    Tidemill(Endpoint),
    #[cfg(feature = "aws")]
    Aws(Box<Aws>),
    /// Nobody; streams have so many shards.
    #[cfg(feature = "discard")]
    Discard(u32),
}

/// What of the order of puts is kept whatever fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// As much as costs nothing.
    Loose,
    /// That of each partition key.
    PerKey,
}

/// How a producer batches, what it may use, and how long it tries.
#[derive(Debug, Clone)]
#[must_use = "a configuration does nothing until a producer is made of it"]
pub struct Config {
    pub(crate) target: Target,
    pub(crate) linger: Duration,
    batch_bytes: usize,
    pub(crate) memory_bytes: usize,
    pub(crate) memory_records: Option<usize>,
    pub(crate) connections: usize,
    batches_in_flight: usize,
    pub(crate) record_deadline: Duration,
    order: Order,
    pub(crate) returned: Returned,
}

impl Config {
    /// The defaults, for the broker at `http://host:port`, or at `https://host:port` with TLS. An error if that is no such
    /// address.
    pub fn new(endpoint: &str) -> Result<Self> {
        Ok(Self::with_defaults(Target::Tidemill(Endpoint::new(endpoint)?)))
    }
    /// The defaults for Amazon Kinesis, or whatever speaks its API: as [`Config::new`], but records linger for 100 ms, and
    /// batches are what [`Aws`] says.
    #[cfg(feature = "aws")]
    pub fn aws(aws: Aws) -> Self {
        let config = Self::with_defaults(Target::Aws(Box::new(aws)));
        Self {
            linger: Duration::from_millis(100),
            connections: 1,
            batches_in_flight: PRODUCER_BATCHES_IN_FLIGHT_MAX,
            ..config
        }
    }
    /// The defaults, with every stream there and of `shards` shards (1 to 10,000), and everything that is sent dropped and
    /// answered as stored: to measure what the producer itself costs.
    #[cfg(feature = "discard")]
    pub fn discard(shards: u32) -> Result<Self> {
        within("shards", u128::from(shards), 1, u128::from(SHARDS_PER_STREAM_MAX), "shards")?;
        Ok(Self::with_defaults(Target::Discard(shards)))
    }
    fn with_defaults(target: Target) -> Self {
        Self {
            target,
            linger: Duration::from_millis(5),
            batch_bytes: 512 * 1024,
            memory_bytes: 32 * MIB,
            memory_records: None,
            connections: 2,
            batches_in_flight: 8,
            record_deadline: Duration::from_secs(30),
            order: Order::Loose,
            returned: Returned::Nothing,
        }
    }
    fn broker(self, change: impl FnOnce(Endpoint) -> tidemill_proto::Result<Endpoint>) -> Result<Self> {
        match self.target {
            Target::Tidemill(endpoint) => Ok(Self { target: Target::Tidemill(change(endpoint)?), ..self }),
            #[cfg(feature = "aws")]
            Target::Aws(_) => Err(Error::invalid("of Amazon, say this to `Aws`, not to `Config`")),
            #[cfg(feature = "discard")]
            Target::Discard(_) => Err(Error::invalid("there is no broker to say this to")),
        }
    }
    /// The authorities (PEM) to trust with `https://`, instead of those the system trusts. Of a Tidemill broker.
    pub fn ca_certificate(self, pem: impl Into<Vec<u8>>) -> Result<Self> {
        self.broker(|endpoint| endpoint.ca_certificate(pem))
    }
    /// With what to prove to the broker who calls: an access key id and its secret. Default: nothing, which is enough for a
    /// broker without credentials. Use `https://` wherever others could listen. Of a Tidemill broker.
    pub fn credentials(self, access_key_id: &str, secret_access_key: &str) -> Result<Self> {
        self.broker(|endpoint| endpoint.credentials(access_key_id, secret_access_key))
    }
    /// Makes connections by `dial` instead of TCP. Of a Tidemill broker.
    pub fn dialed_by(self, dial: Dial) -> Result<Self> {
        self.broker(|endpoint| Ok(endpoint.dialed_by(dial)))
    }
    /// How long the first record of a batch waits for company. Default 5 ms, with Amazon 100 ms; at most 1 s and half of
    /// `record_deadline`; 0 sends at once.
    pub fn linger(self, linger: Duration) -> Result<Self> {
        within("linger", linger.as_millis(), 0, 1_000, "ms")?;
        Ok(Self { linger, ..self })
    }
    /// Size at which a batch is sent without waiting, in bytes. Default 512 KiB, 1 KiB to 8 MiB. A larger record goes alone.
    /// With Amazon, `Aws::aggregation_bytes` says it instead.
    pub fn batch_bytes(self, bytes: usize) -> Result<Self> {
        within("batch_bytes", bytes as u128, 1024, 8 * MIB as u128, "bytes")?;
        Ok(Self { batch_bytes: bytes, ..self })
    }
    /// Memory for records that are not acknowledged yet, in bytes; each counts its data, its key and some 64 bytes.
    /// Default 32 MiB, 16 MiB to 2 GiB: a fuller queue takes longer and falls out of the processor's caches (at full load 64 MiB
    /// gave 0.94 of the records/s of 32 MiB where acknowledgements are durable, 0.81 else, at three times the latency). Beside
    /// it, the transport copies what it has on the wire, a few MiB a connection.
    pub fn memory_bytes(self, bytes: usize) -> Result<Self> {
        within("memory_bytes", bytes as u128, 16 * MIB as u128, 2048 * MIB as u128, "bytes")?;
        Ok(Self { memory_bytes: bytes, ..self })
    }
    /// How many records may be unacknowledged, beside `memory_bytes`; put waits at either limit. Default as many as that
    /// holds; at least 1.
    pub fn memory_records(self, records: usize) -> Result<Self> {
        within("memory_records", records as u128, 1, u128::from(u32::MAX), "records")?;
        Ok(Self { memory_records: Some(records), ..self })
    }
    /// Connections to the broker; a shard keeps to one of them. Default 2, 1 to 16; made when first needed.
    /// With Amazon, tasks that make requests over one pool of connections; default 1.
    pub fn connections(self, connections: usize) -> Result<Self> {
        within("connections", connections as u128, 1, 16, "connections")?;
        Ok(Self { connections, ..self })
    }
    /// Unanswered batches of one shard at a time. Default 8, with Amazon 32; 1 to 32. [`Config::ordered`] makes it 1.
    pub fn batches_in_flight(self, batches: usize) -> Result<Self> {
        within("batches_in_flight", batches as u128, 1, PRODUCER_BATCHES_IN_FLIGHT_MAX as u128, "batches")?;
        Ok(Self { batches_in_flight: batches, ..self })
    }
    /// How long a record may stay unacknowledged before its ticket fails with the last cause; counted for all records of a
    /// batch from its first, which is `linger` at most before. A record may be given less
    /// ([`Producer::put_living`](crate::Producer::put_living)). Default 30 s, 100 ms to 10 min, and at least twice `linger`.
    ///
    /// No longer, because a broker recognises a repeated batch only while it remembers its producer: until that has been
    /// silent for 15 min on the shard. More than 1,024 producers on one shard push out those that have been silent longest.
    pub fn record_deadline(self, deadline: Duration) -> Result<Self> {
        within(
            "record_deadline",
            deadline.as_millis(),
            RECORD_DEADLINE_MIN.as_millis(),
            RECORD_DEADLINE_MAX.as_millis(),
            "ms",
        )?;
        Ok(Self { record_deadline: deadline, ..self })
    }
    /// Keeps the order of the puts of each partition key in what is acknowledged, whatever fails: one batch of a shard is
    /// under way at a time, and tried again until it is stored or given up before a newer one is sent; so it is across lost
    /// connections, restarts of the broker and reshards. Off by default, when only a refusal in the middle of the pipeline
    /// can change the order; costs throughput, a batch a round trip and shard.
    ///
    /// A record whose ticket failed with [`ErrorKind::UnknownOutcome`](crate::ErrorKind::UnknownOutcome) may turn up later
    /// than those behind it. Amazon may store a batch again that is repeated after a lost answer, so there a key's records
    /// may be followed by the same ones again.
    pub fn ordered(self) -> Self {
        Self { order: Order::PerKey, ..self }
    }
    /// Gives the record back with a failure ([`Error::record`](crate::Error::record)). Off by default, as what is given back
    /// takes memory that `memory_bytes` does not count, until the ticket's error is dropped.
    pub fn return_failed(self) -> Self {
        Self { returned: Returned::Record, ..self }
    }

    /// How batches are made.
    pub(crate) fn terms(&self, limiter: Arc<Limiter>) -> Terms {
        let (packing, batch_bytes, batch_records) = match &self.target {
            Target::Tidemill(_) => (Packing::Frame, self.batch_bytes, FRAME_RECORDS_MAX),
            #[cfg(feature = "discard")]
            Target::Discard(_) => (Packing::Frame, self.batch_bytes, FRAME_RECORDS_MAX),
            #[cfg(feature = "aws")]
            Target::Aws(aws) => (Packing::Aggregate, aws.aggregation_bytes, aws.records_per_aggregate()),
        };
        Terms {
            // zero means "no producer"
            producer: ProducerId::new(rand::random_range(1..=u64::MAX)),
            packing,
            batch_bytes,
            batch_records,
            record_deadline: self.record_deadline,
            returned: self.returned,
            limiter,
        }
    }
    /// How batches are sent.
    pub(crate) fn manner(&self) -> Manner {
        let (policy, rate_percent) = match &self.target {
            Target::Tidemill(_) => (Policy::RECOGNISED, None),
            #[cfg(feature = "discard")]
            Target::Discard(_) => (Policy::RECOGNISED, None),
            #[cfg(feature = "aws")]
            Target::Aws(aws) => (aws.policy(), aws.rate_percent),
        };
        let in_flight_max = match self.order {
            Order::Loose => self.batches_in_flight,
            Order::PerKey => 1,
        };
        Manner { in_flight_max, policy, rate_percent }
    }

    /// What only the whole can tell: a record must have time left when it has lingered.
    pub(crate) fn check(&self) -> Result<()> {
        let (linger, deadline) = (self.linger, self.record_deadline);
        if linger <= deadline / 2 {
            return Ok(());
        }
        let told =
            format!("linger must be at most half of record_deadline, found {linger:?} and {deadline:?}");
        Err(Error::invalid(told))
    }
}

pub(crate) fn within(name: &str, value: u128, least: u128, most: u128, unit: &str) -> Result<()> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(Error::invalid(format!("{name} must lie between {least} and {most} {unit}, found {value}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_out_of_bounds_are_refused_by_name() {
        let config = || Config::new("http://127.0.0.1:4567").unwrap();
        let refused = [
            config().linger(Duration::from_secs(2)).unwrap_err(),
            config().batch_bytes(1000).unwrap_err(),
            config().memory_bytes(1).unwrap_err(),
            config().memory_records(0).unwrap_err(),
            config().connections(0).unwrap_err(),
            config().batches_in_flight(33).unwrap_err(),
            config().record_deadline(Duration::ZERO).unwrap_err(),
        ];
        let names = [
            "linger",
            "batch_bytes",
            "memory_bytes",
            "memory_records",
            "connections",
            "batches_in_flight",
            "record_deadline",
        ];
        for (error, name) in refused.iter().zip(names) {
            assert!(error.message().starts_with(name), "{error}");
        }
        assert!(config().batches_in_flight(32).is_ok());
    }

    #[test]
    fn no_record_is_tried_for_longer_than_a_broker_surely_remembers_its_producer() {
        let deadline =
            |secs| Config::new("http://127.0.0.1:4567").unwrap().record_deadline(Duration::from_secs(secs));
        assert!(deadline(600).is_ok());
        assert!(deadline(601).unwrap_err().message().contains("600000 ms"));
    }
}
