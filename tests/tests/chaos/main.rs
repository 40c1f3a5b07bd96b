//! Chaos with real processes: an application's workers and producers are killed, stopped and restarted at random while the
//! stream is resharded and the broker itself is killed, and every promise of both libraries is held against what they
//! wrote down.
//!
//! ```text
//!  2 ordered producers ─► broker, 8 shards (4 to 16 by split, merge, scale) ─► 4 workers of one application
//!     │ kill -9            │ kill -9                                            │ kill -9, SIGSTOP, SIGTERM
//!     └► logs of acks      └► rows of leases, looked at all the time            └► logs of deliveries ──► checker
//! ```
//!
//! 60 s by default; `TIDEMILL_CHAOS_SECONDS=600` for longer, `TIDEMILL_CHAOS_SEED` for the same blows again (processes are
//! free to run as they like, so that is not the same history). What broke leaves its logs behind, and says where.

mod director;
mod fleet;
mod observer;
mod reshard;

use anyhow::{Context, Result, bail, ensure};
use director::{Blows, Director};
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tidemill_tests::chaos::{History, RecordId, Verdict, check};
use tidemill_tests::{Broker, Until, create_stream, tell, until};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

const STREAM: &str = "load";
const APP: &str = "app";
const SHARDS: u32 = 8;
const LEASE: Duration = Duration::from_secs(2);
const SECONDS: u64 = 60;
/// Everything acknowledged is processed this long after the last blow.
const DRAIN_DEADLINE: Duration = Duration::from_secs(120);
const END_DEADLINE: Duration = Duration::from_secs(60);

fn number(name: &str) -> Result<Option<u64>> {
    let text = std::env::var(name).ok();
    text.map(|text| text.parse().with_context(|| format!("{name} is a number"))).transpose()
}

/// Waits until everything that was acknowledged is processed.
async fn drained(logs: &Path) -> Result<()> {
    let mut left = usize::MAX;
    let mut broken = Ok(());
    let waited = until(DRAIN_DEADLINE, || {
        let mut history = History::default();
        broken = history.read_logs(logs);
        let processed: HashSet<RecordId> =
            history.sessions.iter().flat_map(|session| session.records().map(|(_, id)| id)).collect();
        left = history.acks.iter().filter(|ack| !processed.contains(&ack.id)).count();
        let over = left == 0 || broken.is_err();
        async move {
            sleep(Duration::from_millis(if over { 0 } else { 500 })).await;
            over
        }
    })
    .await;
    broken?;
    ensure!(
        waited != Until::Late,
        "{left} acknowledged records are not processed {DRAIN_DEADLINE:?} after the last blow"
    );
    Ok(())
}

async fn ended<T>(what: &str, task: JoinHandle<Result<T>>) -> Result<T> {
    timeout(END_DEADLINE, task)
        .await
        .with_context(|| format!("the {what} hangs"))??
        .with_context(|| what.to_owned())
}

/// The whole run; gives its history and what was done.
async fn run(home: &Path, seconds: u64, seed: u64) -> Result<(History, Blows, u64)> {
    let (data, logs) = (home.join("data"), home.join("logs"));
    std::fs::create_dir_all(&logs)?;
    let broker = Broker::start(&data, &["--durability", "device"]).await?;
    create_stream(&broker, STREAM, SHARDS).await?;
    let endpoint = broker.endpoint()?;
    let stop = Arc::new(AtomicBool::new(false));
    let observing = tokio::spawn(observer::observe(endpoint.clone(), Arc::clone(&stop)));
    let calm = Arc::new(AtomicBool::new(false));
    let resharding = tokio::spawn(reshard::reshard_on(endpoint, seed, Arc::clone(&calm)));

    let mut director = Director::start(broker, &logs, seed)?;
    let struck = director.strike(Duration::from_secs(seconds)).await;
    calm.store(true, Ordering::Relaxed);
    let reshards = ended("resharding", resharding).await?;
    struck.context("while processes were struck")?;
    director.calm_down().await?;
    drained(&logs).await?;
    let (broker, blows, mut history) = director.end().await?;

    // one more look, at what stays
    sleep(observer::INTERVAL * 4).await;
    stop.store(true, Ordering::Relaxed);
    history.sightings = ended("observer", observing).await?;
    broker.terminate().await?;
    history.read_logs(&logs)?;
    Ok((history, blows, reshards))
}

fn summary(verdict: &Verdict, blows: &Blows, reshards: u64) -> String {
    let middle = verdict.failovers.get(verdict.failovers.len() / 2).copied().unwrap_or_default();
    let slowest = verdict.failovers.last().copied().unwrap_or_default();
    format!(
        "{} acknowledged, {} processed, {} duplicates (bound {}), {} takeovers ({} after a stop in order), {reshards} \
         reshards, {blows}; {} sessions paused; {} failovers, median {middle:?}, slowest {slowest:?}; slowest gap {:?}",
        verdict.acknowledged,
        verdict.processed,
        verdict.duplicates,
        verdict.duplicates_bound,
        verdict.takeovers,
        verdict.handovers,
        verdict.paused_sessions,
        verdict.failovers.len(),
        verdict.slowest_gap,
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_and_stopped_processes_break_no_promise_of_producer_or_consumer() -> Result<()> {
    let seconds = number("TIDEMILL_CHAOS_SECONDS")?.unwrap_or(SECONDS);
    let seed = number("TIDEMILL_CHAOS_SEED")?.unwrap_or_else(rand::random);
    let home = TempDir::new()?;
    let (history, blows, reshards) = match run(home.path(), seconds, seed).await {
        Ok(done) => done,
        Err(error) => {
            let kept = home.keep();
            return Err(error.context(format!("seed {seed}, logs in {}", kept.display())));
        }
    };
    match check(&history, LEASE) {
        Ok(verdict) => {
            tell(&format!("chaos, {seconds} s, seed {seed}: {}", summary(&verdict, &blows, reshards)));
            ensure!(history.failed.is_empty(), "records were not acknowledged: {:?}", history.failed);
            ensure!(seconds < SECONDS || blows.all_kinds(), "not every kind of blow was struck: {blows}");
            ensure!(reshards > 0 || seconds < SECONDS, "nothing was resharded");
        }
        Err(broken) => {
            let kept = home.keep();
            bail!("seed {seed}, logs in {}, broken:\n{}", kept.display(), broken.join("\n"));
        }
    }
    Ok(())
}
