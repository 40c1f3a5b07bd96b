//! What a stream is set to: each change, what it refuses, and how it shows.

use super::Kinesis;
use serde_json::{Value, json};

const ARN: &str = "arn:aws:kinesis:us-east-1:123456789012:stream/s";
const INVALID: &str = "InvalidArgumentException";

// covers: IncreaseStreamRetentionPeriod, DecreaseStreamRetentionPeriod success validation wrong-state
#[tokio::test(flavor = "multi_thread")]
async fn retention_goes_up_and_down_within_its_bounds() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 1).await;
    let hours = |hours: u32| json!({"StreamName": "s", "RetentionPeriodHours": hours});
    let (up, down) = ("IncreaseStreamRetentionPeriod", "DecreaseStreamRetentionPeriod");
    assert_eq!(kinesis.ok(up, hours(8760)).await, Value::Null);
    assert_eq!(kinesis.summary("s").await["RetentionPeriodHours"], 8760);
    assert_eq!(kinesis.ok(down, hours(48)).await, Value::Null);
    kinesis.ok(up, hours(48)).await;
    kinesis.ok(down, json!({"StreamARN": ARN, "RetentionPeriodHours": 48})).await;
    assert_eq!(kinesis.summary("s").await["RetentionPeriodHours"], 48);
    let short =
        "Minimum allowed retention period is 24 hours. Requested retention period (23 hours) is too short.";
    kinesis.assert_refused(up, hours(23), INVALID, short).await;
    kinesis.assert_refused(down, hours(23), INVALID, short).await;
    let shorter = "Requested retention period (24 hours) for stream s can not be shorter than existing retention period \
                   (48 hours). Use DecreaseRetentionPeriod API.";
    kinesis.assert_refused(up, hours(24), INVALID, shorter).await;
    let longer = "Requested retention period (72 hours) for stream s can not be longer than existing retention period \
                  (48 hours). Use IncreaseRetentionPeriod API.";
    kinesis.assert_refused(down, hours(72), INVALID, longer).await;
    assert_eq!(kinesis.refused(up, hours(8761)).await.0, INVALID);
    assert_eq!(kinesis.refused(up, hours(0)).await.0, "ValidationException");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shorter_retention_hides_records_at_once_and_a_longer_one_does_not_bring_them_back() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 1).await;
    kinesis.ok("IncreaseStreamRetentionPeriod", json!({"StreamName": "s", "RetentionPeriodHours": 48})).await;
    kinesis.put("s", "a", "old").await;
    kinesis.clock.advance_ms(30 * 3_600_000);
    kinesis.put("s", "a", "new").await;
    let begin = json!({"ShardIteratorType": "TRIM_HORIZON"});
    assert_eq!(kinesis.data_at(&kinesis.iterator("s", 0, begin.clone()).await).await, ["old", "new"]);
    let held = kinesis.iterator("s", 0, begin.clone()).await;
    kinesis.ok("DecreaseStreamRetentionPeriod", json!({"StreamName": "s", "RetentionPeriodHours": 24})).await;
    assert_eq!(kinesis.data_at(&held).await, ["new"]);
    kinesis.ok("IncreaseStreamRetentionPeriod", json!({"StreamName": "s", "RetentionPeriodHours": 48})).await;
    assert_eq!(kinesis.data_at(&kinesis.iterator("s", 0, begin).await).await, ["new"]);
}

// covers: UpdateStreamMode, UpdateStreamRecordDistributionStrategy success wrong-state
#[tokio::test(flavor = "multi_thread")]
async fn mode_and_distribution_change_if_they_suit_each_other() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 2).await;
    let mode = |mode: &str| json!({"StreamARN": ARN, "StreamModeDetails": {"StreamMode": mode}});
    let distribution = |kind: &str| json!({"StreamARN": ARN, "RecordDistributionStrategy": kind});
    let (set_mode, set_distribution) = ("UpdateStreamMode", "UpdateStreamRecordDistributionStrategy");
    assert_eq!(kinesis.refused(set_distribution, distribution("AUTO")).await.0, INVALID);
    assert_eq!(kinesis.ok(set_mode, mode("ON_DEMAND")).await, Value::Null);
    assert_eq!(kinesis.ok(set_distribution, distribution("AUTO")).await, Value::Null);
    let summary = kinesis.summary("s").await;
    assert_eq!(summary["StreamModeDetails"]["StreamMode"], "ON_DEMAND");
    assert_eq!(
        (&summary["RecordDistributionStrategy"], &summary["OpenShardCount"]),
        (&json!("AUTO"), &json!(2))
    );
    assert_eq!(kinesis.refused(set_mode, mode("PROVISIONED")).await.0, "ValidationException");
    kinesis.ok(set_distribution, distribution("USER_PARTITION_KEY")).await;
    kinesis.ok(set_mode, mode("PROVISIONED")).await;
    assert_eq!(kinesis.summary("s").await["StreamModeDetails"]["StreamMode"], "PROVISIONED");
    let by_name = json!({"StreamName": "s", "StreamModeDetails": {"StreamMode": "ON_DEMAND"}});
    assert_eq!(kinesis.refused(set_mode, by_name).await.0, "ValidationException");
}

