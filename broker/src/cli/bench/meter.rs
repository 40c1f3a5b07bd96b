//! When a measurement counts, and what is counted: not while things warm up, not for ever, not beyond a number of records.

use hdrhistogram::Histogram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Latencies are told to three digits, up to ten minutes.
const LATENCY_US_MAX: u64 = 600_000_000;

/// The end of a window is noticed in this time.
const POLL: Duration = Duration::from_millis(10);

/// A stretch of time to measure in, behind a warm-up; it closes early once enough records were counted. Shared by all
/// connections of a measurement.
#[derive(Debug)]
pub(super) struct Window {
    begins: Instant,
    opens: Instant,
    closes: Instant,
    records_max: u64,
    counted: AtomicU64,
    /// Whether a failure was told.
    told: AtomicBool,
    /// Ends this one with it.
    parent: Option<Arc<Self>>,
}

impl Window {
    pub(super) fn after(warmup: Duration, time: Duration, records_max: u64) -> Arc<Self> {
        let begins = Instant::now();
        let opens = begins + warmup;
        let closes = opens + time;
        let (counted, told) = (AtomicU64::new(0), AtomicBool::new(false));
        Arc::new(Self { begins, opens, closes, records_max, counted, told, parent: None })
    }
    /// For something else that is counted in the same time; it is over with this one.
    pub(super) fn beside(self: &Arc<Self>) -> Arc<Self> {
        let Self { begins, opens, closes, .. } = **self;
        let (counted, told) = (AtomicU64::new(0), AtomicBool::new(false));
        let parent = Some(Arc::clone(self));
        Arc::new(Self { begins, opens, closes, records_max: u64::MAX, counted, told, parent })
    }
    pub(super) fn is_over(&self) -> bool {
        self.is_full() || Instant::now() >= self.closes
    }
    /// Waits until it is.
    pub(super) async fn over(&self) {
        while !self.is_over() {
            sleep(POLL).await;
        }
    }
    /// Whether as many records as there are to be were counted.
    pub(super) fn is_full(&self) -> bool {
        self.counted() >= self.records_max || self.parent.as_ref().is_some_and(|parent| parent.is_full())
    }
    /// When the warm-up began.
    pub(super) fn begins(&self) -> Instant {
        self.begins
    }
    pub(super) fn opens(&self) -> Instant {
        self.opens
    }
    pub(super) fn closes(&self) -> Instant {
        self.closes
    }
    pub(super) fn counted(&self) -> u64 {
        self.counted.load(Ordering::Relaxed)
    }
    /// How much of it is over, from 0 to 1, warm-up included.
    pub(super) fn passed(&self) -> f64 {
        let time = (Instant::now() - self.begins).as_secs_f64() / (self.closes - self.begins).as_secs_f64();
        let records = self.counted() as f64 / self.records_max as f64;
        time.max(records).clamp(0.0, 1.0)
    }
    /// Whether what happened at `at` counts; counts it then.
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
    /// Of measurements that are not under way all the time.
    active: Option<Duration>,
    acknowledged: u64,
    first_pass: u64,
    errors: u64,
    throttles: u64,
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
            active: None,
            acknowledged: 0,
            first_pass: 0,
            errors: 0,
            throttles: 0,
        }
    }
    pub(super) fn window(&self) -> &Arc<Window> {
        &self.window
    }
    /// `records`, begun at `began`, have just been acknowledged or read. They count if that is within the window.
    pub(super) fn done(&mut self, began: Instant, records: u64) {
        let now = Instant::now();
        self.count(began, now, now, records);
    }
    /// The same of an open loop: they count if they were due within the window, however late they are.
    pub(super) fn done_since(&mut self, due: Instant, records: u64) {
        self.count(due, Instant::now(), due, records);
    }
    fn count(&mut self, began: Instant, now: Instant, belongs: Instant, records: u64) {
        self.acknowledged += records;
        if records > 0 && self.window.takes(belongs, records) {
            self.records += records;
            self.last = self.last.max(belongs);
            self.latency(now.saturating_duration_since(began));
        }
    }
    /// Something took so long.
    pub(super) fn latency(&mut self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(LATENCY_US_MAX);
        self.latency_us.saturating_record(us);
    }
    /// `records` were read as a whole, in so long; between such passes the clock stands still. They count unless all was
    /// warm-up.
    pub(super) fn pass(&mut self, began: Instant, ended: Instant, records: u64) {
        if ended >= self.window.opens {
            self.window.counted.fetch_add(records, Ordering::Relaxed);
            self.records += records;
            *self.active.get_or_insert_default() += ended - began;
        }
    }
    /// Records that failed, or an answer that was none. The first of a measurement is told, all are counted.
    pub(super) fn failed(&mut self, records: u64, why: impl AsRef<str>) {
        self.errors += records;
        if !self.window.told.swap(true, Ordering::Relaxed) {
            eprintln!("tidemill: bench: {}", why.as_ref());
        }
    }
    /// Records that failed because they were too many at once.
    pub(super) fn throttled(&mut self, records: u64, why: impl AsRef<str>) {
        self.throttles += records;
        self.failed(records, why);
    }
    /// A reader has come to the end of a shard for the first time, having read so many records.
    pub(super) fn read_once(&mut self, records: u64) {
        self.first_pass += records;
    }
    /// Takes in what readers of all that was put have seen.
    pub(super) fn add_read(&mut self, readers: &Self) {
        self.first_pass += readers.first_pass;
        self.add_errors(readers);
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
        self.throttles += other.throttles;
    }
    /// Records that were acknowledged, whether or not they counted.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }
    pub(super) fn records(&self) -> u64 {
        self.records
    }
    /// Throttled ones included.
    pub(super) fn errors(&self) -> u64 {
        self.errors
    }
    pub(super) fn throttles(&self) -> u64 {
        self.throttles
    }
    /// The time that counted: the window, or until its last record.
    pub(super) fn seconds(&self) -> f64 {
        if let Some(active) = self.active {
            return active.as_secs_f64();
        }
        let end =
            if self.window.counted() >= self.window.records_max { self.last } else { self.window.closes };
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

    /// A stall at the end of the window would otherwise hide what was sent into it.
    #[tokio::test(start_paused = true)]
    async fn what_was_due_in_the_window_counts_however_late_it_comes() {
        let window = Window::after(Duration::from_secs(1), Duration::from_secs(2), u64::MAX);
        let mut meter = Meter::new(window.clone());
        let early = Instant::now();
        tokio::time::advance(Duration::from_secs(2)).await;
        let due = Instant::now();
        tokio::time::advance(Duration::from_secs(8)).await;
        meter.done_since(early, 1);
        meter.done_since(due, 1);
        assert_eq!((meter.records(), meter.acknowledged()), (1, 2));
        assert!((meter.latency_ms(1.0) - 8000.0).abs() < 10.0);
    }

    #[tokio::test(start_paused = true)]
    async fn between_passes_the_clock_stands_still() {
        let window = Window::after(Duration::from_secs(1), Duration::from_secs(9), u64::MAX);
        let mut meter = Meter::new(window);
        let began = Instant::now();
        meter.pass(began, began, 5);
        let at = |seconds| began + Duration::from_secs(seconds);
        meter.pass(at(1), at(2), 50);
        meter.pass(at(4), at(6), 50);
        assert_eq!((meter.records(), meter.seconds()), (100, 3.0));
    }

    #[tokio::test(start_paused = true)]
    async fn records_that_were_put_and_not_read_are_errors() {
        let mut meter = Meter::new(Window::after(Duration::ZERO, Duration::from_secs(1), u64::MAX));
        meter.read_once(8);
        meter.expect_first_pass(8);
        assert_eq!(meter.errors(), 0);
        meter.expect_first_pass(10);
        assert_eq!(meter.errors(), 2);
        meter.throttled(3, "too much");
        assert_eq!((meter.errors(), meter.throttles()), (5, 3));
    }
}
