//! GetShardIterator and GetRecords.

use super::{Kinesis, START_MS, data_of};
use serde_json::{Value, json};
use tidemill_types::SequenceNumber;

const SHARD: &str = "shardId-000000000000";

// covers: GetShardIterator success
#[tokio::test(flavor = "multi_thread")]
async fn each_iterator_type_begins_in_its_place() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 1).await;
    let before = kinesis.iterator("s", 0, json!({"ShardIteratorType": "LATEST"})).await;
    let mut numbers = Vec::new();
    for data in ["0", "1", "2"] {
        numbers.push(kinesis.put("s", "k", data).await);
        kinesis.clock.advance_ms(1000);
    }
    let start = kinesis.ok("ListShards", json!({"StreamName": "s"})).await;
    let start = &start["Shards"][0]["SequenceNumberRange"]["StartingSequenceNumber"];
    let at =
        |kind: &str, number: &Value| json!({"ShardIteratorType": kind, "StartingSequenceNumber": number});
    let time = |ms: u64| json!({"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": ms as f64 / 1000.0});
    let number = |place: usize| Value::from(numbers[place].clone());
    let cases: [(Value, &[&str]); 12] = [
        (json!({"ShardIteratorType": "TRIM_HORIZON"}), &["0", "1", "2"]),
        (json!({"ShardIteratorType": "LATEST"}), &[]),
        (at("AT_SEQUENCE_NUMBER", &number(0)), &["0", "1", "2"]),
        (at("AT_SEQUENCE_NUMBER", &number(1)), &["1", "2"]),
        (at("AFTER_SEQUENCE_NUMBER", &number(1)), &["2"]),
        (at("AFTER_SEQUENCE_NUMBER", &number(2)), &[]),
        (at("AT_SEQUENCE_NUMBER", start), &["0", "1", "2"]),
        (at("AFTER_SEQUENCE_NUMBER", start), &["0", "1", "2"]),
        (time(0), &["0", "1", "2"]),
        (time(START_MS + 1000), &["1", "2"]),
        (time(START_MS + 1001), &["2"]),
        (time(START_MS + 2500), &[]),
    ];
    for (kind, expected) in cases {
        let iterator = kinesis.iterator("s", 0, kind.clone()).await;
        assert!((1..=512).contains(&iterator.len()));
        assert_eq!(kinesis.data_at(&iterator).await, expected, "{kind}");
    }
    assert_eq!(kinesis.data_at(&before).await, ["0", "1", "2"]);
    let late = kinesis.iterator("s", 0, time(START_MS + 2500)).await;
    kinesis.put("s", "k", "3").await;
    assert_eq!(kinesis.data_at(&late).await, ["3"]);
}

// covers: GetShardIterator validation not-found wrong-state
#[tokio::test(flavor = "multi_thread")]
async fn get_shard_iterator_refuses_what_does_not_fit_together() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 2).await;
    let number = kinesis.put("s", "a", "x").await; // goes to shard 0
    let either = |found: &str| {
        format!(
            "Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and StartingSequenceNumber or (2) \
             TRIM_HORIZON or LATEST and no StartingSequenceNumber. Request specified {found} StartingSequenceNumber."
        )
    };
    let invalid = |text: &str, ending: &str| {
        format!(
            "StartingSequenceNumber {text} used in GetShardIterator on shard {SHARD} in stream s under account \
             123456789012 is invalid{ending}"
        )
    };
    let old = "49628566489653659107048838082246518393102916603510521906";
    let old_shard_0 = "49546555358178450850136703013797527057916422114018066434";
    let future = START_MS + 1000;
    let cases = [
        (json!({"ShardIteratorType": "AT_SEQUENCE_NUMBER"}), either("AT_SEQUENCE_NUMBER and no")),
        (json!({"ShardIteratorType": "LATEST", "StartingSequenceNumber": number}), either("LATEST and also a")),
        (json!({"ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": "5"}), invalid("5", ".")),
        (
            json!({"ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": old}),
            "Invalid StartingSequenceNumber. It encodes shardId-000000000003, while it was used in a call to a shard \
             with shardId-000000000000"
                .to_owned(),
        ),
        (
            json!({"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": old_shard_0}),
            invalid(old_shard_0, " because it did not come from this stream."),
        ),
        (
            json!({"ShardIteratorType": "AT_TIMESTAMP"}),
            "Must specify timestampInMillis parameter for iterator of type AT_TIMESTAMP. Current request has no \
             timestamp parameter."
                .to_owned(),
        ),
        (
            json!({"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": future / 1000}),
            format!(
                "The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. \
                 timestampInMillis: {future}, currentTimestampInMillis: {START_MS}"
            ),
        ),
    ];
    let ahead = number.parse::<SequenceNumber>().unwrap().plus(1).to_string();
    let ahead_cases = ["AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"].map(|kind| {
        (json!({"ShardIteratorType": kind, "StartingSequenceNumber": ahead}), invalid(&ahead, "."))
    });
    for (mut input, message) in cases.into_iter().chain(ahead_cases) {
        input["StreamName"] = "s".into();
        input["ShardId"] = SHARD.into();
        kinesis.assert_refused("GetShardIterator", input, "InvalidArgumentException", &message).await;
    }
    let missing = "Shard shardId-000000000007 in stream s under account 123456789012 does not exist";
    let latest = |shard: &str| json!({"StreamName": "s", "ShardId": shard, "ShardIteratorType": "LATEST"});
    kinesis
        .assert_refused("GetShardIterator", latest("shardId-7"), "ResourceNotFoundException", missing)
        .await;
    let unknown = "Could not find shard shard.x in stream s under account 123456789012.";
    kinesis.assert_refused("GetShardIterator", latest("shard.x"), "ResourceNotFoundException", unknown).await;
}

