//! Request bodies that are ready: PutRecords as large as asked for, or PutRecord. Their data nothing on the way can compress.

use super::super::load::{KEY_CHARS, noise, random_key};
use super::super::plan::Plan;
use base64_simd::STANDARD;
use bytes::Bytes;
use std::fmt::Write;
use std::sync::Arc;

/// Different bodies of a connection.
const BODIES: usize = 16;
/// Connections that have bodies of their own; others share them.
const CONNECTIONS_APART: usize = 8;
/// Most bytes of all bodies.
const BODIES_BYTES_MAX: usize = 128 << 20;
/// Most data and keys in one PutRecords request that every endpoint takes.
const REQUEST_BYTES_MAX: usize = 5 << 20;

/// Bodies of one operation, of so many records each. Cheap to clone.
#[derive(Clone)]
pub(super) struct Bodies {
    pub(super) operation: &'static str,
    pub(super) entries: u64,
    all: Arc<[Bytes]>,
}

impl Bodies {
    /// As the plan batches.
    pub(super) fn batches(stream: &str, plan: &Plan) -> Self {
        match entries(plan.record_bytes, plan.batch_records) {
            1 => Self::singles(stream, plan),
            entries => {
                let made = || put_records(stream, plan.record_bytes, entries);
                Self::of("PutRecords", entries, plan, made)
            }
        }
    }

    /// One record each.
    pub(super) fn singles(stream: &str, plan: &Plan) -> Self {
        Self::of("PutRecord", 1, plan, || put_record(stream, plan.record_bytes))
    }

    fn of(operation: &'static str, entries: usize, plan: &Plan, make: impl Fn() -> Bytes) -> Self {
        let wanted = BODIES * CONNECTIONS_APART.min(plan.connections as usize);
        let first = make();
        let fitting = (BODIES_BYTES_MAX / first.len()).clamp(1, wanted);
        let all = std::iter::once(first).chain((1..fitting).map(|_| make())).collect();
        Self { operation, entries: entries as u64, all }
    }

    /// Those of a connection, for ever.
    pub(super) fn of_connection(&self, connection: usize) -> impl Iterator<Item = Bytes> + '_ {
        self.all.iter().cycle().skip(connection * BODIES % self.all.len()).cloned()
    }
}

/// Records of one request.
fn entries(record_bytes: u32, batch_records: usize) -> usize {
    (REQUEST_BYTES_MAX / (record_bytes as usize + KEY_CHARS)).clamp(1, batch_records)
}

fn put_records(stream: &str, record_bytes: u32, entries: usize) -> Bytes {
    let mut body = format!("{{\"StreamName\":\"{stream}\",\"Records\":[");
    for entry in 0..entries {
        let comma = if entry > 0 { "," } else { "" };
        let _ = write!(body, "{comma}{{{}}}", data_and_key(record_bytes));
    }
    body.push_str("]}");
    body.into()
}

fn put_record(stream: &str, record_bytes: u32) -> Bytes {
    format!("{{\"StreamName\":\"{stream}\",{}}}", data_and_key(record_bytes)).into()
}

fn data_and_key(record_bytes: u32) -> String {
    let data = STANDARD.encode_to_string(noise(record_bytes as usize));
    format!("\"Data\":\"{data}\",\"PartitionKey\":\"{}\"", random_key())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_keep_the_limits_and_are_what_they_say() {
        assert_eq!(entries(1024, 500), 500);
        assert_eq!(entries(1024, 7), 7);
        assert_eq!(entries(1_000_000, 500), 5);
        let body = put_records("s", 100_000, 52);
        let parsed: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let records = parsed["Records"].as_array().unwrap();
        assert_eq!(records.len(), 52);
        let data = STANDARD.decode_to_vec(records[0]["Data"].as_str().unwrap()).unwrap();
        assert_eq!(data.len(), 100_000);
        let single: serde_json::Value = serde_json::from_slice(&put_record("s", 9)).unwrap();
        assert_eq!(single["PartitionKey"].as_str().unwrap().len(), KEY_CHARS);
    }
}
