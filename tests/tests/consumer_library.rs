//! The consumer library on a real broker: what only the two together show.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tidemill_consumer::{
    Batch, Checkpointer, Checkpointing, DeadLetterStream, InitialPosition, OnFailure, ProcessError, Record,
    RecordProcessor, Worker, WorkerBuilder, WorkerHandle,
};
use tidemill_producer::{PartitionKey, Producer};
use tidemill_proto::aggregate;
use tidemill_tests::{Broker, Until, create_stream, until};
use tidemill_types::{Clock, SystemClock};
use tokio::sync::Semaphore;

const SOON: Duration = Duration::from_secs(30);
const LEASE: Duration = Duration::from_secs(2);

type Seen = Arc<Mutex<Vec<String>>>;

fn texts(seen: &Seen) -> Vec<String> {
    seen.lock().map(|seen| seen.clone()).unwrap_or_default()
}

fn text(record: &Record) -> String {
    String::from_utf8_lossy(record.data()).into_owned()
}

fn builder(broker: &Broker, stream: &str) -> WorkerBuilder {
    Worker::builder(&broker.url(), "app", stream).lease_duration(LEASE)
}

/// Notes `stream/data` of every record.
struct Note(Seen);

impl RecordProcessor for Note {
    async fn process(&mut self, batch: Batch, _: &Checkpointer) -> Result<(), ProcessError> {
        let noted = batch.records().map(|record| format!("{}/{}", record.stream(), text(&record)));
        self.0.lock().expect("nobody panicked").extend(noted);
        Ok(())
    }
}

fn note(builder: WorkerBuilder, seen: &Seen) -> Result<WorkerHandle> {
    let seen = Arc::clone(seen);
    Ok(builder.build()?.start(move |_| Note(Arc::clone(&seen))))
}

fn record(key: &str, data: impl Into<Bytes>) -> Result<tidemill_producer::Record> {
    Ok(tidemill_producer::Record::new(PartitionKey::new(key)?, data)?)
}

async fn put(producer: &Producer, stream: &str, data: &[&str]) -> Result<()> {
    for text in data {
        let key = text.split('-').next().unwrap_or(text);
        producer.put(stream, record(key, text.to_string())?).await?.await?;
    }
    Ok(())
}

