//! What happens to one shard: order, ends, failures of processors and of connections.

use crate::fake::FakeBroker;
use crate::probe::{Call, Conduct, LEASE, Log, builder, start, start_with, until};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tidemill_consumer::{InitialPosition, ProcessError, Record, ShardPhase};
use tidemill_types::Checkpoint;
use tokio::sync::Semaphore;

const SOON: Duration = Duration::from_secs(5);

fn texts(shard: u32, numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|n| format!("{shard}-{n}")).collect()
}

#[tokio::test]
async fn children_begin_only_after_their_parent_is_processed_to_its_end() {
    let (broker, log) = (FakeBroker::start(1).await, Log::default());
    broker.fill(0..1, 0..30);
    let children = broker.split(0);
    broker.fill(1..3, 0..10);
    let worker = start_with(builder(&broker, "one").batch_bytes(1024), &log, |batch| {
        // a parent that takes its time
        if batch.shard().shard().get() == 0 {
            Conduct::Take(Duration::from_millis(20))
        } else {
            Conduct::Succeed
        }
    });
    until("the children are processed", SOON, || log.seen().len() == 50).await;
    worker.stop(SOON).await.unwrap();
    assert_eq!(log.processed(0), texts(0, 0..30));
    assert_eq!(broker.lease(0).checkpoint, Some(Checkpoint::ShardEnd));
    let calls = log.all();
    let ended = calls.iter().position(|(_, shard, call)| *shard == 0 && *call == Call::ShardEnded).unwrap();
    let child = calls.iter().position(|(_, shard, _)| children.contains(shard)).unwrap();
    assert!(ended < child, "a child began before its parent ended");
    (0..3).for_each(|shard| log.assert_paired("one", shard));
    assert!(!broker.counts().contains_key("one"), "the lease of the ended shard was not given back");
}

#[tokio::test]
async fn a_slow_processor_holds_up_only_its_own_shard_however_much_is_stored() {
    let (broker, log) = (FakeBroker::start(6).await, Log::default());
    let gate = Arc::new(Semaphore::new(0));
    let shut = Arc::clone(&gate);
    // more than the buffers, the stream window and the socket hold
    for shard in 0..6 {
        for n in 0..40 {
            broker.append(shard, &[format!("{shard}-{n}-{}", "x".repeat(400_000))]);
        }
    }
    let slow = builder(&broker, "one").prefetch_bytes(1 << 20);
    let worker = start_with(slow, &log, move |batch| {
        if batch.shard().shard().get() < 5 { Conduct::Wait(Arc::clone(&shut)) } else { Conduct::Succeed }
    });
    until("the free shard is processed", SOON, || log.processed(5).len() == 40).await;
    tokio::time::sleep(LEASE).await;
    assert_eq!(broker.counts().get("one"), Some(&6), "leases were lost while shards were held up");
    let status = worker.status();
    assert!(status.shards[0].lag_ms > status.shards[5].lag_ms);
    gate.add_permits(1);
    until("the others are processed", SOON, || log.count() >= 240).await;
    assert_eq!(log.seen().len(), 240);
    worker.stop(SOON).await.unwrap();
}

#[tokio::test]
async fn a_failed_batch_is_delivered_again_as_it_was_before_anything_after_it() {
    let (broker, log) = (FakeBroker::start(1).await, Log::default());
    broker.fill(0..1, 0..3);
    let failures = AtomicUsize::new(0);
    let worker = start_with(builder(&broker, "one"), &log, move |_| {
        if failures.fetch_add(1, Ordering::SeqCst) < 3 { Conduct::Fail } else { Conduct::Succeed }
    });
    let retrying =
        || matches!(worker.status().shards[..], [ref s] if matches!(s.phase, ShardPhase::Retrying { .. }));
    until("it is told", SOON, retrying).await;
    until("it is processed in the end", SOON, || log.seen().len() == 3).await;
    broker.fill(0..1, 3..6);
    until("the rest is processed", SOON, || log.seen().len() == 6).await;
    worker.stop(SOON).await.unwrap();
    let calls = log.of("one", 0);
    let Call::Failed(first) = &calls[1] else { panic!("{calls:?}") };
    assert_eq!(calls[1..4], vec![Call::Failed(first.clone()); 3]);
    assert_eq!(calls[4], Call::Process(first.clone()));
    assert_eq!(log.processed(0), texts(0, 0..6));
}

