//! A consumer of a quiet shard, over more time than an iterator lives: AWS lets it poll on for as long as it likes,
//! emulators that handed the same iterator out again made it expire after five minutes.

use super::Kinesis;
use serde_json::json;

/// An iterator lives this long.
const LIFE_MS: u64 = 300_000;
const POLL_MS: u64 = 30_000;
/// Twelve minutes of them, more than two lives.
const POLLS: u64 = 24;

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_polls_a_quiet_shard_for_minutes_and_then_reads_a_record() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 1).await;
    kinesis.put("s", "k", "before").await;
    for (kind, first) in [("TRIM_HORIZON", vec!["before"]), ("LATEST", vec![])] {
        let began = kinesis.iterator("s", 0, json!({"ShardIteratorType": kind})).await;
        let mut iterator = began.clone();
        for poll in 0..POLLS {
            let page = kinesis.read(&iterator).await;
            let expected = if poll == 0 { first.clone() } else { vec![] };
            assert_eq!(super::data_of(&page), expected, "{kind}, poll {poll}");
            assert_eq!(page["MillisBehindLatest"], 0, "{kind}, poll {poll}");
            let next = page["NextShardIterator"].as_str().unwrap();
            assert_ne!(next, iterator, "{kind}, poll {poll}: each reply has an iterator of its own");
            next.clone_into(&mut iterator);
            kinesis.clock.advance_ms(POLL_MS);
        }
        let data = format!("after {kind}");
        kinesis.put("s", "k", &data).await;
        assert_eq!(kinesis.data_at(&iterator).await, [data]);
        let (exception, _) = kinesis.refused("GetRecords", json!({"ShardIterator": began})).await;
        assert_eq!(exception, "ExpiredIteratorException", "the one that it began with is long past");
    }
}

// covers: GetRecords wrong-state
#[tokio::test(flavor = "multi_thread")]
async fn an_iterator_that_nobody_uses_expires_after_five_minutes() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 1).await;
    kinesis.put("s", "k", "data").await;
    let iterator = kinesis.iterator("s", 0, json!({"ShardIteratorType": "TRIM_HORIZON"})).await;
    kinesis.clock.advance_ms(LIFE_MS);
    assert_eq!(kinesis.data_at(&iterator).await, ["data"], "five minutes old is young enough");
    kinesis.clock.advance_ms(1);
    let (exception, message) = kinesis.refused("GetRecords", json!({"ShardIterator": iterator})).await;
    assert_eq!(exception, "ExpiredIteratorException");
    assert!(message.contains("tolerated delay of 300000 milliseconds"), "{message}");
}
