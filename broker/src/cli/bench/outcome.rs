//! A result, as a line of JSON and as a row of a table.

use super::meter::Meter;
use super::{Plan, Target, Workload};
use clap::ValueEnum;
use serde::Serialize;
use std::fmt::Write;

/// One result. A megabyte is 10^6 bytes of record data. Latencies: of `produce`, from the call to the acknowledgement of a
/// record (gRPC) or a request (Kinesis); of `consume`, from asking for an answer to having it.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    workload: String,
    target: String,
    records_per_s: f64,
    mb_per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// Records that failed or are missing, and requests that were refused.
    pub(super) errors: u64,
    records: u64,
    seconds: f64,
    record_bytes: u32,
    shards: u32,
    concurrency: u32,
}

impl Outcome {
    pub(super) fn new(workload: Workload, target: Target, plan: &Plan, meter: &Meter) -> Self {
        let seconds = meter.seconds();
        let records_per_s = if seconds > 0.0 { meter.records() as f64 / seconds } else { 0.0 };
        Self {
            workload: name(&workload),
            target: name(&target),
            records_per_s,
            mb_per_s: records_per_s * f64::from(plan.record_bytes) / 1e6,
            p50_ms: meter.latency_ms(0.5),
            p99_ms: meter.latency_ms(0.99),
            errors: meter.errors(),
            records: meter.records(),
            seconds,
            record_bytes: plan.record_bytes,
            shards: plan.shards,
            concurrency: plan.connections,
        }
    }
}

/// As it is written on the command line.
fn name(value: &impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// All results, aligned.
pub(super) fn table(outcomes: &[Outcome]) -> String {
    let mut text = format!(
        "{:<9} {:<8} {:>12} {:>9} {:>9} {:>9} {:>7}",
        "workload", "target", "records/s", "MB/s", "p50 ms", "p99 ms", "errors"
    );
    for o in outcomes {
        let _ = write!(
            text,
            "\n{:<9} {:<8} {:>12.0} {:>9.1} {:>9.2} {:>9.2} {:>7}",
            o.workload, o.target, o.records_per_s, o.mb_per_s, o.p50_ms, o.p99_ms, o.errors
        );
    }
    text
}
