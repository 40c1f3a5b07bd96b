//! When a measurement counts, and what is counted: not while things warm up, not for ever, not beyond a number of records.

use hdrhistogram::Histogram;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Latencies are told to three digits, up to ten minutes.
const LATENCY_US_MAX: u64 = 600_000_000;

/// A stretch of time to measure in, behind a warm-up; it closes early once enough records were counted. Shared by all
/// connections of a measurement.
#[derive(Debug)]
pub(super) struct Window {
    opens: Instant,
    closes: Instant,
    records_max: u64,
    counted: AtomicU64,
}

impl Window {
    pub(super) fn after(warmup: Duration, time: Duration, records_max: u64) -> Arc<Self> {
        let opens = Instant::now() + warmup;
        Arc::new(Self { opens, closes: opens + time, records_max, counted: AtomicU64::new(0) })
    }
    pub(super) fn is_over(&self) -> bool {
        self.counted.load(Ordering::Relaxed) >= self.records_max || Instant::now() >= self.closes
    }
    /// Whether what ended at `at` counts; counts it then.
    fn takes(&self, at: Instant, records: u64) -> bool {
        self.opens <= at
            && at < self.closes
            && self.counted.fetch_add(records, Ordering::Relaxed) < self.records_max
    }
}

/// What one connection, or all of them together, came to.
pub(super) struct Meter {
    window: Arc<Window>,
    latency_us: Histogram<u64>,
    records: u64,
    last: Instant,
    acknowledged: u64,
    first_pass: u64,
    errors: u64,
    first_error: Option<String>,
}

impl Meter {
    pub(super) fn new(window: Arc<Window>) -> Self {
        let latency_us = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("bounds that fit");
        let last = window.opens;
        Self {
            window,
            latency_us,
            records: 0,
            last,
            acknowledged: 0,
            first_pass: 0,
            errors: 0,
            first_error: None,
        }
    }
    pub(super) fn window(&self) -> &Arc<Window> {
        &self.window
    }
    /// `records`, begun at `began`, have just been acknowledged or read.
    pub(super) fn done(&mut self, began: Instant, records: u64) {
        let now = Instant::now();
        self.acknowledged += records;
        if records > 0 && self.window.takes(now, records) {
            self.records += records;
            self.last = self.last.max(now);
            let us = u64::try_from((now - began).as_micros()).unwrap_or(LATENCY_US_MAX);
            self.latency_us.saturating_record(us);
        }
    }
    /// Records that failed, or an answer that was none. The first is told, all are counted.
    pub(super) fn failed(&mut self, records: u64, why: impl Into<String>) {
        self.errors += records;
        if self.first_error.is_none() {
            let why = why.into();
            eprintln!("tidemill: bench: {why}");
            self.first_error = Some(why);
        }
    }
    /// A reader has come to the end of a shard for the first time, having read so many records.
    pub(super) fn read_once(&mut self, records: u64) {
        self.first_pass += records;
    }
    /// All shards together must have had this many records.
    pub(super) fn expect_first_pass(&mut self, records: u64) {
        if self.first_pass != records {
            let missing = self.first_pass.abs_diff(records);
            self.failed(missing, format!("{records} records were put, but {} were read", self.first_pass));
        }
    }
    /// Takes in what another connection counted.
    pub(super) fn add(&mut self, other: &Self) {
        self.latency_us.add(&other.latency_us).expect("the same bounds");
        self.records += other.records;
        self.last = self.last.max(other.last);
        self.acknowledged += other.acknowledged;
        self.first_pass += other.first_pass;
        self.add_errors(other);
    }
    /// Takes in the errors of what came before.
    pub(super) fn add_errors(&mut self, other: &Self) {
        self.errors += other.errors;
    }
    /// Records that were acknowledged, whether or not they counted.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }
    pub(super) fn records(&self) -> u64 {
        self.records
    }
    pub(super) fn errors(&self) -> u64 {
        self.errors
    }
    /// The time that counted: the window, or until its last record.
    pub(super) fn seconds(&self) -> f64 {
        let full = self.window.counted.load(Ordering::Relaxed) >= self.window.records_max;
        let end = if full { self.last } else { self.window.closes };
        (end - self.window.opens).as_secs_f64()
    }
    pub(super) fn latency_ms(&self, quantile: f64) -> f64 {
        self.latency_us.value_at_quantile(quantile) as f64 / 1e3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn warm_up_and_what_comes_late_do_not_count() {
        let window = Window::after(Duration::from_secs(1), Duration::from_secs(2), u64::MAX);
        let mut meter = Meter::new(window.clone());
        let began = Instant::now();
        meter.done(began, 5);
        tokio::time::advance(Duration::from_secs(2)).await;
        meter.done(began, 7);
        assert!(!window.is_over());
        tokio::time::advance(Duration::from_secs(1)).await;
        meter.done(began, 11);
        assert!(window.is_over());
        assert_eq!((meter.records(), meter.acknowledged()), (7, 23));
        assert_eq!(meter.seconds(), 2.0);
        assert!((meter.latency_ms(0.5) - 2000.0).abs() < 5.0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_number_of_records_ends_the_window_at_the_last_of_them() {
        let window = Window::after(Duration::ZERO, Duration::from_secs(100), 10);
        let (mut one, mut other) = (Meter::new(window.clone()), Meter::new(window.clone()));
        tokio::time::advance(Duration::from_secs(4)).await;
        one.done(Instant::now(), 6);
        assert!(!window.is_over());
        other.done(Instant::now(), 4);
        assert!(window.is_over());
        tokio::time::advance(Duration::from_secs(4)).await;
        other.done(Instant::now(), 4);
        one.add(&other);
        assert_eq!((one.records(), one.seconds()), (10, 4.0));
    }

    #[tokio::test(start_paused = true)]
    async fn records_that_were_put_and_not_read_are_errors() {
        let mut meter = Meter::new(Window::after(Duration::ZERO, Duration::from_secs(1), u64::MAX));
        meter.read_once(8);
        meter.expect_first_pass(8);
        assert_eq!(meter.errors(), 0);
        meter.expect_first_pass(10);
        assert_eq!(meter.errors(), 2);
    }
}
