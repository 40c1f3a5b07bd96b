//! Thousands of requests that are broken in one way or another, in both encodings, for every operation: whatever is sent,
//! the answer is no server error, comes in time, and nothing is written.
//!
//! A request that could write and still be right after a few bytes have changed names a stream that does not exist.

use crate::fixture::{Fixture, JSON, STREAM};
use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use serde_json::{Map, Value, json};
use tidemill_tests::{Connection, Reply, tell};

const CBOR: &str = "application/x-amz-cbor-1.1";
const REQUESTS: usize = 6000;
const SEED: u64 = 3;
/// The broker may keep caches and buffers, but not what requests have left behind.
const GROWTH_KIB_MAX: u64 = 64 << 10;

/// Every operation with an input that is right but for what makes it harmless.
fn requests() -> Vec<(&'static str, Value)> {
    let stream = "arn:aws:kinesis:us-east-1:000000000000:stream/s";
    let nowhere = "arn:aws:kinesis:us-east-1:000000000000:stream/nowhere";
    let consumer = "arn:aws:kinesis:us-east-1:000000000000:stream/nowhere/consumer/c:1700000000";
    let policy = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"kinesis:*","Resource":"*"}]}"#;
    let shard = "shardId-000000000000";
    let metrics = json!(["IncomingBytes", "ALL"]);
    vec![
        ("AddTagsToStream", json!({ "StreamName": "nowhere", "Tags": { "a": "b", "c": "" } })),
        (
            "CreateStream",
            json!({ "StreamName": "!! no name !!", "ShardCount": 2, "Tags": { "k": "v" }, "StreamModeDetails": { "StreamMode": "PROVISIONED" }, "MaxRecordSizeInKiB": 1024 }),
        ),
        ("DecreaseStreamRetentionPeriod", json!({ "StreamName": "nowhere", "RetentionPeriodHours": 24 })),
        ("DeleteResourcePolicy", json!({ "ResourceARN": nowhere })),
        ("DeleteStream", json!({ "StreamName": "nowhere", "EnforceConsumerDeletion": true })),
        ("DeregisterStreamConsumer", json!({ "ConsumerARN": consumer })),
        ("DescribeAccountSettings", json!({})),
        ("DescribeLimits", json!({})),
        ("DescribeStream", json!({ "StreamName": STREAM, "Limit": 5, "ExclusiveStartShardId": shard })),
        ("DescribeStreamConsumer", json!({ "StreamARN": stream, "ConsumerName": "c" })),
        ("DescribeStreamSummary", json!({ "StreamName": STREAM, "StreamARN": stream })),
        ("DisableEnhancedMonitoring", json!({ "StreamName": "nowhere", "ShardLevelMetrics": metrics })),
        ("EnableEnhancedMonitoring", json!({ "StreamName": "nowhere", "ShardLevelMetrics": metrics })),
        ("GetRecords", json!({ "ShardIterator": "AAAAAAAAAAAA", "Limit": 10 })),
        ("GetResourcePolicy", json!({ "ResourceARN": stream })),
        (
            "GetShardIterator",
            json!({ "StreamName": STREAM, "ShardId": shard, "ShardIteratorType": "AT_TIMESTAMP", "Timestamp": 1.5 }),
        ),
        ("IncreaseStreamRetentionPeriod", json!({ "StreamName": "nowhere", "RetentionPeriodHours": 48 })),
        (
            "ListShards",
            json!({ "StreamName": STREAM, "MaxResults": 3, "ShardFilter": { "Type": "AT_TIMESTAMP", "Timestamp": 1.0 } }),
        ),
        ("ListStreamConsumers", json!({ "StreamARN": stream, "MaxResults": 3 })),
        ("ListStreams", json!({ "Limit": 3, "ExclusiveStartStreamName": "a" })),
        ("ListTagsForResource", json!({ "ResourceARN": stream })),
        ("ListTagsForStream", json!({ "StreamName": STREAM, "Limit": 3, "ExclusiveStartTagKey": "a" })),
        (
            "MergeShards",
            json!({ "StreamName": "nowhere", "ShardToMerge": shard, "AdjacentShardToMerge": "shardId-000000000001" }),
        ),
        (
            "PutRecord",
            json!({ "StreamName": "nowhere", "PartitionKey": "k", "Data": "aGk=", "ExplicitHashKey": "0" }),
        ),
        (
            "PutRecords",
            json!({ "StreamName": "nowhere", "Records": [{ "PartitionKey": "k", "Data": "aGk=" }, { "PartitionKey": "l", "Data": "" }] }),
        ),
        ("PutResourcePolicy", json!({ "ResourceARN": nowhere, "Policy": policy })),
        (
            "RegisterStreamConsumer",
            json!({ "StreamARN": nowhere, "ConsumerName": "c", "Tags": { "k": "v" } }),
        ),
        ("RemoveTagsFromStream", json!({ "StreamName": "nowhere", "TagKeys": ["a", "b"] })),
        (
            "SplitShard",
            json!({ "StreamName": "nowhere", "ShardToSplit": shard, "NewStartingHashKey": "12345" }),
        ),
        (
            "StartStreamEncryption",
            json!({ "StreamName": "nowhere", "EncryptionType": "KMS", "KeyId": "alias/x" }),
        ),
        (
            "StopStreamEncryption",
            json!({ "StreamName": "nowhere", "EncryptionType": "KMS", "KeyId": "alias/x" }),
        ),
        (
            "SubscribeToShard",
            json!({ "ConsumerARN": consumer, "ShardId": shard, "StartingPosition": { "Type": "AT_TIMESTAMP", "Timestamp": 1.0 } }),
        ),
        ("TagResource", json!({ "ResourceARN": nowhere, "Tags": { "a": "b" } })),
        ("UntagResource", json!({ "ResourceARN": nowhere, "TagKeys": ["a"] })),
        ("UpdateAccountSettings", json!({ "MinimumThroughputBillingCommitment": { "Status": "PERHAPS" } })),
        ("UpdateMaxRecordSize", json!({ "StreamARN": nowhere, "MaxRecordSizeInKiB": 2048 })),
        (
            "UpdateShardCount",
            json!({ "StreamName": "nowhere", "TargetShardCount": 4, "ScalingType": "UNIFORM_SCALING" }),
        ),
        (
            "UpdateStreamMode",
            json!({ "StreamARN": nowhere, "StreamModeDetails": { "StreamMode": "ON_DEMAND" } }),
        ),
        (
            "UpdateStreamRecordDistributionStrategy",
            json!({ "StreamARN": nowhere, "RecordDistributionStrategy": "AUTO" }),
        ),
        ("UpdateStreamWarmThroughput", json!({ "StreamARN": nowhere, "WarmThroughputMiBps": 10 })),
    ]
}

