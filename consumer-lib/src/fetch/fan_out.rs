//! Reads one shard of a Kinesis by enhanced fan-out: the service pushes, with a throughput of the application's own, on a
//! task of its own.
//!
//! ```text
//!  consumer registered and active ─► SubscribeToShard ─► event ─► wait for room ─► hand over ─► next event …
//!                    ▲                  ▲                  │                                     │
//!                    │                  └─ ended (5 min), ─┴◄────────────────────────────────────┴─► end of shard; gone
//!                    └─ consumer gone      broken, silent
//! ```
//!
//! A subscription lasts five minutes by rule; the next goes on from the continuation number of the last event. A full buffer
//! stops the reading of events, and flow control then stops the service.

use super::kinesis::{KinesisApi, answered, children, stored};
use super::pages::{Came, Pages};
use super::{Fetched, Outlet, Reading};
use crate::aws::tell;
use crate::place::{Checkpoint, ReadFrom};
use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::primitives::event_stream::EventReceiver;
use aws_sdk_kinesis::types::error::SubscribeToShardEventStreamError;
use aws_sdk_kinesis::types::{
    ConsumerStatus, ShardIteratorType, StartingPosition, SubscribeToShardEvent, SubscribeToShardEventStream,
};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tidemill_proto::client::Backoff;
use tidemill_proto::{Error, ErrorKind, Result};
use tidemill_types::{AnySequenceNumber, StreamName};
use tokio::time::{Instant, sleep, timeout};

/// Longest until a subscription begins.
const REQUEST_DEADLINE: Duration = Duration::from_secs(30);
/// Silence after which a subscription is made anew: the service sends something every five seconds.
const SILENCE_MAX: Duration = Duration::from_secs(35);
/// A consumer is active within this time.
const ACTIVE_DEADLINE: Duration = Duration::from_secs(60);
const ACTIVE_POLL: Duration = Duration::from_secs(1);
/// For five seconds a subscription keeps others of the same consumer away, be its holder alive or not; then it gives way. One
/// call a second is allowed meanwhile.
const IN_USE_PAUSE: Duration = Duration::from_secs(1);
const BACKOFF: Backoff =
    Backoff { base: Duration::from_millis(250), cap: Duration::from_secs(5), attempts_max: u32::MAX };

/// Which consumer of a stream to subscribe as.
#[derive(Debug, Clone)]
pub(crate) enum Consumer {
    /// The one of this name, registered if need be.
    Named(String),
    /// This one, of the one stream that there is.
    Arn(String),
}

/// The consumers of streams, as far as they were looked for. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Consumers {
    consumer: Consumer,
    known: Arc<tokio::sync::Mutex<HashMap<StreamName, String>>>,
}

impl Consumers {
    pub(crate) fn new(consumer: Consumer) -> Self {
        Self { consumer, known: Arc::default() }
    }

    /// The consumer of a stream, active. One shard looks, the others wait.
    async fn of_stream(&self, api: &KinesisApi, stream: &StreamName) -> Result<String> {
        let name = match &self.consumer {
            Consumer::Arn(arn) => return Ok(arn.clone()),
            Consumer::Named(name) => name,
        };
        let mut known = self.known.lock().await;
        if let Some(arn) = known.get(stream) {
            return Ok(arn.clone());
        }
        let arn = registered(api, stream, name).await?;
        known.insert(stream.clone(), arn.clone());
        Ok(arn)
    }

    async fn forget(&self, stream: &StreamName) {
        self.known.lock().await.remove(stream);
    }
}

