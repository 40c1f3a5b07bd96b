//! The Kinesis API as raw HTTP through the router, on a real engine in a temporary directory.

mod account;
mod accounts;
mod cbor;
mod consumers;
mod encodings;
mod encryption;
mod idle;
mod limits;
mod permissions;
mod policies;
mod reading;
mod replies;
mod resharding;
mod settings;
mod streams;
mod subscribing;
mod tags;
mod validation;
mod wire;
mod writing;

use super::{AwsState, router};
use axum::Router;
use axum::body::Body;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::sync::Arc;
use tidemill_engine::{Engine, Settings};
use tidemill_types::{AccountId, ManualClock, Region, TimestampMs};
use tower::ServiceExt;

/// The time at which every test begins: 2023-11-14T22:13:20Z.
const START_MS: u64 = 1_700_000_000_000;

const JSON: &str = "application/x-amz-json-1.1";

struct Kinesis {
    router: Router,
    clock: Arc<ManualClock>,
    engine: Engine,
    dir: tempfile::TempDir,
}

struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    bytes: Vec<u8>,
}

impl Reply {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.bytes).unwrap()
    }
    fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap()
    }
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Kinesis {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(TimestampMs::new(START_MS)));
        Self::open(dir, clock).await
    }
    async fn open(dir: tempfile::TempDir, clock: Arc<ManualClock>) -> Self {
        Self::open_with(dir, clock, Settings::default()).await
    }
    async fn open_with(dir: tempfile::TempDir, clock: Arc<ManualClock>, settings: Settings) -> Self {
        let engine = Engine::open(dir.path(), settings, clock.clone()).await.unwrap();
        let account = AccountId::new("123456789012").unwrap();
        let state = AwsState::new(engine.clone(), account, Region::new("us-east-1").unwrap());
        Self { router: router(state), clock, engine, dir }
    }
    async fn restart(self) -> Self {
        self.restart_with(Settings::default()).await
    }
    async fn restart_with(self, settings: Settings) -> Self {
        self.engine.close().await.unwrap();
        drop((self.router, self.engine));
        Self::open_with(self.dir, self.clock, settings).await
    }

    async fn send(&self, request: Request<Body>) -> Reply {
        let reply = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = reply.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes().to_vec();
        Reply { status: parts.status, headers: parts.headers, bytes }
    }
    async fn post(&self, operation: &str, content_type: &str, body: impl Into<Body>) -> Reply {
        let request = Request::builder().method(Method::POST).uri("/").header("content-type", content_type);
        let request = request.header("x-amz-target", format!("Kinesis_20131202.{operation}"));
        self.send(request.body(body.into()).unwrap()).await
    }
    async fn call(&self, operation: &str, input: &Value) -> Reply {
        self.post(operation, JSON, input.to_string()).await
    }
    /// The body of the reply to a caller of another account, and whether the call succeeded.
    async fn call_as(&self, account: &str, operation: &str, input: Value) -> (StatusCode, Value) {
        let request = Request::builder().method(Method::POST).uri("/").header("content-type", JSON);
        let request = request.header("x-amz-target", format!("Kinesis_20131202.{operation}"));
        let signed = format!(
            "AWS4-HMAC-SHA256 Credential={account}/20231114/us-east-1/kinesis/aws4_request, SignedHeaders=host, Signature=00"
        );
        let request = request.header("authorization", signed);
        let reply = self.send(request.body(Body::from(input.to_string())).unwrap()).await;
        (reply.status, if reply.bytes.is_empty() { Value::Null } else { reply.json() })
    }
    /// The reply of a call that succeeds.
    async fn ok(&self, operation: &str, input: Value) -> Value {
        let reply = self.call(operation, &input).await;
        assert_eq!(reply.status, StatusCode::OK, "{operation} {input}: {}", reply.text());
        if reply.bytes.is_empty() { Value::Null } else { reply.json() }
    }
    /// Exception and message of a call that fails with 400.
    async fn refused(&self, operation: &str, input: Value) -> (String, String) {
        let reply = self.call(operation, &input).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{operation} {input}: {}", reply.text());
        let body = reply.json();
        let kind = body["__type"].as_str().unwrap();
        assert_eq!(reply.header("x-amzn-errortype"), kind);
        let message = body.get("message").or(body.get("Message")).and_then(Value::as_str);
        (kind.to_owned(), message.unwrap_or_default().to_owned())
    }
    async fn assert_refused(&self, operation: &str, input: Value, kind: &str, message: &str) {
        let shown = input.to_string();
        let found = self.refused(operation, input).await;
        assert_eq!(found, (kind.to_owned(), message.to_owned()), "{operation} {shown}");
    }

    async fn summary(&self, stream: &str) -> Value {
        let summary = self.ok("DescribeStreamSummary", json!({"StreamName": stream})).await;
        summary["StreamDescriptionSummary"].clone()
    }
    async fn create(&self, stream: &str, shards: u32) {
        let input = json!({"StreamName": stream, "ShardCount": shards});
        assert_eq!(self.ok("CreateStream", input).await, Value::Null);
    }
    /// Registers a consumer and gives its ARN.
    async fn register(&self, stream: &str, name: &str) -> String {
        let arn = format!("arn:aws:kinesis:us-east-1:123456789012:stream/{stream}");
        let input = json!({"StreamARN": arn, "ConsumerName": name});
        let reply = self.ok("RegisterStreamConsumer", input).await;
        reply["Consumer"]["ConsumerARN"].as_str().unwrap().to_owned()
    }
    /// Puts one record and gives its sequence number.
    async fn put(&self, stream: &str, key: &str, data: &str) -> String {
        let data = base64_simd::STANDARD.encode_to_string(data);
        let input = json!({"StreamName": stream, "PartitionKey": key, "Data": data});
        self.ok("PutRecord", input).await["SequenceNumber"].as_str().unwrap().to_owned()
    }
    async fn iterator(&self, stream: &str, shard: u32, more: Value) -> String {
        let mut input = json!({"StreamName": stream, "ShardId": format!("shardId-{shard:012}")});
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.ok("GetShardIterator", input).await["ShardIterator"].as_str().unwrap().to_owned()
    }
    async fn read(&self, iterator: &str) -> Value {
        self.ok("GetRecords", json!({"ShardIterator": iterator})).await
    }
    /// The data of the records at an iterator, as text.
    async fn data_at(&self, iterator: &str) -> Vec<String> {
        data_of(&self.read(iterator).await)
    }
}

fn data_of(page: &Value) -> Vec<String> {
    let data = |record: &Value| {
        let bytes = base64_simd::STANDARD.decode_to_vec(record["Data"].as_str().unwrap()).unwrap();
        String::from_utf8(bytes).unwrap()
    };
    page["Records"].as_array().unwrap().iter().map(data).collect()
}
