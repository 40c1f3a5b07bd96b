//! A result, as a line of JSON and as a row of a table.

use super::meter::Meter;
use super::plan::{Measured, Plan};
use serde::Serialize;
use std::fmt::Write;
use std::time::Duration;

/// One result. A megabyte is 10^6 bytes of record data. Latencies: of puts, from the call (of `latency`, from when it was
/// due) to the acknowledgement of a record (`grpc`), a batch (`bare`) or a request (`kinesis`); of reads, from one answer of
/// a shard to its next. What does not apply is left out.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    workload: String,
    target: String,
    records_per_s: f64,
    mb_per_s: f64,
    #[serde(flatten)]
    latency: Latency,
    /// Records that failed or are missing, and requests that were refused.
    pub(super) errors: u64,
    /// Those of them that were too many at once.
    throttles: u64,
    records: u64,
    seconds: f64,
    record_bytes: u32,
    shards: u32,
    concurrency: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    readers: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<u32>,
    #[serde(flatten)]
    delivered: Option<Delivered>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rss_mb: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_percent: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ready_ms: Option<f64>,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Latency {
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    max_ms: f64,
}

/// From when a record was due to its delivery to a push reader.
#[derive(Debug, Clone, Copy, Serialize)]
struct Delivered {
    delivered_records: u64,
    delivered_p50_ms: f64,
    delivered_p99_ms: f64,
    delivered_p999_ms: f64,
    delivered_max_ms: f64,
}

impl Latency {
    fn of(meter: &Meter) -> Self {
        Self {
            p50_ms: meter.latency_ms(0.5),
            p99_ms: meter.latency_ms(0.99),
            p999_ms: meter.latency_ms(0.999),
            max_ms: meter.latency_ms(1.0),
        }
    }
}

impl Delivered {
    fn of(meter: &Meter) -> Self {
        let Latency { p50_ms, p99_ms, p999_ms, max_ms } = Latency::of(meter);
        Self {
            delivered_records: meter.records(),
            delivered_p50_ms: p50_ms,
            delivered_p99_ms: p99_ms,
            delivered_p999_ms: p999_ms,
            delivered_max_ms: max_ms,
        }
    }
    fn latency(self) -> Latency {
        Latency {
            p50_ms: self.delivered_p50_ms,
            p99_ms: self.delivered_p99_ms,
            p999_ms: self.delivered_p999_ms,
            max_ms: self.delivered_max_ms,
        }
    }
}

impl Outcome {
    pub(super) fn new(plan: &Plan, measured: &Measured) -> Self {
        let meter = &measured.meter;
        let seconds = meter.seconds();
        let records_per_s = if seconds > 0.0 { meter.records() as f64 / seconds } else { 0.0 };
        let errors_of = |meter: &Meter| meter.errors();
        Self {
            workload: plan.workload.to_string(),
            target: plan.target.to_string(),
            records_per_s,
            mb_per_s: records_per_s * f64::from(plan.record_bytes) / 1e6,
            latency: Latency::of(meter),
            errors: errors_of(meter) + measured.delivered.as_ref().map_or(0, errors_of),
            throttles: meter.throttles(),
            records: meter.records(),
            seconds,
            record_bytes: plan.record_bytes,
            shards: plan.shards,
            concurrency: plan.connections,
            readers: plan.has_readers().then_some(plan.readers),
            rate: plan.rate,
            delivered: measured.delivered.as_ref().map(Delivered::of),
            rss_mb: measured.process.map(|usage| usage.rss_mb),
            cpu_percent: measured.process.and_then(|usage| usage.cpu_percent),
            ready_ms: measured.ready.map(|time: Duration| time.as_secs_f64() * 1e3),
        }
    }

    /// What only some workloads have, in words.
    fn rest(&self) -> String {
        let mut text = String::new();
        let figures = [("ready ms", self.ready_ms), ("RSS MB", self.rss_mb), ("CPU %", self.cpu_percent)];
        for (name, figure) in figures {
            if let Some(figure) = figure {
                let _ = write!(text, "  {figure:.1} {name}");
            }
        }
        text
    }
}

/// All results, aligned.
pub(super) fn table(outcomes: &[Outcome]) -> String {
    let mut text = format!(
        "{:<9} {:<10} {:>12} {:>9} {:>9} {:>9} {:>9} {:>9} {:>7}",
        "workload", "target", "records/s", "MB/s", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "errors"
    );
    for o in outcomes {
        let latency =
            |l: Latency| format!("{:>9.2} {:>9.2} {:>9.2} {:>9.2}", l.p50_ms, l.p99_ms, l.p999_ms, l.max_ms);
        let (rate, mb, told) = (o.records_per_s, o.mb_per_s, latency(o.latency));
        let _ = write!(
            text,
            "\n{:<9} {:<10} {rate:>12.0} {mb:>9.1} {told} {:>7}{}",
            o.workload,
            o.target,
            o.errors,
            o.rest()
        );
        if let Some(delivered) = o.delivered {
            let _ =
                write!(text, "\n{:<9} {:<10} {:>22} {}", "", "delivered", "", latency(delivered.latency()));
        }
    }
    text
}
