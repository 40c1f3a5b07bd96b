//! The target `kinesis`: load over the Kinesis API, for anything that speaks it: PutRecords, PutRecord, GetRecords and
//! SubscribeToShard, one request under way per connection.
//!
//! Request bodies are made before the clock starts, so that the load generator costs little beside what it measures; each
//! is signed when it is sent. What it does not do: retry. What a service does not take is counted.

mod api;
mod bodies;
mod http;
mod read;
mod subscribe;

use super::meter::{Meter, Window};
use super::pace::{self, Lane};
use super::plan::Stage;
use super::site::Credentials;
use super::tasks::{Refusal, Refusals, note, together};
use crate::error::{Error, Result};
use api::{PutReply, not_kinesis};
use bodies::Bodies;
use bytes::Bytes;
use http::{Caller, Http, Reply, is_throttle};
use read::Reader;
use std::sync::Arc;
use subscribe::Subscriber;
use tidemill_proto::client::Endpoint;
use tidemill_types::StreamName;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// An endpoint of the Kinesis API.
pub(super) struct Client {
    caller: Arc<Caller>,
    http: Http,
}

impl Client {
    pub(super) fn new(endpoint: &Endpoint, credentials: Option<Credentials>, region: &str) -> Result<Self> {
        let caller = Caller::new(endpoint, credentials, region)?;
        Ok(Self { http: Http::new(&caller), caller })
    }

    pub(super) async fn create(&self, stream: &StreamName, shards: u32) -> Result<()> {
        api::create(&self.http, stream, shards).await
    }

    pub(super) async fn delete(&self, stage: &Stage) -> Result<()> {
        api::delete(&self.http, &stage.stream, stage.plan.has_readers()).await
    }

    /// Connections that have been used once and now do nothing.
    pub(super) async fn idle_connections(
        &self,
        stream: &StreamName,
        connections: u32,
    ) -> Result<IdleConnections> {
        let mut idle = Vec::new();
        for _ in 0..connections {
            let http = Http::new(&self.caller);
            http.must("DescribeStream", format!("{{\"StreamName\":\"{stream}\",\"Limit\":1}}")).await?;
            idle.push(http);
        }
        Ok(IdleConnections(idle))
    }

    pub(super) async fn fill(&self, stage: &Stage) -> Result<Meter> {
        let bodies = Bodies::batches(stage.stream.as_str(), &stage.plan);
        let course = stage.begin_fill();
        self.put_all(stage, &bodies, &course.window).await
    }

    pub(super) async fn produce(&self, stage: &Stage) -> Result<Meter> {
        let bodies = Bodies::batches(stage.stream.as_str(), &stage.plan);
        let course = stage.begin();
        self.put_all(stage, &bodies, &course.window).await
    }

    pub(super) async fn single(&self, stage: &Stage) -> Result<Meter> {
        let bodies = Bodies::singles(stage.stream.as_str(), &stage.plan);
        let course = stage.begin();
        self.put_all(stage, &bodies, &course.window).await
    }

    async fn put_all(&self, stage: &Stage, bodies: &Bodies, window: &Arc<Window>) -> Result<Meter> {
        let mut tasks = JoinSet::new();
        for connection in 0..stage.plan.connections as usize {
            let put = Put { http: Http::new(&self.caller), bodies: bodies.clone(), connection };
            tasks.spawn(put.closed_loop(Meter::new(Arc::clone(window))));
        }
        together(tasks, Arc::clone(window)).await
    }

    pub(super) async fn latency(&self, stage: &Stage, rate: u32) -> Result<Meter> {
        let course = stage.begin();
        self.paced(stage, rate, &course.window).await
    }

    async fn paced(&self, stage: &Stage, rate: u32, window: &Arc<Window>) -> Result<Meter> {
        let bodies = Bodies::singles(stage.stream.as_str(), &stage.plan);
        let mut tasks = JoinSet::new();
        let lanes = pace::start(rate, stage.plan.connections as usize, window);
        for (connection, lane) in lanes.into_iter().enumerate() {
            let put = Put { http: Http::new(&self.caller), bodies: bodies.clone(), connection };
            tasks.spawn(put.open_loop(lane, Meter::new(Arc::clone(window))));
        }
        together(tasks, Arc::clone(window)).await
    }

    /// Subscribers of the one shard, which is written to meanwhile: at the rate, or as fast as it goes.
    pub(super) async fn fanout(&self, stage: &Stage) -> Result<Meter> {
        let shards = api::shards(&self.http, &stage.stream).await?;
        let shard = shards.first().ok_or_else(|| Error::failed("the stream has no shard"))?;
        let consumers = api::consumers(&self.http, &stage.stream, stage.plan.readers).await?;
        let bodies = Bodies::batches(stage.stream.as_str(), &stage.plan);
        let over = CancellationToken::new();
        let course = stage.begin();
        let mut tasks = JoinSet::new();
        for consumer in consumers {
            let reader = Subscriber { http: Http::new(&self.caller), consumer, shard: shard.clone() };
            let subscription = reader.open(Meter::new(Arc::clone(&course.window))).await?;
            tasks.spawn(subscription.follow(over.clone()));
        }
        let beside = course.window.beside();
        let put = async {
            match stage.plan.rate {
                Some(rate) => self.paced(stage, rate, &beside).await,
                None => self.put_all(stage, &bodies, &beside).await,
            }
        };
        let closed = async {
            course.window.over().await;
            over.cancel();
            Ok(())
        };
        let (put, mut meter, ()) =
            tokio::try_join!(put, together(tasks, Arc::clone(&course.window)), closed)?;
        meter.add_errors(&put);
        Ok(meter)
    }

