//! Making, describing, listing and deleting streams, and listing their shards.

use super::{Kinesis, START_MS};
use serde_json::{Value, json};

const ARN: &str = "arn:aws:kinesis:us-east-1:123456789012:stream/s";

// covers: DescribeStream, DescribeStreamSummary success
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_described_as_it_was_made() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 2).await;
    let summary = kinesis.ok("DescribeStreamSummary", json!({"StreamName": "s"})).await;
    let expected = json!({
        "StreamName": "s", "StreamARN": ARN, "StreamStatus": "ACTIVE",
        "StreamModeDetails": {"StreamMode": "PROVISIONED"}, "RetentionPeriodHours": 24,
        "StreamCreationTimestamp": 1_700_000_000.0, "EnhancedMonitoring": [{"ShardLevelMetrics": []}],
        "EncryptionType": "NONE", "OpenShardCount": 2, "ConsumerCount": 0, "MaxRecordSizeInKiB": 1024,
        "RecordDistributionStrategy": "USER_PARTITION_KEY", "ChannelCount": 0, "QueueCount": 0
    });
    assert_eq!(summary["StreamDescriptionSummary"], expected);
    let description = kinesis.ok("DescribeStream", json!({"StreamARN": ARN})).await;
    let description = &description["StreamDescription"];
    assert_eq!(description["HasMoreShards"], false);
    assert_eq!(description["StreamCreationTimestamp"], 1_700_000_000.0);
    let shards = description["Shards"].as_array().unwrap();
    assert_eq!(shards.len(), 2);
    let start = shards[1]["SequenceNumberRange"]["StartingSequenceNumber"].clone();
    let expected = json!({
        "ShardId": "shardId-000000000001",
        "HashKeyRange": {
            "StartingHashKey": "170141183460469231731687303715884105728",
            "EndingHashKey": "340282366920938463463374607431768211455"
        },
        "SequenceNumberRange": {"StartingSequenceNumber": start}
    });
    assert_eq!(shards[1], expected);
    let page = kinesis.ok("DescribeStream", json!({"StreamName": "s", "Limit": 1})).await;
    assert_eq!(page["StreamDescription"]["HasMoreShards"], true);
    let rest = json!({"StreamName": "s", "ExclusiveStartShardId": "shardId-0"});
    let rest = kinesis.ok("DescribeStream", rest).await;
    assert_eq!(rest["StreamDescription"]["Shards"], json!([expected]));
}

// covers: DescribeStreamSummary validation
#[tokio::test(flavor = "multi_thread")]
async fn streams_are_addressed_by_name_by_arn_or_by_both() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 1).await;
    let operation = "DescribeStreamSummary";
    for input in [
        json!({"StreamName": "s"}),
        json!({"StreamARN": ARN}),
        json!({"StreamName": "s", "StreamARN": ARN, "StreamId": "abcdefghij0123456789-a1b"}),
    ] {
        kinesis.ok(operation, input).await;
    }
    let neither = "Either StreamName or StreamARN must be provided.";
    kinesis.assert_refused(operation, json!({}), "InvalidArgumentException", neither).await;
    let apart = format!("StreamName t does not match the stream of StreamARN {ARN}.");
    let input = json!({"StreamName": "t", "StreamARN": ARN});
    kinesis.assert_refused(operation, input, "InvalidArgumentException", &apart).await;
    let input = json!({"StreamARN": "arn:aws:kinesis:us-east-1:999999999999:stream/s"});
    let foreign = "Stream s under account 999999999999 not found.";
    kinesis.assert_refused(operation, input, "ResourceNotFoundException", foreign).await;
    let input = json!({"StreamARN": "arn:aws:kinesis:eu-west-1:123456789012:stream/s"});
    assert_eq!(kinesis.refused(operation, input).await.0, "ResourceNotFoundException");
    let input = json!({"StreamARN": format!("{ARN}/consumer/c:1")});
    assert_eq!(kinesis.refused(operation, input).await.0, "InvalidArgumentException");
}

