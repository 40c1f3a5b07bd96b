//! What bad input gets over HTTP: the documented 4xx answer, nothing written, and a connection that is usable after.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::time::Duration;
use tempfile::TempDir;
use tidemill_tests::{Broker, Connection, Reply, create_stream, payload};

const STREAM: &str = "s";
const JSON: &str = "application/x-amz-json-1.1";
/// The largest body that is taken.
const BODY_BYTES_MAX: usize = 16 << 20;

/// A broker with a stream of two shards and one record in it.
struct Fixture {
    broker: Broker,
    connection: Connection,
    _home: TempDir,
}

impl Fixture {
    async fn new() -> Result<Self> {
        let home = TempDir::new()?;
        let broker = Broker::start(home.path(), &["--durability", "os"]).await?;
        create_stream(&broker, STREAM, 2).await?;
        broker.kinesis().put_records(STREAM, &[("seed".into(), payload(1, 50))]).await?;
        let connection = broker.connect().await?;
        Ok(Self { broker, connection, _home: home })
    }

    async fn call(&mut self, operation: &str, body: &[u8]) -> Result<Reply> {
        let target = format!("Kinesis_20131202.{operation}");
        let headers = [("content-type", JSON), ("x-amz-target", target.as_str())];
        self.connection.request("POST", "/", &headers, body).await
    }

    /// The same connection still does what it is for.
    async fn assert_usable(&mut self, after: &str) -> Result<()> {
        let reply = self.call("DescribeStreamSummary", br#"{"StreamName":"s"}"#).await;
        let reply = reply.with_context(|| format!("the connection is not usable after {after}"))?;
        ensure!(reply.status == 200, "after {after}: {} {}", reply.status, reply.text());
        Ok(())
    }

    /// The broker is well, and there is still the one record.
    async fn assert_nothing_written(mut self) -> Result<()> {
        let stored = self.broker.kinesis().read_all(STREAM).await?;
        ensure!(stored.iter().map(|record| record.id).eq([1]), "something was written: {stored:?}");
        let streams = self.broker.kinesis().ok("ListStreams", &json!({})).await?;
        ensure!(streams["StreamNames"] == json!([STREAM]), "{streams}");
        self.broker.assert_alive().await
    }
}

fn assert_exception(reply: &Reply, name: &str, what: &str) {
    assert_eq!(reply.status, 400, "{what}: {}", reply.text());
    let body: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    assert_eq!(body["__type"], name, "{what}: {}", reply.text());
    assert_eq!(reply.header("content-type"), Some(JSON), "{what}");
    assert!(reply.header("x-amzn-requestid").is_some(), "{what}");
}

/// A record of one entry, with members replaced or added.
fn put_record(change: &Value) -> Value {
    let mut input = json!({ "StreamName": STREAM, "PartitionKey": "k", "Data": "aGk=" });
    for (name, value) in change.as_object().into_iter().flatten() {
        input[name] = value.clone();
    }
    input
}

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

#[tokio::test]
async fn bodies_that_are_no_json_object_are_serialization_exceptions() -> Result<()> {
    let mut fixture = Fixture::new().await?;
    let deep = format!("{{\"StreamName\":{}", "[".repeat(100_000));
    let many = format!("{{\"StreamName\":\"s\",\"Records\":[{}{{}}]}}", "{},".repeat(200_000));
    let bodies: [&[u8]; 10] = [
        b"{",
        b"}",
        b"[]",
        b"null",
        b"\"text\"",
        b"{\"StreamName\":\"s\"} more",
        b"{\"StreamName\":\"\xff\xfe\",\"PartitionKey\":\"k\",\"Data\":\"\"}",
        b"\x00\x01\x02",
        deep.as_bytes(),
        many.as_bytes(),
    ];
    for body in bodies {
        let what = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        assert_exception(&fixture.call("PutRecord", body).await?, "SerializationException", &what);
        fixture.assert_usable(&what).await?;
    }
    assert_exception(&fixture.call("PutRecord", b"").await?, "SerializationException", "an empty body");
    fixture.assert_usable("an empty body").await?;
    fixture.assert_nothing_written().await
}

#[tokio::test]
async fn requests_that_are_no_call_of_the_api_are_refused_and_the_connection_goes_on() -> Result<()> {
    let mut fixture = Fixture::new().await?;
    let put = put_record(&json!({})).to_string();
    let json_type = ("content-type", JSON);
    let target = ("x-amz-target", "Kinesis_20131202.PutRecord");
    let foreign = ("x-amz-target", "DynamoDB_20120810.PutItem");
    type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], u16, &'a str);
    let cases: [Case<'_>; 11] = [
        (
            "POST",
            "/",
            &[json_type, ("x-amz-target", "Kinesis_20131202.Fly")],
            400,
            "UnknownOperationException",
        ),
        ("POST", "/", &[json_type, ("x-amz-target", "nonsense")], 400, "UnknownOperationException"),
        ("POST", "/", &[json_type], 400, "UnknownOperationException"),
        ("POST", "/", &[json_type, foreign], 400, "UnknownOperationException"),
        ("POST", "/", &[("content-type", "text/plain"), target], 404, "UnknownOperationException"),
        ("POST", "/", &[target], 404, "UnknownOperationException"),
        ("POST", "/", &[("content-type", "text/plain")], 403, "AccessDeniedException"),
        ("POST", "/", &[("content-type", "text/plain"), foreign], 403, "UnrecognizedClientException"),
        ("GET", "/", &[json_type, target], 403, "AccessDeniedException"),
        ("PUT", "/", &[json_type, target], 403, "AccessDeniedException"),
        ("DELETE", "/s", &[], 403, "AccessDeniedException"),
    ];
    for (method, path, headers, status, word) in cases {
        let what = format!("{method} {path} {headers:?}");
        let reply = fixture.connection.request(method, path, headers, put.as_bytes()).await?;
        assert_eq!(reply.status, status, "{what}: {}", reply.text());
        assert!(reply.text().contains(word), "{what}: {}", reply.text());
        fixture.assert_usable(&what).await?;
    }
    for path in ["/health/none", "/metrics/none"] {
        let reply = fixture.connection.get(path).await?;
        assert!((400..500).contains(&reply.status), "{path}: {reply:?}");
        fixture.assert_usable(path).await?;
    }
    let reply = fixture.connection.request("POST", "/metrics", &[], b"x").await?;
    assert!((400..500).contains(&reply.status), "{reply:?}");
    fixture.assert_usable("POST /metrics").await?;
    fixture.assert_nothing_written().await
}

