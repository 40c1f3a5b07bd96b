//! System calls that fail or take long, by strace in front of the broker: a failed write or sync is final and told, a slow one
//! costs time and nothing else.

use anyhow::{Context, Result, ensure};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use tidemill_tests::load::Loading;
use tidemill_tests::{Broker, Until, tell, until};

/// Whether strace can be used here; under CI as root it must be.
fn can_trace() -> Result<bool> {
    let works = Command::new("strace").args(["-qq", "-e", "trace=none", "true"]).output();
    match works {
        Ok(output) if output.status.success() => Ok(true),
        other => {
            let must = std::env::var_os("CI").is_some() && rustix::process::geteuid().is_root();
            ensure!(!must, "strace does not work: {other:?}");
            tell("not tested for want of strace: system calls that fail");
            Ok(false)
        }
    }
}

/// Files of the first segments and of the journal: calls on others are let through, so that it is this failure which is told.
const SEGMENTS: [&str; 4] = [
    "segments/0000000000000001-00000000.segment",
    "segments/0000000000000002-00000000.segment",
    "segments/0000000000000003-00000000.segment",
    "segments/0000000000000004-00000000.segment",
];
const JOURNAL: [&str; 1] = ["journal-00000000.log"];

/// Starts a broker whose system calls are tampered with: on these files, or on all.
async fn tampered(home: &TempDir, inject: &str, files: &[&str]) -> Result<Broker> {
    let calls = inject.split(':').next().unwrap_or_default();
    let (trace, inject) = (format!("trace={calls}"), format!("inject={inject}"));
    // -D: the broker stays the process that was started, strace watches it from aside
    let mut strace = vec!["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
    let data = home.path().join("data");
    let paths: Vec<_> = files.iter().map(|file| data.join(file).display().to_string()).collect();
    paths.iter().for_each(|path| strace.extend(["-P", path]));
    Broker::start_under(&strace, &data, &["--durability", "device"]).await
}

/// Loads the broker until it says that it takes no writes any more, then starts it without the fault.
async fn fails(inject: &str, files: &[&str]) -> Result<()> {
    let home = TempDir::new()?;
    let mut broker = tampered(&home, inject, files).await?;
    let loading = Loading::start(&broker).await?;
    let poisoned = async || broker.readiness().await.is_ok_and(|(status, _)| status == 503);
    let told = until(Duration::from_secs(40), poisoned).await;
    ensure!(told != Until::Late, "{inject}: the failure is not told");
    let stderr = broker.stderr();
    ensure!(stderr.contains("restart"), "{inject}: it does not say what to do:\n{stderr}");
    // answers that were on their way arrive
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = loading.acknowledged();
    tokio::time::sleep(Duration::from_millis(500)).await;
    ensure!(loading.acknowledged() == before, "{inject}: something was acknowledged behind the failure");
    broker.kill_9().await?;
    let broker = broker.restart_plainly().await?;
    loading.progress(500, Duration::from_secs(30)).await.context("a restart recovers")?;
    let load = loading.stop().await?;
    load.check(&broker, &format!("{inject} ({before} before it)")).await?;
    tell(&format!("{inject}: restart {:?}", broker.ready_after()));
    broker.terminate().await?;
    Ok(())
}

/// Loads the broker while its calls take long; nothing else may happen.
async fn is_slow(inject: &str) -> Result<()> {
    let home = TempDir::new()?;
    let broker = tampered(&home, inject, &[]).await?;
    let loading = Loading::start(&broker).await?;
    loading.progress(1500, Duration::from_secs(60)).await?;
    ensure!(broker.readiness().await?.1 == "ready", "{inject}: slow is not broken");
    let load = loading.stop().await?;
    let mut broker = broker;
    broker.kill_9().await?;
    let broker = broker.restart_plainly().await?;
    let verified = load.check(&broker, inject).await?;
    ensure!(load.native_failures() == 0, "{inject}: {verified:?}");
    broker.terminate().await?;
    Ok(())
}

// the journal is written by pwritev2 or pwrite64, segments by the same without waiting, and synced by fdatasync
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_fails_is_told_and_what_was_acknowledged_before_it_stays() -> Result<()> {
    if can_trace()? {
        // early enough to come before these files are full, however large groups become
        fails("pwrite64,pwritev,pwritev2:error=EIO:when=40+", &JOURNAL).await?;
        fails("pwrite64,pwritev,pwritev2:error=EIO:when=8+", &SEGMENTS).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_that_fails_is_told_and_what_was_acknowledged_before_it_stays() -> Result<()> {
    if can_trace()? {
        fails("fdatasync,fsync:error=EIO:when=1+", &SEGMENTS).await?;
        fails("fdatasync,fsync:error=EIO:when=16+", &[]).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_and_syncs_that_take_long_cost_time_and_nothing_else() -> Result<()> {
    if can_trace()? {
        is_slow("pwrite64,pwritev,pwritev2,fdatasync:delay_enter=20000:when=50+").await?;
    }
    Ok(())
}
