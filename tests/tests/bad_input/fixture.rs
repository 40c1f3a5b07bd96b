//! A broker with something in it, and what must hold of it after every bad request.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use tidemill_tests::{Broker, Connection, Reply, create_stream, payload};

pub(crate) const STREAM: &str = "s";
pub(crate) const JSON: &str = "application/x-amz-json-1.1";

/// A broker with a stream of two shards and one record in it.
pub(crate) struct Fixture {
    pub(crate) broker: Broker,
    pub(crate) connection: Connection,
    _home: TempDir,
}

impl Fixture {
    pub(crate) async fn new() -> Result<Self> {
        Self::logging("info").await
    }

    /// With a log of this level.
    pub(crate) async fn logging(level: &str) -> Result<Self> {
        let home = TempDir::new()?;
        let broker = Broker::start(home.path(), &["--durability", "os", "--log", level]).await?;
        create_stream(&broker, STREAM, 2).await?;
        broker.kinesis().put_records(STREAM, &[("seed".into(), payload(1, 50))]).await?;
        let connection = broker.connect().await?;
        Ok(Self { broker, connection, _home: home })
    }

    pub(crate) async fn call(&mut self, operation: &str, body: &[u8]) -> Result<Reply> {
        let target = format!("Kinesis_20131202.{operation}");
        let headers = [("content-type", JSON), ("x-amz-target", target.as_str())];
        self.connection.request("POST", "/", &headers, body).await
    }

    /// The same connection still does what it is for.
    pub(crate) async fn assert_usable(&mut self, after: &str) -> Result<()> {
        let reply = self.call("DescribeStreamSummary", br#"{"StreamName":"s"}"#).await;
        let reply = reply.with_context(|| format!("the connection is not usable after {after}"))?;
        ensure!(reply.status == 200, "after {after}: {} {}", reply.status, reply.text());
        Ok(())
    }

    /// The broker is well, and there is still the one record.
    pub(crate) async fn assert_nothing_written(mut self) -> Result<()> {
        let stored = self.broker.kinesis().read_all(STREAM).await?;
        ensure!(stored.iter().map(|record| record.id).eq([1]), "something was written: {stored:?}");
        let streams = self.broker.kinesis().ok("ListStreams", &json!({})).await?;
        ensure!(streams["StreamNames"] == json!([STREAM]), "{streams}");
        self.broker.assert_alive().await
    }
}

pub(crate) fn assert_exception(reply: &Reply, name: &str, what: &str) {
    assert_eq!(reply.status, 400, "{what}: {}", reply.text());
    let body: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    assert_eq!(body["__type"], name, "{what}: {}", reply.text());
    assert_eq!(reply.header("content-type"), Some(JSON), "{what}");
    assert!(reply.header("x-amzn-requestid").is_some(), "{what}");
}

/// A record of one entry, with members replaced or added.
pub(crate) fn put_record(change: &Value) -> Value {
    let mut input = json!({ "StreamName": STREAM, "PartitionKey": "k", "Data": "aGk=" });
    for (name, value) in change.as_object().into_iter().flatten() {
        input[name] = value.clone();
    }
    input
}
