//! Records go in and come out: puts, batches, positions, subscriptions, limits.

use crate::support::{Broker, START, first_shard_record, frame, named, open, record, shard, texts};
use std::sync::Arc;
use std::time::Duration;
use tidemill_engine::{ErrorKind, NumberProblem, Stream, StreamSpec, StreamUpdate};
use tidemill_types::{ManualClock, Position, SequenceIndex, SequenceNumber, ShardMapVersion, TimestampMs};

#[tokio::test]
async fn a_put_routes_each_record_and_answers_in_the_order_of_the_request() {
    let broker = Broker::new().await;
    let stream = broker.stream("s", 4).await;
    let records: Vec<_> = (0..200).map(|n| record(&format!("key-{n}"), &format!("data-{n}"))).collect();
    let placed = stream.put(records.clone()).await;
    assert_eq!(placed.len(), 200);
    let mut found = 0;
    for shard in stream.shards() {
        let from = stream.resolve(shard.id, Position::TrimHorizon).await.unwrap();
        let page = stream.read_records(shard.id, from, 1000, 1 << 20).await.unwrap();
        assert_eq!(page.millis_behind, 0);
        let mut last = shard.starting_number();
        let mut last_slot = None;
        for read in page.records {
            let slot = placed.iter().position(|p| p.as_ref().unwrap().number == read.number).unwrap();
            assert_eq!(placed[slot].as_ref().unwrap().shard, shard.id);
            assert_eq!(stream.map().route(records[slot].hash_key()).id, shard.id);
            assert_eq!((read.key.as_str(), &read.data), (records[slot].key().as_str(), records[slot].data()));
            assert!(
                read.number > last && Some(slot) > last_slot,
                "records of one shard keep the request's order"
            );
            (last, last_slot) = (read.number, Some(slot));
            found += 1;
        }
    }
    assert_eq!(found, 200);
}

#[tokio::test]
async fn records_that_fill_more_than_a_frame_keep_their_order() {
    let broker = Broker::new().await;
    let stream = broker.stream("s", 1).await;
    broker.engine.update_stream(&named("s"), StreamUpdate::RecordLimit(10_240)).await.unwrap();
    let large = "x".repeat(5 << 20);
    let records = (0..5).map(|n| record("k", &format!("{n}{large}"))).collect();
    let placed: Vec<_> = stream.put(records).await.into_iter().map(|p| p.unwrap().number).collect();
    assert!(placed.is_sorted());
    let mut from = stream.resolve(shard(0), Position::TrimHorizon).await.unwrap();
    let mut firsts = Vec::new();
    while firsts.len() < 5 {
        let page = stream.read_records(shard(0), from, 10, 10 << 20).await.unwrap();
        assert!(!page.records.is_empty());
        firsts.extend(page.records.iter().map(|r| r.data[0]));
        from = page.next;
    }
    assert_eq!(firsts, b"01234");
}

#[tokio::test]
async fn every_position_leads_to_its_record() {
    let broker = Broker::new().await;
    let stream = broker.stream("s", 2).await;
    let id = shard(0);
    let mut numbers = Vec::new();
    for n in 0..5 {
        broker.clock.advance_ms(1000);
        numbers.push(stream.put(vec![first_shard_record(&n.to_string())]).await[0].as_ref().unwrap().number);
    }
    let first_of = async |position| {
        let from = stream.resolve(id, position).await.unwrap();
        let page = stream.read_records(id, from, 1, 1 << 20).await.unwrap();
        page.records.first().map(|r| String::from_utf8(r.data.to_vec()).unwrap())
    };
    assert_eq!(first_of(Position::TrimHorizon).await.as_deref(), Some("0"));
    assert_eq!(first_of(Position::Latest).await, None);
    assert_eq!(first_of(Position::At(numbers[2])).await.as_deref(), Some("2"));
    assert_eq!(first_of(Position::After(numbers[2])).await.as_deref(), Some("3"));
    assert_eq!(first_of(Position::After(numbers[4])).await, None);
    let at = |ms| Position::AtTime(TimestampMs::new(START.get() + ms));
    assert_eq!(first_of(at(0)).await.as_deref(), Some("0"));
    assert_eq!(first_of(at(3000)).await.as_deref(), Some("2"));
    assert_eq!(first_of(at(3001)).await.as_deref(), Some("3"));
    assert_eq!(first_of(at(60_000)).await, None);
    let starting = stream.shards()[0].starting_number();
    assert_eq!(first_of(Position::At(starting)).await.as_deref(), Some("0"));

    assert_eq!(stream.check_number(shard(1), &numbers[0]), Err(NumberProblem::OtherShard(id)));
    let foreign = SequenceNumber::new(TimestampMs::new(5000), id, SequenceIndex::new(9).unwrap(), START);
    assert_eq!(stream.check_number(id, &foreign), Err(NumberProblem::OtherStream));
    assert_eq!(stream.check_number(shard(7), &foreign), Err(NumberProblem::OtherShard(id)));
    assert_eq!(
        stream.resolve(shard(1), Position::At(numbers[0])).await.unwrap_err().kind(),
        ErrorKind::Invalid
    );
    assert_eq!(stream.resolve(shard(7), Position::Latest).await.unwrap_err().kind(), ErrorKind::NotFound);
}

