//! What a subscriber is sent, and when.

use super::*;
use tokio::time::Instant;

// covers: SubscribeToShard success
#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_is_sent_what_is_there_and_then_what_comes() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 1).await;
    let consumer = register(&kinesis, "s", "c").await;
    kinesis.put("s", "a", "one").await;
    kinesis.put("s", "a", "two").await;
    let mut events = subscribed(&kinesis, &consumer, 0, horizon()).await;
    let iterator = kinesis.iterator("s", 0, json!({"ShardIteratorType": "TRIM_HORIZON"})).await;
    let polled = kinesis.read(&iterator).await;
    let mut pushed = Vec::new();
    let mut last = Value::Null;
    while pushed.len() < 2 {
        last = events.records().await;
        pushed.extend(last["Records"].as_array().unwrap().clone());
    }
    assert_eq!(json!(pushed), polled["Records"]);
    assert_eq!(last["ContinuationSequenceNumber"], pushed[1]["SequenceNumber"]);
    assert_eq!((&last["MillisBehindLatest"], last.get("ChildShards")), (&json!(0), None));
    for text in ["three", "four", "five"] {
        kinesis.put("s", "a", text).await;
        let acknowledged = Instant::now();
        assert_eq!(events.data(1).await, [text]);
        assert!(acknowledged.elapsed() < Duration::from_millis(500), "{:?}", acknowledged.elapsed());
    }
}

