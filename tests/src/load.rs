//! The load under which faults happen, and the full check behind them.
//!
//! ```text
//!  3 writers over gRPC (numbered batches, retried)  ─┐
//!  2 writers over the Kinesis API (not retried)     ─┼─► broker ── a fault ──► broker ── … ──► everything is read and
//!  1 reader that follows every shard                ─┘                                       held against the history
//! ```

use crate::broker::Broker;
use crate::history::{History, Stored, Verified};
use crate::kinesis::{Kinesis, PutResult};
use crate::native::{create_stream, read_shard, read_stream};
use crate::payload::payload;
use crate::process::{Until, until};
use crate::tell;
use anyhow::{Context, Result, ensure};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tidemill_producer::{Config, ErrorKind, PartitionKey, Producer, Record, Ticket};
use tidemill_proto::client::Endpoint;
use tidemill_types::ShardId;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// The stream that is written to.
pub const STREAM: &str = "load";
const SHARDS: u32 = 4;
const NATIVE_WRITERS: u64 = 3;
const KINESIS_WRITERS: u64 = 2;
/// Partition keys of each writer.
const KEYS: u64 = 16;
const TICKETS_MAX: usize = 512;
/// The number of a writer stands above this bit of an id.
const WRITER_SHIFT: u32 = 48;
/// Tasks end so soon after they were told to.
const END_DEADLINE: Duration = Duration::from_secs(60);

/// What all tasks share.
#[derive(Debug, Default)]
pub struct Load {
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
    /// What clients were told.
    pub fn history(&self) -> MutexGuard<'_, History> {
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
    let config = Config::new(&url)?.linger(Duration::from_millis(2))?.ordered(); // their order is looked at, whatever fails
    let producer = Producer::new(config).await?;
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

/// The tasks of a load.
#[derive(Debug)]
pub struct Loading {
    load: Arc<Load>,
    native: Vec<JoinHandle<Result<()>>>,
    others: Vec<JoinHandle<()>>,
}

impl Loading {
    /// Makes the stream, and begins to write and to read.
    pub async fn start(broker: &Broker) -> Result<Self> {
        create_stream(broker, STREAM, SHARDS).await?;
        let load = Arc::new(Load::default());
        let mut native = Vec::new();
        for writer in 1..=NATIVE_WRITERS {
            native.push(tokio::spawn(write_native(Arc::clone(&load), broker.url(), writer)));
        }
        let mut others = vec![tokio::spawn(follow(Arc::clone(&load), broker.endpoint()?))];
        for writer in 100..100 + KINESIS_WRITERS {
            others.push(tokio::spawn(write_kinesis(Arc::clone(&load), broker.kinesis(), writer)));
        }
        Ok(Self { load, native, others })
    }

    /// Records acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        self.load.history().acknowledged_count()
    }

    /// The ids of all that was acknowledged so far.
    pub fn told(&self) -> Vec<u64> {
        self.load.history().acknowledged_ids()
    }

    /// Waits until so many more records are acknowledged.
    pub async fn progress(&self, more: usize, limit: Duration) -> Result<()> {
        let goal = self.acknowledged() + more;
        let enough = || std::future::ready(self.acknowledged() >= goal);
        let progress = until(limit, enough).await;
        ensure!(progress != Until::Late, "not {more} more records are acknowledged within {limit:?}");
        Ok(())
    }

    /// Ends the writers, once what they have under way is settled, and the reader. The broker must be there.
    pub async fn stop(self) -> Result<Arc<Load>> {
        self.load.stop.store(true, Ordering::Relaxed);
        for writer in self.native {
            timeout(END_DEADLINE, writer).await.context("a writer hangs")???;
        }
        for other in self.others {
            timeout(END_DEADLINE, other).await.context("a task hangs")??;
        }
        Ok(self.load)
    }
}

impl Load {
    /// Records put over gRPC that were not acknowledged in the end.
    pub fn native_failures(&self) -> u64 {
        self.native_failures.load(Ordering::Relaxed)
    }

    /// Every acknowledged record is there exactly once, in order, with its number and bytes, by both APIs; tells the figures.
    pub async fn check(&self, broker: &Broker, fault: &str) -> Result<Verified> {
        let stored = broker.kinesis().read_all(STREAM).await?;
        let verified = self.history().verify(&stored)?;
        ensure!(read_stream(broker, STREAM).await? == stored, "both APIs give the same records");
        check_order(&stored)?;
        tell(&format!(
            "{fault}: {} acknowledged, {} seen by a reader, 0 lost, corrupt, duplicated or reordered; {} retried over gRPC (of \
             these {} had been stored), {} failed; of unknown outcome {} stored and {} not",
            verified.acknowledged,
            verified.seen,
            self.native_retried.load(Ordering::Relaxed),
            self.native_duplicates.load(Ordering::Relaxed),
            self.native_failures(),
            verified.uncertain_stored,
            verified.uncertain_lost,
        ));
        Ok(verified)
    }
}

/// A number from the environment, for longer runs than in CI.
pub fn number(name: &str, default: usize) -> Result<usize> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name} is a number")),
        Err(_) => Ok(default),
    }
}
