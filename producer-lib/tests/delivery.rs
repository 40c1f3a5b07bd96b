//! What a producer promises of its records, shown against a broker that fails in every way it can: each ticket resolves
//! once, nothing is lost or stored twice, order holds.

#![allow(clippy::unwrap_used, reason = "this is test code")]

mod fake;

use fake::{FakeBroker, Fault, StoredRecord};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::HashMap;
use std::time::Duration;
use tidemill_producer::{Config, ErrorKind, PartitionKey, Placed, Producer, Record, Ticket};
use tidemill_types::SequenceNumber;

fn record(key: u32, id: u64) -> Record {
    Record::new(PartitionKey::new(&format!("key-{key}")).unwrap(), id.to_le_bytes().to_vec()).unwrap()
}

fn id_of(record: &StoredRecord) -> u64 {
    u64::from_le_bytes(record.data[..8].try_into().unwrap())
}

/// Small batches, so that a few thousand records make many.
fn small(broker: &FakeBroker) -> Config {
    let config = Config::new(&broker.url()).unwrap();
    config.batch_bytes(1024).unwrap().linger(Duration::from_millis(1)).unwrap()
}

/// Puts `count` records over 40 keys, one after the other.
async fn put_all(producer: &Producer, count: u64) -> Vec<Ticket> {
    let mut tickets = Vec::new();
    for id in 0..count {
        tickets.push(producer.put("s", record((id % 40) as u32, id)).await.unwrap());
    }
    tickets
}

async fn resolve(tickets: Vec<Ticket>) -> Vec<Result<Placed, tidemill_producer::Error>> {
    let mut results = Vec::new();
    for ticket in tickets {
        results.push(tokio::time::timeout(Duration::from_secs(20), ticket).await.expect("a ticket hangs"));
    }
    results
}

/// Every record is stored once, in the order of the puts key by key, at the place its ticket told.
fn check(broker: &FakeBroker, results: &[Result<Placed, tidemill_producer::Error>]) {
    let model = broker.model();
    let stored = model.stored("s");
    let mut seen = HashMap::new();
    let mut last: HashMap<&str, u64> = HashMap::new();
    for record in &stored {
        let id = id_of(record);
        assert!(seen.insert(id, ()).is_none(), "record {id} is stored twice");
        // shards come parents first, so this holds over splits too
        if let Some(before) = last.insert(&record.key, id) {
            assert!(before < id, "records {id} and {before} of one key are in the wrong order");
        }
    }
    for (id, result) in (0u64..).zip(results) {
        match result {
            Ok(placed) => {
                let number = SequenceNumber::try_from(placed.number).unwrap();
                assert_eq!((number.shard(), placed.sub), (placed.shard, 0));
                assert_eq!(
                    id_of(model.at("s", placed.shard, number.index())),
                    id,
                    "a ticket told another place"
                );
            }
            Err(error) if error.kind() == ErrorKind::UnknownOutcome => {}
            Err(_) => {
                assert!(!seen.contains_key(&id), "record {id} is stored and its ticket says that it is not")
            }
        }
    }
}