/// Finds the consumer `name` of a stream, registers it if there is none, and waits until it is active.
async fn registered(api: &KinesisApi, stream: &StreamName, name: &str) -> Result<String> {
    let stream_arn = api.summary(stream).await?.arn;
    let deadline = Instant::now() + ACTIVE_DEADLINE;
    loop {
        let describe = api.client.describe_stream_consumer().stream_arn(&stream_arn).consumer_name(name);
        match answered(describe.send()).await {
            Ok(answer) => match answer.consumer_description {
                Some(consumer) if consumer.consumer_status == ConsumerStatus::Active => {
                    return Ok(consumer.consumer_arn);
                }
                _ => sleep(ACTIVE_POLL).await,
            },
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error.during(&format!("looking for the consumer {name} of {stream}")));
            }
            Err(_) => {
                let register =
                    api.client.register_stream_consumer().stream_arn(&stream_arn).consumer_name(name);
                if let Err(error) = answered(register.send()).await {
                    // in use: another worker was faster, or it is being deregistered
                    if error.kind() != ErrorKind::Unavailable {
                        return Err(error.during(&format!("registering the consumer {name} of {stream}")));
                    }
                    sleep(ACTIVE_POLL).await;
                }
            }
        }
        if Instant::now() >= deadline {
            let told = format!("the consumer {name} of {stream} is not active within {ACTIVE_DEADLINE:?}");
            return Err(Error::new(ErrorKind::Unavailable, told));
        }
    }
}

/// Where to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Start(ReadFrom),
    After(AnySequenceNumber),
}

/// Why one subscription ended.
enum End {
    /// Nothing more is to be read, or nobody reads any more.
    Finished,
    /// As it must after some minutes, or because the service restarts.
    Over,
}

type Events = EventReceiver<SubscribeToShardEventStream, SubscribeToShardEventStreamError>;

struct FanOut {
    api: KinesisApi,
    consumers: Consumers,
    reading: Reading,
    pages: Pages,
    next: Next,
    /// Whether the first event came, and the beginning was told of.
    has_begun: bool,
    /// Whether the subscription under way has brought an event.
    answered: bool,
}

/// Reads until the end of the shard, or until nobody reads any more.
pub(super) async fn run(api: KinesisApi, consumers: Consumers, reading: Reading, outlet: Outlet) {
    let pages = Pages::new(&reading, outlet);
    let next = Next::Start(reading.from);
    FanOut { api, consumers, reading, pages, next, has_begun: false, answered: false }.run().await;
}

impl FanOut {
    async fn run(mut self) {
        let mut rng = StdRng::seed_from_u64(self.reading.seed);
        let mut failures = 0;
        loop {
            self.answered = false;
            let error = match self.subscription().await {
                Ok(End::Finished) => return,
                Ok(End::Over) if self.answered => {
                    failures = 0;
                    continue;
                }
                Ok(End::Over) => Error::new(ErrorKind::Unavailable, "the subscription ended at once"),
                Err(error) => error,
            };
            if error.kind() == ErrorKind::NotFound && self.is_gone().await {
                let _ = self.pages.put(Fetched::Gone(error)).await; // nobody reads: nobody needs to know
                return;
            }
            failures = if self.answered { 1 } else { failures + 1 };
            self.pages.failed(failures, &error);
            sleep(BACKOFF.wait(failures, &mut rng)).await;
        }
    }

    /// Whether it is the shard that is not found. If it is the consumer, the next subscription registers it again.
    async fn is_gone(&self) -> bool {
        let at = &self.reading.at;
        self.consumers.forget(at.stream()).await;
        self.api.forget(at.stream());
        match self.api.shards(at.stream()).await {
            Ok(shards) => shards.iter().all(|shard| shard.id != at.shard()),
            Err(error) => error.kind() == ErrorKind::NotFound,
        }
    }

    async fn subscription(&mut self) -> Result<End> {
        let consumer = self.consumers.of_stream(&self.api, self.reading.at.stream()).await?;
        let subscribe = self.api.client.subscribe_to_shard().consumer_arn(consumer);
        let subscribe = subscribe.shard_id(self.reading.at.shard().to_string());
        let subscribe = subscribe.starting_position(position(self.next)?);
        let answer =
            timeout(REQUEST_DEADLINE, subscribe.send()).await.map_err(|_| silent(REQUEST_DEADLINE))?;
        let mut events: Events = match answer {
            Ok(answer) => answer.event_stream,
            Err(error) => {
                if error.as_service_error().is_some_and(|e| e.is_resource_in_use_exception()) {
                    sleep(IN_USE_PAUSE).await;
                }
                return Err(tell(&error));
            }
        };
        loop {
            let event = timeout(SILENCE_MAX, events.recv()).await.map_err(|_| silent(SILENCE_MAX))?;
            match event.map_err(|error| tell(&error))? {
                Some(SubscribeToShardEventStream::SubscribeToShardEvent(event)) => {
                    if let Some(end) = self.hand_over(event).await? {
                        return Ok(end);
                    }
                }
                // kinds of events that are not known yet say nothing
                Some(_) => {}
                None => return Ok(End::Over),
            }
        }
    }

