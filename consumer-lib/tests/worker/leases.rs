//! Workers share, lose, take over and give back leases.

use crate::fake::FakeBroker;
use crate::probe::{Call, Conduct, LEASE, Log, builder, start, start_with, until};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tidemill_consumer::{
    Batch, Checkpointer, Checkpointing, ErrorKind, ProcessError, RecordProcessor, Worker,
};
use tidemill_types::Checkpoint;

const SOON: Duration = Duration::from_secs(5);

#[tokio::test]
async fn two_workers_share_eight_shards_evenly_and_then_rest() {
    let (broker, log) = (FakeBroker::start(8).await, Log::default());
    let one = start(builder(&broker, "one"), &log);
    until("the first worker has all", SOON, || broker.counts().get("one") == Some(&8)).await;
    let two = start(builder(&broker, "two"), &log);
    let even = || broker.counts().get("one") == Some(&4) && broker.counts().get("two") == Some(&4);
    until("both have four, and work on them", SOON, || even() && two.status().shards.len() == 4).await;
    assert_eq!(broker.takes().len(), 12, "more leases moved than needed");
    tokio::time::sleep(2 * LEASE).await;
    assert_eq!(broker.takes().len(), 12, "leases move although the counts are even");
    let made = broker.fill(0..8, 0..20);
    until("everything is processed", SOON, || log.seen() == made).await;
    one.stop(SOON).await.unwrap();
    two.stop(SOON).await.unwrap();
}

#[tokio::test]
async fn the_shards_of_a_worker_that_died_are_taken_over_within_two_lease_times_and_nothing_is_missed() {
    let (broker, log) = (FakeBroker::start(8).await, Log::default());
    let one = start(builder(&broker, "one"), &log);
    let two = start(builder(&broker, "two"), &log);
    until("both have four", SOON, || broker.counts().values().eq(&[4, 4])).await;
    let mut made = broker.fill(0..8, 0..50);
    one.abort();
    made.extend(broker.fill(0..8, 50..100));
    let took = until("the other has all", 2 * LEASE, || broker.counts().get("two") == Some(&8)).await;
    assert!(took > LEASE / 3, "the lease of a live worker was taken after {took:?}");
    until("everything is processed", SOON, || log.seen() == made).await;
    two.stop(SOON).await.unwrap();
}

#[tokio::test]
async fn after_a_graceful_stop_others_take_over_at_once_and_see_nothing_again() {
    let (broker, log) = (FakeBroker::start(4).await, Log::default());
    let one = start(builder(&broker, "one"), &log);
    let mut made = broker.fill(0..4, 0..50);
    until("the first part is processed", SOON, || log.seen() == made).await;
    one.stop(SOON).await.unwrap();
    assert!(broker.counts().is_empty(), "leases were not given back");
    (0..4).for_each(|shard| log.assert_paired("one", shard));
    assert!((0..4).all(|shard| log.of("one", shard).ends_with(&[Call::Shutdown])));

    let two = start(builder(&broker, "two"), &log);
    let took = until("the other has all", SOON, || broker.counts().get("two") == Some(&4)).await;
    assert!(took < LEASE, "it waited {took:?} for leases that were given back");
    made.extend(broker.fill(0..4, 50..60));
    until("the second part is processed", SOON, || log.seen() == made).await;
    for shard in 0..4 {
        let records = log.processed(shard);
        assert_eq!(records.len(), BTreeSet::from_iter(&records).len(), "delivered again: {records:?}");
    }
    two.stop(SOON).await.unwrap();
}

/// Keeps its checkpointer's answer while it is told to wait in the middle of a batch.
struct Waiting {
    gate: Arc<tokio::sync::Semaphore>,
    answers: Arc<Mutex<Vec<Result<(), ErrorKind>>>>,
    lost: Arc<Mutex<usize>>,
}

impl RecordProcessor for Waiting {
    async fn process(&mut self, batch: Batch, checkpointer: &Checkpointer) -> Result<(), ProcessError> {
        self.gate.acquire().await?.forget();
        let answer = match batch.records().next() {
            Some(record) => checkpointer.checkpoint_at(&record).await,
            None => Ok(()),
        };
        self.answers.lock().push(answer.clone().map_err(|error| error.kind()));
        Ok(answer?)
    }
    async fn lease_lost(&mut self) {
        *self.lost.lock() += 1;
    }
}

