//! What is wrong below the API: bodies, methods, lengths, connections.

use crate::fixture::{Fixture, JSON, assert_exception, put_record};
use anyhow::{Context, Result};
use serde_json::json;
use std::time::Duration;

/// The largest body that is taken.
const BODY_BYTES_MAX: usize = 16 << 20;

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
