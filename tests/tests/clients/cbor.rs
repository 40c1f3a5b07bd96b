//! CBOR 1.1 as the Java SDKs speak it: raw requests with the bytes that they send, replies taken apart byte by byte.
//!
//! A reader of its own, because a general one takes tag 1 for seconds where this protocol means milliseconds.

mod value;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tempfile::TempDir;
use tidemill_tests::{Broker, Connection, Reply};
use value::{Value, decode, hex, object, text};

const CBOR: &str = "application/x-amz-cbor-1.1";
const JSON: &str = "application/x-amz-json-1.1";
/// PutRecord of "hi" under the key a into s1: a map without a length, as Jackson writes it.
const PUT_RECORD: &str = "bf6a53747265616d4e616d6562733164446174614268696c506172746974696f6e4b65796161ff";

/// A reply of GetRecords with one record of 1700000000123 ms, and an error, as the service writes them.
const GET_RECORDS_REPLY: &str = "bf675265636f7264739fbf6e53657175656e63654e756d6265726131781b417070726f78696d61746541\
    72726976616c54696d657374616d70c11b0000018bcfe5687b64446174614268696c506172746974696f6e4b65796161ffff714e6578745368\
    6172644974657261746f7263414141724d696c6c6973426568696e644c617465737400ff";
const ERROR_REPLY: &str =
    "bf665f5f7479706578195265736f757263654e6f74466f756e64457863657074696f6e676d6573736167656178ff";

#[test]
fn the_replies_of_the_service_itself_are_read() -> Result<()> {
    let page = decode(&hex(GET_RECORDS_REPLY))?;
    let Some(Value::List(records)) = page.at("Records") else { anyhow::bail!("{page:?}") };
    let time = Value::Tagged(1, Box::new(Value::Number(1_700_000_000_123)));
    ensure!(records[0].at("ApproximateArrivalTimestamp") == Some(&time), "{records:?}");
    ensure!(records[0].at("Data") == Some(&Value::Bytes(b"hi".to_vec())), "{records:?}");
    ensure!(page.at("NextShardIterator") == Some(&text_value("AAA")), "{page:?}");
    let error = decode(&hex(ERROR_REPLY))?;
    ensure!(error.at("__type") == Some(&text_value("ResourceNotFoundException")), "{error:?}");
    ensure!(error.at("message") == Some(&text_value("x")), "{error:?}");
    Ok(())
}

async fn post(connection: &mut Connection, operation: &str, kind: &str, body: &[u8]) -> Result<Reply> {
    let target = format!("Kinesis_20131202.{operation}");
    connection.request("POST", "/", &[("content-type", kind), ("x-amz-target", &target)], body).await
}

/// Sends CBOR, and gives status and decoded reply, which must be CBOR too.
async fn call(connection: &mut Connection, operation: &str, body: &[u8]) -> Result<(u16, Option<Value>)> {
    let reply = post(connection, operation, CBOR, body).await?;
    ensure!(reply.header("content-type") == Some(CBOR), "{operation}: not in CBOR: {reply:?}");
    let value = if reply.body.is_empty() { None } else { Some(decode(&reply.body)?) };
    Ok((reply.status, value))
}

async fn ok(connection: &mut Connection, operation: &str, body: &[u8]) -> Result<Value> {
    let (status, value) = call(connection, operation, body).await?;
    ensure!(status == 200, "{operation}: {status} {value:?}");
    Ok(value.unwrap_or(Value::Null))
}

