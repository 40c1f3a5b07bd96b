//! Workers of an application share a stream's shards: one dies, another goes on; one stops, the next repeats nothing.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tidemill_producer::{PartitionKey, Producer, Record};
use tidemill_proto::client::Channel;
use tidemill_proto::v1::ListLeasesRequest;
use tidemill_tests::{Broker, Running, Until, create_stream, tell, until};
use tokio::time::{Instant, sleep, timeout};

const STREAM: &str = "events";
const APP: &str = "app";
const LEASE: Duration = Duration::from_millis(2000);
/// A record put after the death of a worker is on its way for so long besides: batching, push, printing.
const SLACK: Duration = Duration::from_millis(500);

/// A line of `consume --json`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Line {
    shard: String,
    number: String,
    data: String,
}

fn parse(line: &str) -> Result<Line> {
    let value: Value = serde_json::from_str(line).with_context(|| format!("not JSON: {line}"))?;
    let text =
        |name: &str| value[name].as_str().map(str::to_owned).with_context(|| format!("{name} in {line}"));
    ensure!(value["stream"] == STREAM, "{line}");
    ensure!(value["sub_sequence_number"] == 0, "{line}");
    ensure!(value["arrival_ms"].is_u64(), "{line}");
    text("partition_key")?;
    Ok(Line { shard: text("shard")?, number: text("sequence_number")?, data: text("data")? })
}

fn parsed(running: &Running) -> Result<Vec<Line>> {
    running.lines().iter().map(|line| parse(line)).collect()
}

fn consume(broker: &Broker, worker: &str, more: &[&str]) -> Result<Running> {
    let url = broker.url();
    let args = ["consume", STREAM, "--app", APP, "--worker", worker, "--json", "--lease-ms", "2000"];
    Running::spawn(&[&args[..], &["--endpoint", &url], more].concat())
}

/// Puts one record for each of `numbers`, each under a key of its own, and waits for all acknowledgements.
async fn put(producer: &Producer, numbers: std::ops::Range<u64>) -> Result<Vec<String>> {
    let mut tickets = Vec::new();
    let mut data = Vec::new();
    for number in numbers {
        let text = format!("record-{number}");
        let record = Record::new(PartitionKey::new(&format!("key-{number}"))?, text.clone())?;
        tickets.push(producer.put(STREAM, record).await?);
        data.push(text);
    }
    for ticket in tickets {
        ticket.await?;
    }
    Ok(data)
}

/// Puts small groups of records, one soon after the other, until told to stop.
async fn put_until(producer: Producer, first: u64, stop: Arc<AtomicBool>) -> Result<Vec<String>> {
    let mut written = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let next = first + written.len() as u64;
        written.extend(put(&producer, next..next + 20).await?);
        sleep(Duration::from_millis(5)).await;
    }
    Ok(written)
}

/// Who holds each shard's lease.
async fn owners(broker: &Broker) -> Result<HashMap<u32, String>> {
    let mut client = Channel::connect(&broker.endpoint()?).await?.lease();
    let request = ListLeasesRequest { app: APP.into(), stream: STREAM.into(), with_lag: false };
    let leases = client.list_leases(request).await?.into_inner().leases;
    let owner = |lease: tidemill_proto::v1::LeaseRow| Some((lease.shard?.id, lease.owner));
    Ok(leases.into_iter().filter_map(owner).collect())
}

async fn holds(broker: &Broker, worker: &str) -> usize {
    owners(broker).await.map_or(0, |owners| owners.values().filter(|owner| *owner == worker).count())
}

