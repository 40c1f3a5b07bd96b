//! Calls of the API that break its rules.

use crate::fixture::{Fixture, STREAM, assert_exception, put_record};
use anyhow::Result;
use serde_json::{Value, json};

fn put_records(count: usize, change: &Value) -> Value {
    let mut entries = vec![json!({ "PartitionKey": "k", "Data": "aGk=" }); count];
    if let Some(last) = entries.last_mut() {
        for (name, value) in change.as_object().into_iter().flatten() {
            last[name] = value.clone();
        }
    }
    json!({ "StreamName": STREAM, "Records": entries })
}

#[tokio::test]
async fn puts_that_break_a_rule_get_the_documented_exception_and_write_nothing() -> Result<()> {
    let mut fixture = Fixture::new().await?;
    let mebibyte = base64_simd::STANDARD.encode_to_string(vec![7u8; 1 << 20]);
    let too_long = base64_simd::STANDARD.encode_to_string(vec![7u8; (1 << 20) + 1]);
    let long_key = "k".repeat(257);
    let validation = "ValidationException";
    let cases = [
        ("PutRecord", put_record(&json!({ "StreamName": "none" })), "ResourceNotFoundException"),
        ("PutRecord", put_record(&json!({ "StreamName": "bad name" })), validation),
        ("PutRecord", put_record(&json!({ "StreamName": "" })), validation),
        ("PutRecord", put_record(&json!({ "StreamName": "s".repeat(129) })), validation),
        ("PutRecord", put_record(&json!({ "StreamName": null })), "InvalidArgumentException"),
        ("PutRecord", put_record(&json!({ "StreamName": 5 })), "SerializationException"),
        ("PutRecord", put_record(&json!({ "PartitionKey": "" })), validation),
        ("PutRecord", put_record(&json!({ "PartitionKey": null })), validation),
        ("PutRecord", put_record(&json!({ "PartitionKey": long_key })), validation),
        ("PutRecord", put_record(&json!({ "Data": null })), validation),
        ("PutRecord", put_record(&json!({ "Data": "not base64!" })), "SerializationException"),
        ("PutRecord", put_record(&json!({ "Data": "aGk" })), "SerializationException"),
        ("PutRecord", put_record(&json!({ "Data": [1] })), "SerializationException"),
        ("PutRecord", put_record(&json!({ "Data": too_long })), validation),
        // with its key it is one byte above a mebibyte
        ("PutRecord", put_record(&json!({ "Data": mebibyte })), validation),
        ("PutRecord", put_record(&json!({ "ExplicitHashKey": "-1" })), validation),
        ("PutRecord", put_record(&json!({ "ExplicitHashKey": "01" })), validation),
        ("PutRecord", put_record(&json!({ "ExplicitHashKey": "x" })), validation),
        (
            "PutRecord",
            put_record(&json!({ "ExplicitHashKey": "340282366920938463463374607431768211456" })),
            "InvalidArgumentException",
        ),
        ("PutRecord", put_record(&json!({ "SequenceNumberForOrdering": "1" })), "InvalidArgumentException"),
        ("PutRecord", put_record(&json!({ "SequenceNumberForOrdering": "x" })), validation),
        ("PutRecords", put_records(0, &json!({})), validation),
        ("PutRecords", put_records(501, &json!({})), validation),
        ("PutRecords", put_records(3, &json!({ "PartitionKey": "" })), validation),
        ("PutRecords", put_records(3, &json!({ "Data": too_long })), validation),
        (
            "PutRecords",
            put_records(3, &json!({ "ExplicitHashKey": "340282366920938463463374607431768211456" })),
            "InvalidArgumentException",
        ),
        ("PutRecords", json!({ "StreamName": STREAM, "Records": "all" }), "SerializationException"),
        ("PutRecords", json!({ "StreamName": "none", "Records": [] }), validation),
    ];
    for (operation, input, name) in cases {
        let body = input.to_string();
        let what = format!("{operation} {}", &body[..body.len().min(200)]);
        assert_exception(&fixture.call(operation, body.as_bytes()).await?, name, &what);
        fixture.assert_usable(&what).await?;
    }
    // 11 entries of a mebibyte are more than 10 MiB
    let entries = vec![
        json!({ "PartitionKey": "k", "Data": base64_simd::STANDARD.encode_to_string(vec![7u8; 1 << 19]) });
        21
    ];
    let body = json!({ "StreamName": STREAM, "Records": entries }).to_string();
    assert_exception(
        &fixture.call("PutRecords", body.as_bytes()).await?,
        "InvalidArgumentException",
        "10.5 MiB",
    );
    fixture.assert_usable("a request of 10.5 MiB").await?;
    fixture.assert_nothing_written().await
}

