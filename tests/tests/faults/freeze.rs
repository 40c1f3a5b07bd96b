//! The broker stands still for longer than leases last: what was acknowledged stays, and every record is processed.

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::HashSet;
use std::time::Duration;
use tempfile::TempDir;
use tidemill_tests::load::{Loading, STREAM};
use tidemill_tests::{Broker, Running, tell};
use tokio::time::sleep;

const LEASE_MS: &str = "1000";
/// Several leases long.
const FROZEN: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_was_stopped_for_longer_than_leases_goes_on_and_nothing_is_lost() -> Result<()> {
    let home = TempDir::new()?;
    let broker = Broker::start(home.path(), &["--durability", "device"]).await?;
    let loading = Loading::start(&broker).await?;
    let url = broker.url();
    let worker = |name: &str, more: &[&str]| {
        let args = ["consume", STREAM, "--app", "a", "--worker", name, "--from", "trim-horizon", "--json"];
        let rest = ["--lease-ms", LEASE_MS, "--endpoint", &url];
        Running::spawn(&[&args[..], &rest[..], more].concat())
    };
    let (one, two) = (worker("one", &[])?, worker("two", &[])?);
    loading.progress(1000, Duration::from_secs(20)).await?;
    for _ in 0..2 {
        broker.signal(Signal::STOP)?;
        sleep(FROZEN).await;
        broker.signal(Signal::CONT)?;
        loading.progress(500, Duration::from_secs(30)).await.context("it goes on")?;
    }
    let load = loading.stop().await?;
    let verified = load.check(&broker, "SIGSTOP of the broker, 2 x 4 s").await?;
    let (one, two) = (one.terminate().await?, two.terminate().await?);
    let mut last = worker("last", &["--until-caught-up"])?;
    let last = last.ended(Duration::from_secs(60)).await?;
    ensure!(last.code == Some(0), "{last:?}");
    let mut delivered = HashSet::new();
    for worker in [&one, &two, &last] {
        for line in &worker.stdout {
            let record: Value = serde_json::from_str(line).with_context(|| line.clone())?;
            let number = record["sequence_number"].as_str().context("a record has a number")?;
            delivered.insert(number.to_owned());
        }
        ensure!(worker.code == Some(0), "{:?}: {}", worker.code, worker.stderr);
    }
    let stored = broker.kinesis().read_all(STREAM).await?;
    let missing = stored.iter().filter(|record| !delivered.contains(&record.number.to_string())).count();
    ensure!(missing == 0, "{missing} of {} records were never processed", stored.len());
    tell(&format!(
        "SIGSTOP of the broker: {} acknowledged, {} processed",
        verified.acknowledged,
        delivered.len()
    ));
    broker.terminate().await?;
    Ok(())
}