/// Within a shard, what a worker prints for the first time comes in order.
fn check_order(lines: &[Line]) -> Result<()> {
    let mut last: HashMap<&str, (usize, &str)> = HashMap::new();
    let mut printed = HashSet::new();
    for line in lines.iter().filter(|line| printed.insert(*line)) {
        let order = (line.number.len(), line.number.as_str());
        if let Some(before) = last.insert(&line.shard, order) {
            ensure!(before < order, "{line:?} comes after {}", before.1);
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_a_worker_is_killed_another_goes_on_within_two_lease_times_and_nothing_is_missed() -> Result<()>
{
    let home = TempDir::new()?;
    let broker = Broker::start(home.path(), &[]).await?;
    create_stream(&broker, STREAM, 8).await?;
    let producer = Producer::connect(&broker.url()).await?;
    let mut written = put(&producer, 0..2000).await?;

    let (mut a, b) = (consume(&broker, "a", &[])?, consume(&broker, "b", &[])?);
    let shared = until(Duration::from_secs(20), || async {
        holds(&broker, "a").await == 4 && holds(&broker, "b").await == 4
    })
    .await;
    ensure!(shared != Until::Late, "the shards are not shared: {:?}", owners(&broker).await?);
    let orphaned: HashSet<String> = owners(&broker)
        .await?
        .into_iter()
        .filter(|(_, owner)| owner == "a")
        .map(|(shard, _)| format!("shardId-{shard:012}"))
        .collect();
    let stop = Arc::new(AtomicBool::new(false));
    let writing = tokio::spawn(put_until(producer.clone(), written.len() as u64, Arc::clone(&stop)));
    // not at a round multiple of the second in which a worker checkpoints
    sleep(Duration::from_millis(1300)).await;

    let killed = Instant::now();
    a.kill_9().await?;
    let mut waiting = orphaned.clone();
    while !waiting.is_empty() {
        ensure!(killed.elapsed() < 4 * LEASE, "nobody goes on with {waiting:?} of {orphaned:?}");
        for (at, line) in b.timed_lines() {
            if at > killed {
                waiting.remove(&parse(&line)?.shard);
            }
        }
        sleep(Duration::from_millis(20)).await;
    }
    let taken_over = killed.elapsed();
    stop.store(true, Ordering::Relaxed);
    written.extend(timeout(Duration::from_secs(20), writing).await.context("the writer hangs")???);
    let after = written.len() as u64;
    written.extend(put(&producer, after..after + 500).await?);

    let missing = || {
        let seen: HashSet<String> = [&a, &b]
            .iter()
            .flat_map(|worker| worker.lines())
            .filter_map(|line| Some(parse(&line).ok()?.data))
            .collect();
        written.iter().filter(|data| !seen.contains(*data)).count()
    };
    let all = until(Duration::from_secs(15), || std::future::ready(missing() == 0)).await;
    ensure!(all != Until::Late, "{} of {} records are missing", missing(), written.len());
    for worker in [&a, &b] {
        check_order(&parsed(worker)?)?;
    }
    let printed = a.lines().len() + b.lines().len();
    let finished = b.terminate().await?;
    ensure!(finished.code == Some(0), "{finished:?}");
    tell(&format!(
        "a worker of 4 of 8 shards killed: all taken over after {taken_over:?} (lease {LEASE:?}); {} records, {} \
         redelivered",
        written.len(),
        printed - written.len()
    ));
    ensure!(taken_over <= 2 * LEASE + SLACK, "taken over only after {taken_over:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_asked_to_stop_exits_with_0_and_the_next_repeats_nothing() -> Result<()> {
    let home = TempDir::new()?;
    let broker = Broker::start(home.path(), &[]).await?;
    create_stream(&broker, STREAM, 4).await?;
    let producer = Producer::connect(&broker.url()).await?;
    let first = put(&producer, 0..1000).await?;
    let a = consume(&broker, "a", &[])?;
    let all = until(Duration::from_secs(15), || std::future::ready(a.lines().len() >= first.len())).await;
    ensure!(all != Until::Late, "{} of {} lines came", a.lines().len(), first.len());
    let stopped = a.terminate().await?;
    ensure!(stopped.code == Some(0), "{stopped:?}");
    let printed: Vec<Line> = stopped.stdout.iter().map(|line| parse(line)).collect::<Result<_>>()?;
    check_order(&printed)?;
    assert_same(printed.into_iter().map(|line| line.data).collect(), first);
    ensure!(
        owners(&broker).await?.values().all(String::is_empty),
        "its leases are given back: {:?}",
        owners(&broker).await?
    );

    let second = put(&producer, 1000..1300).await?;
    let started = Instant::now();
    let mut b = consume(&broker, "b", &["--until-caught-up"])?;
    let finished = b.ended(Duration::from_secs(20)).await?;
    ensure!(finished.code == Some(0), "{finished:?}");
    let data = finished.stdout.iter().map(|line| Ok(parse(line)?.data)).collect::<Result<Vec<_>>>()?;
    assert_same(data, second);
    tell(&format!("the next worker went on and caught up within {:?}", started.elapsed()));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_reader_goes_away_stops_quietly() -> Result<()> {
    let home = TempDir::new()?;
    let broker = Broker::start(home.path(), &[]).await?;
    create_stream(&broker, STREAM, 1).await?;
    let producer = Producer::connect(&broker.url()).await?;
    // more than fits a pipe, so that the worker notices
    for number in 0..2000 {
        let record = Record::new(PartitionKey::new("key")?, format!("record-{number:0500}"))?;
        // flushed below
        drop(producer.put(STREAM, record).await?);
    }
    producer.flush().await?;
    // `head` goes away after one line
    let script = format!(
        "{} consume {STREAM} --app {APP} --endpoint {} | head -n 1; exit ${{PIPESTATUS[0]}}",
        tidemill_tests::tidemill()?.display(),
        broker.url()
    );
    let mut command = tokio::process::Command::new("bash");
    let output = command.args(["-c", &script]).kill_on_drop(true).output();
    let output = timeout(Duration::from_secs(20), output).await.context("it does not stop")??;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stdout.starts_with(b"record-"), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    Ok(())
}

fn assert_same(mut found: Vec<String>, mut expected: Vec<String>) {
    found.sort();
    expected.sort();
    let odd: Vec<_> = found.windows(2).filter(|two| two[0] == two[1]).map(|two| &two[0]).take(5).collect();
    assert!(found == expected, "{} lines instead of {}, twice: {odd:?}", found.len(), expected.len());
}
