//! Records to put: keys that reach every shard, data that nothing on the way can compress.

use crate::error::{Error, Result};
use base64_simd::STANDARD;
use bytes::Bytes;
use rand::Rng;
use std::fmt::Write;
use tidemill_producer::{PartitionKey, Record};
use tidemill_types::limits::PUT_RECORDS_ENTRIES_MAX;

/// Keys in use at a time.
const KEYS: usize = 1024;
/// Data is cut from so many bytes, beside a record's own.
const NOISE_BYTES: usize = 256 << 10;
/// Most data and keys in one PutRecords request that every endpoint takes.
const REQUEST_BYTES_MAX: usize = 5 << 20;
/// Characters of a key.
const KEY_CHARS: usize = 16;

/// An endless supply of records, for one connection.
pub(super) struct Load {
    keys: Vec<PartitionKey>,
    noise: Bytes,
    record_bytes: usize,
    turn: usize,
}

impl Load {
    pub(super) fn new(record_bytes: u32) -> Result<Self> {
        let record_bytes = record_bytes as usize;
        let keys = (0..KEYS).map(|_| PartitionKey::new(&random_key())).collect::<std::result::Result<_, _>>();
        let keys = keys.map_err(|e| Error::because("cannot make keys", e))?;
        Ok(Self { keys, noise: noise(NOISE_BYTES + record_bytes).into(), record_bytes, turn: 0 })
    }

    pub(super) fn next(&mut self) -> Result<Record> {
        self.turn = self.turn.wrapping_add(1);
        let key = self.keys[self.turn % KEYS].clone();
        let at = self.turn.wrapping_mul(61) % NOISE_BYTES;
        Record::new(key, self.noise.slice(at..at + self.record_bytes))
            .map_err(|e| Error::because("cannot make a record", e))
    }
}

/// Records of one PutRecords request of such records.
pub(super) fn put_records_entries(record_bytes: u32) -> usize {
    (REQUEST_BYTES_MAX / (record_bytes as usize + KEY_CHARS)).clamp(1, PUT_RECORDS_ENTRIES_MAX)
}

/// The body of such a request.
pub(super) fn put_records_body(stream: &str, record_bytes: u32) -> Bytes {
    let mut body = format!("{{\"StreamName\":\"{stream}\",\"Records\":[");
    for entry in 0..put_records_entries(record_bytes) {
        let comma = if entry > 0 { "," } else { "" };
        let data = STANDARD.encode_to_string(noise(record_bytes as usize));
        let _ = write!(body, "{comma}{{\"Data\":\"{data}\",\"PartitionKey\":\"{}\"}}", random_key());
    }
    body.push_str("]}");
    body.into()
}

fn random_key() -> String {
    format!("{:0KEY_CHARS$x}", rand::random::<u64>())
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    rand::rng().fill_bytes(&mut noise);
    noise
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_keep_the_limits_and_are_what_they_say() {
        assert_eq!(put_records_entries(1024), 500);
        assert_eq!(put_records_entries(1_000_000), 5);
        let body = put_records_body("s", 100_000);
        let parsed: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let records = parsed["Records"].as_array().unwrap();
        assert_eq!(records.len(), put_records_entries(100_000));
        let data = STANDARD.decode_to_vec(records[0]["Data"].as_str().unwrap()).unwrap();
        assert_eq!(data.len(), 100_000);
    }

    #[test]
    fn records_have_the_size_asked_for() {
        let mut load = Load::new(1_000_000).unwrap();
        let (one, other) = (load.next().unwrap(), load.next().unwrap());
        assert_eq!(one.data().len(), 1_000_000);
        assert_ne!(one.key(), other.key());
    }
}
