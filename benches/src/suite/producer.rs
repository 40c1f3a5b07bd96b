//! Row j: the producer library alone.

use super::check::Check;
use super::findings::Findings;
use super::site::Site;
use crate::process::beside;
use crate::producer_alone::{self, PUT_ALONE};
use anyhow::{Context, Result, ensure};
use std::process::Command;
use std::time::Duration;

const COUNTER: &str = "tidemill-benches-allocations";
const ALLOCATIONS: &str = "allocations of the producer library for a record";
const PUTS_PER_S_MIN: f64 = 2_000_000.0;

pub(super) fn rate(site: &Site, findings: &mut Findings) {
    let warmup = Duration::from_secs(site.pace.warmup_seconds);
    findings.took(PUT_ALONE, producer_alone::rate(warmup, Duration::from_secs(site.pace.seconds)));
}

/// A count does not vary: once is enough.
pub(super) fn allocations(findings: &mut Findings) {
    findings.found(ALLOCATIONS, "", counted());
}

fn counted() -> Result<f64> {
    let output = Command::new(beside(COUNTER)?).output()?;
    ensure!(output.status.success(), "{COUNTER}: {}", String::from_utf8_lossy(&output.stderr).trim());
    let text = String::from_utf8(output.stdout)?;
    text.trim().parse().with_context(|| format!("not a number: {text:?}"))
}

pub(super) fn checks(findings: &Findings) -> Vec<Check> {
    let rate = findings.median(PUT_ALONE, |run| run.records_per_s);
    vec![
        Check::at_least("producer library alone, one core", "puts/s", rate, PUTS_PER_S_MIN),
        Check::figure(ALLOCATIONS, "", findings.value(ALLOCATIONS)),
    ]
}