/// A number ahead of the tip was once taken as a place to read from: records that came were passed over until the tip
/// had reached it.
#[tokio::test]
async fn a_number_that_no_record_has_had_yet_is_no_position() {
    let broker = Broker::new().await;
    let stream = broker.stream("s", 1).await;
    let starting = stream.shards()[0].starting_number();
    let last = stream.put(vec![record("k", "0")]).await[0].as_ref().unwrap().number;
    let refused = async |stream: &Stream, number| {
        assert_eq!(stream.check_number(shard(0), &number), Err(NumberProblem::NotYet));
        for position in [Position::At(number), Position::After(number)] {
            let error = stream.resolve(shard(0), position).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains("no record has had"), "{error}");
        }
    };
    refused(&stream, last.plus(1)).await;
    refused(&stream, last.plus(u64::MAX)).await;
    // a reader goes on behind the last number it knows, whoever had it
    let tip = stream.resolve(shard(0), Position::Latest).await.unwrap();
    assert_eq!(stream.resolve(shard(0), Position::After(last)).await.unwrap(), tip);
    stream.resolve(shard(0), Position::After(starting)).await.unwrap();

    // after a restart numbers go on far above: those between were never used, and are behind the tip
    drop(stream);
    let broker = broker.reopen().await;
    let stream = broker.engine.stream(&named("s")).unwrap();
    let tip = stream.resolve(shard(0), Position::Latest).await.unwrap();
    let before = SequenceIndex::new(tip.get() - 1).unwrap();
    let before = stream.shards()[0].number(before, START);
    for number in [starting, last, last.plus(1), before] {
        stream.resolve(shard(0), Position::At(number)).await.unwrap();
    }
    assert_eq!(stream.resolve(shard(0), Position::After(before)).await.unwrap(), tip);
    refused(&stream, before.plus(1)).await;
    let next = stream.put(vec![record("k", "1")]).await[0].as_ref().unwrap().number;
    assert_eq!(next.index(), before.plus(1).index());
    stream.resolve(shard(0), Position::At(next)).await.unwrap();
}

#[tokio::test]
async fn pages_keep_their_limits_and_tell_how_far_behind_they_are() {
    let broker = Broker::new().await;
    let stream = broker.stream("s", 1).await;
    stream.put((0..10).map(|n| record("k", &format!("{n}23456789"))).collect()).await;
    broker.clock.advance_ms(2500);
    let from = stream.resolve(shard(0), Position::TrimHorizon).await.unwrap();
    let page = stream.read_records(shard(0), from, 3, 1 << 20).await.unwrap();
    assert_eq!((page.records.len(), page.millis_behind), (3, 2500));
    // data and key: ten bytes each
    let page = stream.read_records(shard(0), page.next, 100, 45).await.unwrap();
    assert_eq!(page.records.len(), 4);
    let single = stream.read_records(shard(0), page.next, 100, 1).await.unwrap();
    assert_eq!(single.records.len(), 1);
    let rest = stream.read_records(shard(0), single.next, 100, 1 << 20).await.unwrap();
    assert_eq!((rest.records.len(), rest.millis_behind), (2, 0));
    let tip = stream.read_records(shard(0), rest.next, 100, 1 << 20).await.unwrap();
    assert_eq!((tip.records.len(), tip.next, tip.millis_behind, tip.end), (0, rest.next, 0, None));
    let frames = stream.read(shard(0), page.next, 1 << 20).await.unwrap();
    assert_eq!(texts(&frames), ["723456789", "823456789", "923456789"]);
}

