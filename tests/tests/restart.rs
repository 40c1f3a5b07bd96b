//! What was set is set for good: after each change the broker is killed without warning, started again, and asked
//! everything it can be asked.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tempfile::TempDir;
use tidemill_tests::{Broker, Kinesis, tell};

const KEY_ID: &str = "alias/tidemill-tests";
const KEYS: &str = r#"
[[keys]]
id = "alias/tidemill-tests"
secret = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
"#;
const OTHER_ACCOUNT: &str = "999999999999";
const SHARD: &str = "shardId-000000000000";

/// Every answer, by question.
type Told = BTreeMap<String, Value>;

/// Asks, and keeps the answer: a reply, or the name of the exception.
async fn ask(told: &mut Told, kinesis: &mut Kinesis, operation: &str, input: Value) -> Result<Value> {
    let reply = kinesis.call(operation, input.to_string().as_bytes()).await?;
    let answer = match reply.status {
        200 => reply.json()?,
        400 => reply.json()?["__type"].clone(),
        status => anyhow::bail!("{operation} {input}: {status} {}", reply.text()),
    };
    told.insert(format!("{operation} {input}"), answer.clone());
    Ok(answer)
}

fn texts(list: &Value, member: &str) -> Vec<String> {
    let of = |entry: &Value| entry[member].as_str().or(entry.as_str()).map(str::to_owned);
    list.as_array().into_iter().flatten().filter_map(of).collect()
}

/// Everything the broker tells of its streams, and every record in them.
async fn told(kinesis: &mut Kinesis) -> Result<Told> {
    let mut told = Told::new();
    ask(&mut told, kinesis, "DescribeLimits", json!({})).await?;
    ask(&mut told, kinesis, "DescribeAccountSettings", json!({})).await?;
    let streams = ask(&mut told, kinesis, "ListStreams", json!({})).await?;
    for stream in texts(&streams["StreamNames"], "") {
        let named = || json!({ "StreamName": stream });
        ask(&mut told, kinesis, "DescribeStream", named()).await?;
        ask(&mut told, kinesis, "ListTagsForStream", named()).await?;
        let summary = ask(&mut told, kinesis, "DescribeStreamSummary", named()).await?;
        let arn = &summary["StreamDescriptionSummary"]["StreamARN"];
        let consumers = ask(&mut told, kinesis, "ListStreamConsumers", json!({ "StreamARN": arn })).await?;
        let consumers = texts(&consumers["Consumers"], "ConsumerARN");
        for consumer in &consumers {
            ask(&mut told, kinesis, "DescribeStreamConsumer", json!({ "ConsumerARN": consumer })).await?;
        }
        for resource in consumers.iter().map(String::as_str).chain(arn.as_str()) {
            let resource = || json!({ "ResourceARN": resource });
            ask(&mut told, kinesis, "ListTagsForResource", resource()).await?;
            ask(&mut told, kinesis, "GetResourcePolicy", resource()).await?;
        }
        let shards = ask(&mut told, kinesis, "ListShards", named()).await?;
        for shard in texts(&shards["Shards"], "ShardId") {
            let iterator = kinesis.iterator(&stream, &shard, "TRIM_HORIZON", &Value::Null).await?;
            let mut page = kinesis.ok("GetRecords", &json!({ "ShardIterator": iterator })).await?;
            // each one is new
            page.as_object_mut().and_then(|members| members.remove("NextShardIterator"));
            told.insert(format!("records of {stream} {shard}"), page);
        }
    }
    Ok(told)
}

