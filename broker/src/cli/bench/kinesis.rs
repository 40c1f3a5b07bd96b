//! Load over the Kinesis API, for anything that speaks it: PutRecords in, GetRecords out, one request under way per
//! connection.
//!
//! Request bodies are made before the clock starts, so that the load generator costs little beside what it measures.

use super::Plan;
use super::http::{Http, Reply};
use super::load::{put_records_body, put_records_entries};
use super::meter::{Meter, Window};
use crate::error::{Error, Result};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;
use tidemill_proto::client::Endpoint;
use tidemill_types::StreamName;
use tidemill_types::limits::GET_RECORDS_MAX;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// Different request bodies of one connection.
const BODIES: usize = 4;
const ACTIVE_TRIES: u32 = 300;
const ACTIVE_POLL: Duration = Duration::from_millis(100);
/// After a refusal, mostly for too much at once.
const PAUSE: Duration = Duration::from_millis(50);
/// Refusals in a row before a connection gives up.
const REFUSALS_MAX: u32 = 100;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PutReply {
    failed_record_count: Option<u64>,
}
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Summary {
    stream_description_summary: Description,
}
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Description {
    stream_status: String,
}
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ShardsReply {
    shards: Vec<ShardRow>,
}
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ShardRow {
    shard_id: String,
}
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct IteratorReply {
    shard_iterator: String,
}
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RecordsReply<'a> {
    #[serde(borrow)]
    records: Vec<RecordRow<'a>>,
    next_shard_iterator: Option<String>,
    millis_behind_latest: Option<u64>,
}
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RecordRow<'a> {
    #[serde(borrow)]
    data: Cow<'a, str>,
}

/// An endpoint of the Kinesis API.
pub(super) struct Client {
    plan: Plan,
    endpoint: Endpoint,
    http: Http,
}

impl Client {
    pub(super) fn new(endpoint: &Endpoint, plan: Plan) -> Self {
        Self { plan, endpoint: endpoint.clone(), http: Http::new(endpoint) }
    }

    pub(super) async fn create(&self, stream: &StreamName) -> Result<()> {
        let shards = self.plan.shards;
        let body = format!("{{\"StreamName\":\"{stream}\",\"ShardCount\":{shards}}}");
        self.http.must("CreateStream", body).await?;
        for _ in 0..ACTIVE_TRIES {
            let reply =
                self.http.must("DescribeStreamSummary", format!("{{\"StreamName\":\"{stream}\"}}")).await?;
            if parse::<Summary>(&reply)?.stream_description_summary.stream_status == "ACTIVE" {
                return Ok(());
            }
            sleep(ACTIVE_POLL).await;
        }
        Err(Error::failed(format!("stream {stream} does not become active")))
    }

    pub(super) async fn delete(&self, stream: &StreamName) -> Result<()> {
        self.http.must("DeleteStream", format!("{{\"StreamName\":\"{stream}\"}}")).await.map(drop)
    }

    pub(super) async fn produce(&self, stream: &StreamName, window: Arc<Window>) -> Result<Meter> {
        let entries = put_records_entries(self.plan.record_bytes) as u64;
        let bodies: Vec<Vec<Bytes>> = (0..self.plan.connections)
            .map(|_| (0..BODIES).map(|_| put_records_body(stream.as_str(), self.plan.record_bytes)).collect())
            .collect();
        let mut tasks = JoinSet::new();
        for bodies in bodies {
            let http = Http::new(&self.endpoint);
            tasks.spawn(put(http, bodies, entries, Meter::new(window.clone())));
        }
        together(tasks, window).await
    }

