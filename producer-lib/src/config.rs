//! The producer's few knobs, each with a default that works and bounds that are checked.

use crate::error::{Error, Result};
use std::time::Duration;
use tidemill_proto::client::Endpoint;
use tidemill_types::limits::PRODUCER_BATCHES_IN_FLIGHT_MAX;

const MIB: usize = 1024 * 1024;
/// A broker recognises a repeated batch until its producer has been silent for 15 min. What is tried no longer than this is
/// never repeated to a broker that has forgotten it.
const RECORD_DEADLINE_MAX: Duration = Duration::from_secs(600);

/// How a producer batches, what it may use, and how long it tries.
#[derive(Debug, Clone)]
pub struct Config {
    pub(crate) endpoint: Endpoint,
    pub(crate) linger: Duration,
    pub(crate) batch_bytes: usize,
    pub(crate) memory_bytes: usize,
    pub(crate) connections: usize,
    pub(crate) batches_in_flight: usize,
    pub(crate) record_deadline: Duration,
}

impl Config {
    /// The defaults, for the broker at `http://host:port`, or at `https://host:port` with TLS. An error if that is no such
    /// address.
    pub fn new(endpoint: &str) -> Result<Self> {
        Ok(Self {
            endpoint: Endpoint::new(endpoint)?,
            linger: Duration::from_millis(5),
            batch_bytes: 512 * 1024,
            memory_bytes: 64 * MIB,
            connections: 2,
            batches_in_flight: 8,
            record_deadline: Duration::from_secs(30),
        })
    }
    /// The authorities (PEM) to trust with `https://`, instead of those the system trusts.
    pub fn ca_certificate(self, pem: impl Into<Vec<u8>>) -> Result<Self> {
        Ok(Self { endpoint: self.endpoint.ca_certificate(pem)?, ..self })
    }
    /// With what to prove to the broker who calls: an access key id and its secret. Default: nothing, which is enough for a
    /// broker without credentials. Use `https://` wherever others could listen.
    pub fn credentials(self, access_key_id: &str, secret_access_key: &str) -> Result<Self> {
        Ok(Self { endpoint: self.endpoint.credentials(access_key_id, secret_access_key)?, ..self })
    }
    /// How long the first record of a batch waits for company. Default 5 ms, at most 1 s and half of `record_deadline`; 0
    /// sends at once.
    pub fn linger(self, linger: Duration) -> Result<Self> {
        within("linger", linger.as_millis(), 0, 1_000, "ms")?;
        Ok(Self { linger, ..self })
    }
    /// Size at which a batch is sent without waiting, in bytes. Default 512 KiB, 1 KiB to 8 MiB. A larger record goes alone.
    pub fn batch_bytes(self, bytes: usize) -> Result<Self> {
        within("batch_bytes", bytes as u128, 1024, 8 * MIB as u128, "bytes")?;
        Ok(Self { batch_bytes: bytes, ..self })
    }
    /// Memory for records that are not acknowledged yet, in bytes; each counts its data, its key and some 64 bytes.
    /// Default 64 MiB, 16 MiB to 2 GiB. Beside it, the transport copies what it has on the wire, a few MiB a connection.
    pub fn memory_bytes(self, bytes: usize) -> Result<Self> {
        within("memory_bytes", bytes as u128, 16 * MIB as u128, 2048 * MIB as u128, "bytes")?;
        Ok(Self { memory_bytes: bytes, ..self })
    }
    /// Connections to the broker; a shard keeps to one of them. Default 2, 1 to 16; made when first needed.
    pub fn connections(self, connections: usize) -> Result<Self> {
        within("connections", connections as u128, 1, 16, "connections")?;
        Ok(Self { connections, ..self })
    }
    /// Unanswered batches of one shard at a time. Default 8, 1 to 32; 1 keeps the order of a shard whatever fails.
    pub fn batches_in_flight(self, batches: usize) -> Result<Self> {
        within("batches_in_flight", batches as u128, 1, PRODUCER_BATCHES_IN_FLIGHT_MAX as u128, "batches")?;
        Ok(Self { batches_in_flight: batches, ..self })
    }
    /// How long a record may stay unacknowledged before its ticket fails with the last cause; counted for all records of a
    /// batch from its first. Default 30 s, 100 ms to 10 min, and at least twice `linger`.
    ///
    /// No longer, because a broker recognises a repeated batch only while it remembers its producer: until that has been
    /// silent for 15 min on the shard. More than 1,024 producers on one shard push out those that have been silent longest.
    pub fn record_deadline(self, deadline: Duration) -> Result<Self> {
        within("record_deadline", deadline.as_millis(), 100, RECORD_DEADLINE_MAX.as_millis(), "ms")?;
        Ok(Self { record_deadline: deadline, ..self })
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

fn within(name: &str, value: u128, least: u128, most: u128, unit: &str) -> Result<()> {
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
            config().connections(0).unwrap_err(),
            config().batches_in_flight(33).unwrap_err(),
            config().record_deadline(Duration::ZERO).unwrap_err(),
        ];
        let names =
            ["linger", "batch_bytes", "memory_bytes", "connections", "batches_in_flight", "record_deadline"];
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