// covers: DescribeStream, DescribeStreamSummary, DeleteStream, ListShards, PutRecord, PutRecords not-found
// covers: AddTagsToStream, RemoveTagsFromStream, ListTagsForStream not-found
// covers: IncreaseStreamRetentionPeriod, DecreaseStreamRetentionPeriod, UpdateStreamWarmThroughput not-found
// covers: EnableEnhancedMonitoring, DisableEnhancedMonitoring, StartStreamEncryption, StopStreamEncryption not-found
// covers: SplitShard, MergeShards, UpdateShardCount, GetShardIterator not-found
// covers: UpdateStreamMode, UpdateMaxRecordSize, UpdateStreamRecordDistributionStrategy not-found
// covers: RegisterStreamConsumer, ListStreamConsumers not-found
#[tokio::test(flavor = "multi_thread")]
async fn unknown_streams_are_not_found_by_any_operation() {
    let kinesis = Kinesis::start().await;
    let absent = "Stream s under account 123456789012 not found.";
    let record = json!({"PartitionKey": "a", "Data": ""});
    let by_name = [
        ("DescribeStream", json!({})),
        ("DescribeStreamSummary", json!({})),
        ("DeleteStream", json!({})),
        ("ListShards", json!({})),
        ("PutRecord", record.clone()),
        ("PutRecords", json!({"Records": [record]})),
        ("AddTagsToStream", json!({"Tags": {"a": "b"}})),
        ("RemoveTagsFromStream", json!({"TagKeys": ["a"]})),
        ("ListTagsForStream", json!({})),
        ("IncreaseStreamRetentionPeriod", json!({"RetentionPeriodHours": 48})),
        ("DecreaseStreamRetentionPeriod", json!({"RetentionPeriodHours": 24})),
        ("UpdateStreamWarmThroughput", json!({"WarmThroughputMiBps": 1})),
        ("EnableEnhancedMonitoring", json!({"ShardLevelMetrics": ["ALL"]})),
        ("DisableEnhancedMonitoring", json!({"ShardLevelMetrics": ["ALL"]})),
        ("StartStreamEncryption", json!({"EncryptionType": "KMS", "KeyId": "alias/a"})),
        ("StopStreamEncryption", json!({"EncryptionType": "KMS", "KeyId": "alias/a"})),
        ("SplitShard", json!({"ShardToSplit": "shardId-0", "NewStartingHashKey": "9"})),
        ("MergeShards", json!({"ShardToMerge": "shardId-0", "AdjacentShardToMerge": "shardId-1"})),
        ("UpdateShardCount", json!({"TargetShardCount": 2, "ScalingType": "UNIFORM_SCALING"})),
    ];
    for (operation, mut input) in by_name {
        input["StreamName"] = "s".into();
        kinesis.assert_refused(operation, input, "ResourceNotFoundException", absent).await;
    }
    let by_arn = [
        ("UpdateStreamMode", json!({"StreamModeDetails": {"StreamMode": "ON_DEMAND"}})),
        ("UpdateMaxRecordSize", json!({"MaxRecordSizeInKiB": 2048})),
        (
            "UpdateStreamRecordDistributionStrategy",
            json!({"RecordDistributionStrategy": "USER_PARTITION_KEY"}),
        ),
        ("RegisterStreamConsumer", json!({"ConsumerName": "c"})),
        ("ListStreamConsumers", json!({})),
    ];
    for (operation, mut input) in by_arn {
        input["StreamARN"] = ARN.into();
        kinesis.assert_refused(operation, input, "ResourceNotFoundException", absent).await;
    }
    let input = json!({"StreamName": "s", "ShardId": "shardId-0", "ShardIteratorType": "LATEST"});
    let message = "Shard shardId-000000000000 in stream s under account 123456789012 does not exist";
    kinesis.assert_refused("GetShardIterator", input, "ResourceNotFoundException", message).await;
}

