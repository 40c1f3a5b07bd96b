//! kill -9 under load, again and again, on one data directory: what was acknowledged stays, once, where it was said to be.
//!
//! ```text
//!  3 writers over gRPC (numbered batches, retried)  ─┐
//!  2 writers over the Kinesis API (not retried)     ─┼─► broker ──kill -9──► broker ── … ──► everything is read and
//!  1 reader that follows every shard                ─┘                                       held against the history
//! ```

use anyhow::{Context, Result, ensure};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tempfile::TempDir;
use tidemill_producer::{Config, ErrorKind, PartitionKey, Producer, Record, Ticket};
use tidemill_proto::client::Endpoint;
use tidemill_tests::{
    Broker, History, Kinesis, PutResult, Stored, Until, create_stream, payload, read_shard, read_stream,
    tell, until,
};
use tidemill_types::ShardId;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

const STREAM: &str = "load";
const SHARDS: u32 = 4;
const ROUNDS: usize = 20;
const RESTART_MAX: Duration = Duration::from_secs(2);
/// Records that must be acknowledged in a round before its kill.
const ACKNOWLEDGED_MIN: usize = 100;
const NATIVE_WRITERS: u64 = 3;
const KINESIS_WRITERS: u64 = 2;
/// Partition keys of each writer.
const KEYS: u64 = 16;
const TICKETS_MAX: usize = 512;
/// The number of a writer stands above this bit of an id.
const WRITER_SHIFT: u32 = 48;

/// What all tasks share.
#[derive(Default)]
struct Load {
    history: Mutex<History>,
    stop: AtomicBool,
    /// Records of native writers that were not acknowledged in the end.
    native_failures: AtomicU64,
    /// Records that were acknowledged only after they had been sent more than once.
    native_retried: AtomicU64,
    /// Of these, those whose first sending had been stored.
    native_duplicates: AtomicU64,
}

