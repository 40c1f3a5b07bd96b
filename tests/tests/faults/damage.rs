//! Bits that flip in files of each kind, with a real broker: what is damaged is told or refused, never served; `tidemill verify`
//! finds it; after `tidemill repair` everything else is there.
//!
//! Every bit of a file that means something is found by `verify` in the tests of the storage crate; here is what users see.

use crate::directory::{files, refused};
use anyhow::{Context, Result, ensure};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tidemill_tests::load::{Load, Loading, STREAM, number};
use tidemill_tests::{Broker, Stored, run, tell};

/// Flips for each kind of file.
const FLIPS: usize = 3;
/// Records that are put before the first flip.
const RECORDS: usize = 3000;

/// A directory to be damaged, and what is in it.
struct Sample {
    home: TempDir,
    data: PathBuf,
    load: Arc<Load>,
}

impl Sample {
    /// One that was closed in order, or one whose newest records only the journal holds for sure.
    async fn make(killed: bool) -> Result<Self> {
        let home = TempDir::new()?;
        let data = home.path().join("data");
        let mut broker = Broker::start(&data, &["--durability", "device"]).await?;
        let loading = Loading::start(&broker).await?;
        loading.progress(RECORDS, Duration::from_secs(60)).await?;
        let load = loading.stop().await?;
        if killed {
            broker.kill_9().await?;
        } else {
            broker.terminate().await?;
        }
        Ok(Self { home, data, load })
    }

    /// A copy, in which a bit of the file is flipped.
    fn flipped(&self, file: &Path, at: u64, bit: u8) -> Result<PathBuf> {
        let copy = self.home.path().join("copy");
        let _ = std::fs::remove_dir_all(&copy); // there is none the first time
        let copied = std::process::Command::new("cp").arg("-a").args([&self.data, &copy]).status()?;
        ensure!(copied.success(), "cannot copy {}", self.data.display());
        let file = copy.join(file.strip_prefix(&self.data)?);
        let mut bytes = std::fs::read(&file)?;
        bytes[usize::try_from(at)?] ^= 1 << (bit % 8);
        std::fs::write(&file, bytes)?;
        Ok(copy)
    }
}

/// Where a file holds something: behind that lie zeros.
fn used(file: &Path) -> Result<u64> {
    let bytes = std::fs::read(file)?;
    Ok(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1))
}

/// What came of flips in files of one kind.
#[derive(Debug, Default)]
struct Outcome {
    flips: usize,
    /// The broker did not start, and said why.
    refused: usize,
    /// Records that were not served, over all flips.
    fenced: usize,
    /// Records that were lost by repair, over all flips.
    lost: usize,
}

/// Nothing is given that was not put, in order, once; tells how many are missing.
fn missing(load: &Load, stored: &[Stored]) -> Result<usize> {
    let given: HashSet<u64> = stored.iter().map(|record| record.id).collect();
    ensure!(given.len() == stored.len(), "a record is given twice");
    let history = load.history();
    let kept = history.without_missing(&given);
    kept.verify(stored).context("of what is given")?;
    Ok(history.acknowledged_count() - kept.acknowledged_count())
}

async fn flip(sample: &Sample, file: &Path, at: u64, bit: u8, outcome: &mut Outcome) -> Result<()> {
    let data = sample.flipped(file, at, bit)?;
    let dir = data.to_str().context("a plain name")?;
    outcome.flips += 1;
    // what a broker makes of it
    match Broker::start(&data, &[]).await {
        Ok(broker) => {
            // payloads carry checks of their own: one changed byte anywhere is an error here
            outcome.fenced += missing(&sample.load, &broker.kinesis().read_all(STREAM).await?)?;
            broker.terminate().await?;
        }
        Err(_) => {
            let told = refused(&data).await?.stderr;
            let name = file.file_name().and_then(|name| name.to_str()).context("a plain name")?;
            // a run that lies behind a bad frame names the segment that it is missing from
            ensure!(told.contains("damaged") || told.contains("corrupt") || told.contains(name), "{told}");
            outcome.refused += 1;
        }
    }
    // what is left of it
    let data = sample.flipped(file, at, bit)?;
    let repaired = run(&["repair", dir, "--yes", "--json"]).await?;
    if file.ends_with("metadata.redb") {
        return Ok(()); // only a backup helps, and it says so
    }
    ensure!(repaired.code == Some(0), "{repaired:?}");
    let verified = run(&["verify", dir]).await?;
    ensure!(verified.code == Some(0), "after a repair: {verified:?}");
    let broker = Broker::start(&data, &[]).await.context("after a repair")?;
    let lost = missing(&sample.load, &broker.kinesis().read_all(STREAM).await?)?;
    let told: serde_json::Value = serde_json::from_str(repaired.stdout.last().context("a summary")?)?;
    ensure!(lost as u64 <= told["records_lost"].as_u64().context("a count")?, "{lost} lost, told: {told}");
    outcome.lost += lost;
    broker.terminate().await?;
    Ok(())
}

async fn flips(killed: bool, kind: &str, wanted: impl Fn(&str) -> bool) -> Result<()> {
    let flips = number("TIDEMILL_FLIPS", FLIPS)?;
    let sample = Sample::make(killed).await?;
    let mut candidates = Vec::new();
    for file in files(&sample.data, wanted)? {
        candidates.push((used(&file)?, file));
    }
    candidates.retain(|(used, _)| *used > 0);
    ensure!(!candidates.is_empty(), "no file of the kind {kind}");
    let mut outcome = Outcome::default();
    for turn in 0..flips {
        let (used, file) = &candidates[turn % candidates.len()];
        let (at, bit) = (rand::random_range(0..*used), rand::random_range(0..8));
        flip(&sample, file, at, bit, &mut outcome)
            .await
            .with_context(|| format!("bit {bit} at {at} of {}", file.display()))?;
    }
    tell(&format!(
        "bit flips, {kind}: {outcome:?}, {} acknowledged",
        sample.load.history().acknowledged_count()
    ));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flipped_bits_of_segments_are_never_served_and_cost_what_they_hit() -> Result<()> {
    flips(false, "segment", |name| name.ends_with(".segment")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flipped_bits_of_the_journal_are_never_served() -> Result<()> {
    flips(true, "journal", |name| name.starts_with("journal-")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flipped_bits_of_indexes_the_checkpoint_and_the_metadata_store_are_never_believed() -> Result<()> {
    flips(false, "index", |name| name.ends_with(".index")).await?;
    flips(false, "checkpoint", |name| name == "checkpoint").await?;
    flips(false, "metadata", |name| name == "metadata.redb").await
}
