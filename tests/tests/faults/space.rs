//! A full disk: appends are refused and may be repeated, reads go on, and with room everything goes on without a restart.

use crate::volume::{Kind, Volume};
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::time::Duration;
use tidemill_tests::load::Loading;
use tidemill_tests::{Broker, Kinesis, PutResult, Until, tell, until};
use tokio::time::sleep;

/// So much of the disk is taken by somebody else, and given back when it is full.
const BALLAST_MIB: usize = 220;
const DISK_MIB: u64 = 420;

/// Records that need room are refused one by one, and what is there is given.
async fn is_refused_and_read(filler: &mut Kinesis) -> Result<()> {
    let records: Vec<_> = (0..20).map(|n| (format!("k{n}"), vec![b'x'; 200_000])).collect();
    let mut refused = 0;
    // a few may still fit into files that are there
    for _ in 0..40 {
        let results = filler.put_records("filler", &records).await?;
        refused += results.iter().filter(|result| **result == PutResult::Failed).count();
    }
    ensure!(refused >= 20, "only {refused} of 800 records of 200 kB were refused");
    for shard in filler.shards("filler").await? {
        let iterator = filler.iterator("filler", &shard, "TRIM_HORIZON", &json!({})).await?;
        let given = filler.ok("GetRecords", &json!({ "ShardIterator": iterator, "Limit": 3 })).await?;
        ensure!(
            given["Records"].as_array().is_some_and(|records| records.len() == 3),
            "{shard} gives {given}"
        );
    }
    Ok(())
}

async fn fill_up(kind: Kind) -> Result<()> {
    let Some(volume) = Volume::make(kind, DISK_MIB)? else { return Ok(()) };
    let ballast = volume.path().join("ballast");
    std::fs::write(&ballast, vec![7; BALLAST_MIB << 20]).context("the ballast")?;
    let data = volume.path().join("data");
    let broker = Broker::start(&data, &["--durability", "device"]).await?;
    let loading = Loading::start(&broker).await?;
    let (mut bytes_put, mut filler) = (0u64, broker.kinesis());
    filler.create_stream("filler", 4).await?;
    let is = async |word: &str| {
        broker.readiness().await.is_ok_and(|(status, found)| status == 200 && found == word)
    };
    let full = async {
        // the load alone would take minutes
        while !is("degraded").await {
            let records: Vec<_> = (0..20).map(|n| (format!("k{n}"), vec![b'x'; 200_000])).collect();
            filler.put_records("filler", &records).await?;
            bytes_put += 20 * 200_000;
            ensure!(
                bytes_put < (2 * DISK_MIB) << 20,
                "the disk of {DISK_MIB} MiB is not full after {bytes_put} bytes"
            );
        }
        Ok(())
    };
    tokio::time::timeout(Duration::from_secs(60), full).await.context("it does not get full")??;
    is_refused_and_read(&mut filler).await.context("on a full disk")?;
    sleep(Duration::from_secs(2)).await;
    let before = loading.acknowledged();
    std::fs::remove_file(&ballast)?;
    loading.progress(1000, Duration::from_secs(30)).await.context("with room, writes go on by themselves")?;
    ensure!(until(Duration::from_secs(15), || is("ready")).await != Until::Late, "it is not ready again");
    let load = loading.stop().await?;
    let mut broker = broker;
    broker.kill_9().await?;
    let broker = broker.restart().await?;
    load.check(&broker, &format!("full disk, {kind:?}")).await?;
    tell(&format!(
        "full disk, {kind:?}: {before} acknowledged when it was full; restart {:?}",
        broker.ready_after()
    ));
    broker.terminate().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_ext4_refuses_appends_and_goes_on_when_there_is_room() -> Result<()> {
    fill_up(Kind::Ext4).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_memory_disk_refuses_appends_and_goes_on_when_there_is_room() -> Result<()> {
    fill_up(Kind::Memory).await
}
