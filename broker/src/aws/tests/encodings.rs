//! One story told in JSON and in CBOR: every operation takes the same and answers the same in both.

use super::{JSON, Kinesis};
use http::StatusCode;
use minicbor::data::{Tag, Type};
use minicbor::{Decoder, Encoder};
use serde_json::{Map, Value, json};

const CBOR: &str = "application/x-amz-cbor-1.1";
const ARN: &str = "arn:aws:kinesis:us-east-1:123456789012:stream/s";

#[derive(Clone, Copy, PartialEq)]
enum Tongue {
    Json,
    Cbor,
}

/// As the Java SDK writes a request: blobs as bytes, times in milliseconds, structures of indefinite length.
fn write(name: &str, value: &Value, out: &mut Encoder<Vec<u8>>) {
    let wrote = match (name, value) {
        ("Data", Value::String(text)) => {
            out.bytes(&base64_simd::STANDARD.decode_to_vec(text).unwrap()).map(drop)
        }
        ("Timestamp" | "StreamCreationTimestamp", Value::Number(seconds)) => {
            out.tag(Tag::new(1)).and_then(|out| out.u64(seconds.as_u64().unwrap() * 1000)).map(drop)
        }
        (_, Value::String(text)) => out.str(text).map(drop),
        (_, Value::Number(number)) => out.u64(number.as_u64().unwrap()).map(drop),
        (_, Value::Bool(value)) => out.bool(*value).map(drop),
        (_, Value::Array(items)) => {
            out.begin_array().unwrap();
            items.iter().for_each(|item| write("", item, out));
            out.end().map(drop)
        }
        (_, Value::Object(members)) => {
            out.begin_map().unwrap();
            for (name, value) in members {
                out.str(name).unwrap();
                write(name, value, out);
            }
            out.end().map(drop)
        }
        (_, Value::Null) => out.null().map(drop),
    };
    wrote.unwrap();
}

/// A reply in CBOR as it would be in JSON.
fn read(cbor: &mut Decoder<'_>) -> Value {
    match cbor.datatype().unwrap() {
        Type::String => cbor.str().unwrap().into(),
        Type::Bytes => base64_simd::STANDARD.encode_to_string(cbor.bytes().unwrap()).into(),
        Type::Bool => cbor.bool().unwrap().into(),
        Type::Tag => {
            assert_eq!(cbor.tag().unwrap(), Tag::new(1));
            (cbor.u64().unwrap() as f64 / 1000.0).into()
        }
        Type::ArrayIndef => {
            assert_eq!(cbor.array().unwrap(), None);
            let mut items = Vec::new();
            while cbor.datatype().unwrap() != Type::Break {
                items.push(read(cbor));
            }
            cbor.skip().unwrap();
            items.into()
        }
        Type::MapIndef => {
            assert_eq!(cbor.map().unwrap(), None);
            let mut members = Map::new();
            while cbor.datatype().unwrap() != Type::Break {
                let name = cbor.str().unwrap().to_owned();
                assert_eq!(members.insert(name, read(cbor)), None, "a member came twice");
            }
            cbor.skip().unwrap();
            members.into()
        }
        _ => cbor.u64().unwrap().into(),
    }
}

/// Someone who keeps to one encoding, and remembers what was said.
struct Speaker {
    kinesis: Kinesis,
    tongue: Tongue,
    heard: Vec<Value>,
}

impl Speaker {
    async fn call(&mut self, operation: &str, input: Value) -> Value {
        let reply = match self.tongue {
            Tongue::Json => self.kinesis.post(operation, JSON, input.to_string()).await,
            Tongue::Cbor => {
                let mut body = Encoder::new(Vec::new());
                write("", &input, &mut body);
                self.kinesis.post(operation, CBOR, body.into_writer()).await
            }
        };
        let body = match (reply.bytes.is_empty(), self.tongue) {
            (true, _) => Value::Null,
            (false, Tongue::Json) => reply.json(),
            (false, Tongue::Cbor) => {
                let mut cbor = Decoder::new(&reply.bytes);
                let body = read(&mut cbor);
                assert_eq!(cbor.position(), reply.bytes.len(), "{operation} says more");
                body
            }
        };
        let mut told = body.clone();
        // a seal with the key of each broker
        for token in ["ShardIterator", "NextShardIterator", "NextToken"] {
            if let Some(token) = told.get_mut(token) {
                *token = "a token".into();
            }
        }
        self.heard.push(json!([operation, reply.status.as_u16(), told]));
        body
    }

