//! Shards are split, merged and scaled under readers and writers.

use crate::support::{Broker, frame, named, record, shard, texts};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tidemill_engine::{ErrorKind, LeaseRow, Scaled, Steal, Stream, StreamMode, StreamUpdate, TakeLease};
use tidemill_types::{
    AppName, Checkpoint, HashKey, HashKeyRange, LeaseEpoch, Position, Record, SequenceIndex, Shard, ShardId,
    WorkerId,
};

const HALF: u128 = 1 << 127;
const DEADLINE: Duration = Duration::from_secs(20);

fn low(data: &str) -> Record {
    record("low", data).with_explicit_hash(HashKey::MIN)
}

fn high(data: &str) -> Record {
    record("high", data).with_explicit_hash(HashKey::MAX)
}

async fn put(stream: &Stream, record: Record) -> ShardId {
    stream.put(vec![record]).await.remove(0).unwrap().shard
}

/// Everything in a shard, and what is told at its end.
async fn read_all(stream: &Stream, id: ShardId) -> (Vec<String>, Option<Vec<Shard>>) {
    let mut from = stream.resolve(id, Position::TrimHorizon).await.unwrap();
    let mut found = Vec::new();
    loop {
        let page = stream.read_records(id, from, 100, 1 << 20).await.unwrap();
        found.extend(page.records.iter().map(|read| String::from_utf8(read.data.to_vec()).unwrap()));
        if page.end.is_some() || (page.records.is_empty() && page.next == from) {
            return (found, page.end);
        }
        from = page.next;
    }
}

fn ids(shards: &[Shard]) -> Vec<u32> {
    shards.iter().map(|shard| shard.id.get()).collect()
}

#[tokio::test]
async fn a_split_shard_takes_no_more_and_its_children_go_on() {
    let broker = Broker::new().await;
    let stream = broker.stream("s", 1).await;
    let version = stream.map().version();
    put(&stream, low("before")).await;
    let mut following = stream.subscribe(shard(0), SequenceIndex::ZERO).unwrap();
    assert_eq!(texts(&following.next(1 << 20).await.unwrap().unwrap()), ["before"]);
    let waiting = tokio::spawn(async move { following.next(1 << 20).await });
    tokio::task::yield_now().await;

    broker.engine.split_shard(&named("s"), shard(0), HashKey::new(HALF)).await.unwrap();
    let page = tokio::time::timeout(DEADLINE, waiting).await.unwrap().unwrap().unwrap().unwrap();
    assert_eq!(ids(&page.end.unwrap()), [1, 2], "a reader at the tip learns of the end at once");
    assert_eq!(stream.map().version(), version.next());
    assert_eq!(stream.info().open_shards, 2);
    let [parent, lower, upper] = stream.shards().try_into().unwrap();
    assert!(!parent.is_open() && lower.is_open() && upper.is_open());
    assert_eq!((lower.parent, upper.parent), (Some(shard(0)), Some(shard(0))));
    assert_eq!(lower.range, HashKeyRange::new(HashKey::MIN, HashKey::new(HALF - 1)).unwrap());
    assert_eq!(upper.range, HashKeyRange::new(HashKey::new(HALF), HashKey::MAX).unwrap());
    assert!(lower.starting_number() > parent.ending_number().unwrap());

    assert_eq!((put(&stream, low("l")).await, put(&stream, high("h")).await), (shard(1), shard(2)));
    let refused = stream.submit(shard(0), version, frame(&["late"], 7, 1)).await.unwrap().await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::ShardClosed);
    let (read, end) = read_all(&stream, shard(0)).await;
    assert_eq!((read, ids(&end.unwrap())), (vec!["before".to_owned()], vec![1, 2]));
    assert_eq!(read_all(&stream, shard(1)).await, (vec!["l".to_owned()], None));
    assert_eq!(read_all(&stream, shard(2)).await, (vec!["h".to_owned()], None));
    stream.check_number(shard(0), &parent.ending_number().unwrap()).unwrap();

    drop(stream);
    let broker = broker.reopen().await;
    let stream = broker.engine.stream(&named("s")).unwrap();
    assert_eq!(stream.shards(), [parent, lower, upper]);
    let (read, end) = read_all(&stream, shard(0)).await;
    assert_eq!((read, ids(&end.unwrap())), (vec!["before".to_owned()], vec![1, 2]));
    let again = broker.engine.split_shard(&named("s"), shard(0), HashKey::new(9)).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn merged_shards_end_in_one_child_and_their_readers_are_told_of_it_also_when_it_was_split_again() {
    let broker = Broker::new().await;
    let stream = broker.stream("s", 2).await;
    put(&stream, low("l")).await;
    put(&stream, high("h")).await;
    broker.engine.merge_shards(&named("s"), shard(0), shard(1)).await.unwrap();
    assert_eq!(put(&stream, low("merged")).await, shard(2));
    broker.engine.split_shard(&named("s"), shard(2), HashKey::new(HALF)).await.unwrap();
    for (parent, text) in [(0, "l"), (1, "h")] {
        let (read, end) = read_all(&stream, shard(parent)).await;
        let end = end.unwrap();
        assert_eq!((read, ids(&end)), (vec![text.to_owned()], vec![2]));
        assert_eq!(end[0].parents().collect::<Vec<_>>(), [shard(0), shard(1)]);
    }
    assert_eq!(ids(&read_all(&stream, shard(2)).await.1.unwrap()), [3, 4]);
}

