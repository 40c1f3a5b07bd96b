//! A broker, perhaps a DynamoDB, and workers that read the one and keep leases in either, or in memory.

use crate::dynalite::Dynalite;
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tempfile::TempDir;
use tidemill_consumer::aws::Kinesis;
use tidemill_consumer::{
    Batch, Checkpointer, MemoryLeases, ProcessError, RecordProcessor, ShardRef, Worker, WorkerBuilder,
    WorkerHandle,
};
use tidemill_tests::{Broker, Until, until};

pub(crate) const STREAM: &str = "events";
pub(crate) const APP: &str = "app";
pub(crate) const LEASE: Duration = Duration::from_secs(2);
/// For what happens without a lease running out.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Where records come from and leases are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum On {
    /// Pushed by the broker; leases there too.
    Broker,
    /// Pushed by the broker; leases in memory.
    Memory,
    /// Polled from the Kinesis endpoint; leases in DynamoDB.
    Polling,
    /// Fanned out by the Kinesis endpoint; leases in DynamoDB.
    FanOut,
}

pub(crate) struct World {
    on: On,
    pub(crate) broker: Broker,
    pub(crate) dynalite: Option<Dynalite>,
    memory: MemoryLeases,
    _home: TempDir,
}

impl World {
    /// With a stream of so many shards; nothing where what is needed cannot be had.
    pub(crate) async fn start(on: On, shards: u32) -> Result<Option<Self>> {
        let dynalite = match on {
            On::Broker | On::Memory => None,
            On::Polling | On::FanOut => match Dynalite::start().await? {
                Some(dynalite) => Some(dynalite),
                None => return Ok(None),
            },
        };
        let home = TempDir::new()?;
        let broker = Broker::start(home.path(), &[]).await?;
        broker.kinesis().create_stream(STREAM, shards).await?;
        Ok(Some(Self { on, broker, dynalite, memory: MemoryLeases::new(), _home: home }))
    }

    pub(crate) fn kinesis(&self) -> Kinesis {
        let kinesis = Kinesis::at(&self.broker.url()).credentials("test", "test");
        kinesis.idle_time(Duration::from_millis(200))
    }

    pub(crate) fn builder(&self, worker: &str) -> Result<WorkerBuilder> {
        let builder = match self.on {
            On::Broker => Worker::builder(&self.broker.url(), APP, STREAM),
            On::Memory => Worker::builder(&self.broker.url(), APP, STREAM).leases_in_memory(&self.memory),
            On::Polling => Worker::kinesis(self.kinesis(), APP, STREAM),
            On::FanOut => Worker::kinesis(self.kinesis().fan_out(), APP, STREAM),
        };
        let builder = match &self.dynalite {
            Some(dynalite) => builder.leases_in_dynamo_db(dynalite.table()),
            None => builder,
        };
        Ok(builder.worker_id(worker).lease_duration(LEASE))
    }

    /// A worker that writes down what it processes.
    pub(crate) fn worker(&self, worker: &str, log: &Log) -> Result<WorkerHandle> {
        start(self.builder(worker)?, worker, log)
    }

    /// Puts records `key-n`/`text` and gives the texts.
    pub(crate) async fn put(&self, numbers: std::ops::Range<u32>) -> Result<Vec<String>> {
        let mut texts = Vec::new();
        let mut records = Vec::new();
        for number in numbers {
            let text = format!("{number:06}");
            records.push((format!("key-{}", number % 16), text.clone().into_bytes()));
            texts.push(text);
        }
        let mut kinesis = self.broker.kinesis();
        for records in records.chunks(200) {
            kinesis.put_records(STREAM, records).await?;
        }
        Ok(texts)
    }

