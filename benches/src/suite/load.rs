//! One run of the load generator, `tidemill bench`, as a process of its own.

use crate::figure::Figure;
use crate::libraries::RECORD_BYTES;
use crate::process::{Server, tidemill};
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::process::{Command, Stdio};

pub(super) const ACCESS_KEY_ID: &str = "BENCHMARK";
pub(super) const SECRET_ACCESS_KEY: &str = "of-a-broker-that-lives-as-long-as-a-benchmark";

/// How long a load measures.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) warmup_seconds: u64,
    pub(super) seconds: u64,
}

/// What is asked of the load generator.
#[derive(Debug, Clone)]
pub(super) struct Load {
    workload: &'static str,
    target: &'static str,
    options: Vec<String>,
}

impl Load {
    pub(super) fn new(workload: &'static str, target: &'static str) -> Self {
        Self { workload, target, options: Vec::new() }
    }
    pub(super) fn with(mut self, option: &str, value: u64) -> Self {
        self.options.extend([option.to_owned(), value.to_string()]);
        self
    }
    /// Requests are signed, for a broker with credentials.
    pub(super) fn signed(mut self) -> Self {
        let pairs = [("--access-key-id", ACCESS_KEY_ID), ("--secret-access-key", SECRET_ACCESS_KEY)];
        self.options.extend(pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value.to_owned()]));
        self
    }

    /// Loads a broker.
    pub(super) fn run(&self, broker: &Server, pace: Pace) -> Result<Told> {
        let output = Command::new(tidemill()?)
            .args(["bench", self.workload, "--json", "--target", self.target, "--endpoint", &broker.endpoint])
            .args(["--seconds", &pace.seconds.to_string()])
            .args(["--warmup-seconds", &pace.warmup_seconds.to_string()])
            .args(["--record-bytes", &RECORD_BYTES.to_string()])
            .args(&self.options)
            .stdin(Stdio::null())
            .output()?;
        if !output.status.success() {
            let Self { workload, target, .. } = self;
            bail!(
                "bench {workload} --target {target}: {}",
                complaint(&String::from_utf8_lossy(&output.stderr))
            );
        }
        told(&String::from_utf8(output.stdout).context("the load generator prints text")?)
    }
}

/// What the load generator tells.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) figure: Figure,
    /// The same records as they reached their readers, if there were any; throughput is that of all readers together.
    pub(super) delivered: Option<Figure>,
}

/// Beside a figure in the same line of JSON; whatever else is there is for others.
#[derive(Deserialize)]
struct Line {
    #[serde(flatten)]
    figure: Figure,
    #[serde(default)]
    seconds: f64,
    delivered_records: Option<f64>,
    #[serde(default)]
    delivered_p50_ms: f64,
    #[serde(default)]
    delivered_p99_ms: f64,
    #[serde(default)]
    delivered_p999_ms: f64,
    #[serde(default)]
    delivered_max_ms: f64,
}

fn told(output: &str) -> Result<Told> {
    let line =
        output.lines().find(|line| !line.trim().is_empty()).context("the load generator tells nothing")?;
    let line: Line = serde_json::from_str(line).with_context(|| format!("not a result: {line:?}"))?;
    let delivered = line.delivered_records.map(|records| {
        let records_per_s = if line.seconds > 0.0 { records / line.seconds } else { 0.0 };
        Figure {
            records_per_s,
            mb_per_s: records_per_s * RECORD_BYTES as f64 / 1e6,
            p50_ms: line.delivered_p50_ms,
            p99_ms: line.delivered_p99_ms,
            p999_ms: line.delivered_p999_ms,
            max_ms: line.delivered_max_ms,
            ..line.figure.clone()
        }
    });
    Ok(Told { figure: line.figure, delivered })
}

/// The line in which a program says what is wrong.
fn complaint(stderr: &str) -> String {
    let mut lines = stderr.lines().filter(|line| !line.trim().is_empty());
    let told = lines.clone().find(|line| line.starts_with("error"));
    told.or_else(|| lines.next_back()).unwrap_or("it failed without a word").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_may_tell_more_or_less_than_is_asked() {
        let idle = told("{\"workload\":\"idle\",\"target\":\"bare\",\"rss_mb\":12.5,\"new\":[1]}\n").unwrap();
        assert_eq!((idle.figure.records_per_s, idle.delivered.is_none()), (0.0, true));
        let pushed = "{\"workload\":\"latency\",\"target\":\"bare\",\"records_per_s\":5.0,\"p50_ms\":1.5,\
                      \"seconds\":2.0,\"delivered_records\":10,\"delivered_p50_ms\":2.5}\n";
        let pushed = told(pushed).unwrap();
        assert_eq!((pushed.figure.records_per_s, pushed.figure.p50_ms), (5.0, 1.5));
        let delivered = pushed.delivered.unwrap();
        assert_eq!((delivered.records_per_s, delivered.p50_ms, delivered.p99_ms), (5.0, 2.5, 0.0));
        assert!(told("{\"records_per_s\":5.0}").is_err(), "whose figure is this?");
        assert!(told("42 records").is_err());
        assert!(told("").is_err());
    }

    #[test]
    fn a_refusal_is_told_in_its_own_words() {
        let refused = "error: invalid value 'single'\n\nFor more information, try '--help'.\n";
        assert_eq!(complaint(refused), "error: invalid value 'single'");
        assert_eq!(complaint("warn: x\nthe stream is gone\n"), "the stream is gone");
        assert_eq!(complaint(""), "it failed without a word");
    }
}
