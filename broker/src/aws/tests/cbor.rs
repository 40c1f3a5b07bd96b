//! The API in CBOR 1.1, as the Java SDKs speak it: requests in raw bytes, replies and errors in the same encoding.

use super::{Kinesis, Reply};
use http::StatusCode;
use serde_json::json;

const CBOR: &str = "application/x-amz-cbor-1.1";

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// A text of up to 255 bytes.
fn text(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).unwrap();
    let head = if length < 24 { vec![0x60 + length] } else { vec![0x78, length] };
    [&head, text.as_bytes()].concat()
}

fn holds(reply: &Reply, part: &[u8]) -> bool {
    reply.bytes.windows(part.len()).any(|window| window == part)
}

async fn refused(kinesis: &Kinesis, operation: &str, body: &[u8], kind: &str) -> Reply {
    let reply = kinesis.post(operation, CBOR, body.to_vec()).await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
    assert_eq!((reply.header("content-type"), reply.header("x-amzn-errortype")), (CBOR, kind));
    reply
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_java_sdk_puts_is_read_back_in_cbor_and_in_json() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s1", 1).await;
    let put = unhex("bf6a53747265616d4e616d6562733164446174614268696c506172746974696f6e4b65796161ff");
    let reply = kinesis.post("PutRecord", CBOR, put).await;
    assert_eq!((reply.status, reply.header("content-type")), (StatusCode::OK, CBOR));
    assert!(holds(&reply, b"shardId-000000000000"));
    let iterator = kinesis.iterator("s1", 0, json!({"ShardIteratorType": "TRIM_HORIZON"})).await;
    let page = kinesis.read(&iterator).await;
    assert_eq!(page["Records"][0]["Data"], "aGk=");
    assert_eq!(page["Records"][0]["ApproximateArrivalTimestamp"], json!(1_700_000_000.0));
    let read = [&[0xbf][..], b"\x6dShardIterator", &text(&iterator), &[0xff]].concat();
    let reply = kinesis.post("GetRecords", CBOR, read).await;
    assert_eq!(reply.status, StatusCode::OK);
    assert!(holds(&reply, &[b"\x64Data\x42hi".as_slice(), b"\x6cPartitionKey\x61a\xff\xff"].concat()));
    let arrival = [&b"\x78\x1bApproximateArrivalTimestamp\xc1\x1b"[..], &1_700_000_000_000u64.to_be_bytes()];
    assert!(holds(&reply, &arrival.concat()));
    let number = page["Records"][0]["SequenceNumber"].as_str().unwrap();
    assert!(holds(&reply, &text(number)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_in_milliseconds_is_a_place_to_read_from() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s1", 1).await;
    kinesis.put("s1", "a", "before").await;
    kinesis.clock.advance_ms(10);
    kinesis.put("s1", "a", "after").await;
    let ask = [
        &b"\xbf\x6aStreamName\x62s1\x67ShardId"[..],
        &text("shardId-000000000000"),
        b"\x71ShardIteratorType\x6cAT_TIMESTAMP\x69Timestamp\xc1\x1b",
        &1_700_000_000_005u64.to_be_bytes(),
        b"\xff",
    ];
    let reply = kinesis.post("GetShardIterator", CBOR, ask.concat()).await;
    assert_eq!(reply.status, StatusCode::OK);
    let start = reply.bytes.windows(13).position(|w| w == b"ShardIterator").unwrap() + 13;
    let (head, rest) = reply.bytes[start..].split_at(2);
    assert_eq!(head[0], 0x78);
    let iterator = std::str::from_utf8(&rest[..usize::from(head[1])]).unwrap();
    assert_eq!(kinesis.data_at(iterator).await, ["after"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_come_in_the_encoding_of_the_request() {
    let kinesis = Kinesis::start().await;
    let bare = |kind: &str| [&b"\xbf\x66__type"[..], &text(kind), b"\xff"].concat();
    let reply = refused(&kinesis, "ListStreams", b"\xbf", "SerializationException").await;
    assert_eq!(reply.bytes, bare("SerializationException"));
    let reply = refused(&kinesis, "ListStreams", b"{}", "SerializationException").await;
    assert_eq!(reply.bytes, bare("SerializationException"));
    let reply = refused(&kinesis, "Nonsense", b"\xbf\xff", "UnknownOperationException").await;
    assert_eq!(reply.bytes, bare("UnknownOperationException"));
    let reply = refused(&kinesis, "DescribeStream", b"\xbf\xff", "InvalidArgumentException").await;
    assert!(holds(&reply, b"\x67message"));
    let number = b"\xbf\x6aStreamName\x01\xff";
    let reply = refused(&kinesis, "DescribeStream", number, "SerializationException").await;
    assert!(holds(&reply, b"\x67Message"));
    let reply = refused(&kinesis, "PutRecord", b"\xbf\xff", "ValidationException").await;
    assert!(holds(&reply, b"Value null at 'data' failed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_body_is_told_in_cbor_unless_json_was_spoken() {
    let kinesis = Kinesis::start().await;
    for content_type in [CBOR, "text/plain", "application/json", ""] {
        let reply = kinesis.post("ListStreams", content_type, "").await;
        assert_eq!((reply.status, reply.header("content-type")), (StatusCode::BAD_REQUEST, CBOR));
        assert!(holds(&reply, b"SerializationException"));
        let reply = kinesis.post("Nonsense", content_type, "").await;
        assert!(holds(&reply, b"UnknownOperationException"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_without_output_answer_no_bytes() {
    let kinesis = Kinesis::start().await;
    let create = b"\xbf\x6aStreamName\x61s\x6aShardCount\x01\xff".to_vec();
    let reply = kinesis.post("CreateStream", &format!("{CBOR}; x=y"), create).await;
    assert_eq!((reply.status, reply.bytes.len(), reply.header("content-type")), (StatusCode::OK, 0, CBOR));
    let reply = kinesis.post("ListStreams", CBOR, b"\xa0".to_vec()).await;
    assert!(holds(&reply, b"\x6bStreamNames\x9f\x61s\xff"));
}
