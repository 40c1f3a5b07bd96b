//! Metrics of a producer under the names of the Kinesis Producer Library, through the `metrics` facade.
//!
//! Why handles: a labelled macro looks its metric up each time, so it is asked for once per shard and stream, and told once
//! per batch or request, never per record. Without a recorder handles do nothing. The first recorder counts: install it
//! before the first put. What this does not do: keep figures itself; that is `stats`, which is told along.

use crate::batch::Batch;
use crate::error::AttemptLog;
use crate::stats::Counters;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use std::sync::Arc;
use std::time::Duration;
use tidemill_proto::ErrorKind;
use tidemill_types::{ShardId, StreamName};
use tokio::time::Instant;

/// Of one shard.
pub(crate) struct ShardMeters {
    pub(crate) counters: Arc<Counters>,
    stream: String,
    shard: String,
    received: Counter,
    pending: Gauge,
    put: Counter,
    data_put: Counter,
    kinesis_put: Counter,
    kinesis_data_put: Counter,
    expired: Counter,
    all_errors: Counter,
    retries_per_record: Histogram,
    buffering_time: Histogram,
    records_per_record: Histogram,
}

impl ShardMeters {
    pub(crate) fn new(counters: Arc<Counters>, stream: &StreamName, shard: ShardId) -> Self {
        let (stream, shard) = (stream.to_string(), shard.to_string());
        let labels = [("StreamName", stream.clone()), ("ShardId", shard.clone())];
        Self {
            counters,
            received: counter!("UserRecordsReceived", &labels),
            pending: gauge!("UserRecordsPending", &labels),
            put: counter!("UserRecordsPut", &labels),
            data_put: counter!("UserRecordsDataPut", &labels),
            kinesis_put: counter!("KinesisRecordsPut", &labels),
            kinesis_data_put: counter!("KinesisRecordsDataPut", &labels),
            expired: counter!("UserRecordExpired", &labels),
            all_errors: counter!("AllErrors", &labels),
            retries_per_record: histogram!("RetriesPerRecord", &labels),
            buffering_time: histogram!("BufferingTime", &labels),
            records_per_record: histogram!("UserRecordsPerKinesisRecord", &labels),
            stream,
            shard,
        }
    }
    /// Records that were put are on their way.
    pub(crate) fn received(&self, records: u32) {
        self.received.increment(u64::from(records));
        self.pending.increment(f64::from(records));
    }
    /// They go on in another shard's lane, or come from one.
    pub(crate) fn left(&self, records: u32) {
        self.pending.decrement(f64::from(records));
    }
    pub(crate) fn came(&self, records: u32) {
        self.pending.increment(f64::from(records));
    }
    pub(crate) fn acknowledged(&self, batch: &Batch, now: Instant) {
        let records = batch.records();
        self.counters.acknowledged(records, batch.bytes());
        self.pending.decrement(f64::from(records));
        self.put.increment(u64::from(records));
        self.data_put.increment(batch.data_bytes as u64);
        self.kinesis_put.increment(1);
        self.kinesis_data_put.increment(batch.bytes() as u64);
        let many = records as usize;
        self.retries_per_record.record_many(retries(&batch.attempts), many);
        self.buffering_time.record_many(millis(now.saturating_duration_since(batch.since)), many);
        self.records_per_record.record(f64::from(records));
    }
    /// An attempt with a batch failed.
    pub(crate) fn refused(&self, code: &str) {
        self.all_errors.increment(1);
        let labels = [
            ("StreamName", self.stream.clone()),
            ("ShardId", self.shard.clone()),
            ("ErrorCode", code.to_owned()),
        ];
        counter!("ErrorsByCode", &labels).increment(1);
    }
    pub(crate) fn retried(&self) {
        self.counters.retried();
    }
    /// Tickets failed.
    pub(crate) fn failed(&self, kind: ErrorKind, records: u32, attempts: &AttemptLog) {
        self.counters.failed(kind, records);
        self.pending.decrement(f64::from(records));
        self.retries_per_record.record_many(retries(attempts), records as usize);
    }
    /// Of those that failed, because their time was over.
    pub(crate) fn expired(&self, records: u32) {
        self.counters.expired(records);
        self.expired.increment(u64::from(records));
        self.refused("Expired");
    }
}

/// Of the requests of one stream, or of one connection.
pub(crate) struct RequestMeters {
    time: Histogram,
    #[cfg(feature = "aws")]
    kinesis_records: Histogram,
    #[cfg(feature = "aws")]
    user_records: Histogram,
}

impl RequestMeters {
    pub(crate) fn new(stream: &StreamName) -> Self {
        let labels = [("StreamName", stream.to_string())];
        Self {
            time: histogram!("RequestTime", &labels),
            #[cfg(feature = "aws")]
            kinesis_records: histogram!("KinesisRecordsPerPutRecordsRequest", &labels),
            #[cfg(feature = "aws")]
            user_records: histogram!("UserRecordsPerPutRecordsRequest", &labels),
        }
    }
    /// A request was answered, or failed.
    pub(crate) fn took(&self, time: Duration) {
        self.time.record(millis(time));
    }
    /// A request is sent.
    #[cfg(feature = "aws")]
    pub(crate) fn carries(&self, kinesis_records: usize, user_records: u32) {
        self.kinesis_records.record(kinesis_records as f64);
        self.user_records.record(f64::from(user_records));
    }
}

fn retries(attempts: &AttemptLog) -> f64 {
    f64::from(attempts.made().saturating_sub(1))
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