fn all_placed(results: &[Result<Placed, tidemill_producer::Error>]) {
    let failed: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).take(3).collect();
    assert!(failed.is_empty(), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_stored_where_their_tickets_say() {
    let broker = FakeBroker::start().await;
    broker.model().create("s", 4);
    let producer = Producer::connect(&broker.url()).await.unwrap();
    let results = resolve(put_all(&producer, 5000).await).await;
    all_placed(&results);
    check(&broker, &results);
    assert!(results.iter().flatten().all(|placed| placed.attempts == 1 && !placed.duplicate));
    let stats = producer.stats();
    assert_eq!((stats.records, stats.failures, stats.memory_used_bytes), (5000, 0, 0));
    assert!(stats.batches < 500, "{} batches are no batches", stats.batches);
    producer.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_connections_lose_and_double_nothing_and_keep_the_order() {
    for seed in 0..6 {
        let broker = FakeBroker::start().await;
        broker.model().create("s", 3);
        let mut rng = StdRng::seed_from_u64(seed);
        broker.model().script = (0..300)
            .map(|_| match rng.random_range(0..12) {
                0 => Some(Fault::BreakBefore),
                1 => Some(Fault::BreakAfter),
                _ => None,
            })
            .collect();
        let producer = Producer::new(small(&broker)).await.unwrap();
        let results = resolve(put_all(&producer, 4000).await).await;
        all_placed(&results);
        check(&broker, &results);
        assert_eq!(broker.model().stored("s").len(), 4000, "seed {seed}");
        assert!(broker.model().duplicates > 0, "no acknowledgement was lost");
        assert!(results.iter().flatten().any(|placed| placed.duplicate && placed.attempts > 1));
        assert!(producer.stats().retries > 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_keep_the_order_with_one_batch_in_flight() {
    let broker = FakeBroker::start().await;
    broker.model().create("s", 2);
    let mut rng = StdRng::seed_from_u64(3);
    let faults = [
        Fault::Refuse(ErrorKind::Throttled),
        Fault::Refuse(ErrorKind::Unavailable),
        Fault::UnknownAfter,
        Fault::BreakAfter,
    ];
    broker.model().script = (0..200).map(|_| faults.get(rng.random_range(0..20)).copied()).collect();
    let producer = Producer::new(small(&broker).batches_in_flight(1).unwrap()).await.unwrap();
    let results = resolve(put_all(&producer, 3000).await).await;
    all_placed(&results);
    check(&broker, &results);
    assert_eq!(broker.model().stored("s").len(), 3000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_in_the_middle_of_the_pipeline_lose_and_double_nothing() {
    let broker = FakeBroker::start().await;
    broker.model().create("s", 2);
    broker.model().script =
        (0..100).map(|n| (n % 7 == 3).then_some(Fault::Refuse(ErrorKind::Throttled))).collect();
    let producer = Producer::new(small(&broker)).await.unwrap();
    let results = resolve(put_all(&producer, 3000).await).await;
    all_placed(&results);
    let mut ids: Vec<_> = broker.model().stored("s").iter().map(id_of).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..3000).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_split_moves_records_to_the_children_in_order() {
    let broker = FakeBroker::start().await;
    broker.model().create("s", 2);
    broker.model().split_at = vec![5, 9, 30, 31, 60];
    let producer = Producer::new(small(&broker)).await.unwrap();
    let mut tickets = Vec::new();
    for id in 0..6000u64 {
        tickets.push(producer.put("s", record((id % 40) as u32, id)).await.unwrap());
        if id % 500 == 0 {
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }
    let results = resolve(tickets).await;
    all_placed(&results);
    check(&broker, &results);
    assert_eq!(broker.model().stored("s").len(), 6000);
    assert!(producer.stats().rerouted > 0);
    assert_eq!(producer.stats().memory_used_bytes, 0);
    producer.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn splits_amid_lost_connections_store_every_record_once() {
    for seed in 0..4 {
        let broker = FakeBroker::start().await;
        broker.model().create("s", 2);
        let mut rng = StdRng::seed_from_u64(seed);
        broker.model().split_at = (0..6).map(|_| rng.random_range(1..120)).collect();
        broker.model().script = (0..200)
            .map(|_| [Fault::BreakBefore, Fault::BreakAfter].get(rng.random_range(0..20)).copied())
            .collect();
        let producer = Producer::new(small(&broker)).await.unwrap();
        let results = resolve(put_all(&producer, 4000).await).await;
        all_placed(&results);
        check(&broker, &results);
        assert_eq!(broker.model().stored("s").len(), 4000);
        assert_eq!(producer.stats().memory_used_bytes, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explicit_hash_keys_survive_a_split() {
    let broker = FakeBroker::start().await;
    broker.model().create("s", 1);
    let producer = Producer::new(small(&broker).linger(Duration::from_millis(200)).unwrap()).await.unwrap();
    // the fake checks that keys lie in their shard: give each key its own hash, explicitly
    let mut tickets = Vec::new();
    for id in 0..100u64 {
        let plain = record(id as u32, id);
        let hash = plain.hash_key();
        tickets.push(producer.put("s", plain.with_explicit_hash(hash)).await.unwrap());
    }
    broker.model().split("s", 0);
    let results = resolve(tickets).await;
    all_placed(&results);
    check(&broker, &results);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_go_on_when_the_broker_comes_back() {
    let first = tokio::runtime::Runtime::new().unwrap();
    let model = std::sync::Arc::default();
    let (broker, _) = first
        .spawn(FakeBroker::serve(std::sync::Arc::clone(&model), "127.0.0.1:0".parse().unwrap()))
        .await
        .unwrap();
    broker.model().create("s", 2);
    let producer = Producer::new(small(&broker)).await.unwrap();
    let mut tickets = put_all(&producer, 500).await;
    producer.flush().await.unwrap();
    first.shutdown_background(); // every connection breaks
    for id in 500..1000u64 {
        tickets.push(producer.put("s", record((id % 40) as u32, id)).await.unwrap());
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let (broker, _) = FakeBroker::serve(model, broker.address).await;
    let results = resolve(tickets).await;
    all_placed(&results);
    check(&broker, &results);
    assert_eq!(broker.model().stored("s").len(), 1000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_and_the_empty_record_both_arrive() {
    let broker = FakeBroker::start().await;
    broker.model().create("s", 1);
    let producer = Producer::connect(&broker.url()).await.unwrap();
    let key = || PartitionKey::new("k").unwrap();
    let largest = Record::new(key(), vec![7; 10 << 20]).unwrap();
    let tickets = vec![
        producer.put("s", Record::new(key(), vec![]).unwrap()).await.unwrap(),
        producer.put("s", largest).await.unwrap(),
        producer.put("s", Record::new(key(), vec![]).unwrap()).await.unwrap(),
    ];
    all_placed(&resolve(tickets).await);
    let sizes: Vec<_> = broker.model().stored("s").iter().map(|record| record.data.len()).collect();
    assert_eq!(sizes, [0, 10 << 20, 0]);
}
