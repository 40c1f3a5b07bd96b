//! What the engine tells of itself, through the `metrics` crate.
//!
//! Handles are made once for each shard and kept there, so that counting a batch is a few atomic additions. A shard gets
//! labels of its own while fewer than [`SHARDS_LABELLED_MAX`] have had them; the others of its stream count together as
//! shard `other`, and once so many streams have been named, further streams count as `other` too. A name once given
//! stays given: a series cannot be taken back, and streams that come and go must not make ever more of them.

use crate::error::{ErrorKind, Result};
use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};
use parking_lot::Mutex;
use std::collections::HashSet;
use tidemill_types::{ShardId, StreamKey};

/// Shards that get labels of their own, and streams that are named.
const SHARDS_LABELLED_MAX: usize = 1000;
const OTHER: &str = "other";

const ERROR_KINDS: [ErrorKind; 15] = [
    ErrorKind::Invalid,
    ErrorKind::NotFound,
    ErrorKind::AlreadyExists,
    ErrorKind::Conflict,
    ErrorKind::Precondition,
    ErrorKind::ShardClosed,
    ErrorKind::Throttled,
    ErrorKind::Unavailable,
    ErrorKind::UnknownOutcome,
    ErrorKind::Damaged,
    ErrorKind::KeyNotFound,
    ErrorKind::KeyUnusable,
    ErrorKind::KeyDisabled,
    ErrorKind::KeyDenied,
    ErrorKind::Internal,
];

/// The series of the whole engine, and who has labels.
pub(crate) struct Metrics {
    errors: [Counter; ERROR_KINDS.len()],
    pub(crate) queue_bytes: Gauge,
    pub(crate) streams: Gauge,
    pub(crate) shards: Gauge,
    pub(crate) journal_bytes: Gauge,
    pub(crate) segment_bytes: Gauge,
    pub(crate) leases_held: Gauge,
    pub(crate) leases_expired: Gauge,
    pub(crate) leases_free: Gauge,
    pub(crate) damaged_found: Counter,
    pub(crate) damaged_passed: Counter,
    pub(crate) scrubbed_bytes: Counter,
    pub(crate) handoffs_asked: Counter,
    pub(crate) handoffs_given: Counter,
    pub(crate) handoffs_forced: Counter,
    named: Mutex<Named>,
}

#[derive(Default)]
struct Named {
    shards: HashSet<(StreamKey, ShardId)>,
    streams: HashSet<StreamKey>,
}

/// The series of one shard, or of several that count together.
pub(crate) struct ShardMetrics {
    pub(crate) records_in: Counter,
    pub(crate) bytes_in: Counter,
    pub(crate) records_out: Counter,
    pub(crate) bytes_out: Counter,
    pub(crate) lag_records: Histogram,
    pub(crate) lag_ms: Histogram,
}

fn describe() {
    describe_counter!("tidemill_records_in_total", Unit::Count, "records stored");
    describe_counter!("tidemill_bytes_in_total", Unit::Bytes, "bytes of frames stored");
    describe_counter!("tidemill_records_out_total", Unit::Count, "records handed to readers");
    describe_counter!("tidemill_bytes_out_total", Unit::Bytes, "bytes handed to readers");
    describe_histogram!("tidemill_reader_lag_records", Unit::Count, "records behind a page that was read");
    describe_histogram!(
        "tidemill_reader_lag_ms",
        Unit::Milliseconds,
        "age of the last record of a page, 0 at the tip"
    );
    describe_counter!("tidemill_errors_total", Unit::Count, "verbs that failed, by kind of error");
    describe_gauge!("tidemill_queue_bytes", Unit::Bytes, "bytes of appends that wait to become durable");
    describe_gauge!("tidemill_streams", Unit::Count, "streams");
    describe_gauge!("tidemill_shards", Unit::Count, "shards, open and closed");
    describe_gauge!("tidemill_journal_bytes", Unit::Bytes, "bytes of journal files on disk");
    describe_gauge!("tidemill_segment_bytes", Unit::Bytes, "bytes of segments on disk");
    describe_counter!(
        "tidemill_damaged_records_total",
        Unit::Count,
        "records that cannot be read: found by the scrubber, and passed over by readers of the Kinesis API"
    );
    describe_counter!("tidemill_scrubbed_bytes_total", Unit::Bytes, "bytes that the scrubber has checked");
    describe_gauge!("tidemill_leases", Unit::Count, "leases by state: held, expired, free");
    describe_counter!(
        "tidemill_lease_handoffs_total",
        Unit::Count,
        "leases asked for by a successor, given to it by the holder, and taken by it by force"
    );
}

