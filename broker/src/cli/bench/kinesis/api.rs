//! The calls on streams that every service with the Kinesis API knows, and the shapes of answers. What a service may leave
//! out, it may leave out here.

use super::http::Http;
use crate::error::{Error, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::borrow::Cow;
use std::time::Duration;
use tidemill_types::StreamName;
use tidemill_types::limits::GET_RECORDS_MAX;
use tokio::time::{Instant, sleep};

/// A stream of many shards takes its time.
const ACTIVE_PATIENCE: Duration = Duration::from_secs(120);
/// Amazon takes ten such calls a second.
const ACTIVE_POLL: Duration = Duration::from_millis(200);
/// Shards of one page; some services give fewer.
const SHARDS_PAGE: u32 = 10_000;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DescribeReply {
    stream_description: Description,
}
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Description {
    stream_status: String,
    #[serde(rename = "StreamARN", default)]
    arn: String,
    #[serde(default)]
    shards: Vec<ShardRow>,
    #[serde(default)]
    has_more_shards: bool,
}
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ShardRow {
    shard_id: String,
}
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RegisterReply {
    consumer: ConsumerRow,
}
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DescribeConsumerReply {
    consumer_description: ConsumerRow,
}
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ConsumerRow {
    #[serde(rename = "ConsumerARN")]
    arn: String,
    consumer_status: String,
}
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct IteratorReply {
    shard_iterator: String,
}

/// What became of the entries of PutRecords.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct PutReply<'a> {
    pub(super) failed_record_count: Option<u64>,
    #[serde(borrow, default)]
    pub(super) records: Vec<PutRow<'a>>,
}
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct PutRow<'a> {
    #[serde(borrow)]
    pub(super) error_code: Option<Cow<'a, str>>,
}

/// A page of GetRecords.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct RecordsReply<'a> {
    #[serde(borrow)]
    pub(super) records: Vec<RecordRow<'a>>,
    pub(super) next_shard_iterator: Option<String>,
    pub(super) millis_behind_latest: Option<u64>,
}
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct RecordRow<'a> {
    #[serde(borrow)]
    pub(super) data: Cow<'a, str>,
}

/// Makes the stream and waits until it may be used.
pub(super) async fn create(http: &Http, stream: &StreamName, shards: u32) -> Result<()> {
    http.must("CreateStream", format!("{{\"StreamName\":\"{stream}\",\"ShardCount\":{shards}}}")).await?;
    let give_up = Instant::now() + ACTIVE_PATIENCE;
    loop {
        let status = describe(http, stream, None, 1).await?.stream_status;
        if status == "ACTIVE" {
            return Ok(());
        }
        if Instant::now() >= give_up {
            let told = format!(
                "stream {stream} is still {status} after {ACTIVE_PATIENCE:?}; fewer --shards take less"
            );
            return Err(Error::failed(told));
        }
        sleep(ACTIVE_POLL).await;
    }
}

/// Deletes the stream; with its consumers, if it has any. Not every service knows of those.
pub(super) async fn delete(http: &Http, stream: &StreamName, with_consumers: bool) -> Result<()> {
    let mut body = json!({ "StreamName": stream.as_str() });
    if with_consumers {
        body["EnforceConsumerDeletion"] = true.into();
    }
    http.must("DeleteStream", body.to_string()).await.map(drop)
}

/// Registers so many consumers and waits until each may subscribe; their ARNs.
pub(super) async fn consumers(http: &Http, stream: &StreamName, count: u32) -> Result<Vec<String>> {
    let arn = describe(http, stream, None, 1).await?.arn;
    let mut consumers = Vec::new();
    for reader in 0..count {
        let body = json!({ "StreamARN": arn, "ConsumerName": format!("reader-{reader}") });
        let reply = http.must("RegisterStreamConsumer", body.to_string()).await?;
        consumers.push(active(http, parse::<RegisterReply>(&reply)?.consumer).await?);
    }
    Ok(consumers)
}

async fn active(http: &Http, mut consumer: ConsumerRow) -> Result<String> {
    let give_up = Instant::now() + ACTIVE_PATIENCE;
    while consumer.consumer_status != "ACTIVE" {
        if Instant::now() >= give_up {
            let ConsumerRow { arn, consumer_status } = consumer;
            return Err(Error::failed(format!(
                "consumer {arn} is still {consumer_status} after {ACTIVE_PATIENCE:?}"
            )));
        }
        sleep(ACTIVE_POLL).await;
        let body = json!({ "ConsumerARN": consumer.arn }).to_string();
        let reply = http.must("DescribeStreamConsumer", body).await?;
        consumer = parse::<DescribeConsumerReply>(&reply)?.consumer_description;
    }
    Ok(consumer.arn)
}

/// The ids of all shards.
pub(super) async fn shards(http: &Http, stream: &StreamName) -> Result<Vec<String>> {
    let mut ids: Vec<String> = Vec::new();
    loop {
        let page = describe(http, stream, ids.last().map(String::as_str), SHARDS_PAGE).await?;
        let more = page.has_more_shards && !page.shards.is_empty();
        ids.extend(page.shards.into_iter().map(|row| row.shard_id));
        if !more {
            return Ok(ids);
        }
    }
}

// not DescribeStreamSummary and ListShards, which came later: some services know only this
async fn describe(http: &Http, stream: &StreamName, after: Option<&str>, shards: u32) -> Result<Description> {
    let mut body = json!({ "StreamName": stream.as_str(), "Limit": shards });
    if let Some(after) = after {
        body["ExclusiveStartShardId"] = after.into();
    }
    let reply = http.must("DescribeStream", body.to_string()).await?;
    Ok(parse::<DescribeReply>(&reply)?.stream_description)
}

/// An iterator at the beginning of a shard.
pub(super) async fn beginning(http: &Http, stream: &StreamName, shard: &str) -> Result<String> {
    let body = json!({
        "StreamName": stream.as_str(), "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON"
    });
    let reply = http.must("GetShardIterator", body.to_string()).await?;
    Ok(parse::<IteratorReply>(&reply)?.shard_iterator)
}

/// Asks for as much as there may be. The iterator is anything: that of one service ends with a line.
pub(super) fn get_records_body(iterator: &str) -> String {
    json!({ "ShardIterator": iterator, "Limit": GET_RECORDS_MAX }).to_string()
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    serde_json::from_slice(body).map_err(not_kinesis)
}

pub(super) fn not_kinesis(error: serde_json::Error) -> Error {
    Error::because("the endpoint does not answer as Kinesis does", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_iterator_may_hold_anything() {
        let body: serde_json::Value = serde_json::from_str(&get_records_body("a\n\"b")).unwrap();
        assert_eq!(body["ShardIterator"], "a\n\"b");
        let left_out: RecordsReply<'_> = serde_json::from_str(r#"{"Records":[{"Data":"YQ=="}]}"#).unwrap();
        assert_eq!((left_out.records.len(), left_out.millis_behind_latest), (1, None));
    }
}