// covers: CreateStream success validation wrong-state
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_made_with_all_that_is_asked_for() {
    let kinesis = Kinesis::start().await;
    let commitment = json!({"MinimumThroughputBillingCommitment": {"Status": "ENABLED"}});
    kinesis.ok("UpdateAccountSettings", commitment).await;
    let asked = json!({
        "StreamName": "s", "StreamModeDetails": {"StreamMode": "ON_DEMAND"}, "Tags": {"team": "a", "env": ""},
        "WarmThroughputMiBps": 7, "MaxRecordSizeInKiB": 2048, "RecordDistributionStrategy": "AUTO"
    });
    assert_eq!(kinesis.ok("CreateStream", asked.clone()).await, Value::Null);
    let summary = kinesis.summary("s").await;
    let expected = json!({
        "StreamName": "s", "StreamARN": ARN, "StreamStatus": "ACTIVE",
        "StreamModeDetails": {"StreamMode": "ON_DEMAND"}, "RetentionPeriodHours": 24,
        "StreamCreationTimestamp": 1_700_000_000.0, "EnhancedMonitoring": [{"ShardLevelMetrics": []}],
        "EncryptionType": "NONE", "OpenShardCount": 4, "ConsumerCount": 0, "MaxRecordSizeInKiB": 2048,
        "RecordDistributionStrategy": "AUTO", "WarmThroughput": {"TargetMiBps": 7, "CurrentMiBps": 7},
        "ChannelCount": 0, "QueueCount": 0
    });
    assert_eq!(summary, expected);
    let tags = kinesis.ok("ListTagsForStream", json!({"StreamName": "s"})).await;
    let expected = json!([{"Key": "env", "Value": ""}, {"Key": "team", "Value": "a"}]);
    assert_eq!(tags, json!({"Tags": expected, "HasMoreTags": false}));
    let listed = kinesis.ok("ListStreams", json!({})).await;
    assert_eq!(listed["StreamSummaries"][0]["StreamModeDetails"]["StreamMode"], "ON_DEMAND");
    let message = "Stream s under account 123456789012 already exists.";
    kinesis.assert_refused("CreateStream", asked, "ResourceInUseException", message).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_together_makes_no_stream() {
    let kinesis = Kinesis::start().await;
    let invalid = "InvalidArgumentException";
    let cases = [
        (json!({"ShardCount": 1, "WarmThroughputMiBps": 1}), "ValidationException"),
        (json!({"ShardCount": 1, "RecordDistributionStrategy": "AUTO"}), invalid),
        (json!({"ShardCount": 1, "Tags": {"a\u{7}": "b"}}), invalid),
        (json!({"ShardCount": 10_001}), invalid),
        (json!({"StreamModeDetails": {"StreamMode": "PROVISIONED"}}), invalid),
    ];
    for (mut input, kind) in cases {
        input["StreamName"] = "s".into();
        assert_eq!(kinesis.refused("CreateStream", input.clone()).await.0, kind, "{input}");
    }
    let message = "ShardCount must be given for a stream in PROVISIONED mode.";
    kinesis.assert_refused("CreateStream", json!({"StreamName": "s"}), invalid, message).await;
    assert_eq!(kinesis.ok("ListStreams", json!({})).await["StreamNames"], json!([]));
    let defaults = json!({
        "StreamName": "s", "ShardCount": 1, "StreamModeDetails": {"StreamMode": "PROVISIONED"},
        "MaxRecordSizeInKiB": 1024, "WarmThroughputMiBps": 0, "RecordDistributionStrategy": "USER_PARTITION_KEY"
    });
    kinesis.ok("CreateStream", defaults).await;
}

// covers: ListStreams success validation wrong-state
#[tokio::test(flavor = "multi_thread")]
async fn streams_are_listed_page_by_page_until_their_token_expires() {
    let kinesis = Kinesis::start().await;
    for name in ["c", "a", "b"] {
        kinesis.create(name, 1).await;
    }
    let page = kinesis.ok("ListStreams", json!({"Limit": 2})).await;
    assert_eq!((&page["StreamNames"], &page["HasMoreStreams"]), (&json!(["a", "b"]), &json!(true)));
    assert_eq!(page["StreamSummaries"][1]["StreamName"], "b");
    assert_eq!(page["StreamSummaries"][1]["StreamStatus"], "ACTIVE");
    let token = page["NextToken"].clone();
    let page = kinesis.ok("ListStreams", json!({"NextToken": token})).await;
    assert_eq!((&page["StreamNames"], &page["HasMoreStreams"]), (&json!(["c"]), &json!(false)));
    assert_eq!(page.get("NextToken"), None);
    let page = kinesis.ok("ListStreams", json!({"ExclusiveStartStreamName": "a"})).await;
    assert_eq!(page["StreamNames"], json!(["b", "c"]));
    let garbled = json!({"NextToken": "AAAA"});
    kinesis.assert_refused("ListStreams", garbled, "InvalidArgumentException", "Invalid NextToken.").await;
    kinesis.clock.advance_ms(300_001);
    assert_eq!(
        kinesis.refused("ListStreams", json!({"NextToken": token})).await.0,
        "ExpiredNextTokenException"
    );
}

fn ids(page: &Value) -> Vec<&str> {
    page["Shards"].as_array().unwrap().iter().map(|shard| shard["ShardId"].as_str().unwrap()).collect()
}

// covers: ListShards success validation wrong-state
#[tokio::test(flavor = "multi_thread")]
async fn shards_are_listed_page_by_page_with_their_filter() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 3).await;
    let filter = json!({"Type": "AFTER_SHARD_ID", "ShardId": "shardId-000000000000"});
    let first = json!({"StreamName": "s", "MaxResults": 1, "ShardFilter": filter});
    let page = kinesis.ok("ListShards", first).await;
    assert_eq!(ids(&page), ["shardId-000000000001"]);
    let token = page["NextToken"].clone();
    let page = kinesis.ok("ListShards", json!({"NextToken": token, "MaxResults": 5})).await;
    assert_eq!((ids(&page), page.get("NextToken")), (vec!["shardId-000000000002"], None));
    for kind in ["AT_LATEST", "AT_TRIM_HORIZON", "FROM_TRIM_HORIZON"] {
        let input = json!({"StreamName": "s", "ShardFilter": {"Type": kind}});
        assert_eq!(ids(&kinesis.ok("ListShards", input).await).len(), 3, "{kind}");
    }
    for kind in ["AT_TIMESTAMP", "FROM_TIMESTAMP"] {
        let input = json!({"StreamName": "s", "ShardFilter": {"Type": kind, "Timestamp": START_MS / 1000}});
        assert_eq!(ids(&kinesis.ok("ListShards", input).await).len(), 3, "{kind}");
    }
    let after = json!({"StreamName": "s", "ExclusiveStartShardId": "shardId-000000000001"});
    assert_eq!(ids(&kinesis.ok("ListShards", after).await), ["shardId-000000000002"]);
    kinesis.ok("ListShards", json!({"StreamName": "s", "StreamCreationTimestamp": 1_700_000_000})).await;
    let other = json!({"StreamName": "s", "StreamCreationTimestamp": 1_600_000_000});
    assert_eq!(kinesis.refused("ListShards", other).await.0, "ResourceNotFoundException");
    let token = || token.clone();
    let refused = [
        (json!({}), "Either NextToken or StreamName should be provided."),
        (
            json!({"NextToken": token(), "StreamName": "s"}),
            "NextToken and StreamName cannot be provided together.",
        ),
        (
            json!({"NextToken": token(), "ExclusiveStartShardId": "a"}),
            "NextToken and ExclusiveStartShardId cannot be provided together.",
        ),
        (json!({"NextToken": "x"}), "Invalid NextToken."),
        (
            json!({"StreamName": "s", "ShardFilter": {"Type": "AT_TIMESTAMP"}}),
            "ShardFilter of type AT_TIMESTAMP needs a Timestamp.",
        ),
        (
            json!({"StreamName": "s", "ShardFilter": {"Type": "AT_LATEST", "ShardId": "a"}}),
            "ShardFilter of type AT_LATEST takes no ShardId.",
        ),
    ];
    for (input, message) in refused {
        kinesis.assert_refused("ListShards", input, "InvalidArgumentException", message).await;
    }
    kinesis.clock.advance_ms(300_001);
    assert_eq!(
        kinesis.refused("ListShards", json!({"NextToken": token()})).await.0,
        "ExpiredNextTokenException"
    );
}

// covers: DeleteStream success
// covers: GetRecords not-found
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_stream_is_gone_and_its_name_is_free() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 2).await;
    let page = kinesis.ok("ListShards", json!({"StreamName": "s", "MaxResults": 1})).await;
    let iterator = kinesis.iterator("s", 0, json!({"ShardIteratorType": "TRIM_HORIZON"})).await;
    assert_eq!(
        kinesis.ok("DeleteStream", json!({"StreamName": "s", "EnforceConsumerDeletion": true})).await,
        Value::Null
    );
    let gone = "Shard shardId-000000000000 in stream s under account 123456789012 does not exist";
    let read = || json!({"ShardIterator": iterator});
    kinesis.assert_refused("GetRecords", read(), "ResourceNotFoundException", gone).await;
    let token = || json!({"NextToken": page["NextToken"]});
    assert_eq!(kinesis.refused("ListShards", token()).await.0, "ResourceNotFoundException");
    kinesis.create("s", 2).await;
    kinesis.assert_refused("GetRecords", read(), "ResourceNotFoundException", gone).await;
    assert_eq!(kinesis.refused("ListShards", token()).await.0, "ExpiredNextTokenException");
}