/// A value of another kind than most members want, or out of every bound.
fn misfit(rng: &mut StdRng) -> Value {
    match rng.random_range(0..12) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(-1),
        3 => json!(1e300),
        4 => json!(i64::MIN),
        5 => json!(""),
        6 => json!("\u{0}\r\n<&>'\"\u{10ffff}"),
        7 => json!("x".repeat(rng.random_range(1..100_000))),
        8 => json!([]),
        9 => json!({}),
        10 => json!([[[[{ "a": [] }]]], 1, null, "x"]),
        _ => (0..rng.random_range(1..120)).fold(json!(0), |inner, _| json!({ "Type": [inner] })),
    }
}

/// Replaces or removes a member, of the structure itself or of one within.
fn disturb(value: &mut Value, rng: &mut StdRng) {
    let inner = match value {
        Value::Object(members) if !members.is_empty() => {
            let at = rng.random_range(0..members.len());
            let name = members.keys().nth(at).cloned().unwrap_or_default();
            if rng.random_ratio(1, 8) {
                members.remove(&name);
                return;
            }
            members.get_mut(&name)
        }
        Value::Array(items) if !items.is_empty() => {
            let at = rng.random_range(0..items.len());
            items.get_mut(at)
        }
        _ => None,
    };
    match inner {
        Some(inner) if inner.is_object() || inner.is_array() => disturb(inner, rng),
        Some(inner) => *inner = misfit(rng),
        None => *value = misfit(rng),
    }
}

/// The value as the Java SDK writes it: maps and lists of indefinite length.
fn to_cbor(value: &Value, out: &mut Vec<u8>) {
    let head = |major: u8, number: u64, out: &mut Vec<u8>| match number {
        0..24 => out.push(major << 5 | number as u8),
        _ => {
            out.push(major << 5 | 27);
            out.extend_from_slice(&number.to_be_bytes());
        }
    };
    match value {
        Value::Null => out.push(0xf6),
        Value::Bool(value) => out.push(0xf4 + u8::from(*value)),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => head(0, number, out),
            (_, Some(number)) => head(1, !number as u64, out),
            _ => {
                out.push(0xfb);
                out.extend_from_slice(&number.as_f64().unwrap_or_default().to_be_bytes());
            }
        },
        Value::String(text) => {
            head(3, text.len() as u64, out);
            out.extend_from_slice(text.as_bytes());
        }
        Value::Array(items) => {
            out.push(0x9f);
            items.iter().for_each(|item| to_cbor(item, out));
            out.push(0xff);
        }
        Value::Object(members) => {
            out.push(0xbf);
            for (name, member) in members {
                to_cbor(&json!(name), out);
                to_cbor(member, out);
            }
            out.push(0xff);
        }
    }
}

/// Changes, drops, repeats bytes.
fn garble(body: &mut Vec<u8>, rng: &mut StdRng) {
    for _ in 0..rng.random_range(1..8) {
        if body.is_empty() {
            return;
        }
        let at = rng.random_range(0..body.len());
        match rng.random_range(0..5) {
            0 => body[at] = rng.random(),
            1 => body.insert(at, rng.random()),
            2 => body.truncate(at),
            3 => body[at] ^= 1 << rng.random_range(0..8),
            _ => {
                let end = (at + 64).min(body.len());
                body.extend_from_within(at..end);
            }
        }
    }
}