/// A stream whose records may come without a key spreads them; readers see none either.
#[tokio::test(flavor = "multi_thread")]
async fn where_the_broker_distributes_records_need_no_partition_key() {
    let kinesis = Kinesis::start().await;
    let auto =
        json!({"StreamModeDetails": {"StreamMode": "ON_DEMAND"}, "RecordDistributionStrategy": "AUTO"});
    let mut input = auto.clone();
    input["StreamName"] = "s".into();
    kinesis.ok("CreateStream", input).await;
    kinesis.ok("PutRecord", json!({"StreamName": "s", "Data": "aGk="})).await;
    let mut records = vec![json!({"Data": "eW8="}); 63];
    records.push(json!({"Data": "eW8=", "PartitionKey": "a"}));
    let reply = kinesis.ok("PutRecords", json!({"StreamName": "s", "Records": records})).await;
    assert_eq!(reply["FailedRecordCount"], 0);
    let (mut keys, mut with, mut used) = (0, 0, 0);
    for shard in 0..4 {
        let iterator = kinesis.iterator("s", shard, json!({"ShardIteratorType": "TRIM_HORIZON"})).await;
        let page = kinesis.read(&iterator).await;
        let records = page["Records"].as_array().unwrap();
        used += usize::from(!records.is_empty());
        keys += records.iter().filter(|record| record.get("PartitionKey").is_none()).count();
        with += records.iter().filter(|record| record["PartitionKey"] == "a").count();
    }
    assert_eq!((keys, with), (64, 1));
    assert!(used > 1, "64 records went to one shard of four");
    let entries = json!([{"Data": ""}, {"Data": "", "PartitionKey": "a"}, {"Data": ""}]);
    kinesis.create("t", 1).await;
    let missing = "2 validation errors detected: Value null at 'records.1.member.partitionKey' failed to satisfy \
                   constraint: Member must not be null; Value null at 'records.3.member.partitionKey' failed to satisfy \
                   constraint: Member must not be null";
    let input = json!({"StreamName": "t", "Records": entries});
    kinesis.assert_refused("PutRecords", input, "ValidationException", missing).await;
}

// covers: UpdateStreamWarmThroughput success validation wrong-state
#[tokio::test(flavor = "multi_thread")]
async fn warm_throughput_is_kept_for_on_demand_streams_of_committed_accounts() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 1).await;
    let operation = "UpdateStreamWarmThroughput";
    let asked = |mibps: u32| json!({"StreamName": "s", "WarmThroughputMiBps": mibps});
    assert_eq!(kinesis.refused(operation, asked(5)).await.0, "ValidationException");
    let mode = json!({"StreamARN": ARN, "StreamModeDetails": {"StreamMode": "ON_DEMAND"}});
    kinesis.ok("UpdateStreamMode", mode).await;
    assert_eq!(kinesis.refused(operation, asked(5)).await.0, "ValidationException");
    let commitment = json!({"MinimumThroughputBillingCommitment": {"Status": "ENABLED"}});
    kinesis.ok("UpdateAccountSettings", commitment).await;
    let throughput = json!({"TargetMiBps": 5, "CurrentMiBps": 5});
    let expected = json!({"StreamARN": ARN, "StreamName": "s", "WarmThroughput": throughput});
    assert_eq!(kinesis.ok(operation, asked(5)).await, expected);
    assert_eq!(kinesis.summary("s").await["WarmThroughput"], throughput);
    assert_eq!(kinesis.refused(operation, asked(10_241)).await.0, INVALID);
    assert_eq!(
        kinesis.refused(operation, json!({"StreamName": "s", "WarmThroughputMiBps": -1})).await.0,
        "ValidationException"
    );
}

