//! The second collector: gathers packed batches of any shards of one stream into one PutRecords request, by count, bytes and
//! time. Pure but for the packing.

use super::settings::Aws;
use crate::batch::records_of;
use crate::lane::{Cargo, Lane};
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use std::sync::Arc;
use std::time::Duration;
use tidemill_proto::{Error, aggregate};
use tidemill_types::Record;
use tokio::time::Instant;

/// At most this long a request waits for more, and a fifth of what records linger.
const WAIT_MAX: Duration = Duration::from_millis(50);

/// How long a request waits for more batches.
pub(super) fn wait(linger: Duration) -> Duration {
    (linger / 5).min(WAIT_MAX)
}

/// Whose batch an entry is.
pub(super) struct Sender {
    pub(super) lane: Arc<Lane>,
    pub(super) request: u64,
}

/// A batch as it is sent.
pub(super) struct Entry {
    sender: Sender,
    record: Record,
    user_records: u32,
}

impl Entry {
    /// Packs a batch; a single record goes as it is.
    pub(super) fn pack(sender: Sender, cargo: &Cargo) -> Result<Self, (Sender, Error)> {
        let records: Vec<_> = records_of(&cargo.frame, &cargo.explicit).collect();
        match aggregate::pack(&records) {
            Ok(record) => Ok(Self { sender, record, user_records: cargo.frame.header().count }),
            Err(error) => Err((sender, error)),
        }
    }
    fn bytes(&self) -> usize {
        self.record.counted_bytes()
    }
    fn wire(record: &Record) -> Result<PutRecordsRequestEntry, Error> {
        let data = Blob::new(record.data().to_vec());
        PutRecordsRequestEntry::builder()
            .data(data)
            .partition_key(record.key().as_str())
            .explicit_hash_key(record.hash_key().to_string())
            .build()
            .map_err(|error| Error::invalid(error.to_string()))
    }
}

/// Entries that will be one request.
pub(super) struct Gathered {
    entries: Vec<Entry>,
    bytes: usize,
    pub(super) since: Instant,
}

impl Gathered {
    pub(super) fn new(now: Instant) -> Self {
        Self { entries: Vec::new(), bytes: 0, since: now }
    }
    /// Whether one more would be too much.
    pub(super) fn lacks_room_for(&self, entry: &Entry, limits: &Aws) -> bool {
        !self.entries.is_empty() && self.bytes + entry.bytes() > limits.collection_bytes
    }
    pub(super) fn add(&mut self, entry: Entry) {
        self.bytes += entry.bytes();
        self.entries.push(entry);
    }
    pub(super) fn is_full(&self, limits: &Aws) -> bool {
        self.entries.len() >= limits.collection_records || self.bytes >= limits.collection_bytes
    }
    pub(super) fn entries(&self) -> usize {
        self.entries.len()
    }
    pub(super) fn user_records(&self) -> u32 {
        self.entries.iter().map(|entry| entry.user_records).sum()
    }
    /// What is sent, and who is told what became of it.
    pub(super) fn into_request(self) -> (Vec<Sender>, Result<Vec<PutRecordsRequestEntry>, Error>) {
        let wire = self.entries.iter().map(|entry| Entry::wire(&entry.record)).collect();
        (self.entries.into_iter().map(|entry| entry.sender).collect(), wire)
    }
}