impl Load {
    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

fn id(writer: u64, count: u64) -> u64 {
    (writer << WRITER_SHIFT) | count
}

fn key(id: u64) -> String {
    format!("w{}-k{}", id >> WRITER_SHIFT, id % KEYS)
}

/// Mostly small, now and then one that does not go through the journal.
fn size() -> usize {
    if rand::random_ratio(1, 200) {
        rand::random_range(70_000..300_000)
    } else {
        rand::random_range(30..1000)
    }
}

async fn write_native(load: Arc<Load>, url: String, writer: u64) -> Result<()> {
    let producer = Producer::new(Config::new(&url)?.linger(Duration::from_millis(2))?).await?;
    let (sent, mut tickets) = mpsc::channel::<(u64, Ticket)>(TICKETS_MAX);
    let settling = {
        let load = Arc::clone(&load);
        tokio::spawn(async move {
            while let Some((id, ticket)) = tickets.recv().await {
                settle(&load, id, ticket).await;
            }
        })
    };
    for count in 0.. {
        if load.stopped() {
            break;
        }
        let id = id(writer, count);
        let record = Record::new(PartitionKey::new(&key(id))?, payload(id, size()))?;
        let ticket = producer.put(STREAM, record).await?;
        sent.send((id, ticket)).await?;
        if count % 8 == 0 {
            sleep(Duration::from_millis(4)).await;
        }
    }
    drop(sent);
    producer.close().await?;
    Ok(settling.await?)
}

async fn settle(load: &Load, id: u64, ticket: Ticket) {
    match ticket.await {
        Ok(placed) => {
            let stored =
                Stored { shard: placed.shard, number: placed.number.try_into().expect("a broker's own"), id };
            load.history().acknowledged(stored).expect("a ticket resolves once");
            load.native_retried.fetch_add(u64::from(placed.attempts > 1), Ordering::Relaxed);
            load.native_duplicates.fetch_add(u64::from(placed.duplicate), Ordering::Relaxed);
        }
        Err(error) => {
            eprintln!("record {id:x} was not acknowledged: {error:?}");
            load.native_failures.fetch_add(1, Ordering::Relaxed);
            match error.kind() {
                ErrorKind::UnknownOutcome => load.history().uncertain(id),
                _ => load.history().refused(id),
            }
        }
    }
}

async fn write_kinesis(load: Arc<Load>, mut kinesis: Kinesis, writer: u64) {
    for batch in 0.. {
        if load.stopped() {
            return;
        }
        let ids: Vec<u64> = (batch * 20..batch * 20 + 20).map(|count| id(writer, count)).collect();
        let records: Vec<_> = ids.iter().map(|id| (key(*id), payload(*id, size().min(20_000)))).collect();
        let put = timeout(Duration::from_secs(20), kinesis.put_records(STREAM, &records)).await;
        let results = put.expect("a put is answered or broken off");
        let broken = results.is_err();
        let results = results.unwrap_or_else(|_| vec![PutResult::Failed; ids.len()]);
        {
            let mut history = load.history();
            for (id, result) in ids.into_iter().zip(results) {
                match result {
                    PutResult::Failed => history.uncertain(id),
                    PutResult::Stored(shard, number) => {
                        history.acknowledged(Stored { shard, number, id }).expect("put once");
                    }
                }
            }
        }
        sleep(Duration::from_millis(if broken { 20 } else { 5 })).await;
    }
}

/// Follows every shard; what it was given once must be there in the end.
async fn follow(load: Arc<Load>, endpoint: Endpoint) {
    let mut last = HashMap::new();
    while !load.stopped() {
        for shard in (0..SHARDS).map(|id| ShardId::new(id).expect("small")) {
            let mut newest = last.get(&shard).copied();
            // the broker may be away; then the next look goes on from here
            let _ = read_shard(&endpoint, STREAM, shard, newest, |record| {
                newest = Some(record.number);
                load.history().seen(record).expect("a number means one record");
                Ok(())
            })
            .await;
            newest.map(|number| last.insert(shard, number));
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Records of one native writer and key are stored in the order in which they were put.
fn check_order(stored: &[Stored]) -> Result<()> {
    let mut last: HashMap<(u64, u64), u64> = HashMap::new();
    for record in stored.iter().filter(|record| record.id >> WRITER_SHIFT <= NATIVE_WRITERS) {
        let lane = (record.id >> WRITER_SHIFT, record.id % KEYS);
        if let Some(before) = last.insert(lane, record.id) {
            ensure!(before < record.id, "{:x} was put before {before:x} under the same key", record.id);
        }
    }
    Ok(())
}

fn rounds() -> Result<usize> {
    match std::env::var("TIDEMILL_KILL_ROUNDS") {
        Ok(text) => text.parse().context("TIDEMILL_KILL_ROUNDS is a number"),
        Err(_) => Ok(ROUNDS),
    }
}

/// Kills and starts the broker again and again; tells the slowest start.
async fn kill_and_restart(mut broker: Broker, load: &Load, rounds: usize) -> Result<(Broker, Duration)> {
    let mut slowest = Duration::ZERO;
    for round in 0..rounds {
        // every fourth time it is killed right after its start
        if round % 4 != 3 {
            let goal = load.history().acknowledged_count() + ACKNOWLEDGED_MIN;
            let enough = || std::future::ready(load.history().acknowledged_count() >= goal);
            let progress = until(Duration::from_secs(15), enough).await;
            ensure!(progress != Until::Late, "nothing is acknowledged in round {round}");
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
    let rounds = rounds()?;
    let home = TempDir::new()?;
    let broker = Broker::start(home.path(), &["--durability", "device"]).await?;
    create_stream(&broker, STREAM, SHARDS).await?;
    let load = Arc::new(Load::default());
    let mut native = Vec::new();
    for writer in 1..=NATIVE_WRITERS {
        native.push(tokio::spawn(write_native(Arc::clone(&load), broker.url(), writer)));
    }
    let mut others = vec![tokio::spawn(follow(Arc::clone(&load), broker.endpoint()?))];
    for writer in 100..100 + KINESIS_WRITERS {
        others.push(tokio::spawn(write_kinesis(Arc::clone(&load), broker.kinesis(), writer)));
    }

    let (broker, slowest) = kill_and_restart(broker, &load, rounds).await?;

    load.stop.store(true, Ordering::Relaxed);
    for writer in native {
        timeout(Duration::from_secs(45), writer).await.context("a writer hangs")???;
    }
    for other in others {
        timeout(Duration::from_secs(45), other).await.context("a task hangs")??;
    }
    broker.terminate().await?;
    let broker = Broker::start(home.path(), &[]).await?;
    let stored = broker.kinesis().read_all(STREAM).await?;
    let verified = load.history().verify(&stored)?;
    ensure!(read_stream(&broker, STREAM).await? == stored, "both APIs give the same records");
    check_order(&stored)?;
    ensure!(verified.seen > 0, "the reader saw records");
    let failures = load.native_failures.load(Ordering::Relaxed);
    tell(&format!(
        "kill -9, {rounds} rounds: {} acknowledged, {} seen by a reader, {} retried over gRPC (of these {} had been \
         stored), of unknown Kinesis puts {} stored and {} not; slowest restart {slowest:?}",
        verified.acknowledged,
        verified.seen,
        load.native_retried.load(Ordering::Relaxed),
        load.native_duplicates.load(Ordering::Relaxed),
        verified.uncertain_stored,
        verified.uncertain_lost,
    ));
    ensure!(failures == 0, "{failures} records put over gRPC were not acknowledged in the end");
    Ok(())
}