/// A broken request: headers beside the content type, and the body.
struct Broken {
    operation: &'static str,
    content_type: &'static str,
    headers: Vec<(&'static str, String)>,
    path: String,
    body: Vec<u8>,
}

fn printable(rng: &mut StdRng, most: usize) -> String {
    (0..rng.random_range(0..most)).map(|_| char::from(rng.random_range(0x21..0x7f_u8))).collect()
}

fn broken(all: &[(&'static str, Value)], rng: &mut StdRng) -> Broken {
    let (operation, input) = &all[rng.random_range(0..all.len())];
    let mut input = input.clone();
    let cbor = rng.random_ratio(1, 2);
    let way = rng.random_range(0..10);
    if way < 5 {
        (0..rng.random_range(1..3)).for_each(|_| disturb(&mut input, rng));
    }
    let mut body = Vec::new();
    if cbor {
        to_cbor(&input, &mut body)
    } else {
        body = input.to_string().into_bytes()
    }
    let (mut headers, mut path) = (Vec::new(), "/".to_owned());
    match way {
        5 | 6 => garble(&mut body, rng),
        7 => {
            body = vec![0; rng.random_range(0..300)];
            rng.fill_bytes(&mut body);
        }
        8 => {
            headers.push(("authorization", format!("AWS4-HMAC-SHA256 {}", printable(rng, 300))));
            headers.push(("x-amz-date", printable(rng, 30)));
            headers.push(("x-amz-content-sha256", printable(rng, 70)));
        }
        9 => path = format!("/?X-Amz-Algorithm=AWS4-HMAC-SHA256&{}", printable(rng, 200).replace('#', "%")),
        _ => {}
    }
    // now and then the type does not say what the body is
    let told = if rng.random_ratio(1, 20) { !cbor } else { cbor };
    Broken { operation, content_type: if told { CBOR } else { JSON }, headers, path, body }
}

impl Broken {
    async fn send(&self, connection: &mut Connection) -> Result<Reply> {
        let target = format!("Kinesis_20131202.{}", self.operation);
        let mut headers = vec![("content-type", self.content_type), ("x-amz-target", target.as_str())];
        headers.extend(self.headers.iter().map(|(name, value)| (*name, value.as_str())));
        connection.request("POST", &self.path, &headers, &self.body).await
    }
    fn shown(&self) -> String {
        let body = String::from_utf8_lossy(&self.body[..self.body.len().min(300)]).into_owned();
        format!("{} {} {:?} {body:?}", self.operation, self.path, self.headers)
    }
}

/// Everything that describes show of the fixture's stream and account.
async fn state(fixture: &Fixture) -> Result<Value> {
    let mut kinesis = fixture.broker.kinesis();
    let mut all = Map::new();
    let stream = json!({ "StreamName": STREAM });
    for (operation, input) in [
        ("ListStreams", &json!({})),
        ("DescribeStream", &stream),
        ("DescribeStreamSummary", &stream),
        ("ListTagsForStream", &stream),
        ("DescribeLimits", &json!({})),
        ("DescribeAccountSettings", &json!({})),
    ] {
        all.insert(operation.to_owned(), kinesis.ok(operation, input).await?);
    }
    Ok(Value::Object(all))
}

#[tokio::test]
async fn thousands_of_malformed_requests_get_no_server_error_and_change_nothing() -> Result<()> {
    let mut fixture = Fixture::new().await?;
    let all = requests();
    ensure!(all.len() == 40, "{} operations", all.len());
    let before = state(&fixture).await?;
    let mut rng = StdRng::seed_from_u64(SEED);
    let mut statuses = std::collections::BTreeMap::<u16, usize>::new();
    let mut settled = 0;
    for round in 0..REQUESTS {
        if round == REQUESTS / 10 {
            settled = fixture.broker.resident_kib()?;
        }
        let request = broken(&all, &mut rng);
        let reply = request.send(&mut fixture.connection).await;
        let reply = reply.with_context(|| format!("request {round}: {}", request.shown()))?;
        ensure!(reply.status < 500, "request {round}: {}: {}", request.shown(), reply.text());
        *statuses.entry(reply.status).or_default() += 1;
        if reply.header("connection") == Some("close") {
            fixture.connection = fixture.broker.connect().await?;
        }
    }
    let grown = fixture.broker.resident_kib()?.saturating_sub(settled);
    tell(&format!(
        "{REQUESTS} malformed requests, replies by status: {statuses:?}; memory grew by {grown} KiB"
    ));
    ensure!(statuses.get(&400).is_some_and(|count| *count > REQUESTS / 2), "{statuses:?}");
    ensure!(grown < GROWTH_KIB_MAX, "the broker grew by {grown} KiB");
    let after = state(&fixture).await?;
    ensure!(before == after, "something changed:\n{before}\n{after}");
    fixture.assert_nothing_written().await
}
