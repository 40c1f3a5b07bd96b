//! Counters of a producer, and a snapshot of them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tidemill_proto::ErrorKind;

/// The kinds by which failures are counted, in the order of the counters.
const KINDS: [ErrorKind; 10] = [
    ErrorKind::Invalid,
    ErrorKind::NotFound,
    ErrorKind::AlreadyExists,
    ErrorKind::Conflict,
    ErrorKind::ShardClosed,
    ErrorKind::Throttled,
    ErrorKind::Unavailable,
    ErrorKind::UnknownOutcome,
    ErrorKind::Damaged,
    ErrorKind::Internal,
];

/// What a producer has done since it was made, and what it holds. A snapshot: the figures are taken one after the other.
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
    /// Of these, records whose time to live was over.
    pub expired: u64,
    /// Batches whose shard had closed, routed anew.
    pub rerouted: u64,
    /// Records that are neither acknowledged nor failed.
    pub pending_records: u64,
    /// How long ago the oldest of these was put; of its batch, the first counts.
    pub oldest_pending: Option<Duration>,
    /// Bytes of memory held by them; at most `memory_bytes`.
    pub memory_used_bytes: u64,
    failures_by_kind: [u64; KINDS.len()],
}

impl Stats {
    /// Records whose tickets failed with this kind.
    pub fn failures_of(&self, kind: ErrorKind) -> u64 {
        slot(kind).map_or(0, |slot| self.failures_by_kind[slot])
    }
}

/// What is held at a moment.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Held {
    pub(crate) records: u64,
    pub(crate) oldest: Option<Duration>,
    pub(crate) bytes: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    records: AtomicU64,
    bytes: AtomicU64,
    batches: AtomicU64,
    retries: AtomicU64,
    failures: AtomicU64,
    expired: AtomicU64,
    rerouted: AtomicU64,
    failures_by_kind: [AtomicU64; KINDS.len()],
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
    pub(crate) fn failed(&self, kind: ErrorKind, records: u32) {
        self.failures.fetch_add(u64::from(records), Ordering::Relaxed);
        if let Some(slot) = slot(kind) {
            self.failures_by_kind[slot].fetch_add(u64::from(records), Ordering::Relaxed);
        }
    }
    pub(crate) fn expired(&self, records: u32) {
        self.expired.fetch_add(u64::from(records), Ordering::Relaxed);
    }
    pub(crate) fn rerouted(&self) {
        self.rerouted.fetch_add(1, Ordering::Relaxed);
    }
    pub(crate) fn snapshot(&self, held: Held) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            records: read(&self.records),
            bytes: read(&self.bytes),
            batches: read(&self.batches),
            retries: read(&self.retries),
            failures: read(&self.failures),
            expired: read(&self.expired),
            rerouted: read(&self.rerouted),
            pending_records: held.records,
            oldest_pending: held.oldest,
            memory_used_bytes: held.bytes as u64,
            failures_by_kind: self.failures_by_kind.each_ref().map(read),
        }
    }
}

fn slot(kind: ErrorKind) -> Option<usize> {
    KINDS.iter().position(|known| *known == kind)
}
