//! Reading a filled stream to its end: bare calls, and the consumer library. The clock runs from the first record to the
//! last, so that finding shards and taking leases does not count.

use super::{Bench, RECORD_BYTES};
use crate::figure::Figure;
use anyhow::{Context, Result, ensure};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tidemill_consumer::{Batch, Checkpointer, ProcessError, RecordProcessor, ShardRef, Worker};
use tidemill_proto::client::{Channel, Endpoint};
use tidemill_proto::v1;
use tidemill_types::{Frames, Shard, StreamName};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// Bytes of an answer, as the consumer library asks for.
const ANSWER_BYTES: u32 = 1 << 20;
/// Shards that share a connection, as in the consumer library.
const SHARDS_PER_CONNECTION: usize = 4;
/// A stream that is not read to its end in this time will not be.
const PATIENCE: Duration = Duration::from_secs(120);

/// Records seen by all shards together, and when.
#[derive(Default)]
struct Tally {
    wanted: u64,
    records: AtomicU64,
    bytes: AtomicU64,
    begun: std::sync::OnceLock<Instant>,
    ended: std::sync::OnceLock<Instant>,
    all: Notify,
}

impl Tally {
    fn new(wanted: u64) -> Arc<Self> {
        Arc::new(Self { wanted, ..Self::default() })
    }

    /// So many records are about to be walked.
    fn begins(&self) {
        self.begun.get_or_init(Instant::now);
    }

    fn add(&self, records: u64, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let before = self.records.fetch_add(records, Ordering::Relaxed);
        if before + records >= self.wanted {
            self.ended.get_or_init(Instant::now);
            self.all.notify_one();
        }
    }

    async fn rate(&self) -> Result<Rate> {
        timeout(PATIENCE, self.all.notified()).await.context("the stream is not read to its end")?;
        let (records, bytes) = (self.records.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed));
        ensure!(records == self.wanted, "{records} records were read, {} are there", self.wanted);
        ensure!(bytes == records * RECORD_BYTES as u64, "records of {bytes} bytes altogether were read");
        let begun = self.begun.get().context("the first record was seen")?;
        let ended = self.ended.get().context("the last record was seen")?;
        Ok(Rate { records, bytes, took: *ended - *begun })
    }
}

/// How fast it went.
pub(super) struct Rate {
    records: u64,
    bytes: u64,
    took: Duration,
}

impl Rate {
    pub(super) fn figure(&self, workload: &str, target: &str) -> Figure {
        let per_s = |what: u64| what as f64 / self.took.as_secs_f64();
        Figure {
            workload: workload.to_owned(),
            target: target.to_owned(),
            records_per_s: per_s(self.records),
            mb_per_s: per_s(self.bytes) / 1e6,
            ..Figure::default()
        }
    }
}

/// One read call per shard.
pub(super) async fn bare(bench: &Bench, stream: &StreamName, shards: &[Shard], records: u64) -> Result<Rate> {
    let tally = Tally::new(records);
    let endpoint = Endpoint::new(&bench.endpoint)?;
    let mut tasks = JoinSet::new();
    for shards in shards.chunks(SHARDS_PER_CONNECTION) {
        let channel = Channel::connect(&endpoint).await?;
        for shard in shards {
            let request = v1::ReadRequest {
                stream: stream.to_string(),
                shard: shard.id.get(),
                position: Some(v1::Position { at: Some(v1::position::At::TrimHorizon(v1::Empty {})) }),
                max_bytes: ANSWER_BYTES,
                stop_at_tip: false,
            };
            tasks.spawn(read(channel.clone(), request, Arc::clone(&tally)));
        }
    }
    tokio::select! {
        rate = tally.rate() => rate,
        Some(ended) = tasks.join_next() => Err(ended?.err().context("a read of an open shard never ends")?),
    }
}

async fn read(channel: Channel, request: v1::ReadRequest, tally: Arc<Tally>) -> Result<()> {
    let mut answers = channel.data().read(request).await?.into_inner();
    while let Some(answer) = answers.message().await? {
        tally.begins();
        let (mut records, mut bytes) = (0, 0);
        for frame in Frames::new(answer.frames) {
            for record in frame?.records() {
                records += 1;
                bytes += record.data.len() as u64;
            }
        }
        tally.add(records, bytes);
    }
    Ok(())
}

struct Count(Arc<Tally>);

impl RecordProcessor for Count {
    async fn process(&mut self, batch: Batch, _: &Checkpointer) -> Result<(), ProcessError> {
        self.0.begins();
        let (mut records, mut bytes) = (0, 0);
        for record in batch.records() {
            records += 1;
            bytes += record.data().len() as u64;
        }
        self.0.add(records, bytes);
        Ok(())
    }
}

/// A worker of an application that has never read the stream.
pub(super) async fn library(bench: &Bench, stream: &StreamName, app: &str, records: u64) -> Result<Rate> {
    let tally = Tally::new(records);
    let counted = Arc::clone(&tally);
    let worker = Worker::builder(&bench.endpoint, app, stream.as_str()).build()?;
    let handle = worker.start(move |_: &ShardRef| Count(Arc::clone(&counted)));
    let rate = tally.rate().await;
    handle.stop(PATIENCE).await?;
    rate
}
