//! What a person or a program may do with a worker at work: pause a shard, checkpoint in two phases, take batches in a loop.

use crate::fake::FakeBroker;
use crate::probe::{Call, LEASE, Log, builder, start, until};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tidemill_consumer::{
    Batch, Checkpoint, Checkpointer, Checkpointing, ErrorKind, MemoryLeases, PendingCheckpoint, ProcessError,
    RecordProcessor, Start,
};

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_paused_shard_is_given_nothing_and_keeps_its_lease_while_others_go_on() {
    let (broker, log) = (FakeBroker::start(2).await, Log::default());
    let worker = start(builder(&broker, "one"), &log);
    until("it has both", SOON, || worker.status().shards.len() == 2).await;
    let shard = worker.status().shards[0].shard.clone();
    worker.pause(&shard);
    tokio::time::sleep(Duration::from_millis(50)).await;
    broker.append(0, &["zero".to_owned()]);
    broker.append(1, &["one".to_owned()]);
    until("the other shard goes on", SOON, || log.seen().contains("one")).await;
    tokio::time::sleep(2 * LEASE).await;
    assert!(!log.seen().contains("zero"));
    assert!(worker.status().shards[0].paused);
    assert_eq!(broker.counts().get("one"), Some(&2));
    worker.resume(&shard);
    until("it goes on", SOON, || log.seen().contains("zero")).await;
    worker.stop(SOON).await.unwrap();
}

/// What a processor began with.
type Begun = (Checkpoint, Option<PendingCheckpoint>);

/// Prepares a checkpoint for each batch, and commits it if it is told to.
struct TwoPhase {
    commits: bool,
    started: Arc<Mutex<Vec<Begun>>>,
    prepared: Arc<Mutex<usize>>,
}

impl RecordProcessor for TwoPhase {
    async fn initialize(&mut self, start: &Start) -> Result<(), ProcessError> {
        self.started.lock().push((start.from, start.pending.clone()));
        Ok(())
    }
    async fn process(&mut self, _: Batch, checkpointer: &Checkpointer) -> Result<(), ProcessError> {
        let too_much = vec![0; PendingCheckpoint::STATE_BYTES_MAX + 1];
        assert_eq!(checkpointer.prepare(too_much).await.unwrap_err().kind(), ErrorKind::Invalid);
        let prepared = checkpointer.prepare("transaction 7").await?;
        if self.commits {
            prepared.commit().await?;
            assert_eq!(checkpointer.stored(), prepared.at());
        }
        *self.prepared.lock() += 1;
        Ok(())
    }
}

#[tokio::test]
async fn what_was_prepared_and_not_committed_is_given_to_whoever_comes_next() {
    let broker = FakeBroker::start(1).await;
    let (started, prepared) = (Arc::default(), Arc::default());
    let begin = |name: &str, commits| {
        let worker = builder(&broker, name).checkpointing(Checkpointing::Manual).build().unwrap();
        let (started, prepared) = (Arc::clone(&started), Arc::clone(&prepared));
        worker.start(move |_| TwoPhase {
            commits,
            started: Arc::clone(&started),
            prepared: Arc::clone(&prepared),
        })
    };
    broker.append(0, &["a".to_owned()]);
    let one = begin("one", false);
    until("it is prepared", SOON, || *prepared.lock() == 1).await;
    one.abort();
    let two = begin("two", true);
    until("the next one commits", SOON, || *prepared.lock() == 2).await;
    assert!(broker.lease(0).pending.is_none(), "what is committed is no longer pending");
    two.stop(SOON).await.unwrap();
    let three = begin("three", true);
    until("the third begins", SOON, || started.lock().len() == 3).await;
    three.stop(SOON).await.unwrap();
    let started: Vec<Begun> = started.lock().clone();
    assert_eq!(started[0], (Checkpoint::TrimHorizon, None));
    let pending = started[1].1.clone().expect("what was prepared");
    assert_eq!((started[1].0, &pending.state[..]), (Checkpoint::TrimHorizon, &b"transaction 7"[..]));
    assert_eq!(started[2], (pending.at, None));
}

#[tokio::test]
async fn a_batch_of_the_stream_that_is_dropped_without_an_answer_comes_again() {
    let broker = FakeBroker::start(1).await;
    broker.append(0, &["a".to_owned()]);
    let (mut batches, handle) = builder(&broker, "one").build().unwrap().batches();
    let first = batches.next().await.unwrap();
    let number = first.batch().last_sequence_number();
    drop(first);
    let again = batches.next().await.unwrap();
    assert_eq!(again.batch().last_sequence_number(), number);
    assert!(again.checkpointer().is_lease_held());
    assert_eq!(again.checkpointer().lease_epoch().get(), 1);
    again.ack();
    handle.stop(SOON).await.unwrap();
    assert!(batches.next().await.is_none());
    let (mut batches, handle) = builder(&broker, "two").build().unwrap().batches();
    broker.append(0, &["b".to_owned()]);
    let next = batches.next().await.unwrap();
    assert_eq!(next.batch().records().next().unwrap().data(), b"b");
    next.ack();
    handle.stop(SOON).await.unwrap();
}

#[tokio::test]
async fn leases_in_memory_are_shared_by_the_workers_that_are_given_them() {
    let (broker, log, leases) = (FakeBroker::start(4).await, Log::default(), MemoryLeases::new());
    let begin = |name: &str| start(builder(&broker, name).leases_in_memory(&leases), &log);
    let (one, two) = (begin("one"), begin("two"));
    until("both have two", SOON, || one.status().shards.len() == 2 && two.status().shards.len() == 2).await;
    let mut made = broker.fill(0..4, 0..20);
    let [left, right] = broker.split(1);
    made.extend(broker.fill(left..right + 1, 0..5));
    two.abort();
    until("all is processed", SOON, || log.seen() == made).await;
    one.stop(SOON).await.unwrap();
    assert!(broker.takes().is_empty(), "the broker's own leases are not used");
    assert!(log.of("one", 1).contains(&Call::ShardEnded) || log.of("two", 1).contains(&Call::ShardEnded));
}
