//! PutRecord and PutRecords.

use super::{Kinesis, data_of};
use crate::captured_log::CapturedLog;
use serde_json::{Value, json};
use tidemill_types::SequenceNumber;

const MIB: usize = 1024 * 1024;

fn base64_of(bytes: usize) -> String {
    base64_simd::STANDARD.encode_to_string(vec![0u8; bytes])
}

async fn assert_empty(kinesis: &Kinesis, stream: &str) {
    let iterator = kinesis.iterator(stream, 0, json!({"ShardIteratorType": "TRIM_HORIZON"})).await;
    assert_eq!(kinesis.read(&iterator).await["Records"], json!([]));
}

// covers: PutRecords success
#[tokio::test(flavor = "multi_thread")]
async fn put_records_answers_in_the_order_of_the_request() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 2).await;
    let half = "170141183460469231731687303715884105728";
    let input = json!({"StreamName": "s", "Records": [
        {"Data": "aGk=", "PartitionKey": "a", "ExplicitHashKey": half},
        {"Data": "eW8=", "PartitionKey": "b", "ExplicitHashKey": "0"},
        {"Data": "", "PartitionKey": "日本", "ExplicitHashKey": half},
    ]});
    let reply = kinesis.ok("PutRecords", input).await;
    assert_eq!((&reply["FailedRecordCount"], &reply["EncryptionType"]), (&json!(0), &json!("NONE")));
    let records = reply["Records"].as_array().unwrap();
    let shards: Vec<_> = records.iter().map(|record| record["ShardId"].as_str().unwrap()).collect();
    assert_eq!(shards, ["shardId-000000000001", "shardId-000000000000", "shardId-000000000001"]);
    let iterator = kinesis.iterator("s", 1, json!({"ShardIteratorType": "TRIM_HORIZON"})).await;
    let page = kinesis.read(&iterator).await;
    assert_eq!(data_of(&page), ["hi", ""]);
    let read = page["Records"].as_array().unwrap();
    assert_eq!(read[0]["SequenceNumber"], records[0]["SequenceNumber"]);
    assert_eq!(read[1]["SequenceNumber"], records[2]["SequenceNumber"]);
    assert_eq!(read[1]["PartitionKey"], "日本");
    assert_eq!(read[1]["ApproximateArrivalTimestamp"], 1_700_000_000.0);
}

// covers: PutRecord success
#[tokio::test(flavor = "multi_thread")]
async fn a_record_goes_where_its_key_hashes_and_numbers_rise() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 2).await;
    let mut last = String::new();
    for key in ["a", "a", "b"] {
        let input = json!({"StreamName": "s", "PartitionKey": key, "Data": "aGk="});
        let reply = kinesis.ok("PutRecord", input).await;
        // MD5 of "a" falls into the lower half, that of "b" into the upper
        let shard = if key == "a" { "shardId-000000000000" } else { "shardId-000000000001" };
        assert_eq!((&reply["ShardId"], &reply["EncryptionType"]), (&json!(shard), &json!("NONE")));
        let number = reply["SequenceNumber"].as_str().unwrap().to_owned();
        assert!(number.len() == 56 && number > last, "{number} after {last}");
        last = number;
    }
}