// covers: UpdateMaxRecordSize success validation
#[tokio::test(flavor = "multi_thread")]
async fn the_largest_record_is_what_the_stream_is_set_to() {
    const MIB: usize = 1024 * 1024;
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 1).await;
    let largest = base64_simd::STANDARD.encode_to_string(vec![7u8; 10 * MIB - 1]);
    let put = json!({"StreamName": "s", "PartitionKey": "a", "Data": largest});
    assert_eq!(kinesis.refused("PutRecord", put.clone()).await.0, "ValidationException");
    let size = |kib: u32| json!({"StreamARN": ARN, "MaxRecordSizeInKiB": kib});
    assert_eq!(kinesis.ok("UpdateMaxRecordSize", size(10_240)).await, Value::Null);
    assert_eq!(kinesis.summary("s").await["MaxRecordSizeInKiB"], 10_240);
    kinesis.ok("PutRecord", put.clone()).await;
    let entries = json!([{"PartitionKey": "a", "Data": put["Data"]}]);
    let reply = kinesis.ok("PutRecords", json!({"StreamName": "s", "Records": entries})).await;
    assert_eq!(reply["FailedRecordCount"], 0);
    let iterator = kinesis.iterator("s", 0, json!({"ShardIteratorType": "TRIM_HORIZON"})).await;
    let page = kinesis.read(&iterator).await;
    assert_eq!(page["Records"].as_array().unwrap().len(), 1);
    assert!(page["Records"][0]["Data"] == put["Data"], "the record came back changed");
    let rest = kinesis.read(page["NextShardIterator"].as_str().unwrap()).await;
    assert_eq!(rest["Records"].as_array().unwrap().len(), 1);
    let whole = base64_simd::STANDARD.encode_to_string(vec![7u8; 10 * MIB]);
    let over = json!({"StreamName": "s", "PartitionKey": "a", "Data": whole});
    let message = format!(
        "1 validation error detected: Value 'java.nio.HeapByteBuffer[pos=0 lim={0} cap={0}]' at 'data' failed to satisfy \
         constraint: Member must have length less than or equal to {1}",
        10 * MIB,
        10 * MIB - 1
    );
    kinesis.assert_refused("PutRecord", over, "ValidationException", &message).await;
    kinesis.ok("UpdateMaxRecordSize", size(1024)).await;
    assert_eq!(kinesis.refused("PutRecord", put).await.0, "ValidationException");
    for bad in [1023, 10_241] {
        assert_eq!(kinesis.refused("UpdateMaxRecordSize", size(bad)).await.0, "ValidationException");
    }
    let nowhere = json!({"MaxRecordSizeInKiB": 1024});
    assert_eq!(kinesis.refused("UpdateMaxRecordSize", nowhere).await.0, INVALID);
}

// covers: EnableEnhancedMonitoring, DisableEnhancedMonitoring success validation
#[tokio::test(flavor = "multi_thread")]
async fn monitoring_shows_what_was_and_what_is() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 1).await;
    let metrics = |names: Value| json!({"StreamName": "s", "ShardLevelMetrics": names});
    let (on, off) = ("EnableEnhancedMonitoring", "DisableEnhancedMonitoring");
    let reply = kinesis.ok(on, metrics(json!(["OutgoingBytes", "IncomingBytes"]))).await;
    let two = json!(["IncomingBytes", "OutgoingBytes"]);
    let expected = json!({
        "StreamName": "s", "StreamARN": ARN, "CurrentShardLevelMetrics": [], "DesiredShardLevelMetrics": two
    });
    assert_eq!(reply, expected);
    let reply = kinesis.ok(on, metrics(json!(["ALL"]))).await;
    assert_eq!(reply["CurrentShardLevelMetrics"], two);
    assert_eq!(reply["DesiredShardLevelMetrics"].as_array().unwrap().len(), 7);
    let all = reply["DesiredShardLevelMetrics"].clone();
    assert_eq!(kinesis.summary("s").await["EnhancedMonitoring"], json!([{"ShardLevelMetrics": all}]));
    let reply = kinesis.ok(off, metrics(json!(["IteratorAgeMilliseconds"]))).await;
    assert_eq!(reply["DesiredShardLevelMetrics"].as_array().unwrap().len(), 6);
    let reply = kinesis.ok(off, metrics(json!(["ALL"]))).await;
    assert_eq!(reply["DesiredShardLevelMetrics"], json!([]));
    for bad in [json!([]), json!(["Bytes"]), json!(["ALL", "ALL", "ALL", "ALL", "ALL", "ALL", "ALL", "ALL"])]
    {
        for operation in [on, off] {
            assert_eq!(kinesis.refused(operation, metrics(bad.clone())).await.0, "ValidationException");
        }
    }
}
