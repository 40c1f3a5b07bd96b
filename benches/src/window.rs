//! When a measurement counts: not while things warm up, and not for ever.

use crate::figure::Figure;
use hdrhistogram::Histogram;
use std::time::Duration;
use tokio::time::Instant;

/// A stretch of time to measure in, behind a warm-up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    opens: Instant,
    closes: Instant,
}

impl Window {
    /// Opens after `warmup`, for `time`.
    pub(crate) fn after(warmup: Duration, time: Duration) -> Self {
        let opens = Instant::now() + warmup;
        Self { opens, closes: opens + time }
    }
    pub(crate) fn is_over(&self) -> bool {
        Instant::now() >= self.closes
    }
    fn holds(&self, at: Instant) -> bool {
        self.opens <= at && at < self.closes
    }
    fn seconds(&self) -> f64 {
        (self.closes - self.opens).as_secs_f64()
    }
}

/// Counts what ends within a window.
pub(crate) struct Meter {
    window: Window,
    latency_ns: Histogram<u64>,
    records: u64,
    bytes: u64,
    errors: u64,
}

impl Meter {
    pub(crate) fn new(window: Window) -> Self {
        // three digits up to a minute
        let latency_ns = Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("bounds that fit");
        Self { window, latency_ns, records: 0, bytes: 0, errors: 0 }
    }
    pub(crate) fn window(&self) -> Window {
        self.window
    }
    /// Something that began at `began` has just ended well.
    pub(crate) fn done(&mut self, began: Instant, records: u64, bytes: u64) {
        let now = Instant::now();
        if self.window.holds(now) {
            self.records += records;
            self.bytes += bytes;
            let nanoseconds = u64::try_from((now - began).as_nanos()).unwrap_or(u64::MAX);
            self.latency_ns.saturating_record(nanoseconds);
        }
    }
    /// Something has failed.
    pub(crate) fn failed(&mut self) {
        self.errors += 1;
    }
    pub(crate) fn add(&mut self, other: &Self) {
        self.latency_ns.add(&other.latency_ns).expect("the same bounds");
        self.records += other.records;
        self.bytes += other.bytes;
        self.errors += other.errors;
    }
    pub(crate) fn figure(&self, workload: &str, target: &str) -> Figure {
        let seconds = self.window.seconds();
        let ms = |quantile| self.latency_ns.value_at_quantile(quantile) as f64 / 1e6;
        Figure {
            workload: workload.to_owned(),
            target: target.to_owned(),
            records_per_s: self.records as f64 / seconds,
            mb_per_s: self.bytes as f64 / 1e6 / seconds,
            p50_ms: ms(0.5),
            p99_ms: ms(0.99),
            p999_ms: ms(0.999),
            max_ms: self.latency_ns.max() as f64 / 1e6,
            errors: self.errors,
        }
    }
}