// covers: GetRecords success wrong-state
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_reader_gets_a_fresh_iterator_each_time() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 1).await;
    let mut iterator = kinesis.iterator("s", 0, json!({"ShardIteratorType": "LATEST"})).await;
    for _ in 0..3 {
        kinesis.clock.advance_ms(200_000);
        let page = kinesis.read(&iterator).await;
        assert_eq!((&page["Records"], &page["MillisBehindLatest"]), (&json!([]), &json!(0)));
        assert_eq!(page.get("ChildShards"), None);
        iterator = page["NextShardIterator"].as_str().unwrap().to_owned();
    }
    kinesis.put("s", "k", "x").await;
    assert_eq!(kinesis.data_at(&iterator).await, ["x"]);
    assert_eq!(kinesis.data_at(&iterator).await, ["x"]);
    kinesis.clock.advance_ms(300_001);
    let (kind, message) = kinesis.refused("GetRecords", json!({"ShardIterator": iterator})).await;
    assert_eq!(kind, "ExpiredIteratorException");
    assert!(
        message
            .starts_with("Iterator expired. The iterator was created at time Tue Nov 14 22:23:20 UTC 2023"),
        "{message}"
    );
}

// covers: GetRecords validation
#[tokio::test(flavor = "multi_thread")]
async fn foreign_iterators_are_refused() {
    let (kinesis, other) = (Kinesis::start().await, Kinesis::start().await);
    kinesis.create("s", 1).await;
    other.create("s", 1).await;
    let foreign = other.iterator("s", 0, json!({"ShardIteratorType": "TRIM_HORIZON"})).await;
    let changed =
        kinesis.iterator("s", 0, json!({"ShardIteratorType": "TRIM_HORIZON"})).await.replace('A', "B");
    for bad in [foreign.as_str(), changed.as_str(), "AAAA", "not base64", &"A".repeat(512)] {
        let input = json!({"ShardIterator": bad});
        kinesis
            .assert_refused("GetRecords", input, "InvalidArgumentException", "Invalid ShardIterator.")
            .await;
    }
    let iterator = kinesis.iterator("s", 0, json!({"ShardIteratorType": "TRIM_HORIZON"})).await;
    let arn = |name: &str| format!("arn:aws:kinesis:us-east-1:123456789012:stream/{name}");
    kinesis.ok("GetRecords", json!({"ShardIterator": iterator, "StreamARN": arn("s")})).await;
    let apart = json!({"ShardIterator": iterator, "StreamARN": arn("t")});
    assert_eq!(kinesis.refused("GetRecords", apart).await.0, "InvalidArgumentException");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_keep_to_limit_and_to_ten_mebibytes() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 1).await;
    let large = base64_simd::STANDARD.encode_to_string(vec![b'x'; 1024 * 1024 - 1]);
    let entry = json!({"PartitionKey": "k", "Data": large});
    for _ in 0..2 {
        let reply =
            kinesis.ok("PutRecords", json!({"StreamName": "s", "Records": vec![entry.clone(); 6]})).await;
        assert_eq!(reply["FailedRecordCount"], 0);
        kinesis.clock.advance_ms(1000);
    }
    let iterator = kinesis.iterator("s", 0, json!({"ShardIteratorType": "TRIM_HORIZON"})).await;
    let page = kinesis.read(&iterator).await;
    assert_eq!(page["Records"].as_array().unwrap().len(), 10);
    assert!(page["MillisBehindLatest"].as_u64().unwrap() > 0, "two records remain");
    let rest = kinesis.read(page["NextShardIterator"].as_str().unwrap()).await;
    assert_eq!((rest["Records"].as_array().unwrap().len(), &rest["MillisBehindLatest"]), (2, &json!(0)));
    let page = kinesis.ok("GetRecords", json!({"ShardIterator": iterator, "Limit": 3})).await;
    assert_eq!(page["Records"].as_array().unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_records_come_back_once_in_order_also_after_a_restart() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 3).await;
    for batch in 0..20u32 {
        let entry = |place: u32| {
            let text = format!("{}", batch * 500 + place);
            json!({"PartitionKey": format!("k{}", place % 50), "Data": base64_simd::STANDARD.encode_to_string(&text)})
        };
        let records: Vec<Value> = (0..500).map(entry).collect();
        let reply = kinesis.ok("PutRecords", json!({"StreamName": "s", "Records": records})).await;
        assert_eq!(reply["FailedRecordCount"], 0);
    }
    let mut iterators = Vec::new();
    for shard in 0..3 {
        iterators.push(kinesis.iterator("s", shard, json!({"ShardIteratorType": "TRIM_HORIZON"})).await);
    }
    let kinesis = kinesis.restart().await;
    let mut all = Vec::new();
    for mut iterator in iterators {
        let mut last = String::new();
        for _ in 0..100 {
            let page = kinesis.ok("GetRecords", json!({"ShardIterator": iterator, "Limit": 1000})).await;
            for record in page["Records"].as_array().unwrap() {
                let number = record["SequenceNumber"].as_str().unwrap();
                assert!(number > last.as_str());
                number.clone_into(&mut last);
            }
            all.extend(data_of(&page).iter().map(|text| text.parse::<u32>().unwrap()));
            page["NextShardIterator"].as_str().unwrap().clone_into(&mut iterator);
            if page["MillisBehindLatest"] == 0 {
                break;
            }
        }
    }
    all.sort_unstable();
    assert_eq!(all, (0..10_000).collect::<Vec<_>>());
}