    async fn ok(&mut self, operation: &str, input: Value) -> Value {
        let body = self.call(operation, input).await;
        let status = &self.heard.last().unwrap()[1];
        assert_eq!(*status, StatusCode::OK.as_u16(), "{operation}: {body}");
        body
    }

    async fn tell(mut self) -> Vec<Value> {
        self.tell_of_settings().await;
        self.tell_of_consumers_and_policies().await;
        self.tell_of_records_and_shards().await;
        for (operation, input) in [
            ("DescribeStream", json!({"StreamName": "nobody"})),
            ("PutRecords", json!({"StreamName": "s", "Records": []})),
            ("AddTagsToStream", json!({"StreamName": "s", "Tags": ["a"]})),
            ("CreateQueue", json!({})),
        ] {
            self.call(operation, input).await;
        }
        self.ok("DeleteStream", json!({"StreamName": "s", "EnforceConsumerDeletion": true})).await;
        self.heard
    }

    async fn tell_of_settings(&mut self) {
        let commitment = json!({"MinimumThroughputBillingCommitment": {"Status": "ENABLED"}});
        self.ok("UpdateAccountSettings", commitment).await;
        self.ok("DescribeAccountSettings", json!({})).await;
        let create = json!({
            "StreamName": "s", "StreamModeDetails": {"StreamMode": "ON_DEMAND"}, "Tags": {"a": "b", "é": ""},
            "WarmThroughputMiBps": 1, "MaxRecordSizeInKiB": 2048, "RecordDistributionStrategy": "AUTO"
        });
        self.ok("CreateStream", create).await;
        let metrics = || json!({"StreamName": "s", "ShardLevelMetrics": ["IncomingBytes", "OutgoingBytes"]});
        self.ok("EnableEnhancedMonitoring", metrics()).await;
        self.ok(
            "DisableEnhancedMonitoring",
            json!({"StreamName": "s", "ShardLevelMetrics": ["OutgoingBytes"]}),
        )
        .await;
        self.ok("IncreaseStreamRetentionPeriod", json!({"StreamName": "s", "RetentionPeriodHours": 100}))
            .await;
        self.ok("DecreaseStreamRetentionPeriod", json!({"StreamName": "s", "RetentionPeriodHours": 48}))
            .await;
        self.ok("UpdateStreamWarmThroughput", json!({"StreamName": "s", "WarmThroughputMiBps": 2})).await;
        self.ok("UpdateMaxRecordSize", json!({"StreamARN": ARN, "MaxRecordSizeInKiB": 1024})).await;
        self.ok("DescribeStreamSummary", json!({"StreamName": "s"})).await;
        let by_key = json!({"StreamARN": ARN, "RecordDistributionStrategy": "USER_PARTITION_KEY"});
        self.ok("UpdateStreamRecordDistributionStrategy", by_key).await;
        let mode = json!({"StreamARN": ARN, "StreamModeDetails": {"StreamMode": "PROVISIONED"}});
        self.ok("UpdateStreamMode", mode).await;
        self.ok("AddTagsToStream", json!({"StreamName": "s", "Tags": {"c": "d"}})).await;
        self.ok("RemoveTagsFromStream", json!({"StreamName": "s", "TagKeys": ["é"]})).await;
        self.ok("ListTagsForStream", json!({"StreamName": "s", "Limit": 1})).await;
        self.ok("DescribeLimits", json!({})).await;
        self.ok("ListStreams", json!({"Limit": 1})).await;
    }

