//! A record that a processor fails on holds up its own shard at most, and what is done with it is what was asked for.

use crate::fake::FakeBroker;
use crate::probe::{LEASE, builder, until};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tidemill_consumer::{DeadLetter, OnFailure, ProcessError, Record, ShardPhase, WorkerHandle};

const SOON: Duration = Duration::from_secs(15);

type Seen = Arc<Mutex<Vec<String>>>;

fn text(record: &Record) -> String {
    String::from_utf8(record.data().to_vec()).unwrap()
}

/// A worker that fails on `bad` for ever, naming the record or not.
fn worker(broker: &FakeBroker, policy: OnFailure, bad: &Arc<Mutex<String>>, seen: &Seen) -> WorkerHandle {
    let worker = builder(broker, "one").on_failure(policy).build().unwrap();
    let (batches, handle) = worker.batches();
    let (bad, seen) = (Arc::clone(bad), Arc::clone(seen));
    tokio::spawn(async move {
        let mut batches = batches;
        while let Some(delivered) = batches.next().await {
            let records: Vec<_> = delivered.batch().records().collect();
            match records.iter().find(|record| text(record) == *bad.lock()) {
                Some(_) => delivered.fail(ProcessError::new("cannot take this")),
                None => {
                    seen.lock().extend(records.iter().map(text));
                    delivered.ack();
                }
            }
        }
    });
    handle
}

fn bad() -> Arc<Mutex<String>> {
    Arc::new(Mutex::new("bad".to_owned()))
}

/// Shard 0 holds a record that fails in the middle of a batch, shard 1 only good ones.
async fn broker() -> FakeBroker {
    let broker = FakeBroker::start(2).await;
    broker.append(0, &["a", "b", "bad", "c", "d"].map(str::to_owned));
    broker.append(1, &["x", "y"].map(str::to_owned));
    broker
}

fn sorted(seen: &Seen) -> Vec<String> {
    let mut seen = seen.lock().clone();
    seen.sort();
    seen
}

#[tokio::test]
async fn by_default_a_poison_record_waits_for_its_cure_and_other_shards_go_on() {
    let (broker, bad, seen) = (broker().await, bad(), Seen::default());
    let handle = worker(&broker, OnFailure::retry(), &bad, &seen);
    until("the other shard is processed", SOON, || sorted(&seen) == ["x", "y"]).await;
    let retrying = || {
        let shards = handle.status().shards;
        shards.iter().any(|s| matches!(s.phase, ShardPhase::Retrying { attempts } if attempts >= 2))
    };
    until("it is shown", SOON, retrying).await;
    broker.append(1, &["z".to_owned()]);
    until("the other shard goes on", SOON, || sorted(&seen) == ["x", "y", "z"]).await;
    "nothing".clone_into(&mut bad.lock());
    until("the cure helps", SOON, || sorted(&seen) == ["a", "b", "bad", "c", "d", "x", "y", "z"]).await;
    handle.stop(SOON).await.unwrap();
}

#[tokio::test]
async fn a_record_is_skipped_only_when_that_was_asked_for_and_it_is_counted() {
    let (broker, seen) = (broker().await, Seen::default());
    let handle = worker(&broker, OnFailure::skip_after(2).unwrap(), &bad(), &seen);
    until("all others are processed", SOON, || sorted(&seen) == ["a", "b", "c", "d", "x", "y"]).await;
    let skipped = || handle.status().shards.iter().map(|shard| shard.skipped).sum::<u64>() == 1;
    until("it is counted", SOON, skipped).await;
    handle.stop(SOON).await.unwrap();
    let again = worker(&broker, OnFailure::retry(), &bad(), &seen);
    again.caught_up().await;
    assert_eq!(sorted(&seen).len(), 6, "a skipped record holds up nobody later");
    again.stop(SOON).await.unwrap();
}

#[tokio::test]
async fn a_dead_letter_has_the_record_its_position_and_the_error_and_is_put_until_it_is_taken() {
    let (broker, seen) = (broker().await, Seen::default());
    let letters: Arc<Mutex<Vec<DeadLetter>>> = Arc::default();
    let (kept, failing) = (Arc::clone(&letters), Arc::new(Mutex::new(2)));
    let policy = OnFailure::dead_letter_after(3, move |letter| {
        let (kept, failing) = (Arc::clone(&kept), Arc::clone(&failing));
        async move {
            let mut left = failing.lock();
            if *left > 0 {
                *left -= 1;
                return Err(ProcessError::new("the letters' place is away"));
            }
            kept.lock().push(letter);
            Ok(())
        }
    });
    let handle = worker(&broker, policy.unwrap(), &bad(), &seen);
    until("all others are processed", SOON, || sorted(&seen) == ["a", "b", "c", "d", "x", "y"]).await;
    let letters = letters.lock().clone();
    let [letter] = &letters[..] else { panic!("one letter: {letters:?}") };
    assert_eq!((text(&letter.record), letter.attempts), ("bad".to_owned(), 3));
    assert_eq!(letter.error, "cannot take this");
    assert_eq!((letter.app.as_str(), letter.worker.as_str()), ("app", "one"));
    let json: serde_json::Value = serde_json::from_str(&letter.to_json()).unwrap();
    assert_eq!(json["sequence_number"], letter.record.sequence_number().to_string());
    assert_eq!(
        (json["shard"].as_str(), json["data_base64"].as_str()),
        (Some("shardId-000000000000"), Some("YmFk"))
    );
    handle.stop(SOON).await.unwrap();
}

#[tokio::test]
async fn a_shard_that_is_stopped_at_a_record_keeps_its_lease_and_goes_on_when_resumed() {
    let (broker, bad, seen) = (broker().await, bad(), Seen::default());
    let handle = worker(&broker, OnFailure::stop_shard_after(2).unwrap(), &bad, &seen);
    let halted = || {
        let shards = handle.status().shards;
        shards.iter().find(|s| matches!(s.phase, ShardPhase::Halted { .. })).map(|s| s.shard.clone())
    };
    until("it is stopped", SOON, || halted().is_some()).await;
    until("the other shard is processed", SOON, || sorted(&seen) == ["a", "b", "x", "y"]).await;
    tokio::time::sleep(2 * LEASE).await;
    assert_eq!(broker.counts().get("one"), Some(&2), "the lease of a stopped shard is kept");
    "nothing".clone_into(&mut bad.lock());
    handle.resume(&halted().unwrap());
    until("it goes on", SOON, || sorted(&seen) == ["a", "b", "bad", "c", "d", "x", "y"]).await;
    handle.stop(SOON).await.unwrap();
}
