//! The load that `tidemill bench` makes, as a program of its own: on everything that speaks the Kinesis API, and on Tidemill.

use super::load::{CONNECTIONS, RECORD_BYTES, STREAMS, WARMUP};
use super::peer::{Measure, Peer};
use super::running::{ACCESS_KEY_ID, SECRET_ACCESS_KEY};
use crate::figure::{Figure, Name};
use crate::process::tidemill;
use anyhow::{Context, Result, bail};
use std::process::Stdio;
use std::time::Duration;
use tidemill_types::limits::PUT_RECORDS_ENTRIES_MAX;
use tokio::process::Command;
use tokio::time::timeout;

/// Filling streams, waiting for streams, coming to an end: the time it may take beside that to measure in.
const EXTRA_TIME: Duration = Duration::from_secs(180);
const BATCH_CONNECTIONS: usize = 8;
const SINGLE_CONNECTIONS: usize = 32;

pub(super) async fn measure(peer: &Peer, measure: Measure, port: u16, time: Duration) -> Result<Figure> {
    let mut command = Command::new(tidemill()?);
    command.arg("bench").args(arguments(measure)).args(["--json", "--endpoint"]);
    command.arg(format!("http://127.0.0.1:{port}"));
    for (name, value) in [
        ("--seconds", time.as_secs()),
        ("--warmup-seconds", WARMUP.as_secs()),
        ("--shards", STREAMS as u64),
        ("--record-bytes", RECORD_BYTES as u64),
    ] {
        command.arg(name).arg(value.to_string());
    }
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(WARMUP + time + EXTRA_TIME, output).await.context("the load does not end")??;
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let Some(line) = lines.lines().rev().find_map(|line| serde_json::from_str::<Figure>(line).ok()) else {
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        let told = errors.lines().find(|line| line.contains("error") || line.starts_with("tidemill"));
        bail!("{}", told.unwrap_or("the load came to nothing").trim());
    };
    Ok(line.named(Name::new(measure.name(), peer.name)))
}

fn arguments(measure: Measure) -> Vec<String> {
    let words = |workload: &str, target: &str, connections: usize| {
        [workload, "--target", target, "--connections", &connections.to_string()].map(str::to_owned).to_vec()
    };
    let kinesis = |workload: &str, connections: usize| {
        let mut words = words(workload, "kinesis", connections);
        words.extend(
            ["--access-key-id", ACCESS_KEY_ID, "--secret-access-key", SECRET_ACCESS_KEY].map(str::to_owned),
        );
        words
    };
    let batches = |mut words: Vec<String>, records: usize| {
        words.extend(["--batch-records".to_owned(), records.to_string()]);
        words
    };
    match measure {
        Measure::Produce => words("produce", "grpc", CONNECTIONS),
        Measure::Consume => words("consume", "bare", CONNECTIONS),
        Measure::PutRecords => batches(kinesis("produce", BATCH_CONNECTIONS), PUT_RECORDS_ENTRIES_MAX),
        Measure::PutRecord => batches(kinesis("produce", SINGLE_CONNECTIONS), 1),
        Measure::GetRecords => kinesis("consume", BATCH_CONNECTIONS),
    }
}
