//! kill -9 under load, again and again, on one data directory: what was acknowledged stays, once, where it was said to be.

use anyhow::{Context, Result, ensure};
use std::time::Duration;
use tempfile::TempDir;
use tidemill_tests::load::{Loading, number};
use tidemill_tests::{Broker, tell};
use tokio::time::sleep;

const ROUNDS: usize = 20;
const RESTART_MAX: Duration = Duration::from_secs(2);
/// Records that must be acknowledged in a round before its kill.
const ACKNOWLEDGED_MIN: usize = 650;

/// Kills and starts the broker again and again; tells the slowest start.
async fn kill_and_restart(
    mut broker: Broker,
    loading: &Loading,
    rounds: usize,
) -> Result<(Broker, Duration)> {
    let mut slowest = Duration::ZERO;
    for round in 0..rounds {
        // every fourth time it is killed right after its start
        if round % 4 != 3 {
            let progress = loading.progress(ACKNOWLEDGED_MIN, Duration::from_secs(15)).await;
            progress.with_context(|| format!("in round {round}"))?;
            sleep(Duration::from_millis(rand::random_range(0..300))).await;
        }
        broker.kill_9().await?;
        broker = broker.restart().await.with_context(|| format!("after the kill of round {round}"))?;
        slowest = slowest.max(broker.ready_after());
        ensure!(broker.ready_after() < RESTART_MAX, "round {round}: ready after {:?}", broker.ready_after());
    }
    Ok((broker, slowest))
}

// covers: PutRecords, GetRecords restart-survives
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_kill_9_exactly_once_in_order_under_its_number() -> Result<()> {
    let rounds = number("TIDEMILL_KILL_ROUNDS", ROUNDS)?;
    let home = TempDir::new()?;
    let broker = Broker::start(home.path(), &["--durability", "device"]).await?;
    let loading = Loading::start(&broker).await?;
    let (broker, slowest) = kill_and_restart(broker, &loading, rounds).await?;
    let load = loading.stop().await?;
    broker.terminate().await?;
    let broker = Broker::start(home.path(), &[]).await?;
    let verified = load.check(&broker, &format!("kill -9, {rounds} rounds")).await?;
    tell(&format!("kill -9: slowest restart {slowest:?}"));
    ensure!(verified.seen > 0, "the reader saw records");
    ensure!(
        load.native_failures() == 0,
        "{} records were not acknowledged in the end",
        load.native_failures()
    );
    Ok(())
}