#[tokio::test]
async fn a_batch_that_failed_is_not_checkpointed_by_a_stop() {
    let (broker, log) = (FakeBroker::start(1).await, Log::default());
    broker.fill(0..1, 0..2);
    let one = start_with(builder(&broker, "one"), &log, |_| Conduct::Fail);
    until("it fails", SOON, || !log.all().is_empty() && log.of("one", 0).len() > 2).await;
    one.stop(SOON).await.unwrap();
    log.assert_paired("one", 0);
    assert_eq!(broker.lease(0).checkpoint, Some(Checkpoint::TrimHorizon));
    let two = start(builder(&broker, "two"), &log);
    until("another processes it", SOON, || log.processed(0) == texts(0, 0..2)).await;
    two.stop(SOON).await.unwrap();
}

#[tokio::test]
async fn a_panic_costs_only_the_lease_of_its_shard_which_is_taken_up_again() {
    let (broker, log) = (FakeBroker::start(2).await, Log::default());
    let panics = AtomicUsize::new(0);
    let worker = start_with(builder(&broker, "one"), &log, move |batch| {
        let panic = batch.shard().shard().get() == 0 && panics.fetch_add(1, Ordering::SeqCst) == 0;
        if panic { Conduct::Panic } else { Conduct::Succeed }
    });
    let made = broker.fill(0..2, 0..5);
    until("the panic is told", SOON, || worker.status().trouble.is_some_and(|t| t.contains("told to panic")))
        .await;
    until("all is processed", SOON, || log.seen() == made).await;
    assert_eq!(
        broker.takes().iter().filter(|(shard, _)| *shard == 1).count(),
        1,
        "the other shard was disturbed"
    );
    worker.stop(SOON).await.unwrap();
}

#[tokio::test]
async fn a_closure_is_called_for_each_record_in_order_and_again_for_the_one_that_failed() {
    let broker = FakeBroker::start(1).await;
    broker.append(0, &texts(0, 0..5));
    let called = Arc::new(Mutex::new(Vec::new()));
    let calls = Arc::clone(&called);
    let handle = move |record: Record| {
        let text = String::from_utf8(record.data().to_vec()).unwrap();
        let mut calls = calls.lock();
        let fails = text == "0-3" && !calls.contains(&text);
        calls.push(text);
        async move { if fails { Err(ProcessError::new("told to fail")) } else { Ok(()) } }
    };
    let worker = builder(&broker, "one").until_caught_up(true).build().unwrap();
    tokio::time::timeout(SOON, worker.for_each(handle, std::future::pending()))
        .await
        .expect("it ends")
        .unwrap();
    assert_eq!(*called.lock(), ["0-0", "0-1", "0-2", "0-3", "0-3", "0-4"]);
    let checkpoint = broker.lease(0).checkpoint;
    assert!(
        matches!(checkpoint, Some(Checkpoint::At { number, .. }) if number.index().get() == 5),
        "{checkpoint:?}"
    );
}