// covers: PutRecord, PutRecords validation
#[tokio::test(flavor = "multi_thread")]
async fn oversize_records_are_refused_and_nothing_is_written() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 1).await;
    let message = |path: &str, length: usize, max: usize| {
        format!(
            "1 validation error detected: Value 'java.nio.HeapByteBuffer[pos=0 lim={length} cap={length}]' at \
             '{path}' failed to satisfy constraint: Member must have length less than or equal to {max}"
        )
    };
    let input = json!({"StreamName": "s", "PartitionKey": "a", "Data": base64_of(MIB + 1)});
    kinesis.assert_refused("PutRecord", input, "ValidationException", &message("data", MIB + 1, MIB)).await;
    let input = json!({"StreamName": "s", "PartitionKey": "a", "Data": base64_of(MIB)});
    kinesis.assert_refused("PutRecord", input, "ValidationException", &message("data", MIB, MIB - 1)).await;
    let input = json!({"StreamName": "s", "PartitionKey": "a", "Data": base64_of(10 * MIB + 1)});
    let model = message("data", 10 * MIB + 1, 10 * MIB);
    kinesis.assert_refused("PutRecord", input, "ValidationException", &model).await;
    let good = json!({"PartitionKey": "a", "Data": "aGk="});
    let large = json!({"PartitionKey": "a", "Data": base64_of(MIB + 1)});
    let input = json!({"StreamName": "s", "Records": [good, large]});
    let second = message("records.2.member.data", MIB + 1, MIB);
    kinesis.assert_refused("PutRecords", input, "ValidationException", &second).await;
    let whole = json!({"PartitionKey": "a", "Data": base64_of(MIB - 1)});
    let input = json!({"StreamName": "s", "Records": vec![whole.clone(); 11]});
    let limit = "Records size exceeds 10 MB limit";
    kinesis.assert_refused("PutRecords", input, "InvalidArgumentException", limit).await;
    assert_empty(&kinesis, "s").await;
    let reply = kinesis.ok("PutRecords", json!({"StreamName": "s", "Records": vec![whole; 10]})).await;
    assert_eq!(reply["FailedRecordCount"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_hash_keys_fail_the_whole_request() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 1).await;
    let above = "340282366920938463463374607431768211456";
    let message = format!(
        "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. Specified value was {above}"
    );
    let bad = json!({"PartitionKey": "a", "Data": "aGk=", "ExplicitHashKey": above});
    let good = json!({"PartitionKey": "a", "Data": "aGk="});
    let input = json!({"StreamName": "s", "Records": [good, bad]});
    kinesis.assert_refused("PutRecords", input, "InvalidArgumentException", &message).await;
    assert_empty(&kinesis, "s").await;
}

// covers: PutRecord, PutRecords not-found
#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_is_checked_and_writes_nothing() {
    let kinesis = Kinesis::start().await;
    let record = json!({"PartitionKey": "a", "Data": "aGk="});
    let with = |mut input: Value| {
        input["StreamName"] = "s".into();
        input["DryRun"] = true.into();
        input
    };
    let batch = json!({"Records": [record]});
    assert_eq!(kinesis.refused("PutRecord", with(record.clone())).await.0, "ResourceNotFoundException");
    kinesis.create("s", 1).await;
    assert_eq!(kinesis.refused("PutRecord", with(record)).await.0, "DryRunOperationException");
    assert_eq!(kinesis.refused("PutRecords", with(batch)).await.0, "DryRunOperationException");
    let ask = json!({"ShardId": "shardId-0", "ShardIteratorType": "LATEST"});
    assert_eq!(kinesis.refused("GetShardIterator", with(ask)).await.0, "DryRunOperationException");
    let iterator = kinesis.iterator("s", 0, json!({"ShardIteratorType": "LATEST"})).await;
    let read = with(json!({"ShardIterator": iterator}));
    assert_eq!(kinesis.refused("GetRecords", read).await.0, "DryRunOperationException");
    let bad = with(json!({"ShardIterator": "x"}));
    assert_eq!(kinesis.refused("GetRecords", bad).await.0, "InvalidArgumentException");
    assert_empty(&kinesis, "s").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_for_ordering_must_be_one_of_the_stream() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 1).await;
    let first = kinesis.put("s", "a", "1").await;
    let put = |after: &str| json!({"StreamName": "s", "PartitionKey": "a", "Data": "", "SequenceNumberForOrdering": after});
    let second = kinesis.ok("PutRecord", put(&first)).await;
    assert!(second["SequenceNumber"].as_str().unwrap() > first.as_str());
    let ahead = second["SequenceNumber"].as_str().unwrap().parse::<SequenceNumber>().unwrap().plus(1);
    for bad in ["0", "1", "49628566489653659107048838082246518393102916603510521906", &ahead.to_string()] {
        let message = format!(
            "ExclusiveMinimumSequenceNumber {bad} used in PutRecord on stream s under account 123456789012 is invalid."
        );
        kinesis.assert_refused("PutRecord", put(bad), "InvalidArgumentException", &message).await;
    }
}

/// Each record that failed was once a line of its own: 500 a request, for as long as the disk was full.
#[tokio::test]
async fn a_request_whose_records_fail_is_one_line_in_the_log() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 2).await;
    kinesis.engine.close().await.unwrap();
    let (log, _guard) = CapturedLog::start();
    let entries = vec![json!({"PartitionKey": "a", "Data": "aGk="}); 100];
    let reply = kinesis.ok("PutRecords", json!({"StreamName": "s", "Records": entries})).await;
    assert_eq!(reply["FailedRecordCount"], 100);
    let lines: Vec<_> = log.lines().into_iter().filter(|line| line.contains("not put")).collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    for part in ["WARN", "stream=s", "records=100", "shutting down"] {
        assert!(lines[0].contains(part), "{part} in {}", lines[0]);
    }
}