#[tokio::test]
async fn reads_that_break_a_rule_get_the_documented_exception() -> Result<()> {
    let mut fixture = Fixture::new().await?;
    let mut kinesis = fixture.broker.kinesis();
    let iterator = kinesis.iterator(STREAM, "shardId-000000000000", "TRIM_HORIZON", &Value::Null).await?;
    let mut garbled = iterator.clone().into_bytes();
    garbled[20] = if garbled[20] == b'A' { b'B' } else { b'A' };
    let garbled = String::from_utf8(garbled)?;
    // of another broker: another directory, another secret
    let other = Fixture::new().await?;
    let foreign =
        other.broker.kinesis().iterator(STREAM, "shardId-000000000000", "TRIM_HORIZON", &Value::Null).await?;
    // of an earlier stream of the same name
    kinesis.create_stream("again", 1).await?;
    let stale = kinesis.iterator("again", "shardId-000000000000", "LATEST", &Value::Null).await?;
    kinesis.ok("DeleteStream", &json!({ "StreamName": "again" })).await?;
    let gone = json!({ "ShardIterator": stale });
    assert_eq!(kinesis.refused("GetRecords", &gone).await?, "ResourceNotFoundException", "deleted");
    kinesis.create_stream("again", 1).await?;
    assert_eq!(kinesis.refused("GetRecords", &gone).await?, "ResourceNotFoundException", "made again");
    kinesis.ok("DeleteStream", &json!({ "StreamName": "again" })).await?;

    let shard = |change: Value| {
        let mut input = json!({ "StreamName": STREAM, "ShardId": "shardId-000000000000", "ShardIteratorType": "TRIM_HORIZON" });
        for (name, value) in change.as_object().into_iter().flatten() {
            input[name] = value.clone();
        }
        ("GetShardIterator", input)
    };
    let (validation, invalid, missing) =
        ("ValidationException", "InvalidArgumentException", "ResourceNotFoundException");
    let number = "49646437577175378652512468275250536580403374760793210930";
    let cases = [
        (("GetRecords", json!({ "ShardIterator": garbled })), invalid),
        (("GetRecords", json!({ "ShardIterator": foreign })), invalid),
        (("GetRecords", json!({ "ShardIterator": "AAAA" })), invalid),
        (("GetRecords", json!({ "ShardIterator": "" })), validation),
        (("GetRecords", json!({ "ShardIterator": "A".repeat(513) })), validation),
        (("GetRecords", json!({})), validation),
        (("GetRecords", json!({ "ShardIterator": iterator, "Limit": 0 })), validation),
        (("GetRecords", json!({ "ShardIterator": iterator, "Limit": -1 })), validation),
        (("GetRecords", json!({ "ShardIterator": iterator, "Limit": 10_001 })), validation),
        (("GetRecords", json!({ "ShardIterator": iterator, "Limit": "ten" })), "SerializationException"),
        (shard(json!({ "StreamName": "none" })), missing),
        (shard(json!({ "ShardId": "shardId-000000000009" })), missing),
        (shard(json!({ "ShardId": "nothing" })), missing),
        (shard(json!({ "ShardIteratorType": "MIDDLE" })), validation),
        (shard(json!({ "StartingSequenceNumber": number })), invalid),
        (shard(json!({ "ShardIteratorType": "AT_SEQUENCE_NUMBER" })), invalid),
        (
            shard(json!({ "ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": "12" })),
            invalid,
        ),
        (
            shard(json!({ "ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": number })),
            invalid,
        ),
        (
            shard(json!({ "ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": "0x" })),
            validation,
        ),
        (shard(json!({ "ShardIteratorType": "AT_TIMESTAMP" })), invalid),
        (shard(json!({ "ShardIteratorType": "AT_TIMESTAMP", "Timestamp": 99_999_999_999u64 })), invalid),
        (shard(json!({ "ShardIteratorType": "AT_TIMESTAMP", "Timestamp": "now" })), "SerializationException"),
        (("ListShards", json!({})), invalid),
        (("ListShards", json!({ "NextToken": "AAAA" })), invalid),
        (("ListShards", json!({ "StreamName": STREAM, "MaxResults": 0 })), validation),
        (("ListShards", json!({ "StreamName": STREAM, "NextToken": "AAAA" })), invalid),
        (("ListStreams", json!({ "Limit": -5 })), validation),
        (("DescribeStream", json!({ "StreamName": "none" })), missing),
        (("DescribeStream", json!({ "StreamName": STREAM, "Limit": -1 })), validation),
        (("CreateStream", json!({ "StreamName": STREAM, "ShardCount": 1 })), "ResourceInUseException"),
        (("CreateStream", json!({ "StreamName": "new", "ShardCount": 0 })), validation),
        (("CreateStream", json!({ "StreamName": "new", "ShardCount": -1 })), validation),
        (("CreateStream", json!({ "StreamName": "no/slash", "ShardCount": 1 })), validation),
        (("CreateStream", json!({ "ShardCount": 1 })), validation),
        (("DeleteStream", json!({ "StreamName": "none" })), missing),
    ];
    for ((operation, input), name) in cases {
        let what = format!("{operation} {input}");
        assert_exception(
            &fixture.call(operation, what[operation.len()..].trim().as_bytes()).await?,
            name,
            &what,
        );
        fixture.assert_usable(&what).await?;
    }
    fixture.assert_nothing_written().await
}
