//! A small client of the Kinesis API over raw HTTP: enough to put, to read everything, and to see errors as they are.

use crate::history::Stored;
use crate::http::{Connection, Reply};
use crate::payload::id_of;
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::net::SocketAddr;
use tidemill_types::{SequenceNumber, ShardId};

/// Reads of one shard; each brings up to 10 MiB.
const READS_MAX: usize = 10_000;

/// What became of an entry of PutRecords.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutResult {
    /// Stored there.
    Stored(ShardId, SequenceNumber),
    /// Answered with an error code.
    Failed,
}

/// A client with one connection, which is made anew after it broke.
#[derive(Debug)]
pub struct Kinesis {
    addr: SocketAddr,
    connection: Option<Connection>,
}

impl Kinesis {
    /// A client of the broker at `addr`; connects when it is first used.
    pub fn new(addr: SocketAddr) -> Self {
        Self { addr, connection: None }
    }

    /// Calls an operation and gives the reply, whatever it says. After a broken connection the outcome is unknown.
    pub async fn call(&mut self, operation: &str, body: &[u8]) -> Result<Reply> {
        let target = format!("Kinesis_20131202.{operation}");
        let headers = [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", target.as_str())];
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(self.addr).await?,
        };
        let reply = connection.request("POST", "/", &headers, body).await?;
        if reply.header("connection") != Some("close") {
            self.connection = Some(connection);
        }
        Ok(reply)
    }

    /// Calls an operation that must succeed.
    pub async fn ok(&mut self, operation: &str, input: &Value) -> Result<Value> {
        let reply = self.call(operation, input.to_string().as_bytes()).await?;
        ensure!(reply.status == 200, "{operation} {input}: {} {}", reply.status, reply.text());
        if reply.body.is_empty() { Ok(Value::Null) } else { reply.json() }
    }

    /// Calls an operation that must fail with 400, and gives the name of the exception.
    pub async fn refused(&mut self, operation: &str, input: &Value) -> Result<String> {
        let reply = self.call(operation, input.to_string().as_bytes()).await?;
        ensure!(reply.status == 400, "{operation} {input}: {} {}", reply.status, reply.text());
        let name = reply.json()?["__type"].as_str().map(str::to_owned);
        name.with_context(|| format!("an error has a type: {}", reply.text()))
    }

    /// Creates a stream, which takes records when this returns.
    pub async fn create_stream(&mut self, stream: &str, shards: u32) -> Result<()> {
        self.ok("CreateStream", &json!({ "StreamName": stream, "ShardCount": shards })).await?;
        for _ in 0..500 {
            let summary = self.ok("DescribeStreamSummary", &json!({ "StreamName": stream })).await?;
            if summary["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE" {
                return Ok(());
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        bail!("the stream {stream} did not become active")
    }

    /// Puts records, key and data, and tells what became of each. An error: nobody knows what became of any.
    pub async fn put_records(
        &mut self,
        stream: &str,
        records: &[(String, Vec<u8>)],
    ) -> Result<Vec<PutResult>> {
        let entry = |(key, data): &(String, Vec<u8>)| json!({ "PartitionKey": key, "Data": base64_simd::STANDARD.encode_to_string(data) });
        let entries: Vec<Value> = records.iter().map(entry).collect();
        let reply = self.ok("PutRecords", &json!({ "StreamName": stream, "Records": entries })).await?;
        let results = reply["Records"].as_array().context("PutRecords answers with records")?;
        ensure!(results.len() == records.len(), "{} answers to {} records", results.len(), records.len());
        let failed = results.iter().filter(|result| result["ErrorCode"].is_string()).count();
        ensure!(reply["FailedRecordCount"] == failed, "the failures are counted: {reply}");
        results.iter().map(put_result).collect()
    }

    /// The ids of the stream's shards.
    pub async fn shards(&mut self, stream: &str) -> Result<Vec<String>> {
        let reply = self.ok("ListShards", &json!({ "StreamName": stream })).await?;
        let shards = reply["Shards"].as_array().context("ListShards answers with shards")?;
        shards.iter().map(|shard| Ok(text(&shard["ShardId"])?.to_owned())).collect()
    }

    /// An iterator of a shard; `more` holds the members beside stream, shard and type.
    pub async fn iterator(&mut self, stream: &str, shard: &str, kind: &str, more: &Value) -> Result<String> {
        let mut input = json!({ "StreamName": stream, "ShardId": shard, "ShardIteratorType": kind });
        for (name, value) in more.as_object().into_iter().flatten() {
            input[name] = value.clone();
        }
        Ok(text(&self.ok("GetShardIterator", &input).await?["ShardIterator"])?.to_owned())
    }

    /// All records from an iterator to the tip, as the API gives them.
    pub async fn records(&mut self, mut iterator: String) -> Result<Vec<Value>> {
        let mut all = Vec::new();
        for _ in 0..READS_MAX {
            let mut reply = self.ok("GetRecords", &json!({ "ShardIterator": iterator })).await?;
            if let Value::Array(records) = reply["Records"].take() {
                all.extend(records);
            }
            match reply["NextShardIterator"].as_str() {
                Some(next) if reply["MillisBehindLatest"] != 0 => next.clone_into(&mut iterator),
                _ => return Ok(all),
            }
        }
        bail!("the tip was not reached in {READS_MAX} reads")
    }

    /// Everything in a stream whose payloads were made by [`payload`](crate::payload).
    pub async fn read_all(&mut self, stream: &str) -> Result<Vec<Stored>> {
        let mut all = Vec::new();
        for shard in self.shards(stream).await? {
            let iterator = self.iterator(stream, &shard, "TRIM_HORIZON", &Value::Null).await?;
            for record in self.records(iterator).await? {
                let (id, number) =
                    (id_of(&decode_data(&record)?)?, text(&record["SequenceNumber"])?.parse()?);
                all.push(Stored { shard: shard.parse()?, number, id });
            }
        }
        Ok(all)
    }
}

/// The data of a record as GetRecords gives it.
pub fn decode_data(record: &Value) -> Result<Vec<u8>> {
    base64_simd::STANDARD.decode_to_vec(text(&record["Data"])?).context("data is base64")
}

fn put_result(result: &Value) -> Result<PutResult> {
    if result["ErrorCode"].is_string() {
        return Ok(PutResult::Failed);
    }
    Ok(PutResult::Stored(text(&result["ShardId"])?.parse()?, text(&result["SequenceNumber"])?.parse()?))
}

fn text(value: &Value) -> Result<&str> {
    value.as_str().with_context(|| format!("text was expected, found {value}"))
}