/// The clock of the runtime is stopped, and goes on by itself when everything waits.
#[tokio::test]
async fn an_idle_subscription_is_told_so_every_five_seconds_and_ends_after_five_minutes() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 1).await;
    let consumer = register(&kinesis, "s", "c").await;
    let number = kinesis.put("s", "a", "one").await;
    tokio::time::pause();
    let begin = Instant::now();
    let mut events = subscribed(&kinesis, &consumer, 0, horizon()).await;
    let mut beats = Vec::new();
    assert_eq!(events.data(1).await, ["one"]);
    while let Some((kind, event)) = events.next().await {
        assert_eq!((kind.as_str(), &event["Records"]), (EVENT, &json!([])));
        assert_eq!(event["ContinuationSequenceNumber"], json!(number));
        beats.push(begin.elapsed().as_millis());
    }
    assert_eq!(begin.elapsed().as_secs(), 300);
    assert_eq!(beats.len(), 59, "{beats:?}");
    assert!(beats.iter().zip(1..).all(|(at, beat)| at.abs_diff(beat * 5000) < 100), "{beats:?}");
    tokio::time::resume();
    kinesis.put("s", "a", "two").await;
    let position = json!({"Type": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": number});
    assert_eq!(subscribed(&kinesis, &consumer, 0, position).await.data(1).await, ["two"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_place_in_a_shard_without_records_is_a_number_to_go_on_from() {
    let kinesis = Kinesis::start().await;
    for (name, position) in [("c1", latest()), ("c2", horizon())] {
        kinesis.create(name, 1).await;
        let consumer = register(&kinesis, name, name).await;
        let mut events = subscribed(&kinesis, &consumer, 0, position).await;
        let event = tokio::time::timeout(Duration::from_secs(2), events.records()).await;
        let event = event.expect("where the reader stands is told at once");
        assert_eq!((&event["Records"], &event["MillisBehindLatest"]), (&json!([]), &json!(0)));
        drop(events);
        let other = register(&kinesis, name, "next").await;
        let mut events = subscribed(&kinesis, &other, 0, after(&event)).await;
        kinesis.put(name, "a", "first").await;
        assert_eq!(events.data(1).await, ["first"]);
    }
}

/// LATEST on a shard that has records, and again after a restart: nothing is sent twice, nothing is left out.
// covers: SubscribeToShard restart-survives
#[tokio::test(flavor = "multi_thread")]
async fn the_place_at_the_tip_holds_across_a_restart() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 1).await;
    let consumer = register(&kinesis, "s", "c").await;
    kinesis.put("s", "a", "before").await;
    let event = subscribed(&kinesis, &consumer, 0, latest()).await.records().await;
    assert_eq!(event["Records"], json!([]));
    let kinesis = kinesis.restart().await;
    kinesis.put("s", "a", "after").await;
    let mut events = subscribed(&kinesis, &consumer, 0, after(&event)).await;
    assert_eq!(events.data(1).await, ["after"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_stay_near_a_mebibyte_and_tell_how_far_behind_they_are() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 1).await;
    let consumer = register(&kinesis, "s", "c").await;
    let sizes = [[1_000_000; 1].as_slice(), &[9_000; 100], &[1; 500], &[700_000, 700_000]];
    for records in sizes {
        let data = |bytes: &usize| base64_simd::STANDARD.encode_to_string(vec![b'x'; *bytes]);
        let entries = records.iter().map(|bytes| json!({"PartitionKey": "a", "Data": data(bytes)}));
        let input = json!({"StreamName": "s", "Records": entries.collect::<Vec<_>>()});
        assert_eq!(kinesis.ok("PutRecords", input).await["FailedRecordCount"], 0);
    }
    kinesis.clock.advance_ms(7000);
    let mut events = subscribed(&kinesis, &consumer, 0, horizon()).await;
    let (mut found, mut behind) = (Vec::new(), Vec::new());
    while found.len() < 603 {
        let event = events.records().await;
        let data = super::super::data_of(&event);
        let last = event["Records"].as_array().unwrap().last().unwrap();
        assert_eq!(event["ContinuationSequenceNumber"], last["SequenceNumber"]);
        assert!(event.to_string().len() < 1_100_000 || data.len() == 1, "{} bytes", event.to_string().len());
        found.extend(data.iter().map(String::len));
        behind.push(event["MillisBehindLatest"].as_u64().unwrap());
    }
    assert_eq!(found, sizes.concat());
    assert_eq!(behind.pop(), Some(0));
    assert!(behind.len() >= 4 && behind.iter().all(|ms| *ms == 7000), "{behind:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_does_not_read_delays_nobody_else() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 1).await;
    let (slow, quick) = (register(&kinesis, "s", "slow").await, register(&kinesis, "s", "quick").await);
    let mut waiting = subscribed(&kinesis, &slow, 0, latest()).await;
    let mut reading = subscribed(&kinesis, &quick, 0, latest()).await;
    let texts: Vec<String> = (0..50).map(|n| format!("{n} {}", "x".repeat(100_000))).collect();
    for text in &texts {
        kinesis.put("s", "a", text).await;
        assert_eq!(reading.data(1).await, [text.as_str()]);
    }
    assert_eq!(waiting.data(50).await, texts);
}

// covers: SubscribeToShard success
#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_begins_where_it_is_told_to() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 1).await;
    let first = kinesis.put("s", "a", "one").await;
    kinesis.clock.advance_ms(1000);
    let second = kinesis.put("s", "a", "two").await;
    let at = |kind: &str, number: &str| json!({"Type": kind, "SequenceNumber": number});
    let positions = [
        ("one", horizon()),
        ("one", at("AT_SEQUENCE_NUMBER", &first)),
        ("two", at("AFTER_SEQUENCE_NUMBER", &first)),
        ("two", at("AT_SEQUENCE_NUMBER", &second)),
        ("two", json!({"Type": "AT_TIMESTAMP", "Timestamp": 1_700_000_000.5})),
        ("one", json!({"Type": "AT_TIMESTAMP", "Timestamp": 0})),
    ];
    for (place, (text, position)) in positions.into_iter().enumerate() {
        let consumer = register(&kinesis, "s", &format!("c{place}")).await;
        let mut events = subscribed(&kinesis, &consumer, 0, position.clone()).await;
        assert_eq!(events.data(1).await[0], text, "{position}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_record_comes_in_one_event() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 1).await;
    let arn = "arn:aws:kinesis:us-east-1:123456789012:stream/s";
    kinesis.ok("UpdateMaxRecordSize", json!({"StreamARN": arn, "MaxRecordSizeInKiB": 10_240})).await;
    let consumer = register(&kinesis, "s", "c").await;
    let mut live = subscribed(&kinesis, &consumer, 0, latest()).await;
    live.records().await;
    let largest = "x".repeat(10 * 1024 * 1024 - 1);
    kinesis.put("s", "a", &largest).await;
    kinesis.put("s", "a", "small").await;
    let late = register(&kinesis, "s", "late").await;
    let late = subscribed(&kinesis, &late, 0, horizon()).await;
    for mut events in [live, late] {
        let data = events.data(1).await;
        assert!(data == [largest.as_str()], "{} records", data.len());
        assert_eq!(events.data(1).await, ["small"]);
    }
}