#[tokio::test]
async fn a_repeated_batch_is_stored_once_also_across_a_restart() {
    let broker = Broker::new().await;
    let stream = broker.stream("s", 1).await;
    let version = stream.map().version();
    let batch = frame(&["a", "b"], 7, 1);
    let first = stream.submit(shard(0), version, batch.clone()).await.unwrap().await.unwrap();
    let second = stream.submit(shard(0), version, batch.clone()).await.unwrap().await.unwrap();
    assert!(!first.duplicate && second.duplicate);
    assert_eq!((second.first, second.count, second.arrival), (first.first, 2, first.arrival));
    drop(stream);
    let broker = broker.reopen().await;
    let stream = broker.engine.stream(&named("s")).unwrap();
    let third = stream.submit(shard(0), version, batch).await.unwrap().await.unwrap();
    assert_eq!((third.duplicate, third.first), (true, first.first));
    let future = ShardMapVersion::new(99);
    let refused = stream.submit(shard(0), future, frame(&["c"], 7, 2)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn batches_of_one_shard_keep_the_order_in_which_they_were_submitted() {
    let broker = Broker::new().await;
    let stream = broker.stream("s", 1).await;
    let version = stream.map().version();
    let mut pending = Vec::new();
    for n in 0..100 {
        pending.push(stream.submit(shard(0), version, frame(&[&n.to_string()], 3, n)).await.unwrap());
    }
    let mut last = SequenceIndex::ZERO;
    for append in pending {
        let appended = append.await.unwrap();
        assert!(appended.first > last);
        last = appended.first;
    }
}

#[tokio::test]
async fn a_subscription_delivers_what_is_there_and_what_comes() {
    let broker = Broker::new().await;
    let stream = broker.stream("s", 1).await;
    stream.put((0..3).map(|n| record("k", &n.to_string())).collect()).await;
    let from = stream.resolve(shard(0), Position::TrimHorizon).await.unwrap();
    let mut following = stream.subscribe(shard(0), from).unwrap();
    let page = following.next(1 << 20).await.unwrap().unwrap();
    assert_eq!(texts(&page), ["0", "1", "2"]);
    let idle = following.next_or_idle(1 << 20, Duration::from_millis(5)).await.unwrap().unwrap();
    assert!(idle.frames.is_empty() && idle.next == page.next);
    // cancelled while it waits, it misses nothing
    assert!(tokio::time::timeout(Duration::from_millis(5), following.next(1 << 20)).await.is_err());
    let writer = stream.clone();
    let puts = tokio::spawn(async move {
        for n in 3..50 {
            writer.put(vec![record("k", &n.to_string())]).await[0].as_ref().unwrap();
        }
    });
    let mut seen = Vec::new();
    while seen.len() < 47 {
        let page = tokio::time::timeout(Duration::from_secs(5), following.next(1 << 20)).await;
        seen.extend(texts(&page.expect("records wake the reader").unwrap().unwrap()));
    }
    assert_eq!(seen, (3..50).map(|n| n.to_string()).collect::<Vec<_>>());
    puts.await.unwrap();
}

#[tokio::test]
async fn records_older_than_the_retention_are_let_go() {
    let broker = Broker::new().await;
    let stream = broker.stream("s", 1).await;
    let old = stream.put(vec![record("k", "old")]).await[0].as_ref().unwrap().number;
    broker.clock.advance_ms(23 * 3_600_000);
    stream.put(vec![record("k", "young")]).await[0].as_ref().unwrap();
    broker.clock.advance_ms(2 * 3_600_000);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    let first = loop {
        let from = stream.resolve(shard(0), Position::At(old)).await.unwrap();
        let page = stream.read_records(shard(0), from, 10, 1 << 20).await.unwrap();
        if page.records.len() == 1 || tokio::time::Instant::now() > deadline {
            break page.records[0].data.clone();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(first.as_ref(), b"young");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_and_readers_agree_on_two_threads() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(START));
    let engine = open(&dir, &clock).await;
    let spec = StreamSpec { shard_count: 8, ..StreamSpec::default() };
    engine.create_stream(&named("s"), spec).await.unwrap();
    let stream = engine.stream(&named("s")).unwrap();
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let stream = stream.clone();
            tokio::spawn(async move {
                for n in 0..20 {
                    let records = (0..10).map(|k| record(&format!("{writer}-{n}-{k}"), "x")).collect();
                    assert!(stream.put(records).await.iter().all(|placed| placed.is_ok()));
                }
            })
        })
        .collect();
    let mut readers = Vec::new();
    for id in 0..8 {
        let mut following = stream.subscribe(shard(id), SequenceIndex::ZERO).unwrap();
        readers.push(tokio::spawn(async move {
            let mut seen = 0;
            loop {
                let page =
                    following.next_or_idle(1 << 20, Duration::from_millis(500)).await.unwrap().unwrap();
                if page.frames.is_empty() {
                    return seen;
                }
                seen += texts(&page).len();
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let mut seen = 0;
    for reader in readers {
        seen += reader.await.unwrap();
    }
    assert_eq!(seen, 1600);
}
