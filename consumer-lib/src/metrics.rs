//! What a worker counts, under the names of the KCL, through the `metrics` facade. Without a recorder it costs a few atomics.
//!
//! | name | kind | of |
//! |---|---|---|
//! | `RecordsProcessed`, `DataBytesProcessed` | counter | app, stream, shard |
//! | `MillisBehindLatest`, `RecordsBehindLatest` | gauge | app, stream, shard |
//! | `RecordProcessor.processRecords.Time` | histogram, seconds | app, stream, shard |
//! | `RecordProcessor.processRecords.Failures` | counter | app, stream, shard |
//! | `RecordsSkipped`, `RecordsDeadLettered` | counter | app, stream, shard |
//! | `ReadsThrottled` (of a Kinesis) | counter | stream, shard |
//! | `CurrentLeases` | gauge | app, worker |
//! | `TakenLeases`, `LostLeases`, `HandoffsAsked` | counter | app, worker |

use crate::shard::ShardRef;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use tidemill_types::{AppName, WorkerId};

/// Of one shard under work. Made once per lease, so that nothing is looked up per batch.
pub(crate) struct ShardMeters {
    pub(crate) records: Counter,
    pub(crate) bytes: Counter,
    pub(crate) millis_behind: Gauge,
    pub(crate) records_behind: Gauge,
    pub(crate) process_seconds: Histogram,
    pub(crate) failures: Counter,
    pub(crate) skipped: Counter,
    pub(crate) dead_lettered: Counter,
}

impl ShardMeters {
    pub(crate) fn new(app: &AppName, at: &ShardRef) -> Self {
        let labels = || {
            let app = ("app", app.to_string());
            [app, ("stream", at.stream().to_string()), ("shard", at.shard().to_string())]
        };
        Self {
            records: counter!("RecordsProcessed", &labels()),
            bytes: counter!("DataBytesProcessed", &labels()),
            millis_behind: gauge!("MillisBehindLatest", &labels()),
            records_behind: gauge!("RecordsBehindLatest", &labels()),
            process_seconds: histogram!("RecordProcessor.processRecords.Time", &labels()),
            failures: counter!("RecordProcessor.processRecords.Failures", &labels()),
            skipped: counter!("RecordsSkipped", &labels()),
            dead_lettered: counter!("RecordsDeadLettered", &labels()),
        }
    }
}

impl Drop for ShardMeters {
    /// What this worker no longer works on is no lag of its.
    fn drop(&mut self) {
        self.millis_behind.set(0.0);
        self.records_behind.set(0.0);
    }
}

impl std::fmt::Debug for ShardMeters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShardMeters").finish_non_exhaustive()
    }
}

/// Of the leases of one worker.
pub(crate) struct LeaseMeters {
    current: Gauge,
    taken: Counter,
    lost: Counter,
    asked: Counter,
}

impl LeaseMeters {
    pub(crate) fn new(app: &AppName, worker: &WorkerId) -> Self {
        let labels = || [("app", app.to_string()), ("worker", worker.to_string())];
        Self {
            current: gauge!("CurrentLeases", &labels()),
            taken: counter!("TakenLeases", &labels()),
            lost: counter!("LostLeases", &labels()),
            asked: counter!("HandoffsAsked", &labels()),
        }
    }
    pub(crate) fn held(&self, leases: usize) {
        self.current.set(leases as f64);
    }
    pub(crate) fn taken(&self) {
        self.taken.increment(1);
    }
    pub(crate) fn lost(&self) {
        self.lost.increment(1);
    }
    pub(crate) fn asked(&self) {
        self.asked.increment(1);
    }
}

impl std::fmt::Debug for LeaseMeters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeaseMeters").finish_non_exhaustive()
    }
}