#[tokio::test]
async fn what_is_no_http_gets_an_error_or_the_end_of_the_connection_and_others_are_served() -> Result<()> {
    let mut fixture = Fixture::new().await?;
    let cases: [&[u8]; 5] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 TLS to a clear port",
        b"nonsense\r\n\r\n",
        b"POST / HTTP/9.9\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: minus one\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n then no frames",
    ];
    for bytes in cases {
        let mut connection = fixture.broker.connect().await?;
        connection.send(bytes).await?;
        connection.finish_sending().await?;
        // an answer or none: either way it ends
        let _ = connection.reply().await;
        assert!(connection.closed_within(Duration::from_secs(10)).await, "{bytes:?}");
        fixture.assert_usable("nonsense on another connection").await?;
    }
    let mut connection = fixture.broker.connect().await?;
    let long = "x".repeat(1 << 20);
    let head = connection.head("POST", "/", &[("x-long", &long)], 0);
    let sent = connection.send(head.as_bytes()).await;
    if sent.is_ok() {
        let reply = connection.reply().await;
        assert!(reply.is_err() || reply.is_ok_and(|reply| (400..500).contains(&reply.status)));
    }
    fixture.assert_usable("a header of a mebibyte on another connection").await?;
    fixture.assert_nothing_written().await
}

#[tokio::test]
async fn a_body_that_is_too_large_is_413_and_where_it_was_read_the_connection_goes_on() -> Result<()> {
    let mut fixture = Fixture::new().await?;
    // sent whole: read and thrown away
    let reply = fixture.call("PutRecords", &vec![b' '; BODY_BYTES_MAX + 1]).await?;
    assert_eq!(reply.status, 413, "{}", reply.text());
    assert!(reply.text().contains("RequestEntityTooLargeException"), "{}", reply.text());
    fixture.assert_usable("a body of 16 MiB and a byte").await?;
    // only announced: refused at once, without waiting for what will never come
    for length in ["1099511627776", "18446744073709551615"] {
        let mut connection = fixture.broker.connect().await?;
        let head = format!(
            "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\ncontent-type: {JSON}\r\n\
             x-amz-target: Kinesis_20131202.PutRecords\r\n\r\n"
        );
        connection.send(head.as_bytes()).await?;
        let reply = tokio::time::timeout(Duration::from_secs(5), connection.reply()).await;
        let reply = reply.with_context(|| format!("{length} bytes announced"))??;
        assert!((400..500).contains(&reply.status), "{length}: {reply:?}");
    }
    fixture.assert_nothing_written().await
}

#[tokio::test]
async fn a_body_that_breaks_off_writes_nothing() -> Result<()> {
    let mut fixture = Fixture::new().await?;
    let body = put_record(&json!({})).to_string();
    let target = [("content-type", JSON), ("x-amz-target", "Kinesis_20131202.PutRecord")];
    for part in [0, 1, body.len() - 1] {
        let mut connection = fixture.broker.connect().await?;
        let head = connection.head("POST", "/", &target, body.len());
        connection.send(head.as_bytes()).await?;
        connection.send(&body.as_bytes()[..part]).await?;
        connection.finish_sending().await?;
        let reply = connection.reply().await;
        assert!(reply.is_err() || reply.is_ok_and(|reply| reply.status >= 400), "{part} bytes were enough");
    }
    // a valid beginning of a larger body is no body either
    let mut connection = fixture.broker.connect().await?;
    let head = connection.head("POST", "/", &target, body.len() + 10);
    connection.send(head.as_bytes()).await?;
    connection.send(body.as_bytes()).await?;
    drop(connection);
    fixture.assert_usable("others broke off").await?;
    fixture.assert_nothing_written().await
}

#[tokio::test]
async fn a_body_that_comes_slowly_is_taken_and_one_that_stalls_is_given_up_with_408() -> Result<()> {
    let mut fixture = Fixture::new().await?;
    let body = br#"{"StreamName":"s"}"#;
    let target = [("content-type", JSON), ("x-amz-target", "Kinesis_20131202.DescribeStreamSummary")];
    let mut slow = fixture.broker.connect().await?;
    slow.send(slow.head("POST", "/", &target, body.len()).as_bytes()).await?;
    for byte in body {
        slow.send(&[*byte]).await?;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(slow.reply().await?.status, 200);

    let mut stalled = fixture.broker.connect().await?;
    stalled.send(stalled.head("POST", "/", &target, body.len()).as_bytes()).await?;
    stalled.send(&body[..5]).await?;
    let (reply, usable) = tokio::join!(stalled.reply(), fixture.assert_usable("another stalls"));
    usable?;
    let reply = reply?;
    assert_eq!(reply.status, 408, "{reply:?}");
    assert!(stalled.closed_within(Duration::from_secs(5)).await, "a connection in the middle of a body ends");
    fixture.assert_nothing_written().await
}