#[tokio::test]
async fn a_worker_that_lost_its_lease_cannot_checkpoint_and_is_told_once() {
    let broker = FakeBroker::start(1).await;
    let (gate, answers, lost) = (Arc::new(tokio::sync::Semaphore::new(1)), Arc::default(), Arc::default());
    let worker =
        builder(&broker, "one").checkpointing(Checkpointing::Manual).batch_bytes(1024).build().unwrap();
    let (made_gate, made_answers, made_lost) = (Arc::clone(&gate), Arc::clone(&answers), Arc::clone(&lost));
    let worker = worker.start(move |_| Waiting {
        gate: Arc::clone(&made_gate),
        answers: Arc::clone(&made_answers),
        lost: Arc::clone(&made_lost),
    });
    broker.append(0, &["a".repeat(1000)]);
    broker.append(0, &["b".repeat(1000)]);
    broker.append(0, &["c".repeat(1000)]);
    until("the first checkpoint", SOON, || *answers.lock() == [Ok(())]).await;
    let checkpoint = broker.lease(0).checkpoint;
    assert!(matches!(checkpoint, Some(Checkpoint::At { .. })));

    broker.give_away(0, 10 * LEASE);
    gate.add_permits(5);
    until("the processor is told", SOON, || *lost.lock() == 1).await;
    assert_eq!(*answers.lock(), [Ok(()), Err(ErrorKind::LeaseLost)], "delivered after the lease was lost");
    tokio::time::sleep(LEASE / 2).await;
    assert_eq!(broker.lease(0).checkpoint, checkpoint);
    assert_eq!(*lost.lock(), 1);
    worker.stop(SOON).await.unwrap();
    assert_eq!(broker.lease(0).owner, "intruder", "gave back what was not its own");
}

#[tokio::test]
async fn a_worker_that_cannot_renew_stops_by_its_own_clock_before_the_broker_lets_others_in() {
    let (broker, log) = (FakeBroker::start(1).await, Log::default());
    let worker = start(builder(&broker, "one"), &log);
    until("the lease is taken", SOON, || broker.counts().len() == 1).await;
    broker.cut_off("one");
    // its reads go on working; only its leases do not
    until("it gives up", SOON, || log.of("one", 0).contains(&Call::LeaseLost)).await;
    broker.append(0, &["late".to_owned()]);
    tokio::time::sleep(LEASE / 3).await;
    assert!(log.seen().is_empty(), "delivered without a lease");
    broker.let_back("one");
    until("it takes the lease again", SOON, || log.seen().contains("late")).await;
    worker.stop(SOON).await.unwrap();
    log.assert_paired("one", 0);
}

#[tokio::test]
async fn a_slow_processor_does_not_lose_its_lease() {
    let (broker, log) = (FakeBroker::start(1).await, Log::default());
    let slow = start_with(builder(&broker, "one"), &log, |_| Conduct::Take(2 * LEASE));
    broker.append(0, &["a".to_owned()]);
    until("it is taken", SOON, || broker.counts().len() == 1).await;
    let other = start(builder(&broker, "two"), &log);
    until("it is processed", SOON, || log.seen().len() == 1).await;
    assert_eq!(broker.takes(), [(0, "one".to_owned())]);
    slow.stop(SOON).await.unwrap();
    until("the spare worker steps in", SOON, || broker.counts().contains_key("two")).await;
    assert_eq!(log.of("two", 0).iter().filter(|call| matches!(call, Call::Process(_))).count(), 0);
    other.stop(SOON).await.unwrap();
}

#[tokio::test]
async fn a_stop_past_its_deadline_names_the_shard_and_cuts_it_off() {
    let (broker, log) = (FakeBroker::start(1).await, Log::default());
    let worker = start_with(builder(&broker, "one"), &log, |_| Conduct::Take(Duration::from_secs(3600)));
    broker.append(0, &["a".to_owned()]);
    until("it is under way", SOON, || {
        worker.status().shards.iter().any(|s| s.lag_ms.is_some_and(|ms| ms > 5))
    })
    .await;
    let error = worker.stop(Duration::from_millis(100)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("shardId-000000000000"), "{error}");
    assert!(log.seen().is_empty());
}

#[tokio::test]
async fn a_worker_that_comes_back_under_its_id_need_not_wait_for_its_own_leases() {
    let (broker, log) = (FakeBroker::start(2).await, Log::default());
    let long = Duration::from_secs(60);
    let one = start(builder(&broker, "one").lease_duration(long), &log);
    until("it has both", SOON, || broker.counts().get("one") == Some(&2)).await;
    one.abort();
    let made = broker.fill(0..2, 0..5);
    let one = start(builder(&broker, "one").lease_duration(long), &log);
    until("all is processed", SOON, || log.seen() == made).await;
    one.stop(SOON).await.unwrap();
}

#[tokio::test]
async fn a_worker_takes_no_more_than_it_may_and_others_take_the_rest() {
    let (broker, log) = (FakeBroker::start(6).await, Log::default());
    let small = start(builder(&broker, "small").leases_max(1), &log);
    until("it has one", SOON, || broker.counts().get("small") == Some(&1)).await;
    let big = start(builder(&broker, "big"), &log);
    until("the other has the rest", SOON, || broker.counts().get("big") == Some(&5)).await;
    assert_eq!(small.status().shards.len(), 1);
    small.stop(SOON).await.unwrap();
    big.stop(SOON).await.unwrap();
}

#[tokio::test]
async fn a_stream_that_does_not_exist_is_told_at_once() {
    let broker = FakeBroker::start(1).await;
    let worker = Worker::builder(&broker.endpoint(), "app", "nothing").build().unwrap();
    let error = worker.for_each(|_| async { Ok(()) }, std::future::pending()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.message().contains("nothing"), "{error}");

    let one_of_two = builder(&broker, "one").and_stream("nothing").build().unwrap();
    let error = one_of_two.for_each(|_| async { Ok(()) }, std::future::pending()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(broker.takes().is_empty(), "it began although a stream is missing");
}