    pub(super) async fn consume(&self, stage: &Stage) -> Result<Meter> {
        let shards = api::shards(&self.http, &stage.stream).await?;
        let course = stage.begin();
        let mut tasks = JoinSet::new();
        let connections = stage.plan.connections as usize;
        for connection in 0..connections.min(shards.len()) {
            let shards = shards.iter().skip(connection).step_by(connections).cloned().collect();
            let reader = Reader { http: Http::new(&self.caller), stream: stage.stream.clone(), shards };
            tasks.spawn(reader.run(Meter::new(Arc::clone(&course.window))));
        }
        together(tasks, Arc::clone(&course.window)).await
    }
}

/// Open for as long as it is kept.
pub(super) struct IdleConnections(#[expect(dead_code, reason = "kept open, never used")] Vec<Http>);

/// One connection that puts.
struct Put {
    http: Http,
    bodies: Bodies,
    connection: usize,
}

/// What became of one request.
struct Taken {
    records: u64,
    failed: u64,
    throttled: u64,
    why: String,
}

impl Put {
    /// The next request when the last is answered, until the window is over.
    async fn closed_loop(self, mut meter: Meter) -> Result<Meter> {
        let mut refusals = Refusals::default();
        for body in self.bodies.of_connection(self.connection) {
            if meter.window().is_over() {
                break;
            }
            let began = Instant::now();
            match self.put(body).await? {
                Ok(taken) => {
                    meter.done(began, taken.records);
                    taken.note(&mut meter);
                    refusals.none();
                }
                Err(why) => refusals.another(&mut meter, why).await?,
            }
        }
        Ok(meter)
    }

    /// A request when it is due, or as soon after as the connection is free.
    async fn open_loop(self, mut lane: Lane, mut meter: Meter) -> Result<Meter> {
        let mut bodies = self.bodies.of_connection(self.connection);
        while let (Some(due), Some(body)) = (lane.next(&mut meter).await, bodies.next()) {
            match self.put(body).await? {
                Ok(taken) => {
                    meter.done_since(due, taken.records);
                    taken.note(&mut meter);
                }
                Err(why) => note(&mut meter, &why),
            }
        }
        Ok(meter)
    }

    async fn put(&self, body: Bytes) -> Result<std::result::Result<Taken, Refusal>> {
        match self.http.call(self.bodies.operation, body).await? {
            Reply::Done(_) if self.bodies.entries == 1 => Ok(Ok(Taken::all(1))),
            Reply::Done(reply) => Taken::of(&reply, self.bodies.entries).map(Ok),
            Reply::Refused(why) => Ok(Err(why)),
        }
    }
}

impl Taken {
    fn all(records: u64) -> Self {
        Self { records, failed: 0, throttled: 0, why: String::new() }
    }

    fn of(reply: &[u8], entries: u64) -> Result<Self> {
        let reply: PutReply<'_> = serde_json::from_slice(reply).map_err(not_kinesis)?;
        if reply.failed_record_count == Some(0) {
            return Ok(Self::all(entries));
        }
        let codes: Vec<_> = reply.records.iter().filter_map(|row| row.error_code.as_deref()).collect();
        let named = codes.len() as u64;
        let failed = reply.failed_record_count.unwrap_or(named).max(named).min(entries);
        let throttled = codes.iter().filter(|code| is_throttle(code)).count() as u64;
        let code = codes.first().copied().unwrap_or("without a reason");
        let why = format!("PutRecords: {failed} of {entries} records failed: {code}");
        Ok(Self { records: entries - failed, failed, throttled, why })
    }

    fn note(&self, meter: &mut Meter) {
        if self.throttled > 0 {
            meter.throttled(self.throttled, &self.why);
        }
        if self.failed > self.throttled {
            meter.failed(self.failed - self.throttled, &self.why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_that_failed_are_counted_and_told_apart() {
        let none = Taken::of(br#"{"FailedRecordCount":0,"Records":[{"ShardId":"a"}]}"#, 1).unwrap();
        assert_eq!((none.records, none.failed), (1, 0));
        // a service may leave the count out
        let plain = Taken::of(br#"{"Records":[{"ShardId":"a"},{"ShardId":"b"}]}"#, 2).unwrap();
        assert_eq!((plain.records, plain.failed), (2, 0));
        let some = br#"{"FailedRecordCount":2,"Records":[{"ShardId":"a"},
            {"ErrorCode":"ProvisionedThroughputExceededException","ErrorMessage":"slow"},
            {"ErrorCode":"InternalFailure"}]}"#;
        let some = Taken::of(some, 3).unwrap();
        assert_eq!((some.records, some.failed, some.throttled), (1, 2, 1));
        assert!(some.why.contains("2 of 3") && some.why.contains("Provisioned"), "{}", some.why);
        assert!(Taken::of(b"<html>", 1).is_err());
    }
}