    pub(crate) async fn split(&self, shard: &str) -> Result<()> {
        let mut kinesis = self.broker.kinesis();
        let list = kinesis.ok("ListShards", &json!({ "StreamName": STREAM })).await?;
        let shards = list["Shards"].as_array().context("shards")?;
        let found = shards.iter().find(|found| found["ShardId"] == shard).context("the shard")?;
        let bound = |name: &str| -> Result<u128> {
            Ok(found["HashKeyRange"][name].as_str().context("a bound")?.parse()?)
        };
        let (start, end) = (bound("StartingHashKey")?, bound("EndingHashKey")?);
        let middle = (start + (end - start) / 2).to_string();
        let split = json!({ "StreamName": STREAM, "ShardToSplit": shard, "NewStartingHashKey": middle });
        kinesis.ok("SplitShard", &split).await?;
        self.active().await
    }

    pub(crate) async fn merge(&self, shard: &str, with: &str) -> Result<()> {
        let merge = json!({ "StreamName": STREAM, "ShardToMerge": shard, "AdjacentShardToMerge": with });
        self.broker.kinesis().ok("MergeShards", &merge).await?;
        self.active().await
    }

    async fn active(&self) -> Result<()> {
        let active = until(SOON, || async {
            let described = self
                .broker
                .kinesis()
                .ok("DescribeStreamSummary", &json!({ "StreamName": STREAM }))
                .await
                .unwrap_or_default();
            described["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE"
        });
        ensure!(active.await != Until::Late, "the stream is not active again");
        Ok(())
    }
}

pub(crate) fn start(builder: WorkerBuilder, worker: &str, log: &Log) -> Result<WorkerHandle> {
    let (worker, log) = (worker.to_owned(), log.clone());
    Ok(builder.build()?.start(move |at| Scribe { worker: worker.clone(), at: at.clone(), log: log.clone() }))
}

/// A record as it was processed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) worker: String,
    pub(crate) shard: u32,
    pub(crate) key: String,
    pub(crate) text: String,
}

/// What all workers processed, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<Entry>>>);

impl Log {
    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    fn add(&self, entry: Entry) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
    }
    /// How often each text was processed.
    pub(crate) fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for entry in self.entries() {
            *counts.entry(entry.text).or_default() += 1;
        }
        counts
    }
    /// Waits until all of these were processed.
    pub(crate) async fn all_of(&self, texts: &[String]) -> Result<()> {
        self.all_within(texts, SOON).await.map(drop)
    }
    /// The same, and how long it took.
    pub(crate) async fn all_within(&self, texts: &[String], most: Duration) -> Result<Duration> {
        let missing = || {
            let counts = self.counts();
            texts.iter().filter(|text| !counts.contains_key(*text)).cloned().collect::<Vec<_>>()
        };
        match until(most, || std::future::ready(missing().is_empty())).await {
            Until::Held(took) => Ok(took),
            Until::Late => {
                let missing = missing();
                anyhow::bail!(
                    "not processed within {most:?}: {} such as {:?}",
                    missing.len(),
                    missing.first()
                )
            }
        }
    }
    /// Records of a key come in the order in which they were put.
    pub(crate) fn assert_ordered(&self) {
        let mut last: HashMap<String, String> = HashMap::new();
        for Entry { key, text, .. } in self.entries() {
            if let Some(before) = last.insert(key.clone(), text.clone()) {
                assert!(before < text, "{text} of {key} came after {before}");
            }
        }
    }
}

struct Scribe {
    worker: String,
    at: ShardRef,
    log: Log,
}

impl RecordProcessor for Scribe {
    async fn process(&mut self, batch: Batch, _: &Checkpointer) -> Result<(), ProcessError> {
        for record in batch.records() {
            self.log.add(Entry {
                worker: self.worker.clone(),
                shard: self.at.shard().get(),
                key: record.partition_key().to_owned(),
                text: String::from_utf8(record.data().to_vec())?,
            });
        }
        Ok(())
    }
}

/// Waits until workers hold so many shards each.
pub(crate) async fn hold(workers: &[&WorkerHandle], counts: &[usize]) -> Result<()> {
    let held = || workers.iter().map(|worker| worker.status().shards.len()).collect::<Vec<_>>();
    let shared = until(SOON, || std::future::ready(held() == counts)).await;
    ensure!(shared != Until::Late, "shards are not shared {counts:?} but {:?}", held());
    Ok(())
}
