//! Counters of a producer, and a snapshot of them.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a producer has done since it was made. A snapshot: the figures are taken one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Records acknowledged.
    pub records: u64,
    /// Bytes of acknowledged batches, with their headers.
    pub bytes: u64,
    /// Batches acknowledged.
    pub batches: u64,
    /// Batches sent again, after a refusal or a lost connection.
    pub retries: u64,
    /// Records whose tickets failed.
    pub failures: u64,
    /// Batches whose shard had closed, routed anew.
    pub rerouted: u64,
    /// Bytes of memory held by records that are not acknowledged yet; at most `memory_bytes`.
    pub memory_used_bytes: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    records: AtomicU64,
    bytes: AtomicU64,
    batches: AtomicU64,
    retries: AtomicU64,
    failures: AtomicU64,
    rerouted: AtomicU64,
}

impl Counters {
    pub(crate) fn acknowledged(&self, records: u32, bytes: usize) {
        self.records.fetch_add(u64::from(records), Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.batches.fetch_add(1, Ordering::Relaxed);
    }
    pub(crate) fn retried(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }
    pub(crate) fn failed(&self, records: u32) {
        self.failures.fetch_add(u64::from(records), Ordering::Relaxed);
    }
    pub(crate) fn rerouted(&self) {
        self.rerouted.fetch_add(1, Ordering::Relaxed);
    }
    pub(crate) fn snapshot(&self, memory_used: usize) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            records: read(&self.records),
            bytes: read(&self.bytes),
            batches: read(&self.batches),
            retries: read(&self.retries),
            failures: read(&self.failures),
            rerouted: read(&self.rerouted),
            memory_used_bytes: memory_used as u64,
        }
    }
}
