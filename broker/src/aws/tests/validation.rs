//! Conversion and constraint messages of each operation, compared as sets: AWS promises no order of members.

use super::Kinesis;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const NULL: &str = "Member must not be null";
const NAME: &str = "Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+";
const NOT_EMPTY: &str = "Member must have length greater than or equal to 1";

/// One line per violation: value as printed, path, constraint.
async fn assert_violations(
    kinesis: &Kinesis,
    operation: &str,
    input: Value,
    expected: &[(&str, &str, &str)],
) {
    let shown = input.to_string();
    let (kind, message) = kinesis.refused(operation, input).await;
    assert_eq!(kind, "ValidationException", "{operation} {shown}");
    let plural = if expected.len() == 1 { "" } else { "s" };
    let head = format!("{} validation error{plural} detected: ", expected.len());
    let listed = message.strip_prefix(&head).unwrap_or_else(|| panic!("{operation} {shown}: {message}"));
    let found: BTreeSet<String> = listed.split("; ").map(str::to_owned).collect();
    let line = |(value, path, constraint): &(&str, &str, &str)| {
        format!("Value {value} at '{path}' failed to satisfy constraint: {constraint}")
    };
    assert_eq!(found, expected.iter().map(line).collect(), "{operation} {shown}");
}

// covers: CreateStream, PutRecord, PutRecords, GetShardIterator, GetRecords validation
// covers: AddTagsToStream, RemoveTagsFromStream, TagResource, UntagResource, ListTagsForResource validation
// covers: IncreaseStreamRetentionPeriod, DecreaseStreamRetentionPeriod, UpdateStreamMode validation
// covers: UpdateMaxRecordSize, UpdateStreamWarmThroughput, UpdateStreamRecordDistributionStrategy validation
// covers: EnableEnhancedMonitoring, DisableEnhancedMonitoring, StartStreamEncryption, StopStreamEncryption validation
// covers: SplitShard, MergeShards, UpdateShardCount, RegisterStreamConsumer, ListStreamConsumers validation
// covers: PutResourcePolicy, GetResourcePolicy, DeleteResourcePolicy, UpdateAccountSettings validation
#[tokio::test(flavor = "multi_thread")]
async fn missing_members_are_listed_in_one_reply() {
    let kinesis = Kinesis::start().await;
    let cases: [(&str, &[&str]); 29] = [
        ("CreateStream", &["streamName"]),
        ("PutRecord", &["data"]),
        ("PutRecords", &["records"]),
        ("GetShardIterator", &["shardId", "shardIteratorType"]),
        ("GetRecords", &["shardIterator"]),
        ("AddTagsToStream", &["tags"]),
        ("RemoveTagsFromStream", &["tagKeys"]),
        ("TagResource", &["tags", "resourceARN"]),
        ("UntagResource", &["tagKeys", "resourceARN"]),
        ("ListTagsForResource", &["resourceARN"]),
        ("IncreaseStreamRetentionPeriod", &["retentionPeriodHours"]),
        ("DecreaseStreamRetentionPeriod", &["retentionPeriodHours"]),
        ("UpdateStreamMode", &["streamModeDetails", "streamARN"]),
        ("UpdateMaxRecordSize", &["maxRecordSizeInKiB"]),
        ("UpdateStreamWarmThroughput", &["warmThroughputMiBps"]),
        ("UpdateStreamRecordDistributionStrategy", &["recordDistributionStrategy", "streamARN"]),
        ("EnableEnhancedMonitoring", &["shardLevelMetrics"]),
        ("DisableEnhancedMonitoring", &["shardLevelMetrics"]),
        ("StartStreamEncryption", &["encryptionType", "keyId"]),
        ("StopStreamEncryption", &["encryptionType", "keyId"]),
        ("SplitShard", &["newStartingHashKey", "shardToSplit"]),
        ("MergeShards", &["shardToMerge", "adjacentShardToMerge"]),
        ("UpdateShardCount", &["scalingType", "targetShardCount"]),
        ("RegisterStreamConsumer", &["consumerName", "streamARN"]),
        ("ListStreamConsumers", &["streamARN"]),
        ("PutResourcePolicy", &["policy", "resourceARN"]),
        ("GetResourcePolicy", &["resourceARN"]),
        ("DeleteResourcePolicy", &["resourceARN"]),
        ("UpdateAccountSettings", &["minimumThroughputBillingCommitment"]),
    ];
    for (operation, paths) in cases {
        let expected: Vec<_> = paths.iter().map(|path| ("null", *path, NULL)).collect();
        assert_violations(&kinesis, operation, json!({}), &expected).await;
    }
    kinesis.create("s", 1).await;
    let input = json!({"StreamName": "s", "Data": ""});
    assert_violations(&kinesis, "PutRecord", input, &[("null", "partitionKey", NULL)]).await;
    let (_, message) = kinesis.refused("GetShardIterator", json!({})).await;
    assert_eq!(
        message,
        "2 validation errors detected: Value null at 'shardId' failed to satisfy constraint: Member must not be null; \
         Value null at 'shardIteratorType' failed to satisfy constraint: Member must not be null"
    );
}