impl Metrics {
    /// Describes and makes the series. Until a recorder is installed, what they count is lost.
    pub(crate) fn new() -> Self {
        describe();
        Self {
            errors: ERROR_KINDS.map(|kind| counter!("tidemill_errors_total", "kind" => kind.as_str())),
            queue_bytes: gauge!("tidemill_queue_bytes"),
            streams: gauge!("tidemill_streams"),
            shards: gauge!("tidemill_shards"),
            journal_bytes: gauge!("tidemill_journal_bytes"),
            segment_bytes: gauge!("tidemill_segment_bytes"),
            leases_held: gauge!("tidemill_leases", "state" => "held"),
            leases_expired: gauge!("tidemill_leases", "state" => "expired"),
            leases_free: gauge!("tidemill_leases", "state" => "free"),
            damaged_found: counter!("tidemill_damaged_records_total", "by" => "scrubber"),
            damaged_passed: counter!("tidemill_damaged_records_total", "by" => "reader"),
            scrubbed_bytes: counter!("tidemill_scrubbed_bytes_total"),
            handoffs_asked: counter!("tidemill_lease_handoffs_total", "step" => "asked"),
            handoffs_given: counter!("tidemill_lease_handoffs_total", "step" => "given"),
            handoffs_forced: counter!("tidemill_lease_handoffs_total", "step" => "forced"),
            named: Mutex::default(),
        }
    }

    /// Counts the error, if it is one, and passes it on.
    pub(crate) fn note<T>(&self, outcome: Result<T>) -> Result<T> {
        if let Err(error) = &outcome {
            let slot = ERROR_KINDS.iter().position(|kind| *kind == error.kind());
            self.errors[slot.expect("all kinds are listed")].increment(1);
        }
        outcome
    }

    /// The series of a shard.
    pub(crate) fn shard(&self, stream: &StreamKey, shard: ShardId) -> ShardMetrics {
        let [account, stream, shard] = self.named.lock().labels(stream, shard, SHARDS_LABELLED_MAX);
        let labels = [("account", account), ("stream", stream), ("shard", shard)];
        ShardMetrics {
            records_in: counter!("tidemill_records_in_total", &labels),
            bytes_in: counter!("tidemill_bytes_in_total", &labels),
            records_out: counter!("tidemill_records_out_total", &labels),
            bytes_out: counter!("tidemill_bytes_out_total", &labels),
            lag_records: histogram!("tidemill_reader_lag_records", &labels),
            lag_ms: histogram!("tidemill_reader_lag_ms", &labels),
        }
    }
}

impl Named {
    fn labels(&mut self, stream: &StreamKey, shard: ShardId, max: usize) -> [String; 3] {
        if !self.streams.contains(stream) {
            if self.streams.len() >= max {
                return [OTHER; 3].map(str::to_owned);
            }
            self.streams.insert(stream.clone());
        }
        let own = (stream.clone(), shard);
        if !self.shards.contains(&own) {
            if self.shards.len() >= max {
                return [stream.account.as_str(), stream.name.as_str(), OTHER].map(str::to_owned);
            }
            self.shards.insert(own);
        }
        [stream.account.to_string(), stream.name.to_string(), shard.to_string()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_types::{AccountId, StreamName};

    fn key(name: &str) -> StreamKey {
        StreamKey::new(AccountId::new("000000000000").unwrap(), StreamName::new(name).unwrap())
    }

    #[test]
    fn the_number_of_label_values_is_bounded_however_many_streams_come_and_go() {
        let mut named = Named::default();
        let mut seen = HashSet::new();
        for n in 0..50 {
            let stream = key(&format!("s{n}"));
            for shard in 0..5 {
                seen.insert(named.labels(&stream, ShardId::new(shard).unwrap(), 10));
            }
        }
        // ten shards of their own, one "other" for each of ten streams, one for the rest
        assert!(seen.len() <= 21, "{} label pairs", seen.len());
        let first = key("s0");
        assert_eq!(named.labels(&first, ShardId::new(0).unwrap(), 10)[2], "shardId-000000000000");
    }
}