#[tokio::test]
async fn scaling_ends_with_equal_shares_and_shards_passed_through_are_empty_and_closed() {
    let broker = Broker::new().await;
    let stream = broker.stream("s", 2).await;
    let mut before = 2;
    for target in [3, 5, 1, 8, 7] {
        let scaled = broker.engine.scale_stream(&named("s"), target).await.unwrap();
        assert_eq!(scaled, Scaled { before, after: target });
        before = target;
        let map = stream.map();
        let ranges: Vec<_> = map.open().iter().map(|shard| shard.range).collect();
        assert_eq!(ranges, HashKeyRange::uniform(target));
    }
    assert_eq!(broker.engine.scale_stream(&named("s"), 7).await.unwrap_err().kind(), ErrorKind::Invalid);
    for closed in stream.shards().into_iter().filter(|shard| !shard.is_open()) {
        let (read, end) = read_all(&stream, closed.id).await;
        assert!(read.is_empty() && !end.unwrap().is_empty(), "{closed:?}");
    }
    let on_demand = StreamUpdate::Mode { mode: StreamMode::OnDemand, warm_mibps: None };
    broker.engine.update_stream(&named("s"), on_demand).await.unwrap();
    let refused = broker.engine.scale_stream(&named("s"), 9).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Precondition);
}

/// Puts go on while shards come and go: none fails, and what a key's writer was told first lies first in the lineage.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn puts_during_reshards_all_succeed_and_keep_the_order_of_each_key() {
    const WRITERS: usize = 6;
    let broker = Broker::new().await;
    let stream = broker.stream("s", 2).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let (stream, stop) = (stream.clone(), Arc::clone(&stop));
        writers.push(tokio::spawn(async move {
            let mut numbers = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let request =
                    (0..3).map(|n| record(&format!("k{writer}"), &format!("{}", numbers.len() + n)));
                let placed = stream.put(request.collect()).await;
                numbers
                    .extend(placed.into_iter().map(|placed| placed.expect("a put during a reshard").number));
            }
            numbers
        }));
    }
    for target in [3, 1, 4, 2, 6, 5, 1, 2, 8, 3, 1] {
        broker.engine.scale_stream(&named("s"), target).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        let numbers = writer.await.unwrap();
        assert!(numbers.len() > 30, "the writer was held up");
        assert!(numbers.is_sorted(), "numbers of one key rise across reshards");
        let shards: std::collections::BTreeSet<_> = numbers.iter().map(|number| number.shard()).collect();
        assert!(shards.len() > 1, "the key never moved");
    }
    let mut of_key: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for shard in stream.shards() {
        // by id: parents before children
        let mut from = stream.resolve(shard.id, Position::TrimHorizon).await.unwrap();
        loop {
            let page = stream.read_records(shard.id, from, 1000, 1 << 20).await.unwrap();
            for read in &page.records {
                let text = std::str::from_utf8(&read.data).unwrap();
                of_key.entry(read.key.clone()).or_default().push(text.parse().unwrap());
            }
            if page.records.is_empty() && page.next == from || page.end.is_some() {
                break;
            }
            from = page.next;
        }
    }
    for (key, counts) in of_key {
        let expected: Vec<u64> = (0..counts.len() as u64).collect();
        assert_eq!(counts, expected, "{key}: each record once, in the order it was put");
    }
}

async fn leases(broker: &Broker, app: &AppName) -> Vec<LeaseRow> {
    broker.engine.leases().list(app, &named("s")).await.unwrap()
}

#[tokio::test]
async fn a_closed_shard_leaves_with_its_last_record_and_takes_its_leases_along() {
    let broker = Broker::new().await;
    let stream = broker.stream("s", 1).await;
    put(&stream, low("old")).await;
    let app = AppName::new("app").unwrap();
    let take = TakeLease {
        shard: shard(0),
        worker: WorkerId::new("w").unwrap(),
        expected_epoch: LeaseEpoch::default(),
        lease_ms: 10_000,
        steal: Steal::Never,
        initial: Checkpoint::TrimHorizon,
    };
    broker.engine.leases().take(&app, &named("s"), take.clone()).await.unwrap();
    let mut reading = stream.subscribe(shard(0), SequenceIndex::ZERO).unwrap();
    broker.engine.scale_stream(&named("s"), 4).await.unwrap();
    assert_eq!(leases(&broker, &app).await.len(), 7);
    broker.clock.advance_ms(23 * 3_600_000);
    put(&stream, low("young")).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(stream.shards().len(), 7, "its records are kept still");

    broker.clock.advance_ms(2 * 3_600_000);
    tokio::time::timeout(DEADLINE, async {
        while stream.shards().len() > 4 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("closed shards leave");
    assert_eq!(ids(&stream.shards()), [3, 4, 5, 6]);
    assert!(stream.shards()[0].parent.is_some(), "children still name their parents");
    assert_eq!(reading.next(1 << 20).await.unwrap_err().kind(), ErrorKind::NotFound);
    let position = stream.resolve(shard(0), Position::TrimHorizon).await;
    assert_eq!(position.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(leases(&broker, &app).await.len(), 4);
    assert_eq!(
        broker.engine.leases().take(&app, &named("s"), take).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(read_all(&stream, shard(3)).await.0, ["young"]);
    drop((stream, reading));
    let broker = broker.reopen().await;
    let stream = broker.engine.stream(&named("s")).unwrap();
    assert_eq!(ids(&stream.shards()), [3, 4, 5, 6]);
    broker.engine.scale_stream(&named("s"), 2).await.unwrap();
    assert_eq!(ids(&stream.shards()), [3, 4, 5, 6, 7, 8], "no id comes twice");
}
