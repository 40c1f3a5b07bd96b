//! Rows f and g: how soon one record is durable, and how soon it is delivered at a steady rate.

use super::check::{Check, Found};
use super::findings::Findings;
use super::load::{Load, Told};
use super::site::Site;
use super::throughput::{GRPC_CONNECTIONS, SHARDS};
use crate::figure::{Figure, Name};
use crate::limits;
use anyhow::Context;

/// Records a second, whatever the broker does.
const RATE: u64 = 10_000;

pub(super) const SINGLE: Name<'_> = Name::new("append, one at a time", "bare append calls");
pub(super) const ACKNOWLEDGED: Name<'_> = Name::new("10,000 records/s, acknowledged", "libraries");
pub(super) const DELIVERED: Name<'_> = Name::new("10,000 records/s, delivered", "libraries");

/// What an append may take beside the write, in milliseconds.
const SINGLE_P50_EXTRA: f64 = 0.15;
const SINGLE_P99_EXTRA: f64 = 0.5;
const SINGLE_P99_FACTOR: f64 = 1.5;
/// What delivery may take beside an append, in milliseconds.
const DELIVERED_P50_EXTRA: f64 = 0.2;
const DELIVERED_P99_MS: f64 = 5.0;

pub(super) fn single(site: &Site, findings: &mut Findings) {
    let load = Load::new("single", "bare").with("--shards", 1).with("--connections", 1);
    findings.took(SINGLE, site.load(&load, &site.device));
}

pub(super) fn single_checks(findings: &Findings) -> Vec<Check> {
    let raw = |of: fn(&Figure) -> f64| findings.median(limits::DISK_SMALL, of);
    let p50_most = raw(|run| run.p50_ms).map(|p50| p50 + SINGLE_P50_EXTRA);
    let p99_most = raw(|run| run.p99_ms).map(|p99| p99 * SINGLE_P99_FACTOR + SINGLE_P99_EXTRA);
    let floor = [limits::DISK_SMALL, limits::TURN_TCP, limits::TURN_THREAD]
        .map(|part| findings.median(part, |run| run.p50_ms))
        .into_iter()
        .sum::<Found>();
    vec![
        Check::at_most("one durable append, median", "ms", p50(findings, SINGLE), p50_most),
        Check::figure("the write, a turn over loopback and one between threads, medians", "ms", floor),
        Check::at_most("one durable append, p99", "ms", p99(findings, SINGLE), p99_most),
    ]
}

pub(super) fn steady(site: &Site, findings: &mut Findings) {
    // who asks for latency does not wait for company
    let load = Load::new("latency", "grpc")
        .with("--linger-ms", 0)
        .with("--rate", RATE)
        .with("--shards", SHARDS)
        .with("--connections", GRPC_CONNECTIONS);
    match site.load_told(&load, &site.device) {
        Ok(Told { figure, delivered }) => {
            findings.took(ACKNOWLEDGED, Ok(figure));
            findings.took(DELIVERED, delivered.context("the load generator tells nothing of delivery"));
        }
        Err(error) => findings.took(DELIVERED, Err(error)),
    }
}

pub(super) fn steady_checks(findings: &Findings) -> Vec<Check> {
    let p50_most = p50(findings, SINGLE).map(|single| single + DELIVERED_P50_EXTRA);
    vec![
        Check::at_most("put to delivered, median", "ms", p50(findings, DELIVERED), p50_most),
        Check::at_most("put to delivered, p99", "ms", p99(findings, DELIVERED), Ok(DELIVERED_P99_MS)),
    ]
}

fn p50(findings: &Findings, name: Name<'_>) -> Found {
    findings.median(name, |run| run.p50_ms)
}

fn p99(findings: &Findings, name: Name<'_>) -> Found {
    findings.median(name, |run| run.p99_ms)
}
