//! Bits that flip in files of each kind, with a real broker: what is damaged is told or refused, never served; `tidemill verify`
//! finds it; after `tidemill repair` everything else is there. And what lies behind the end of a journal or segment, torn or
//! garbled, is no damage.
//!
//! Every bit of a file that means something is found by `verify` in the tests of the storage crate; here is what users see.

use crate::directory::{files, refused};
use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tidemill_tests::load::{Load, Loading, STREAM, number};
use tidemill_tests::{Broker, Stored, read_stream, run, tell};

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

    fn copied(&self) -> Result<PathBuf> {
        let copy = self.home.path().join("copy");
        let _ = std::fs::remove_dir_all(&copy); // there is none the first time
        let copied = std::process::Command::new("cp").arg("-a").args([&self.data, &copy]).status()?;
        ensure!(copied.success(), "cannot copy {}", self.data.display());
        Ok(copy)
    }

    /// A copy, in which a bit of the file is flipped.
    fn flipped(&self, file: &Path, at: u64, bit: u8) -> Result<PathBuf> {
        let copy = self.copied()?;
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

/// What a running broker says of records that it cannot give: native readers get an error that names stream, shard and numbers,
/// the log has a line, the metric counts.
async fn is_told(broker: &Broker) -> Result<()> {
    let Err(error) = read_stream(broker, STREAM).await else { bail!("a native reader is not told") };
    let told = format!("{error:#}");
    for part in [STREAM, "shardId-", "damaged"] {
        ensure!(told.contains(part), "{part} is not in what a native reader is told: {told}");
    }
    let metrics = broker.connect().await?.request("GET", "/metrics", &[], b"").await?.text();
    let counted = |line: &str| line.starts_with("tidemill_damaged_records_total") && !line.ends_with(" 0");
    ensure!(metrics.lines().any(counted), "damage is not counted: {metrics}");
    let log = broker.stderr();
    let logged = |line: &str| line.contains("ERROR") && line.contains("damaged") && line.contains(STREAM);
    ensure!(log.lines().any(logged), "damage is not in the log: {log}");
    Ok(())
}

/// How many records a broker does not give; `None` if it refuses to start, and says which file is bad.
async fn served(sample: &Sample, data: &Path, file: &Path) -> Result<Option<usize>> {
    let Ok(broker) = Broker::start(data, &[]).await else {
        let told = refused(data).await?.stderr;
        let name = file.file_name().and_then(|name| name.to_str()).context("a plain name")?;
        // a run that lies behind a bad group of the journal names the segment that it is missing from
        let named = told.contains(name) || (name.starts_with("journal-") && told.contains(".segment"));
        ensure!(named && (told.contains("damaged") || told.contains("corrupt")), "{told}");
        return Ok(None);
    };
    // payloads carry checks of their own: one changed byte anywhere is an error here
    let missing = missing(&sample.load, &broker.kinesis().read_all(STREAM).await?)?;
    if missing > 0 {
        is_told(&broker).await?;
    }
    broker.terminate().await?;
    Ok(Some(missing))
}

async fn flip(sample: &Sample, file: &Path, at: u64, bit: u8, outcome: &mut Outcome) -> Result<()> {
    let name = file.file_name().and_then(|name| name.to_str()).context("a plain name")?;
    let data = sample.flipped(file, at, bit)?;
    let dir = data.to_str().context("a plain name")?;
    outcome.flips += 1;
    let verified = run(&["verify", dir, "--json"]).await?;
    let is_found = verified.stdout.iter().any(|line| line.contains(name));
    // pages of the metadata store that nobody names, and groups of the journal that nobody needs, may change unseen
    let may_be_unseen = name == "metadata.redb" || name.starts_with("journal-");
    ensure!(is_found || may_be_unseen, "{verified:?}");
    // an index is made anew: that is no damage
    let is_damage = is_found && !name.ends_with(".index");
    ensure!(verified.code == Some(i32::from(is_damage)), "{verified:?}");
    // what a broker makes of it
    let missing_before = served(sample, &data, file).await?;
    outcome.fenced += missing_before.unwrap_or(0);
    outcome.refused += usize::from(missing_before.is_none());
    ensure!(is_found || missing_before == Some(0), "what verify does not find costs nothing");
    // what is left of it
    let data = sample.flipped(file, at, bit)?;
    let repaired = run(&["repair", dir, "--yes", "--json"]).await?;
    if name == "metadata.redb" {
        let expected = if is_found { 1 } else { 0 };
        ensure!(repaired.code == Some(expected), "{repaired:?}");
        ensure!(!is_found || repaired.stderr.contains("backup"), "what helps is not told: {repaired:?}");
        return Ok(());
    }
    ensure!(repaired.code == Some(0), "{repaired:?}");
    let verified = run(&["verify", dir]).await?;
    ensure!(verified.code == Some(0), "after a repair: {verified:?}");
    let broker = Broker::start(&data, &[]).await.context("after a repair")?;
    let stored = broker.kinesis().read_all(STREAM).await?;
    ensure!(read_stream(&broker, STREAM).await? == stored, "both APIs give the same records");
    let lost = missing(&sample.load, &stored)?;
    let told: serde_json::Value = serde_json::from_str(repaired.stdout.last().context("a summary")?)?;
    ensure!(lost as u64 <= told["records_lost"].as_u64().context("a count")?, "{lost} lost, told: {told}");
    ensure!(
        missing_before.is_none_or(|before| lost <= before),
        "a repair costs more than the damage: {told}"
    );
    outcome.lost += lost;
    broker.terminate().await?;
    Ok(())
}

/// Flips bits; tells what came of them.
async fn flips(killed: bool, kind: &str, wanted: impl Fn(&str) -> bool) -> Result<Outcome> {
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
    Ok(outcome)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flipped_bits_of_segments_are_never_served_and_cost_what_they_hit() -> Result<()> {
    let found = flips(false, "segment", |name| name.ends_with(".segment")).await?;
    ensure!(found.refused == 0 && found.lost == found.fenced, "{found:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flipped_bits_of_the_journal_are_never_served() -> Result<()> {
    let found = flips(true, "journal", |name| name.starts_with("journal-")).await?;
    ensure!(found.fenced == 0, "the segments have it: {found:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flipped_bits_of_indexes_the_checkpoint_and_the_metadata_store_are_never_believed() -> Result<()> {
    let found = flips(false, "index", |name| name.ends_with(".index")).await?;
    ensure!(found.refused + found.fenced + found.lost == 0, "an index is made anew: {found:?}");
    let found = flips(false, "checkpoint", |name| name == "checkpoint").await?;
    ensure!(found.refused == found.flips && found.lost == 0, "{found:?}");
    let found = flips(false, "metadata", |name| name == "metadata.redb").await?;
    ensure!(found.fenced == 0, "{found:?}");
    Ok(())
}

/// A write that a crash cut short leaves a piece of a group, or anything, behind the last one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_or_garbled_end_of_journal_and_segments_is_cut_without_a_word_and_costs_nothing() -> Result<()>
{
    const BLOCK: u64 = 4096;
    let sample = Sample::make(true).await?;
    for torn in [true, false] {
        let data = sample.copied()?;
        let mut changed = 0;
        for file in files(&data, |name| name.starts_with("journal-") || name.ends_with(".segment"))? {
            let end = used(&file)?.next_multiple_of(BLOCK);
            let mut bytes = std::fs::read(&file)?;
            let room = (bytes.len() as u64).saturating_sub(end).min(16 * BLOCK);
            if end < 2 * BLOCK || room == 0 {
                continue; // nothing was written to it, or it is full
            }
            let (end, room) = (usize::try_from(end)?, usize::try_from(room)?);
            if torn {
                // the front of what was written last comes once more, without its end
                let piece = bytes[end - BLOCK as usize..][..1000].to_vec();
                bytes[end..end + piece.len()].copy_from_slice(&piece);
            } else {
                rand::fill(&mut bytes[end..end + room]);
            }
            std::fs::write(&file, bytes)?;
            changed += 1;
        }
        ensure!(changed >= 2, "only {changed} files have an end to garble");
        let broker = Broker::start(&data, &[]).await?;
        let what = if torn { "a torn end" } else { "a garbled end" };
        sample.load.check(&broker, &format!("{what} of {changed} files")).await?;
        broker.terminate().await?;
    }
    Ok(())
}

/// Behind a map as behind a bad sector: to touch what cannot be read would end the process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_that_somebody_cuts_under_a_broker_costs_errors_while_it_is_cut() -> Result<()> {
    let sample = Sample::make(false).await?;
    let broker = Broker::start(&sample.data, &["--durability", "device"]).await?;
    let mut kinesis = broker.kinesis();
    kinesis.create_stream("beside", 1).await?;
    kinesis.read_all(STREAM).await?; // now they are mapped
    let mut segments = files(&sample.data, |name| name.ends_with(".segment"))?;
    segments.sort_by_cached_key(|file| used(file).unwrap_or_default());
    let cut = segments.last().context("a segment")?;
    let whole = std::fs::read(cut)?;
    std::fs::OpenOptions::new().write(true).open(cut)?.set_len(4096)?;
    let mut refused = 0;
    for shard in kinesis.shards(STREAM).await? {
        let iterator = kinesis.iterator(STREAM, &shard, "TRIM_HORIZON", &json!(null)).await?;
        let mut next = Some(iterator);
        while let Some(iterator) = next {
            let reply = kinesis
                .call("GetRecords", json!({ "ShardIterator": iterator }).to_string().as_bytes())
                .await?;
            ensure!([200, 500].contains(&reply.status), "{} {}", reply.status, reply.text());
            refused += usize::from(reply.status == 500);
            let page = reply.json()?;
            let more = reply.status == 200 && page["MillisBehindLatest"] != 0;
            next = page["NextShardIterator"].as_str().filter(|_| more).map(str::to_owned);
        }
    }
    ensure!(
        refused == 1,
        "of one shard the records cannot be read, and this is told as an error of the server: {refused}"
    );
    kinesis.put_records("beside", &[("k".into(), vec![b'x'; 100])]).await?;
    std::fs::write(cut, whole)?;
    sample.load.check(&broker, "a segment cut under the broker, put back").await?;
    broker.terminate().await?;
    Ok(())
}
