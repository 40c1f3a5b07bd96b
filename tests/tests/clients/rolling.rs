//! Rolling restarts under load: the broker is stopped in order and started again, several times, while both libraries and an
//! unmodified boto3 are at work. None of them may see an error that it does not get over by itself, and nothing is lost.

use crate::install;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::time::Duration;
use tempfile::TempDir;
use tidemill_tests::load::{Loading, STREAM};
use tidemill_tests::{Broker, Running, tell};
use tokio::process::Command;
use tokio::time::sleep;

const RESTARTS: usize = 6;
const BETWEEN: Duration = Duration::from_millis(1500);
const BOTO_STREAM: &str = "boto3-rolling";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolling_restarts_cost_neither_a_record_nor_an_error_of_an_application() -> Result<()> {
    let Some(python) = install::python().await? else { return Ok(()) };
    let home = TempDir::new()?;
    let mut broker = Broker::start(&home.path().join("data"), &["--durability", "device"]).await?;
    broker.kinesis().create_stream(BOTO_STREAM, 2).await?;
    let loading = Loading::start(&broker).await?;
    let url = broker.url();
    let consume = |stream: &str, more: &[&str]| {
        let args = ["consume", stream, "--app", "a", "--from", "trim-horizon", "--json", "--endpoint", &url];
        Running::spawn(&[&args[..], more].concat())
    };
    let worker = consume(STREAM, &["--worker", "one"])?;
    let stop = home.path().join("stop");
    let mut boto = Command::new(python);
    boto.arg(install::clients().join("rolling_restart.py")).arg(&url).arg(BOTO_STREAM).arg(&stop);
    let boto = tokio::spawn(async move { install::run(&mut boto).await });
    let mut slowest = Duration::ZERO;
    for _ in 0..RESTARTS {
        loading.progress(300, Duration::from_secs(20)).await?;
        sleep(BETWEEN).await;
        broker = broker.roll().await?;
        slowest = slowest.max(broker.ready_after());
    }
    loading.progress(300, Duration::from_secs(20)).await?;
    std::fs::write(&stop, "")?;
    let mut told: Value = serde_json::from_str(boto.await??.trim()).context("what boto3 says")?;
    let load = loading.stop().await?;
    ensure!(load.native_failures() == 0, "the producer library gave up {} records", load.native_failures());
    let worker = worker.terminate().await?;
    ensure!(worker.code == Some(0), "{worker:?}");
    let rest =
        consume(STREAM, &["--worker", "two", "--until-caught-up"])?.ended(Duration::from_secs(60)).await?;
    ensure!(rest.code == Some(0), "{rest:?}");
    let verified = load.check(&broker, &format!("rolling restart, {RESTARTS} times")).await?;

    let mut processed = HashSet::new();
    for line in worker.stdout.iter().chain(&rest.stdout) {
        let record: Value = serde_json::from_str(line)?;
        processed.insert(record["sequence_number"].as_str().context("a number")?.to_owned());
    }
    let stored = broker.kinesis().read_all(STREAM).await?;
    let missing = stored.iter().filter(|record| !processed.contains(&record.number.to_string())).count();
    ensure!(missing == 0, "{missing} records were never processed");

    let mut all = consume(BOTO_STREAM, &["--worker", "three", "--until-caught-up"])?;
    let mut there = HashMap::new();
    for line in all.ended(Duration::from_secs(60)).await?.stdout {
        let record: Value = serde_json::from_str(&line)?;
        let part = |name: &str| record[name].as_str().map(str::to_owned).with_context(|| line.clone());
        let before = there.insert(part("sequence_number")?, part("data")?);
        ensure!(before.is_none(), "given twice: {line}");
    }
    let is_there = |(number, data): &&(String, String)| there.get(number) == Some(data);
    let acknowledged: Vec<(String, String)> = serde_json::from_value(told["acknowledged"].take())?;
    let lost = acknowledged.iter().filter(|record| !is_there(record)).count();
    ensure!(
        lost == 0 && acknowledged.len() > 500,
        "{lost} of {} that boto3 put are lost or changed",
        acknowledged.len()
    );
    let read: Vec<(String, String)> = serde_json::from_value(told["read"].take())?;
    ensure!(read.iter().all(|record| is_there(&record)), "boto3 read what is not there");
    let once: HashSet<&String> = read.iter().map(|(number, _)| number).collect();
    ensure!(
        once.len() == read.len() && read.len() > 500,
        "boto3 read {} records, {} of them once",
        read.len(),
        once.len()
    );
    tell(&format!(
        "rolling restart: {} acknowledged and processed, boto3 put {} and read {}; slowest restart {slowest:?}",
        verified.acknowledged,
        acknowledged.len(),
        read.len()
    ));
    broker.terminate().await?;
    Ok(())
}
