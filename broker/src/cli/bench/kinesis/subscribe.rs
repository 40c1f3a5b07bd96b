//! Push readers of the Kinesis API: subscriptions of consumers, renewed where the service ends them.
//!
//! ```text
//!  SubscribeToShard ─► event stream: one event behind the other ─► records counted
//!        ▲                 │ ended (Amazon: after five minutes)
//!        └─ after the last ┘
//! ```

use super::super::meter::Meter;
use super::super::tasks::Refusals;
use super::api::{RecordRow, not_kinesis};
use super::http::Http;
use crate::error::{Error, Result};
use aws_smithy_eventstream::frame::read_message_from;
use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A frame tells its length in so many bytes, and has no less.
const LENGTH_BYTES: usize = 4;
const FRAME_BYTES_MIN: usize = 16;
/// Events are far below; what claims to be larger is something else.
const FRAME_BYTES_MAX: usize = 64 << 20;

/// One reader of one shard.
pub(super) struct Subscriber {
    pub(super) http: Http,
    /// Its ARN.
    pub(super) consumer: String,
    pub(super) shard: String,
}

/// What is pushed.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Event<'a> {
    #[serde(borrow, default)]
    records: Vec<RecordRow<'a>>,
    continuation_sequence_number: Option<String>,
}

/// What comes before the first event, and at the end if the service has a reason.
enum Message {
    Event(Bytes),
    Other,
    Exception(String),
}

impl Subscriber {
    /// Subscribes; from then on nothing that is put is missed.
    pub(super) async fn open(self, meter: Meter) -> Result<Subscription> {
        let mut subscription =
            Subscription { reader: self, meter, after: None, stream: None, left: BytesMut::new() };
        subscription.subscribe().await?;
        Ok(subscription)
    }
}

/// A reader that listens.
pub(super) struct Subscription {
    reader: Subscriber,
    meter: Meter,
    after: Option<String>,
    stream: Option<Incoming>,
    /// Of a frame that has not come whole.
    left: BytesMut,
}

impl Subscription {
    /// Counts what is pushed until it is over.
    pub(super) async fn follow(mut self, over: CancellationToken) -> Result<Meter> {
        loop {
            let began = Instant::now();
            let event = tokio::select! {
                event = self.next() => event?,
                () = over.cancelled() => return Ok(self.meter),
            };
            let event: Event<'_> = serde_json::from_slice(&event).map_err(not_kinesis)?;
            let count = event.records.iter().filter(|record| !record.data.is_empty()).count();
            self.meter.done(began, count as u64);
            self.after = event.continuation_sequence_number.or(self.after);
        }
    }

    /// The payload of the next event.
    async fn next(&mut self) -> Result<Bytes> {
        loop {
            match self.message()? {
                Some(Message::Event(payload)) => return Ok(payload),
                Some(Message::Other) => continue,
                Some(Message::Exception(why)) => return Err(Error::failed(why)),
                None => {}
            }
            let Some(stream) = &mut self.stream else {
                self.subscribe().await?;
                continue;
            };
            match stream.frame().await {
                Some(frame) => {
                    let frame = frame.map_err(|e| Error::because("a subscription broke", e))?;
                    if let Ok(data) = frame.into_data() {
                        self.left.extend_from_slice(&data);
                    }
                }
                None => self.stream = None,
            }
        }
    }

    async fn subscribe(&mut self) -> Result<()> {
        let position = match &self.after {
            Some(number) => json!({ "Type": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": number }),
            None => json!({ "Type": "LATEST" }),
        };
        let body = json!({
            "ConsumerARN": self.reader.consumer, "ShardId": self.reader.shard, "StartingPosition": position
        });
        let body = Bytes::from(body.to_string());
        self.left.clear();
        let mut refusals = Refusals::default();
        loop {
            match self.reader.http.open("SubscribeToShard", body.clone()).await? {
                Ok(stream) => {
                    self.stream = Some(stream);
                    return Ok(());
                }
                Err(why) => refusals.another(&mut self.meter, why).await?,
            }
        }
    }

    /// Takes the next message that has come whole.
    fn message(&mut self) -> Result<Option<Message>> {
        let Some(length) = self.left.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if !(FRAME_BYTES_MIN..=FRAME_BYTES_MAX).contains(&length) {
            return Err(Error::failed(format!("not an event stream: a message of {length} bytes")));
        }
        if self.left.len() < length {
            return Ok(None);
        }
        let mut frame = self.left.split_to(length).freeze();
        let message = read_message_from(&mut frame).map_err(|e| Error::because("not an event stream", e))?;
        debug_assert!(!frame.has_remaining());
        let header = |name: &str| {
            let found = message.headers().iter().find(|header| header.name().as_str() == name);
            found.and_then(|header| header.value().as_string().ok()).map_or("", |text| text.as_str())
        };
        Ok(Some(match (header(":message-type"), header(":event-type")) {
            ("event", "SubscribeToShardEvent") => Message::Event(message.payload().clone()),
            ("event", _) => Message::Other,
            _ => {
                let told = String::from_utf8_lossy(message.payload());
                Message::Exception(format!("SubscribeToShard: {} {told}", header(":exception-type")))
            }
        }))
    }
}