    async fn tell_of_consumers_and_policies(&mut self) {
        let register = |name: &str| json!({"StreamARN": ARN, "ConsumerName": name, "Tags": {"x": "y"}});
        let consumer =
            self.ok("RegisterStreamConsumer", register("c")).await["Consumer"]["ConsumerARN"].clone();
        self.ok("RegisterStreamConsumer", register("d")).await;
        self.ok("DescribeStreamConsumer", json!({"ConsumerARN": consumer})).await;
        let list = json!({"StreamARN": ARN, "MaxResults": 1, "StreamCreationTimestamp": 1_700_000_000});
        let token = self.ok("ListStreamConsumers", list).await["NextToken"].clone();
        self.ok("ListStreamConsumers", json!({"StreamARN": ARN, "NextToken": token})).await;
        self.ok("TagResource", json!({"ResourceARN": consumer, "Tags": {"z": ""}})).await;
        self.ok("UntagResource", json!({"ResourceARN": consumer, "TagKeys": ["x"]})).await;
        self.ok("ListTagsForResource", json!({"ResourceARN": consumer})).await;
        let statement = json!({
            "Effect": "Allow", "Principal": "*", "Action": "kinesis:DescribeStreamConsumer", "Resource": "*"
        });
        let policy = json!({"Version": "2012-10-17", "Statement": [statement]}).to_string();
        self.ok("PutResourcePolicy", json!({"ResourceARN": consumer, "Policy": policy})).await;
        self.ok("GetResourcePolicy", json!({"ResourceARN": consumer})).await;
        self.ok("DeleteResourcePolicy", json!({"ResourceARN": consumer})).await;
        self.ok("DeregisterStreamConsumer", json!({"ConsumerARN": consumer})).await;
    }

    async fn tell_of_records_and_shards(&mut self) {
        let put = json!({"StreamName": "s", "PartitionKey": "a", "Data": "aGk=", "ExplicitHashKey": "1"});
        self.ok("PutRecord", put).await;
        let entry = |data: &str| json!({"PartitionKey": "日本", "Data": data, "ExplicitHashKey": "2"});
        self.ok("PutRecords", json!({"StreamName": "s", "Records": [entry(""), entry("/////w==")]})).await;
        let quarter = "85070591730234615865843651857942052863";
        let split = json!({"StreamName": "s", "ShardToSplit": "shardId-0", "NewStartingHashKey": "9"});
        self.ok("SplitShard", split).await;
        self.kinesis.clock.advance_ms(1500);
        let at = json!({"Type": "AT_TIMESTAMP", "Timestamp": 1_700_000_000});
        for filter in
            [at, json!({"Type": "AFTER_SHARD_ID", "ShardId": "shardId-3"}), json!({"Type": "AT_LATEST"})]
        {
            self.ok("ListShards", json!({"StreamName": "s", "ShardFilter": filter, "MaxResults": 2})).await;
        }
        let merge =
            json!({"StreamName": "s", "ShardToMerge": "shardId-4", "AdjacentShardToMerge": "shardId-5"});
        self.ok("MergeShards", merge).await;
        let scale = json!({"StreamName": "s", "TargetShardCount": 2, "ScalingType": "UNIFORM_SCALING"});
        self.ok("UpdateShardCount", scale).await;
        let described = self.ok("DescribeStream", json!({"StreamName": "s"})).await;
        let first = &described["StreamDescription"]["Shards"][0]["HashKeyRange"]["EndingHashKey"];
        assert_eq!(first, quarter);
        let ask = json!({
            "StreamName": "s", "ShardId": "shardId-0", "ShardIteratorType": "AT_TIMESTAMP", "Timestamp": 1_700_000_000
        });
        let mut iterator = self.ok("GetShardIterator", ask).await["ShardIterator"].clone();
        for _ in 0..3 {
            let page = self.ok("GetRecords", json!({"ShardIterator": iterator, "Limit": 2})).await;
            let Some(next) = page.get("NextShardIterator") else { return };
            iterator = next.clone();
        }
        panic!("a closed shard of three records did not end");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn json_and_cbor_tell_the_same_story() {
    let mut told = Vec::new();
    for tongue in [Tongue::Json, Tongue::Cbor] {
        let speaker = Speaker { kinesis: Kinesis::start().await, tongue, heard: Vec::new() };
        told.push(speaker.tell().await);
    }
    let (cbor, json) = (told.pop().unwrap(), told.pop().unwrap());
    assert_eq!(json.len(), cbor.len());
    for (json, cbor) in json.iter().zip(&cbor) {
        let say =
            |said: &Value| serde_json::to_string_pretty(said).unwrap().replace("\"Message\"", "\"message\"");
        assert_eq!(say(json), say(cbor));
    }
}
