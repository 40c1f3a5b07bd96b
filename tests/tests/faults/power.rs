//! Power cuts under load, again and again, on one file system: what was not synced is gone, what was acknowledged is not.
//!
//! The file system is shut down under the broker without a flush of its log, so that only what was synced is found when
//! it is mounted again. What that cannot show: a device that loses what it has said to be written.

use crate::volume::{Kind, Volume};
use anyhow::{Context, Result, ensure};
use std::time::Duration;
use tidemill_tests::load::{Loading, number};
use tidemill_tests::{Broker, tell};
use tokio::time::sleep;

const ROUNDS: usize = 6;
/// Records that must be acknowledged in a round before its cut.
const ACKNOWLEDGED_MIN: usize = 1000;

async fn cuts(kind: Kind) -> Result<()> {
    let rounds = number("TIDEMILL_POWER_CUTS", ROUNDS)?;
    let Some(volume) = Volume::make(kind, 2048)? else { return Ok(()) };
    let data = volume.path().join("data");
    let mut broker = Broker::start(&data, &["--durability", "device"]).await?;
    let loading = Loading::start(&broker).await?;
    let mut slowest = Duration::ZERO;
    for round in 0..rounds {
        // now and then right behind the start
        if round % 5 != 4 {
            let progress = loading.progress(ACKNOWLEDGED_MIN, Duration::from_secs(30)).await;
            progress.with_context(|| format!("in round {round}"))?;
            sleep(Duration::from_millis(rand::random_range(0..200))).await;
        }
        volume.cut_power()?;
        // what it says now, it says without a disk
        sleep(Duration::from_millis(rand::random_range(0..50))).await;
        broker.kill_9().await?;
        volume.unmount()?;
        volume.mount()?;
        broker = broker.restart().await.with_context(|| format!("after the cut of round {round}"))?;
        slowest = slowest.max(broker.ready_after());
    }
    let load = loading.stop().await?;
    broker.terminate().await?;
    let broker = Broker::start(&data, &[]).await?;
    let verified = load.check(&broker, &format!("power cut on {kind:?}, {rounds} rounds")).await?;
    tell(&format!("power cut on {kind:?}: slowest restart {slowest:?}"));
    ensure!(verified.seen > 0, "the reader saw records");
    broker.terminate().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_power_cuts_on_ext4() -> Result<()> {
    cuts(Kind::Ext4).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_power_cuts_on_xfs() -> Result<()> {
    cuts(Kind::Xfs).await
}