    async fn hand_over(&mut self, event: SubscribeToShardEvent) -> Result<Option<End>> {
        let received = Instant::now();
        let ended = !event.child_shards().is_empty();
        let end_of_shard = if ended { Some(children(event.child_shards())?) } else { None };
        // at the end of a shard there is nothing to continue with
        let continuation =
            Some(event.continuation_sequence_number.as_str()).filter(|number| !number.is_empty());
        let continuation = continuation.map(str::parse::<AnySequenceNumber>).transpose();
        let records = stored(event.records)?;
        let continuation = if ended { None } else { continuation? };
        if !std::mem::replace(&mut self.has_begun, true) {
            let from_newest = self.reading.from == ReadFrom::Latest && records.is_empty();
            let anchor = continuation.filter(|_| from_newest);
            let begun = Fetched::Begun(anchor.map(|number| Checkpoint::At { number, sub: 0 }));
            if self.pages.put(begun).await.is_err() {
                return Ok(Some(End::Finished));
            }
        }
        self.answered = true;
        if ended {
            self.api.forget(self.reading.at.stream());
        }
        let last = records.last().map(|record| record.number);
        let millis_behind = u64::try_from(event.millis_behind_latest).unwrap_or(0);
        let handed = self.pages.hand_over(Came { records, millis_behind, received, end_of_shard }).await;
        if let Some(number) = continuation.or(last) {
            self.next = Next::After(number);
        }
        Ok(if ended || handed.is_err() { Some(End::Finished) } else { None })
    }
}

fn silent(what: Duration) -> Error {
    Error::new(ErrorKind::UnknownOutcome, format!("nothing came for {what:?}"))
}

fn position(next: Next) -> Result<StartingPosition> {
    let position = StartingPosition::builder();
    let position = match next {
        Next::Start(ReadFrom::TrimHorizon) => position.r#type(ShardIteratorType::TrimHorizon),
        Next::Start(ReadFrom::Latest) => position.r#type(ShardIteratorType::Latest),
        Next::Start(ReadFrom::AtTime(time)) => {
            let time = DateTime::from_millis(time.get().try_into().unwrap_or(i64::MAX));
            position.r#type(ShardIteratorType::AtTimestamp).timestamp(time)
        }
        // the record itself again: of an aggregated one there may be more
        Next::Start(ReadFrom::Behind { number, .. }) => {
            position.r#type(ShardIteratorType::AtSequenceNumber).sequence_number(number.to_string())
        }
        Next::After(number) => {
            position.r#type(ShardIteratorType::AfterSequenceNumber).sequence_number(number.to_string())
        }
    };
    position.build().map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_begins_at_the_last_record_processed_and_the_next_goes_on_behind_what_came() {
        let number: AnySequenceNumber = "7".parse().unwrap();
        let start = position(Next::Start(ReadFrom::Behind { number, sub: 2 })).unwrap();
        assert_eq!(start.r#type, ShardIteratorType::AtSequenceNumber);
        assert_eq!(start.sequence_number.as_deref(), Some("7"));
        let next = position(Next::After(number)).unwrap();
        assert_eq!(next.r#type, ShardIteratorType::AfterSequenceNumber);
        let newest = position(Next::Start(ReadFrom::Latest)).unwrap();
        assert_eq!((newest.r#type, newest.sequence_number), (ShardIteratorType::Latest, None));
    }
}