#[tokio::test]
async fn broken_and_damaged_reads_are_resumed_without_gap_or_repetition() {
    let (broker, log) = (FakeBroker::start(2).await, Log::default());
    let worker = start(builder(&broker, "one").batch_bytes(1024), &log);
    for round in 0..10 {
        broker.fill(0..2, round * 20..round * 20 + 20);
        if round % 3 == 0 {
            broker.damage_answers(1);
        }
        broker.break_reads();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    until("all is processed", SOON, || log.seen().len() == 400).await;
    assert!(broker.reads() > 4, "no read was broken");
    worker.stop(SOON).await.unwrap();
    for shard in 0..2 {
        assert_eq!(log.processed(shard), texts(shard, 0..200));
        log.assert_paired("one", shard);
    }
}

#[tokio::test]
async fn when_the_stream_is_deleted_leases_are_given_up_and_the_status_says_why() {
    let (broker, log) = (FakeBroker::start(2).await, Log::default());
    let worker = start(builder(&broker, "one"), &log);
    let made = broker.fill(0..2, 0..3);
    until("all is processed", SOON, || log.seen() == made).await;
    broker.delete_stream();
    until("the shards are given up", SOON, || worker.status().shards.is_empty()).await;
    until("it is told", SOON, || worker.status().trouble.is_some_and(|t| t.contains("not found"))).await;
    (0..2).for_each(|shard| {
        log.assert_paired("one", shard);
        assert_eq!(log.of("one", shard).last(), Some(&Call::LeaseLost));
    });
    worker.stop(SOON).await.unwrap();
}

#[tokio::test]
async fn an_application_that_begins_at_the_newest_misses_nothing_after_that_even_if_its_worker_dies_idle() {
    let (broker, log) = (FakeBroker::start(1).await, Log::default());
    broker.fill(0..1, 0..10);
    let one = start(builder(&broker, "one").initial_position(InitialPosition::Latest), &log);
    until("the newest is noted", SOON, || matches!(broker.lease(0).checkpoint, Some(Checkpoint::At { .. })))
        .await;
    one.abort();
    broker.fill(0..1, 10..20);
    let two = start(builder(&broker, "two").initial_position(InitialPosition::Latest), &log);
    until("what came since is processed", SOON, || log.seen().len() == 10).await;
    assert_eq!(log.processed(0), texts(0, 10..20));
    two.stop(SOON).await.unwrap();
}

#[tokio::test]
async fn a_worker_told_to_ends_when_it_has_caught_up_through_parents_and_children() {
    let (broker, log) = (FakeBroker::start(2).await, Log::default());
    broker.fill(0..2, 0..50);
    broker.split(0);
    broker.fill(1..4, 50..60);
    let worker = start(builder(&broker, "one").until_caught_up(true), &log);
    tokio::time::timeout(SOON, worker.join()).await.expect("it ends").unwrap();
    assert_eq!(log.seen().len(), 100 + 30);
    assert!(broker.counts().is_empty(), "leases were not given back");
    (0..4).for_each(|shard| log.assert_paired("one", shard));
}

#[tokio::test]
async fn a_worker_that_catches_up_waits_for_the_shards_of_one_that_died() {
    let (broker, log) = (FakeBroker::start(4).await, Log::default());
    let one = start(builder(&broker, "one"), &log);
    let two = start(builder(&broker, "two"), &log);
    until("both have two", SOON, || broker.counts().values().eq(&[2, 2])).await;
    one.abort();
    let made = broker.fill(0..4, 0..10);
    let three = start(builder(&broker, "three").until_caught_up(true), &log);
    two.stop(SOON).await.unwrap();
    tokio::time::timeout(SOON, three.join()).await.expect("it ends").unwrap();
    assert_eq!(log.seen(), made);
}

#[tokio::test]
async fn a_spare_worker_has_caught_up_after_one_lease_time_and_others_go_on() {
    let (broker, log) = (FakeBroker::start(1).await, Log::default());
    let made = broker.fill(0..1, 0..10);
    let one = start(builder(&broker, "one"), &log);
    one.caught_up().await;
    assert_eq!(log.seen(), made);
    assert_eq!(one.status().shards[0].lag_ms, Some(0));
    let two = start(builder(&broker, "two").until_caught_up(true), &log);
    tokio::time::timeout(SOON, two.join()).await.expect("it ends").unwrap();
    assert_eq!(broker.takes().len(), 1, "the spare worker disturbed the other");
    one.stop(SOON).await.unwrap();
}
