//! Shards change hands in order: the old owner finishes and checkpoints before the new one starts, and nothing comes twice.

use crate::fake::FakeBroker;
use crate::probe::{Call, Conduct, LEASE, Log, builder, start, start_with, until};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tidemill_consumer::Worker;
use tokio::sync::Semaphore;

const SOON: Duration = Duration::from_secs(10);

fn assert_nothing_came_twice(log: &Log, shards: std::ops::Range<u32>) {
    for shard in shards {
        let records = log.processed(shard);
        assert_eq!(records.len(), BTreeSet::from_iter(&records).len(), "delivered again: {records:?}");
    }
}

#[tokio::test]
async fn a_worker_that_joins_is_handed_its_share_under_load_and_nothing_comes_twice() {
    let (broker, log) = (FakeBroker::start(4).await, Log::default());
    let one = start_with(builder(&broker, "one"), &log, |_| Conduct::Take(Duration::from_millis(3)));
    let mut made = broker.fill(0..4, 0..50);
    until("some is processed", SOON, || log.seen().len() > 20).await;
    let two = start_with(builder(&broker, "two"), &log, |_| Conduct::Take(Duration::from_millis(3)));
    until("the other works on its share", SOON, || two.status().shards.len() == 2).await;
    made.extend(broker.fill(0..4, 50..60));
    until("all is processed", SOON, || log.seen() == made).await;
    assert_nothing_came_twice(&log, 0..4);
    two.stop(SOON).await.unwrap();
    one.stop(SOON).await.unwrap();
    assert_nothing_came_twice(&log, 0..4);
    (0..4).for_each(|shard| log.assert_paired("one", shard));
    let handed = (0..4).filter(|shard| log.of("two", *shard).contains(&Call::Shutdown)).count();
    assert_eq!(handed, 2);
}

#[tokio::test]
async fn workers_that_are_restarted_one_after_the_other_process_everything_once() {
    let (broker, log) = (FakeBroker::start(6).await, Log::default());
    let made = broker.fill(0..6, 0..120);
    let begin =
        |name: &str| start_with(builder(&broker, name), &log, |_| Conduct::Take(Duration::from_millis(2)));
    let mut workers = vec![begin("a-0"), begin("b-0"), begin("c-0")];
    until("all of them work", SOON, || workers.iter().all(|worker| !worker.status().shards.is_empty())).await;
    for name in ["a-1", "b-1", "c-1"] {
        workers.remove(0).stop(SOON).await.unwrap();
        workers.push(begin(name));
        tokio::time::sleep(LEASE / 4).await;
    }
    until("all is processed", SOON, || log.seen() == made).await;
    for worker in workers {
        worker.stop(SOON).await.unwrap();
    }
    assert_nothing_came_twice(&log, 0..6);
}

#[tokio::test]
async fn an_owner_that_does_not_hand_over_in_time_loses_the_shard_and_its_checkpoint_does_not_count() {
    let (broker, log) = (FakeBroker::start(2).await, Log::default());
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let one = start_with(builder(&broker, "one"), &log, move |_| Conduct::Wait(Arc::clone(&held)));
    let made = broker.fill(0..2, 0..1);
    until("both are under way", SOON, || {
        let shards = one.status().shards;
        shards.len() == 2 && shards.iter().all(|shard| shard.lag_ms.is_some())
    })
    .await;
    let before = broker.lease(1).checkpoint;
    let impatient = builder(&broker, "two").handoff_deadline(LEASE / 2);
    let two = start(impatient, &log);
    let took = until("the other has taken one", SOON, || !two.status().shards.is_empty()).await;
    assert!(took >= LEASE / 2, "taken after {took:?}, before its time was up");
    let shard = two.status().shards[0].shard.shard().get();
    until("the other processed it", SOON, || {
        log.of("two", shard).iter().any(|c| matches!(c, Call::Process(_)))
    })
    .await;
    tokio::time::sleep(LEASE).await; // it has renewed, and knows
    gate.add_permits(100);
    until("the first is told", SOON, || log.of("one", shard).contains(&Call::LeaseLost)).await;
    until("all is processed", SOON, || log.seen() == made).await;
    assert!(broker.lease(shard).checkpoint >= before);
    assert_eq!(broker.lease(shard).owner, "two");
    one.stop(SOON).await.unwrap();
    two.stop(SOON).await.unwrap();
}

#[tokio::test]
async fn a_dry_run_tells_what_would_move_and_moves_nothing() {
    let (broker, log) = (FakeBroker::start(8).await, Log::default());
    let one = start(builder(&broker, "one"), &log);
    until("it has all", SOON, || one.status().shards.len() == 8).await;
    let takes = broker.takes().len();
    let moves = builder(&broker, "two").build().unwrap().dry_run().await.unwrap();
    assert_eq!(moves.len(), 4);
    assert!(
        moves.iter().all(|step| step.to.as_str() == "two" && step.from.as_ref().unwrap().as_str() == "one")
    );
    tokio::time::sleep(LEASE / 2).await;
    assert_eq!(broker.takes().len(), takes);
    assert_eq!(one.status().shards.len(), 8);
    let missing = Worker::builder(&broker.endpoint(), "app", "nothing").build().unwrap();
    assert!(missing.dry_run().await.is_err());
    one.stop(SOON).await.unwrap();
}
