//! Where the consumers of the demo keep what they have computed: what an application would keep in a database.
//!
//! It outlives a worker. Each event counts once, by shard and sequence number: what is delivered again after a worker
//! died is recognised and only counted as delivered again.

use super::figures::{Departure, Figures};
use hdrhistogram::Histogram;
use serde::Deserialize;
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tidemill_consumer::{ProcessError, Record, SequenceNumber};
use tidemill_types::ShardId;
use tokio::sync::watch;
use tokio::time::Instant;

/// What a consumer needs of an event.
#[derive(Deserialize)]
struct Seen<'a> {
    event: usize,
    origin: &'a str,
    carrier: &'a str,
    dep_time: Option<i64>,
    dep_delay: Option<i64>,
}

struct Counted {
    figures: Figures,
    seen: HashSet<(ShardId, SequenceNumber)>,
    delivered: Histogram<u64>,
    redelivered: u64,
}

/// What was counted, in the end.
pub(super) struct Outcome {
    pub(super) figures: Figures,
    pub(super) events: usize,
    pub(super) redelivered: u64,
    /// Put to delivered, first deliveries only, in microseconds.
    pub(super) delivered: Histogram<u64>,
}

/// Shared by both workers and the producer.
pub(super) struct Tally {
    started: Instant,
    /// When each event was put, in microseconds since the start.
    put_at: Vec<AtomicU64>,
    counted: Mutex<Counted>,
    events: watch::Sender<usize>,
}

impl Tally {
    pub(super) fn new(events: usize) -> Self {
        let counted = Counted {
            figures: Figures::default(),
            seen: HashSet::with_capacity(events),
            delivered: micros_histogram(),
            redelivered: 0,
        };
        Self {
            started: Instant::now(),
            put_at: (0..events).map(|_| AtomicU64::new(0)).collect(),
            counted: Mutex::new(counted),
            events: watch::Sender::new(0),
        }
    }

    /// Notes that event `number` is being put now.
    pub(super) fn put(&self, number: usize) {
        self.put_at[number].store(self.now(), Ordering::Relaxed);
    }

    /// Counts an event, unless it has been counted. Says whether it was new.
    pub(super) fn count(&self, record: &Record) -> Result<bool, ProcessError> {
        let seen: Seen<'_> = serde_json::from_slice(record.data())?;
        let Some(put_at) = self.put_at.get(seen.event) else {
            return Err(ProcessError::new(format!("event {} is not one of the demo's", seen.event)));
        };
        let waited = self.now().saturating_sub(put_at.load(Ordering::Relaxed));
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if !counted.seen.insert((record.shard(), record.sequence_number())) {
            counted.redelivered += 1;
            return Ok(false);
        }
        let departure = seen.dep_time.and(seen.dep_delay).map(|delay_minutes| Departure { delay_minutes });
        counted.figures.count(seen.origin, seen.carrier, departure);
        counted.delivered.saturating_record(waited.max(1));
        self.events.send_replace(counted.seen.len());
        Ok(true)
    }

    /// How many events were counted, and when that changes.
    pub(super) fn events(&self) -> watch::Receiver<usize> {
        self.events.subscribe()
    }

    pub(super) fn outcome(&self) -> Outcome {
        let counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        Outcome {
            figures: counted.figures.clone(),
            events: counted.seen.len(),
            redelivered: counted.redelivered,
            delivered: counted.delivered.clone(),
        }
    }

    fn now(&self) -> u64 {
        micros(self.started.elapsed())
    }
}

/// Whole microseconds.
pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// For latencies from a microsecond to ten minutes.
pub(super) fn micros_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000, 3).expect("the bounds are valid")
}