// covers: DescribeStream, DescribeStreamSummary, DeleteStream, ListShards, ListTagsForStream validation
#[tokio::test(flavor = "multi_thread")]
async fn empty_names_break_pattern_and_length() {
    let kinesis = Kinesis::start().await;
    for operation in
        ["DescribeStream", "DescribeStreamSummary", "DeleteStream", "ListShards", "ListTagsForStream"]
    {
        let expected = [("''", "streamName", NAME), ("''", "streamName", NOT_EMPTY)];
        assert_violations(&kinesis, operation, json!({"StreamName": ""}), &expected).await;
    }
    let long = "x".repeat(129);
    let most = "Member must have length less than or equal to 128";
    let shown = format!("'{long}'");
    assert_violations(&kinesis, "DeleteStream", json!({"StreamName": long}), &[(&shown, "streamName", most)])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_out_of_bounds_are_told() {
    let kinesis = Kinesis::start().await;
    let least = "Member must have value greater than or equal to 1";
    let most = "Member must have value less than or equal to 10000";
    let cases = [
        ("DescribeStream", "Limit", "limit"),
        ("ListStreams", "Limit", "limit"),
        ("ListShards", "MaxResults", "maxResults"),
    ];
    for (operation, member, path) in cases {
        for (value, shown, constraint) in
            [(-1i64, "'-1'", least), (0, "'0'", least), (10_001, "'10001'", most)]
        {
            assert_violations(&kinesis, operation, json!({member: value}), &[(shown, path, constraint)])
                .await;
        }
    }
    let input = json!({"ShardIterator": "", "Limit": 100_000_000_000i64});
    let expected = [("'2147483647'", "limit", most), ("''", "shardIterator", NOT_EMPTY)];
    assert_violations(&kinesis, "GetRecords", input, &expected).await;
    let input = json!({"StreamName": "s", "ShardCount": 0});
    assert_violations(&kinesis, "CreateStream", input, &[("'0'", "shardCount", least)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn enums_and_patterns_are_told() {
    let kinesis = Kinesis::start().await;
    let kinds = "Member must satisfy enum value set: [AFTER_SEQUENCE_NUMBER, LATEST, AT_TIMESTAMP, \
                 AT_SEQUENCE_NUMBER, TRIM_HORIZON]";
    let number = r"Member must satisfy regular expression pattern: 0|([1-9]\d{0,128})";
    let input = json!({"StreamName": "s", "ShardId": "a b", "ShardIteratorType": "x", "StartingSequenceNumber": "0x"});
    let expected = [
        ("'a b'", "shardId", NAME),
        ("'x'", "shardIteratorType", kinds),
        ("'0x'", "startingSequenceNumber", number),
    ];
    assert_violations(&kinesis, "GetShardIterator", input, &expected).await;
    let modes = "Member must satisfy enum value set: [PROVISIONED, ON_DEMAND]";
    let input = json!({"StreamName": "s", "ShardCount": 1, "StreamModeDetails": {"StreamMode": "x"}});
    assert_violations(&kinesis, "CreateStream", input, &[("'x'", "streamModeDetails.streamMode", modes)])
        .await;
    let input = json!({"StreamName": "s", "ShardFilter": {}});
    assert_violations(&kinesis, "ListShards", input, &[("null", "shardFilter.type", NULL)]).await;
    let arn = r"Member must satisfy regular expression pattern: arn:aws.*:kinesis:.*:\d{12}:stream/\S+";
    assert_violations(&kinesis, "DescribeStream", json!({"StreamARN": "x"}), &[("'x'", "streamARN", arn)])
        .await;
}

// covers: DeregisterStreamConsumer, DescribeStreamConsumer validation
#[tokio::test(flavor = "multi_thread")]
async fn arns_lists_and_maps_are_judged_as_the_model_says() {
    let kinesis = Kinesis::start().await;
    let pattern = |text: &str| format!("Member must satisfy regular expression pattern: {text}");
    let consumer = pattern(
        r"^(arn):aws.*:kinesis:.*:\d{12}:.*stream\/[a-zA-Z0-9_.-]+\/consumer\/[a-zA-Z0-9_.-]+:[0-9]+",
    );
    let resource = pattern(r"arn:aws.*:kinesis:.*:\d{12}:.*(stream|channel|queue)/\S+");
    let arn = "arn:aws:kinesis:us-east-1:123456789012:stream/s";
    let shown = format!("'{arn}'");
    for operation in ["DescribeStreamConsumer", "DeregisterStreamConsumer"] {
        let expected = [(shown.as_str(), "consumerARN", consumer.as_str())];
        assert_violations(&kinesis, operation, json!({"ConsumerARN": arn}), &expected).await;
    }
    let input = json!({"ResourceARN": "arn:aws:s3:::bucket"});
    let expected = [("'arn:aws:s3:::bucket'", "resourceARN", resource.as_str())];
    assert_violations(&kinesis, "GetResourcePolicy", input, &expected).await;
    let metrics = "Member must satisfy constraint: [Member must satisfy enum value set: [IncomingBytes, IncomingRecords, \
                   OutgoingBytes, OutgoingRecords, WriteProvisionedThroughputExceeded, \
                   ReadProvisionedThroughputExceeded, IteratorAgeMilliseconds, ALL]]";
    let (_, message) = kinesis.refused("EnableEnhancedMonitoring", json!({"ShardLevelMetrics": ["x"]})).await;
    assert!(message.ends_with(metrics), "{message}");
    let input = json!({"StreamName": "s", "Tags": {}});
    assert_violations(&kinesis, "AddTagsToStream", input, &[("'{}'", "tags", NOT_EMPTY)]).await;
    let input = json!({"StreamName": "s", "ShardCount": 1, "Tags": {}});
    assert_violations(&kinesis, "CreateStream", input, &[("'{}'", "tags", NOT_EMPTY)]).await;
    let keys = "Member must satisfy constraint: [Member must have length less than or equal to 128, Member must have \
                length greater than or equal to 1]";
    let (_, message) = kinesis.refused("RemoveTagsFromStream", json!({"TagKeys": [""]})).await;
    assert!(message.ends_with(keys), "{message}");
    let commitment =
        json!({"MinimumThroughputBillingCommitment": {"Status": "ENABLED_UNTIL_EARLIEST_ALLOWED_END"}});
    let status = "Member must satisfy enum value set: [ENABLED, DISABLED]";
    let path = "minimumThroughputBillingCommitment.status";
    let expected = [("'ENABLED_UNTIL_EARLIEST_ALLOWED_END'", path, status)];
    assert_violations(&kinesis, "UpdateAccountSettings", commitment, &expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_of_put_records_are_checked_each_in_its_place() {
    let kinesis = Kinesis::start().await;
    let hash = r"Member must satisfy regular expression pattern: 0|([1-9]\d{0,38})";
    let long = "Member must have length less than or equal to 256";
    let key = "k".repeat(257);
    let input = json!({"StreamName": "s", "Records": [
        {"Data": "", "PartitionKey": "a"},
        {"PartitionKey": "", "ExplicitHashKey": "01"},
        {"Data": "", "PartitionKey": key.clone()},
    ]});
    let shown = format!("'{key}'");
    let expected = [
        ("''", "records.2.member.partitionKey", NOT_EMPTY),
        ("'01'", "records.2.member.explicitHashKey", hash),
        ("null", "records.2.member.data", NULL),
        (shown.as_str(), "records.3.member.partitionKey", long),
    ];
    assert_violations(&kinesis, "PutRecords", input, &expected).await;
    assert_violations(&kinesis, "PutRecords", json!({"Records": []}), &[("'[]'", "records", NOT_EMPTY)])
        .await;
    let entry = json!({"Data": "", "PartitionKey": "a"});
    let (kind, message) =
        kinesis.refused("PutRecords", json!({"StreamName": "s", "Records": vec![entry; 501]})).await;
    assert_eq!(kind, "ValidationException");
    assert!(message.ends_with("Member must have length less than or equal to 500"), "{message}");
    let empty = vec![json!({}); 400];
    let (_, message) = kinesis.refused("PutRecords", json!({"StreamName": "s", "Records": empty})).await;
    assert!(message.starts_with("10 validation errors detected: "), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_the_wrong_kind_are_serialization_exceptions() {
    let kinesis = Kinesis::start().await;
    let cases = [
        (
            "DescribeStream",
            json!({"StreamName": true}),
            "class java.lang.Boolean can not be converted to an String",
        ),
        ("ListStreams", json!({"Limit": "x"}), "class java.lang.String can not be converted to an Integer"),
        ("PutRecords", json!({"Records": "x"}), "Expected list or null"),
        ("PutRecords", json!({"Records": ["x"]}), "Expected null"),
        (
            "PutRecord",
            json!({"Data": "hello"}),
            "'hello' can not be converted to a Blob: Base64 encoded length is expected a multiple of 4 bytes but found: 5",
        ),
        (
            "GetShardIterator",
            json!({"Timestamp": "x"}),
            "class java.lang.String can not be converted to milliseconds since epoch",
        ),
        ("CreateStream", json!({"Tags": []}), "Start of list found where not expected"),
        (
            "DeleteStream",
            json!({"EnforceConsumerDeletion": "yes"}),
            "'YES' can not be converted to an Boolean",
        ),
        ("GetRecords", json!({"ShardIterator": {}}), "Start of structure or map found where not expected."),
    ];
    for (operation, input, message) in cases {
        kinesis.assert_refused(operation, input, "SerializationException", message).await;
    }
}