fn difference(before: &Told, after: &Told) -> String {
    let keys = before.keys().chain(after.keys().filter(|key| !before.contains_key(*key)));
    let lines = keys.filter(|key| before.get(*key) != after.get(*key)).map(|key| {
        let shown = |told: &Told| told.get(key).map_or("nothing".to_owned(), Value::to_string);
        format!("{key}\n  before: {}\n  after:  {}", shown(before), shown(after))
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// A broker whose every acknowledged change is followed by a kill.
struct Killed {
    broker: Option<Broker>,
    told: Told,
    changes: usize,
}

impl Killed {
    async fn kinesis(&self) -> Result<Kinesis> {
        Ok(self.broker.as_ref().context("a broker")?.kinesis())
    }

    /// Makes a change that can be seen, kills the broker, and finds the change there after the restart.
    async fn change(&mut self, operation: &str, input: Value) -> Result<Value> {
        let reply = self.kinesis().await?.ok(operation, &input).await?;
        let mut broker = self.broker.take().context("a broker")?;
        let changed = told(&mut broker.kinesis()).await?;
        ensure!(changed != self.told, "{operation} {input} changed nothing that can be seen");
        broker.kill_9().await?;
        let broker = self.broker.insert(broker.restart().await?);
        let again = told(&mut broker.kinesis()).await?;
        ensure!(again == changed, "{operation} {input} did not survive:\n{}", difference(&changed, &again));
        self.told = again;
        self.changes += 1;
        Ok(reply)
    }
}

fn policy(arn: &str, action: &str) -> String {
    let statement = json!({
        "Effect": "Allow", "Principal": { "AWS": format!("arn:aws:iam::{OTHER_ACCOUNT}:root") },
        "Action": action, "Resource": arn,
    });
    json!({ "Version": "2012-10-17", "Statement": [statement] }).to_string()
}

async fn arn_of(kinesis: &mut Kinesis, stream: &str) -> Result<String> {
    let summary = kinesis.ok("DescribeStreamSummary", &json!({ "StreamName": stream })).await?;
    let arn = summary["StreamDescriptionSummary"]["StreamARN"].as_str();
    Ok(arn.context("a stream has an ARN")?.to_owned())
}

async fn broker(home: &TempDir) -> Result<Killed> {
    let config = home.path().join("tidemill.toml");
    std::fs::write(&config, KEYS)?;
    let config = config.to_str().context("a temporary directory has a plain name")?;
    let broker = Broker::start(&home.path().join("data"), &["--config", config]).await?;
    let told = told(&mut broker.kinesis()).await?;
    Ok(Killed { broker: Some(broker), told, changes: 0 })
}

// covers: CreateStream, DeleteStream, AddTagsToStream, RemoveTagsFromStream restart-survives
// covers: IncreaseStreamRetentionPeriod, DecreaseStreamRetentionPeriod, UpdateMaxRecordSize restart-survives
// covers: EnableEnhancedMonitoring, DisableEnhancedMonitoring restart-survives
// covers: StartStreamEncryption, StopStreamEncryption restart-survives
// covers: SplitShard, MergeShards, UpdateShardCount, PutRecord, PutRecords restart-survives
// covers: DescribeStream, DescribeStreamSummary, DescribeLimits, ListStreams, ListShards restart-survives
// covers: ListTagsForStream, ListTagsForResource restart-survives
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_setting_of_a_stream_survives_a_kill() -> Result<()> {
    let home = TempDir::new()?;
    let mut killed = broker(&home).await?;
    let stream = |more: Value| {
        let mut input = json!({ "StreamName": "plain" });
        input.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
        input
    };
    killed.change("CreateStream", stream(json!({ "ShardCount": 2 }))).await?;
    let arn = arn_of(&mut killed.kinesis().await?, "plain").await?;
    let record = json!({ "Data": "aGVsbG8=", "PartitionKey": "k" });
    let half = "85070591730234615865843651857942052863";
    let key = json!({ "EncryptionType": "KMS", "KeyId": KEY_ID });
    let steps = [
        ("PutRecord", stream(record.clone())),
        ("AddTagsToStream", stream(json!({ "Tags": { "a": "1", "b": "" } }))),
        ("RemoveTagsFromStream", stream(json!({ "TagKeys": ["a"] }))),
        ("IncreaseStreamRetentionPeriod", stream(json!({ "RetentionPeriodHours": 72 }))),
        ("DecreaseStreamRetentionPeriod", stream(json!({ "RetentionPeriodHours": 48 }))),
        ("UpdateMaxRecordSize", json!({ "StreamARN": arn, "MaxRecordSizeInKiB": 10_240 })),
        ("EnableEnhancedMonitoring", stream(json!({ "ShardLevelMetrics": ["ALL"] }))),
        ("DisableEnhancedMonitoring", stream(json!({ "ShardLevelMetrics": ["IncomingBytes"] }))),
        ("StartStreamEncryption", stream(key.clone())),
        ("PutRecords", stream(json!({ "Records": [record, record] }))),
        ("SplitShard", stream(json!({ "ShardToSplit": SHARD, "NewStartingHashKey": half }))),
        ("PutRecord", stream(record.clone())),
        (
            "MergeShards",
            stream(json!({
                "ShardToMerge": "shardId-000000000002", "AdjacentShardToMerge": "shardId-000000000003"
            })),
        ),
        ("UpdateShardCount", stream(json!({ "TargetShardCount": 4, "ScalingType": "UNIFORM_SCALING" }))),
        ("StopStreamEncryption", stream(key)),
        ("PutRecord", stream(record)),
        ("CreateStream", json!({ "StreamName": "gone", "ShardCount": 1, "Tags": { "a": "1" } })),
        ("DeleteStream", json!({ "StreamName": "gone" })),
    ];
    for (operation, input) in steps {
        killed.change(operation, input).await?;
    }
    tell(&format!("{} changes of a stream survived a kill each", killed.changes));
    Ok(())
}

// covers: CreateStream, UpdateStreamMode, UpdateStreamRecordDistributionStrategy restart-survives
// covers: UpdateStreamWarmThroughput, UpdateAccountSettings, DescribeAccountSettings restart-survives
// covers: DescribeLimits restart-survives
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_setting_of_on_demand_streams_and_of_the_account_survives_a_kill() -> Result<()> {
    let home = TempDir::new()?;
    let mut killed = broker(&home).await?;
    let commit = |status: &str| json!({ "MinimumThroughputBillingCommitment": { "Status": status } });
    killed.change("UpdateAccountSettings", commit("ENABLED")).await?;
    let create = json!({
        "StreamName": "full", "StreamModeDetails": { "StreamMode": "ON_DEMAND" }, "Tags": { "team": "blue" },
        "WarmThroughputMiBps": 8, "MaxRecordSizeInKiB": 2048, "RecordDistributionStrategy": "AUTO"
    });
    killed.change("CreateStream", create).await?;
    let arn = arn_of(&mut killed.kinesis().await?, "full").await?;
    let mode = |mode: &str| json!({ "StreamARN": arn, "StreamModeDetails": { "StreamMode": mode } });
    let distribution = |strategy: &str| json!({ "StreamARN": arn, "RecordDistributionStrategy": strategy });
    let steps = [
        ("UpdateStreamWarmThroughput", json!({ "StreamARN": arn, "WarmThroughputMiBps": 24 })),
        ("UpdateStreamRecordDistributionStrategy", distribution("USER_PARTITION_KEY")),
        ("UpdateStreamMode", mode("PROVISIONED")),
        ("UpdateStreamMode", mode("ON_DEMAND")),
        ("UpdateStreamRecordDistributionStrategy", distribution("AUTO")),
        ("UpdateAccountSettings", commit("DISABLED")),
    ];
    for (operation, input) in steps {
        killed.change(operation, input).await?;
    }
    tell(&format!("{} changes of an account survived a kill each", killed.changes));
    Ok(())
}

// covers: RegisterStreamConsumer, DeregisterStreamConsumer, DescribeStreamConsumer restart-survives
// covers: ListStreamConsumers, TagResource, UntagResource, ListTagsForResource restart-survives
// covers: PutResourcePolicy, GetResourcePolicy, DeleteResourcePolicy restart-survives
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_tags_and_policies_survive_a_kill() -> Result<()> {
    let home = TempDir::new()?;
    let mut killed = broker(&home).await?;
    killed.change("CreateStream", json!({ "StreamName": "s", "ShardCount": 1 })).await?;
    let stream = arn_of(&mut killed.kinesis().await?, "s").await?;
    let register = json!({ "StreamARN": stream, "ConsumerName": "reader", "Tags": { "a": "1" } });
    let reply = killed.change("RegisterStreamConsumer", register).await?;
    let consumer = reply["Consumer"]["ConsumerARN"].as_str().context("an ARN")?.to_owned();
    for (arn, action) in [(&stream, "kinesis:PutRecord"), (&consumer, "kinesis:SubscribeToShard")] {
        let of = |more: Value| {
            let mut input = json!({ "ResourceARN": arn });
            input.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
            input
        };
        let steps = [
            ("TagResource", of(json!({ "Tags": { "b": "2", "c": "3" } }))),
            ("UntagResource", of(json!({ "TagKeys": ["b"] }))),
            ("PutResourcePolicy", of(json!({ "Policy": policy(arn, action) }))),
            ("DeleteResourcePolicy", of(json!({}))),
            ("PutResourcePolicy", of(json!({ "Policy": policy(arn, "kinesis:*") }))),
        ];
        for (operation, input) in steps {
            killed.change(operation, input).await?;
        }
    }
    let another = json!({ "StreamARN": stream, "ConsumerName": "another" });
    killed.change("RegisterStreamConsumer", another.clone()).await?;
    killed.change("DeregisterStreamConsumer", another).await?;
    tell(&format!("{} changes of consumers, tags and policies survived a kill each", killed.changes));
    Ok(())
}

// covers: GetShardIterator, GetRecords restart-survives
// covers: ListShards, ListStreams, ListStreamConsumers restart-survives
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn iterators_and_page_tokens_are_good_after_a_kill() -> Result<()> {
    let home = TempDir::new()?;
    let mut broker = Broker::start(home.path(), &[]).await?;
    let mut kinesis = broker.kinesis();
    kinesis.create_stream("a", 3).await?;
    kinesis.create_stream("b", 1).await?;
    let arn = arn_of(&mut kinesis, "a").await?;
    for name in ["one", "two"] {
        let register = json!({ "StreamARN": arn, "ConsumerName": name });
        kinesis.ok("RegisterStreamConsumer", &register).await?;
    }
    let put = json!({ "StreamName": "b", "Data": "aGVsbG8=", "PartitionKey": "k" });
    kinesis.ok("PutRecord", &put).await?;
    let horizon = kinesis.iterator("b", SHARD, "TRIM_HORIZON", &Value::Null).await?;
    let latest = kinesis.iterator("b", SHARD, "LATEST", &Value::Null).await?;
    let read = |iterator: &str| json!({ "ShardIterator": iterator });
    let next = kinesis.ok("GetRecords", &read(&horizon)).await?["NextShardIterator"].clone();
    let next = next.as_str().context("an iterator")?.to_owned();
    let pages = [
        ("ListShards", json!({ "StreamName": "a", "MaxResults": 1 }), "Shards", 2),
        ("ListStreams", json!({ "Limit": 1 }), "StreamNames", 1),
        ("ListStreamConsumers", json!({ "StreamARN": arn, "MaxResults": 1 }), "Consumers", 1),
    ];
    let mut tokens = Vec::new();
    for (operation, input, _, _) in &pages {
        tokens.push(kinesis.ok(operation, input).await?["NextToken"].clone());
    }
    broker.kill_9().await?;
    let broker = broker.restart().await?;
    let mut kinesis = broker.kinesis();
    kinesis.ok("PutRecord", &put).await?;
    for (iterator, expected) in [(&horizon, 2), (&latest, 1), (&next, 1)] {
        let page = kinesis.ok("GetRecords", &read(iterator)).await?;
        ensure!(page["Records"].as_array().map(Vec::len) == Some(expected), "{expected}: {page}");
    }
    for ((operation, _, member, left), token) in pages.into_iter().zip(tokens) {
        let mut input = json!({ "NextToken": token });
        if operation == "ListStreamConsumers" {
            input["StreamARN"] = arn.as_str().into();
        }
        let page = kinesis.ok(operation, &input).await?;
        ensure!(page[member].as_array().map(Vec::len) == Some(left), "{operation}: {page}");
    }
    Ok(())
}
