//! SubscribeToShard: the frames of one subscription after the other, read with the decoder of the AWS SDK.

mod endings;
mod following;
mod permission;
mod requests;
mod sockets;

use super::Kinesis;
use aws_smithy_eventstream::frame::read_message_from;
use axum::body::Body;
use bytes::{Buf, BytesMut};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::time::Duration;
use tower::ServiceExt;

const SOON: Duration = Duration::from_secs(20);
const EVENT: &str = "SubscribeToShardEvent";

/// A subscription as its reader sees it.
struct Events<B> {
    body: B,
    bytes: BytesMut,
}

/// The type of an event or exception, and its payload.
type Event = (String, Value);

impl<B: hyper::body::Body<Data = bytes::Bytes> + Unpin> Events<B>
where
    B::Error: std::fmt::Debug,
{
    /// The next frame, `None` at the end of the stream. The first is the initial response.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.whole_frame() {
                return Some(event);
            }
            let Some(frame) = self.body.frame().await else {
                assert!(self.bytes.is_empty(), "the stream ends within a frame");
                return None;
            };
            self.bytes.extend_from_slice(&frame.expect("no end but a clean one").into_data().unwrap());
        }
    }

    fn whole_frame(&mut self) -> Option<Event> {
        let length = usize::try_from(self.bytes.get(..4)?.get_u32()).unwrap();
        if self.bytes.len() < length {
            return None;
        }
        let message = read_message_from(&mut self.bytes.split_to(length)).unwrap();
        let header = |name: &str| {
            let found = message.headers().iter().find(|header| header.name().as_str() == name);
            found.map(|header| header.value().as_string().unwrap().as_str().to_owned())
        };
        assert_eq!(header(":content-type").unwrap(), "application/json");
        let kind = match header(":message-type").unwrap().as_str() {
            "event" => header(":event-type").unwrap(),
            "exception" => header(":exception-type").unwrap(),
            other => panic!("a message of type {other}"),
        };
        Some((kind, serde_json::from_slice(message.payload()).unwrap()))
    }

    /// The next event, which must be one of records, or of none.
    async fn records(&mut self) -> Value {
        let (kind, payload) = self.next().await.expect("the stream goes on");
        assert_eq!(kind, EVENT, "{payload}");
        payload
    }

    /// The next frame, which must be the exception that ends the stream.
    async fn exception(&mut self) -> (String, String) {
        let (kind, payload) = self.next().await.expect("the stream goes on");
        assert!(self.next().await.is_none(), "an exception is the end");
        (kind, payload["message"].as_str().unwrap().to_owned())
    }

    /// The data of events until as many records have come.
    async fn data(&mut self, records: usize) -> Vec<String> {
        let mut all = Vec::new();
        while all.len() < records {
            all.extend(super::data_of(&self.records().await));
        }
        all
    }
}

fn input(consumer: &str, shard: u32, position: &Value) -> Value {
    json!({"ConsumerARN": consumer, "ShardId": format!("shardId-{shard:012}"), "StartingPosition": position})
}

async fn ask(kinesis: &Kinesis, content_type: &str, body: impl Into<Body>) -> Response<Body> {
    let request = Request::post("/").header("content-type", content_type);
    let request = request.header("x-amz-target", "Kinesis_20131202.SubscribeToShard");
    kinesis.router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap()
}

/// A subscription whose initial response was read.
async fn subscribed(kinesis: &Kinesis, consumer: &str, shard: u32, position: Value) -> Events<Body> {
    let body = input(consumer, shard, &position).to_string();
    let reply = ask(kinesis, super::JSON, body).await;
    assert_eq!(reply.status(), StatusCode::OK);
    opened(reply).await
}

async fn opened<B: hyper::body::Body<Data = bytes::Bytes> + Unpin>(reply: Response<B>) -> Events<B>
where
    B::Error: std::fmt::Debug,
{
    assert_eq!(reply.headers()["content-type"], "application/vnd.amazon.eventstream");
    assert_eq!(reply.headers()["x-amzn-requestid"].len(), 36);
    let mut events = Events { body: reply.into_body(), bytes: BytesMut::new() };
    assert_eq!(events.next().await.unwrap(), ("initial-response".to_owned(), json!({})));
    events
}

async fn refused(kinesis: &Kinesis, input: Value) -> (String, String) {
    kinesis.refused("SubscribeToShard", input).await
}

/// The ARN of a new consumer.
async fn register(kinesis: &Kinesis, stream: &str, consumer: &str) -> String {
    let arn = format!("arn:aws:kinesis:us-east-1:123456789012:stream/{stream}");
    let input = json!({"StreamARN": arn, "ConsumerName": consumer});
    let reply = kinesis.ok("RegisterStreamConsumer", input).await;
    reply["Consumer"]["ConsumerARN"].as_str().unwrap().to_owned()
}

fn horizon() -> Value {
    json!({"Type": "TRIM_HORIZON"})
}

fn latest() -> Value {
    json!({"Type": "LATEST"})
}

fn after(event: &Value) -> Value {
    json!({"Type": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": event["ContinuationSequenceNumber"]})
}