async fn broker_with_stream(home: &TempDir) -> Result<(Broker, Connection)> {
    let broker = Broker::start(home.path(), &[]).await?;
    broker.kinesis().create_stream("s1", 1).await?;
    let connection = broker.connect().await?;
    Ok((broker, connection))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_java_sdk_sends_is_stored_and_given_back_in_cbor() -> Result<()> {
    let home = TempDir::new()?;
    let (_broker, mut connection) = broker_with_stream(&home).await?;
    let put = ok(&mut connection, "PutRecord", &hex(PUT_RECORD)).await?;
    ensure!(put.at("ShardId") == Some(&Value::Text("shardId-000000000000".into())), "{put:?}");
    let number = put.at("SequenceNumber").context("a number")?.clone();

    // numbers as the SDK writes them: the shortest form that holds them; a list without a length
    let batch = "bf6a53747265616d4e616d65627331675265636f7264739f\
                 bf64446174614279306c506172746974696f6e4b65796161ff\
                 bf64446174614279316c506172746974696f6e4b65796162ff\
                 ffff";
    let many = ok(&mut connection, "PutRecords", &hex(batch)).await?;
    ensure!(many.at("FailedRecordCount") == Some(&Value::Number(0)), "{many:?}");

    let iterator = object(&[
        ("StreamName", text("s1")),
        ("ShardId", text("shardId-000000000000")),
        ("ShardIteratorType", text("TRIM_HORIZON")),
    ]);
    let iterator = ok(&mut connection, "GetShardIterator", &iterator).await?;
    let Some(Value::Text(iterator)) = iterator.at("ShardIterator") else { anyhow::bail!("{iterator:?}") };
    let page = ok(&mut connection, "GetRecords", &object(&[("ShardIterator", text(iterator))])).await?;
    ensure!(page.at("MillisBehindLatest") == Some(&Value::Number(0)), "{page:?}");
    let Some(Value::List(records)) = page.at("Records") else { anyhow::bail!("{page:?}") };
    let data: Vec<_> = records.iter().map(|record| record.at("Data").cloned()).collect();
    let bytes = |data: &[u8]| Some(Value::Bytes(data.to_vec()));
    ensure!(data == [bytes(b"hi"), bytes(b"y0"), bytes(b"y1")], "data is bytes, not base64: {data:?}");
    ensure!(records[0].at("SequenceNumber") == Some(&number), "{records:?}");
    ensure!(records[0].at("PartitionKey") == Some(&text_value("a")), "{records:?}");

    // the same record in JSON: its time in seconds there, in milliseconds under tag 1 here
    let body = json!({ "ShardIterator": iterator }).to_string();
    let in_json = post(&mut connection, "GetRecords", JSON, body.as_bytes()).await?;
    let seconds = in_json.json()?["Records"][0]["ApproximateArrivalTimestamp"].as_f64().context("seconds")?;
    let Some(Value::Tagged(1, ms)) = records[0].at("ApproximateArrivalTimestamp") else {
        anyhow::bail!("a time has tag 1: {records:?}")
    };
    let Value::Number(ms) = **ms else { anyhow::bail!("a time is a whole number: {ms:?}") };
    ensure!(ms == seconds_to_ms(seconds), "{ms} ms and {seconds} s");
    Ok(())
}

fn text_value(text: &str) -> Value {
    Value::Text(text.to_owned())
}

#[expect(clippy::cast_possible_truncation, reason = "a time of this century in milliseconds")]
fn seconds_to_ms(seconds: f64) -> i128 {
    (seconds * 1000.0).round() as i128
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn times_are_read_in_milliseconds_whether_they_have_a_tag_or_not() -> Result<()> {
    let home = TempDir::new()?;
    let (_broker, mut connection) = broker_with_stream(&home).await?;
    ok(&mut connection, "PutRecord", &hex(PUT_RECORD)).await?;
    // 2023-11-14T22:13:20.123Z; as an integer and as a double
    let (whole, double) = ("1b0000018bcfe5687b", "fb4278bcfe5687b000");
    for time in [format!("c1{whole}"), whole.to_owned(), format!("c1{double}"), double.to_owned()] {
        let body = object(&[
            ("StreamName", text("s1")),
            ("ShardId", text("shardId-000000000000")),
            ("ShardIteratorType", text("AT_TIMESTAMP")),
            ("Timestamp", hex(&time)),
        ]);
        let iterator = ok(&mut connection, "GetShardIterator", &body).await?;
        let Some(Value::Text(iterator)) = iterator.at("ShardIterator") else { anyhow::bail!("{iterator:?}") };
        let page = ok(&mut connection, "GetRecords", &object(&[("ShardIterator", text(iterator))])).await?;
        let Some(Value::List(records)) = page.at("Records") else { anyhow::bail!("{page:?}") };
        ensure!(records.len() == 1, "{time}: a past time comes before the record");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_come_in_the_encoding_of_the_request() -> Result<()> {
    let home = TempDir::new()?;
    let (mut broker, mut connection) = broker_with_stream(&home).await?;
    let absent = object(&[("StreamName", text("absent"))]);
    let cases = [
        ("DescribeStream", absent, "ResourceNotFoundException"),
        ("DescribeStream", hex("bf6a53747265616d4e616d6500ff"), "SerializationException"),
        ("CreateStream", hex("bfff"), "ValidationException"),
        ("GetRecords", object(&[("ShardIterator", text("x"))]), "InvalidArgumentException"),
        ("NoSuchOperation", hex("a0"), "UnknownOperationException"),
        // cut short; a break outside of anything; bytes behind the value; no map
        ("DescribeStream", hex("bf6a5374"), "SerializationException"),
        ("DescribeStream", hex("ff"), "SerializationException"),
        ("DescribeStream", hex("bfff00"), "SerializationException"),
        ("DescribeStream", hex("01"), "SerializationException"),
    ];
    for (operation, body, wanted) in cases {
        let (status, error) = call(&mut connection, operation, &body).await?;
        let error = error.context("an error has a body")?;
        ensure!(status == 400, "{operation}: {status} {error:?}");
        ensure!(error.at("__type") == Some(&text_value(wanted)), "{operation}: {error:?}");
    }
    let in_json = post(&mut connection, "DescribeStream", JSON, br#"{"StreamName":"absent"}"#).await?;
    ensure!(in_json.header("content-type") == Some(JSON), "{in_json:?}");
    ensure!(in_json.json()?["__type"] == "ResourceNotFoundException");
    broker.assert_alive().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_without_output_answer_with_no_bytes() -> Result<()> {
    let home = TempDir::new()?;
    let (_broker, mut connection) = broker_with_stream(&home).await?;
    let tags = [
        hex("bf"),
        text("StreamName"),
        text("s1"),
        text("Tags"),
        hex("bf"),
        text("k"),
        text("v"),
        hex("ffff"),
    ];
    let reply = post(&mut connection, "AddTagsToStream", CBOR, &tags.concat()).await?;
    ensure!((reply.status, reply.body.len()) == (200, 0), "{reply:?}");
    // with the length of each map and list told, as other encoders do
    let listed = ok(&mut connection, "ListTagsForStream", &hex("a16a53747265616d4e616d65627331")).await?;
    let Some(Value::List(tags)) = listed.at("Tags") else { anyhow::bail!("{listed:?}") };
    ensure!(tags.len() == 1 && tags[0].at("Value") == Some(&text_value("v")), "{listed:?}");
    ensure!(listed.at("HasMoreTags") == Some(&Value::Bool(false)), "{listed:?}");
    Ok(())
}