    pub(super) async fn consume(&self, stream: &StreamName, window: Arc<Window>) -> Result<Meter> {
        let reply = self.http.must("ListShards", format!("{{\"StreamName\":\"{stream}\"}}")).await?;
        let shards = parse::<ShardsReply>(&reply)?.shards;
        let mut tasks = JoinSet::new();
        let connections = self.plan.connections as usize;
        for connection in 0..connections.min(shards.len()) {
            let shards = shards.iter().skip(connection).step_by(connections).map(|row| row.shard_id.clone());
            let reader =
                Reader { http: Http::new(&self.endpoint), stream: stream.clone(), shards: shards.collect() };
            tasks.spawn(reader.run(Meter::new(window.clone())));
        }
        together(tasks, window).await
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    serde_json::from_slice(body).map_err(|e| Error::because("the endpoint answers something else", e))
}

async fn together(mut tasks: JoinSet<Result<Meter>>, window: Arc<Window>) -> Result<Meter> {
    let mut all = Meter::new(window);
    while let Some(part) = tasks.join_next().await {
        all.add(&part.map_err(|e| Error::because("a connection's task broke off", e))??);
    }
    Ok(all)
}

async fn put(http: Http, bodies: Vec<Bytes>, entries: u64, mut meter: Meter) -> Result<Meter> {
    let mut refusals = Refusals::default();
    for body in bodies.iter().cycle() {
        if meter.window().is_over() {
            break;
        }
        let began = Instant::now();
        match http.call("PutRecords", body.clone()).await? {
            Reply::Done(reply) => {
                refusals = Refusals::default();
                let failed = parse::<PutReply>(&reply)?.failed_record_count.unwrap_or(0);
                if failed > 0 {
                    meter.failed(failed, format!("PutRecords: {failed} of {entries} records failed"));
                }
                meter.done(began, entries.saturating_sub(failed));
            }
            Reply::Refused(why) => refusals.another(&mut meter, why).await?,
        }
    }
    Ok(meter)
}

/// Reads its shards one after the other from their beginnings to their ends, again and again.
struct Reader {
    http: Http,
    stream: StreamName,
    shards: Vec<String>,
}

impl Reader {
    async fn run(self, mut meter: Meter) -> Result<Meter> {
        let mut first = 0;
        for shard in &self.shards {
            let records = self.pass(shard, &mut meter, Pass::Whole).await?;
            meter.read_once(records);
            first += records;
        }
        while first > 0 && !meter.window().is_over() {
            for shard in &self.shards {
                self.pass(shard, &mut meter, Pass::UntilOver).await?;
            }
        }
        Ok(meter)
    }

    /// From the beginning to the end of a shard; the number of its records.
    async fn pass(&self, shard: &str, meter: &mut Meter, pass: Pass) -> Result<u64> {
        let body = format!(
            "{{\"StreamName\":\"{}\",\"ShardId\":\"{shard}\",\"ShardIteratorType\":\"TRIM_HORIZON\"}}",
            self.stream
        );
        let reply = self.http.must("GetShardIterator", body).await?;
        let mut iterator = parse::<IteratorReply>(&reply)?.shard_iterator;
        let mut refusals = Refusals::default();
        let mut records = 0;
        while pass == Pass::Whole || !meter.window().is_over() {
            let began = Instant::now();
            let body = format!("{{\"ShardIterator\":\"{iterator}\",\"Limit\":{GET_RECORDS_MAX}}}");
            let reply = match self.http.call("GetRecords", body.into()).await? {
                Reply::Done(reply) => reply,
                Reply::Refused(why) => {
                    refusals.another(meter, why).await?;
                    continue;
                }
            };
            refusals = Refusals::default();
            let reply: RecordsReply<'_> = serde_json::from_slice(&reply)
                .map_err(|e| Error::because("the endpoint answers something else", e))?;
            let count = reply.records.iter().filter(|record| !record.data.is_empty()).count() as u64;
            records += count;
            meter.done(began, count);
            match reply.next_shard_iterator {
                Some(next) if count > 0 || reply.millis_behind_latest.unwrap_or(0) > 0 => iterator = next,
                _ => break,
            }
        }
        Ok(records)
    }
}

/// Whether a pass goes on past the end of the window.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    Whole,
    UntilOver,
}

/// Counts refusals in a row.
#[derive(Default)]
struct Refusals(u32);

impl Refusals {
    /// Notes it and waits; an error when there have been too many.
    async fn another(&mut self, meter: &mut Meter, why: String) -> Result<()> {
        self.0 += 1;
        if self.0 >= REFUSALS_MAX {
            return Err(Error::failed(format!("refused {REFUSALS_MAX} times in a row: {why}")));
        }
        meter.failed(1, why);
        sleep(PAUSE).await;
        Ok(())
    }
}
