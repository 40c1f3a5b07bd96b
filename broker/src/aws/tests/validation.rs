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

#[tokio::test(flavor = "multi_thread")]
async fn missing_members_are_listed_in_one_reply() {
    let kinesis = Kinesis::start().await;
    let cases: [(&str, &[&str]); 5] = [
        ("CreateStream", &["streamName"]),
        ("PutRecord", &["partitionKey", "data"]),
        ("PutRecords", &["records"]),
        ("GetShardIterator", &["shardId", "shardIteratorType"]),
        ("GetRecords", &["shardIterator"]),
    ];
    for (operation, paths) in cases {
        let expected: Vec<_> = paths.iter().map(|path| ("null", *path, NULL)).collect();
        assert_violations(&kinesis, operation, json!({}), &expected).await;
    }
    let (_, message) = kinesis.refused("GetShardIterator", json!({})).await;
    assert_eq!(
        message,
        "2 validation errors detected: Value null at 'shardId' failed to satisfy constraint: Member must not be null; \
         Value null at 'shardIteratorType' failed to satisfy constraint: Member must not be null"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_names_break_pattern_and_length() {
    let kinesis = Kinesis::start().await;
    for operation in ["DescribeStream", "DescribeStreamSummary", "DeleteStream", "ListShards"] {
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
