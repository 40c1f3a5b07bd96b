//! Limits of the process: few descriptors, little memory. Clear errors or an end like a kill, and nothing lost either way.

use anyhow::{Context, Result, ensure};
use std::time::Duration;
use tempfile::TempDir;
use tidemill_tests::load::Loading;
use tidemill_tests::{Broker, Connection, tell};
use tokio::time::sleep;

fn limited(limit: &str) -> [String; 4] {
    ["sh", "-c", &format!("ulimit {limit}; exec \"$@\""), "sh"].map(str::to_owned)
}

/// The broker takes as many connections as it has descriptors for, and no more; what it has accepted it serves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_with_few_descriptors_serves_what_it_has_accepted_and_recovers_when_they_are_free()
-> Result<()> {
    let home = TempDir::new()?;
    let under = limited("-n 96");
    let under: Vec<&str> = under.iter().map(String::as_str).collect();
    let broker = Broker::start_under(&under, &home.path().join("data"), &["--durability", "device"]).await?;
    let loading = Loading::start(&broker).await?;
    loading.progress(500, Duration::from_secs(20)).await?;
    let mut flood = Vec::new();
    for _ in 0..300 {
        // beyond the limit they wait in the backlog, or are turned away
        if let Ok(Ok(open)) =
            tokio::time::timeout(Duration::from_millis(200), Connection::open(broker.addr())).await
        {
            flood.push(open);
        }
    }
    loading.progress(500, Duration::from_secs(20)).await.context("those who are connected are served")?;
    drop(flood);
    sleep(Duration::from_millis(500)).await;
    ensure!(broker.readiness().await?.1 == "ready", "it is well again");
    loading.progress(500, Duration::from_secs(20)).await?;
    let load = loading.stop().await?;
    let mut broker = broker;
    broker.kill_9().await?;
    let broker = broker.restart_plainly().await?;
    load.check(&broker, "96 descriptors, 300 connections").await?;
    broker.terminate().await?;
    Ok(())
}

/// An allocation that fails ends the process, as a kill would; what was acknowledged is there at the next start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_gets_no_more_memory_loses_nothing() -> Result<()> {
    let home = TempDir::new()?;
    let under = limited("-d 200000");
    let under: Vec<&str> = under.iter().map(String::as_str).collect();
    let mut broker =
        Broker::start_under(&under, &home.path().join("data"), &["--durability", "device"]).await?;
    let loading = Loading::start(&broker).await?;
    loading.progress(500, Duration::from_secs(20)).await?;
    let mut kinesis = broker.kinesis();
    kinesis.create_stream("large", 4).await?;
    let mut clients = Vec::new();
    for _ in 0..40 {
        let mut kinesis = broker.kinesis();
        clients.push(tokio::spawn(async move {
            let records: Vec<_> = (0..5).map(|n| (format!("k{n}"), vec![b'x'; 900_000])).collect();
            for _ in 0..10 {
                if kinesis.put_records("large", &records).await.is_err() {
                    return;
                }
            }
        }));
    }
    for client in clients {
        client.await?;
    }
    let survived = broker.assert_alive().await.is_ok();
    if survived {
        broker.kill_9().await?;
    }
    let broker = broker.restart_plainly().await?;
    loading.progress(500, Duration::from_secs(30)).await?;
    let load = loading.stop().await?;
    let how = if survived { "it lived" } else { "it ended, as by a kill" };
    load.check(&broker, &format!("200 MB of data memory ({how})")).await?;
    tell(&format!("little memory: {how}; restart {:?}", broker.ready_after()));
    broker.terminate().await?;
    Ok(())
}