async fn comes(what: &str, holds: impl Fn() -> bool) -> Result<()> {
    let waited = until(SOON, || std::future::ready(holds())).await;
    ensure!(waited != Until::Late, "not within {SOON:?}: {what}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_come_and_go_while_a_worker_runs() -> Result<()> {
    let home = TempDir::new()?;
    let broker = Broker::start(home.path(), &[]).await?;
    for stream in ["a", "b"] {
        create_stream(&broker, stream, 2).await?;
    }
    let producer = Producer::connect(&broker.url()).await?;
    let seen = Seen::default();
    let worker = note(builder(&broker, "a"), &seen)?;
    put(&producer, "a", &["1"]).await?;
    put(&producer, "b", &["1"]).await?;
    comes("the first stream", || texts(&seen) == ["a/1"]).await?;

    worker.add_stream("b", None)?;
    comes("the second one, from its beginning", || texts(&seen) == ["a/1", "b/1"]).await?;
    worker.add_stream("missing", None)?;
    comes("the missing one is told", || worker.status().trouble.is_some_and(|told| told.contains("missing")))
        .await?;
    create_stream(&broker, "missing", 1).await?;
    put(&producer, "missing", &["1"]).await?;
    comes("it is there now", || texts(&seen).contains(&"missing/1".to_owned())).await?;

    worker.remove_stream("a")?;
    comes("its shards are given back", || {
        worker.status().shards.iter().all(|shard| shard.shard.stream().as_str() != "a")
    })
    .await?;
    put(&producer, "a", &["2"]).await?;
    put(&producer, "b", &["2"]).await?;
    comes("the others go on", || texts(&seen).contains(&"b/2".to_owned())).await?;
    ensure!(!texts(&seen).contains(&"a/2".to_owned()), "a stream that was removed is still processed");
    let other = note(builder(&broker, "a"), &seen)?;
    comes("another worker has them at once", || texts(&seen).contains(&"a/2".to_owned())).await?;
    let (all, once) = (texts(&seen).len(), texts(&seen).into_iter().collect::<BTreeSet<_>>().len());
    ensure!(all == once, "something came twice: {:?}", texts(&seen));
    other.stop(SOON).await?;
    worker.stop(SOON).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_that_begins_at_a_time_does_so_until_it_has_a_checkpoint() -> Result<()> {
    let home = TempDir::new()?;
    let broker = Broker::start(home.path(), &[]).await?;
    create_stream(&broker, "s", 3).await?;
    let producer = Producer::connect(&broker.url()).await?;
    put(&producer, "s", &["old-1", "old-2", "old-3"]).await?;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let now = SystemClock::new().now();
    tokio::time::sleep(Duration::from_millis(20)).await;
    put(&producer, "s", &["new-1", "new-2", "new-3"]).await?;
    let begin = |seen: &Seen| {
        let at = InitialPosition::AtTimestamp(now);
        note(builder(&broker, "s").initial_position(at).checkpointing(Checkpointing::Manual), seen)
    };
    for _ in 0..2 {
        let seen = Seen::default();
        let worker = begin(&seen)?;
        let expected = BTreeSet::from(["s/new-1", "s/new-2", "s/new-3"].map(str::to_owned));
        comes("what is new", || texts(&seen).into_iter().collect::<BTreeSet<_>>() == expected).await?;
        tokio::time::sleep(Duration::from_millis(100)).await;
        ensure!(texts(&seen).len() == 3, "{:?}", texts(&seen));
        worker.abort(); // nothing was checkpointed, so the next one begins at the same time
    }
    Ok(())
}

/// Checkpoints at one record and waits there.
struct StopAt(&'static str, Seen, Arc<Semaphore>);

impl RecordProcessor for StopAt {
    async fn process(&mut self, batch: Batch, checkpointer: &Checkpointer) -> Result<(), ProcessError> {
        for record in batch.records() {
            self.1.lock().expect("nobody panicked").push(text(&record));
            if text(&record) == self.0 {
                checkpointer.checkpoint_at(&record).await?;
                self.2.add_permits(1);
                std::future::pending::<()>().await;
            }
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_within_an_aggregated_record_is_resumed_within_it() -> Result<()> {
    let home = TempDir::new()?;
    let broker = Broker::start(home.path(), &[]).await?;
    create_stream(&broker, "s", 1).await?;
    let producer = Producer::connect(&broker.url()).await?;
    let user =
        ["u0", "u1", "u2", "u3"].map(|name| tidemill_types::Record::new(PartitionKey::new(name)?, name));
    let whole = aggregate::pack(&user.into_iter().collect::<Result<Vec<_>, _>>()?)?;
    producer.put("s", record("plain", "before")?).await?.await?;
    producer.put("s", record("a", whole.data().clone())?).await?.await?;
    producer.put("s", record("plain", "after")?).await?.await?;

    let (seen, reached) = (Seen::default(), Arc::new(Semaphore::new(0)));
    let (noted, at) = (Arc::clone(&seen), Arc::clone(&reached));
    let worker = builder(&broker, "s").checkpointing(Checkpointing::Manual).build()?;
    let worker = worker.start(move |_| StopAt("u1", Arc::clone(&noted), Arc::clone(&at)));
    reached.acquire().await?.forget();
    worker.abort();
    ensure!(texts(&seen) == ["before", "u0", "u1"], "{:?}", texts(&seen));

    let rest = Seen::default();
    let worker = note(builder(&broker, "s"), &rest)?;
    comes("the rest", || texts(&rest).len() >= 3).await?;
    ensure!(texts(&rest) == ["s/u2", "s/u3", "s/after"], "{:?}", texts(&rest));
    worker.stop(SOON).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_lie_in_a_stream_with_where_their_records_are() -> Result<()> {
    let home = TempDir::new()?;
    let broker = Broker::start(home.path(), &[]).await?;
    create_stream(&broker, "s", 1).await?;
    create_stream(&broker, "letters", 2).await?;
    let producer = Producer::connect(&broker.url()).await?;
    put(&producer, "s", &["good", "bad", "good too"]).await?;

    let letters = DeadLetterStream::new(&broker.endpoint()?, "letters")?;
    let policy = OnFailure::dead_letter_after(2, letters.put())?;
    let (mut batches, worker) = builder(&broker, "s").on_failure(policy).build()?.batches();
    let taking = tokio::spawn(async move {
        while let Some(delivered) = batches.next().await {
            let bad = delivered.batch().records().find(|record| text(record) == "bad");
            match bad {
                Some(bad) => delivered.fail(ProcessError::new("will not").at(&bad)),
                None => delivered.ack(),
            }
        }
    });
    let seen = Seen::default();
    let reader = note(builder(&broker, "letters"), &seen)?;
    comes("the letter", || texts(&seen).len() == 1).await?;
    let letters = texts(&seen);
    let letter = letters[0].strip_prefix("letters/").context("of that stream")?;
    let letter: serde_json::Value = serde_json::from_str(letter)?;
    ensure!(letter["stream"] == "s" && letter["error"] == "will not" && letter["attempts"] == 2, "{letter}");
    ensure!(letter["partition_key"] == "bad" && letter["data_base64"] == "YmFk", "{letter}");
    let done = || worker.status().shards.first().is_some_and(|s| s.dead_lettered == 1 && s.records == 2);
    comes("the others are processed", done).await?;
    worker.stop(SOON).await?;
    reader.stop(SOON).await?;
    taking.await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_far_a_shard_is_behind_is_told_in_records_and_in_time() -> Result<()> {
    let home = TempDir::new()?;
    let broker = Broker::start(home.path(), &[]).await?;
    create_stream(&broker, "s", 1).await?;
    let producer = Producer::connect(&broker.url()).await?;
    let names: Vec<String> = (0..50).map(|n| format!("{n}-{}", "x".repeat(2000))).collect();
    put(&producer, "s", &names.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    let (mut batches, worker) = builder(&broker, "s").batch_bytes(4096).build()?.batches();
    let first = batches.next().await.context("a batch")?;
    let behind = || worker.status().shards.first().and_then(|shard| shard.lag_records);
    ensure!(behind() == Some(50), "{:?}", worker.status());
    ensure!(worker.status().shards[0].lag_ms.is_some_and(|ms| ms > 0), "{:?}", worker.status());
    let (mut left, mut delivered) = (50, Some(first));
    while let Some(batch) = delivered.take() {
        left -= batch.batch().len();
        batch.ack();
        if left > 0 {
            delivered = batches.next().await;
        }
    }
    comes("the newest", || behind() == Some(0) && worker.status().shards[0].lag_ms == Some(0)).await?;
    worker.stop(SOON).await?;
    Ok(())
}
