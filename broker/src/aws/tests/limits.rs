//! What a broker with limits refuses, and in which words.

use super::{Kinesis, START_MS};
use crate::auth::Gate;
use crate::aws::{AwsState, router};
use crate::limits::{AccountLimits, LimitSettings, ShardLimits, StreamLimits};
use serde_json::{Value, json};
use std::sync::Arc;
use tidemill_engine::{Engine, Quota, Settings};
use tidemill_types::{AccountId, ManualClock, Region, TimestampMs};
use tokio_util::sync::CancellationToken;

const DAY_MS: u64 = 24 * 3_600_000;

async fn limited(limits: LimitSettings) -> Kinesis {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(TimestampMs::new(START_MS)));
    let settings = Settings { quota: limits.shard.throughput, ..Settings::default() };
    let engine = Engine::open(dir.path(), settings, clock.clone()).await.unwrap();
    let gate = Gate::open(AccountId::new("123456789012").unwrap(), Region::new("us-east-1").unwrap());
    let state = AwsState::guarded(engine.clone(), gate, limits, CancellationToken::new());
    Kinesis { router: router(state), clock, engine, dir }
}

/// Limits on how much there may be and change, none on calls.
fn counts() -> LimitSettings {
    LimitSettings {
        account: AccountLimits { shards: Some(6), on_demand_streams: Some(1) },
        stream: StreamLimits { consumers: Some(2), ..LimitSettings::aws().stream },
        ..LimitSettings::default()
    }
}

fn arn(stream: &str) -> String {
    format!("arn:aws:kinesis:us-east-1:123456789012:stream/{stream}")
}

fn too_many_shards(current: u32, limit: u32, more: u32) -> String {
    format!(
        "This request would exceed the shard limit for the account 123456789012 in us-east-1. Current shard count for \
         the account: {current}. Limit: {limit}. Number of additional shards that would have resulted from this \
         request: {more}. Refer to the AWS Service Limits page \
         (http://docs.aws.amazon.com/general/latest/gr/aws_service_limits.html) for current limits and how to request \
         higher limits."
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_past_the_rate_of_an_operation_are_refused_until_the_next_second() {
    let kinesis = limited(LimitSettings::aws()).await;
    kinesis.create("s", 1).await;
    let input = json!({"StreamName": "s"});
    for _ in 0..10 {
        kinesis.ok("DescribeStream", input.clone()).await;
    }
    let told = "Rate exceeded for stream s under account 123456789012.";
    kinesis.assert_refused("DescribeStream", input.clone(), "LimitExceededException", told).await;
    kinesis.ok("DescribeStreamSummary", input.clone()).await;
    kinesis.ok("DescribeLimits", json!({})).await;
    let told = "Rate exceeded for account 123456789012.";
    kinesis.assert_refused("DescribeLimits", json!({}), "LimitExceededException", told).await;
    let theirs = json!({"StreamName": "s", "ShardCount": 1});
    assert_eq!(kinesis.call_as("000000000001", "CreateStream", theirs).await.0, 200);
    assert_eq!(kinesis.call_as("000000000001", "DescribeLimits", json!({})).await.0, 200, "it has its own");
    assert_eq!(kinesis.call_as("000000000001", "DescribeLimits", json!({})).await.0, 400);
    kinesis.clock.advance_ms(1000);
    kinesis.ok("DescribeStream", input).await;
    kinesis.ok("DescribeLimits", json!({})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn iterators_of_a_shard_are_counted() {
    let kinesis = limited(LimitSettings::aws()).await;
    kinesis.create("s", 2).await;
    for _ in 0..5 {
        kinesis.iterator("s", 1, json!({"ShardIteratorType": "LATEST"})).await;
    }
    let input = json!({"StreamName": "s", "ShardId": "shardId-000000000001", "ShardIteratorType": "LATEST"});
    let told = "Rate exceeded for shard shardId-000000000001 in stream s under account 123456789012.";
    kinesis.assert_refused("GetShardIterator", input, "ProvisionedThroughputExceededException", told).await;
    kinesis.iterator("s", 0, json!({"ShardIteratorType": "LATEST"})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_has_so_many_shards_however_they_come_to_be() {
    let kinesis = limited(counts()).await;
    let limits = kinesis.ok("DescribeLimits", json!({})).await;
    assert_eq!((&limits["ShardLimit"], &limits["OnDemandStreamCountLimit"]), (&json!(6), &json!(1)));
    kinesis.create("s", 4).await;
    let create = json!({"StreamName": "t", "ShardCount": 3});
    let full = "LimitExceededException";
    kinesis.assert_refused("CreateStream", create, full, &too_many_shards(4, 6, 3)).await;
    kinesis.create("t", 2).await;
    let split = json!({"StreamName": "t", "ShardToSplit": "shardId-000000000000", "NewStartingHashKey": "7"});
    kinesis.assert_refused("SplitShard", split, full, &too_many_shards(6, 6, 1)).await;
    let scale = |target: u32| json!({"StreamName": "t", "TargetShardCount": target, "ScalingType": "UNIFORM_SCALING"});
    kinesis.assert_refused("UpdateShardCount", scale(3), full, &too_many_shards(6, 6, 1)).await;
    for (shard, key) in [(0, "0"), (9, "7")] {
        let split = json!({"StreamName": "t", "ShardToSplit": format!("shardId-{shard:012}"), "NewStartingHashKey": key});
        let (kind, told) = kinesis.refused("SplitShard", split).await;
        assert!(
            ["InvalidArgumentException", "ResourceNotFoundException"].contains(&kind.as_str()),
            "{kind}: {told}"
        );
    }
    kinesis.ok("UpdateShardCount", scale(1)).await;
    let closed =
        json!({"StreamName": "t", "ShardToSplit": "shardId-000000000000", "NewStartingHashKey": "7"});
    kinesis.ok("CreateStream", json!({"StreamName": "u", "ShardCount": 1})).await;
    let (kind, told) = kinesis.refused("SplitShard", closed).await;
    assert_eq!(kind, "InvalidArgumentException", "{told}");
    let exists = json!({"StreamName": "s", "ShardCount": 100});
    assert_eq!(kinesis.refused("CreateStream", exists).await.0, "ResourceInUseException");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_made_at_once_do_not_pass_the_limit() {
    let kinesis = Arc::new(limited(counts()).await);
    let made = (0..24).map(|index| {
        let kinesis = Arc::clone(&kinesis);
        tokio::spawn(async move {
            kinesis
                .call("CreateStream", &json!({"StreamName": format!("s{index}"), "ShardCount": 1}))
                .await
                .status
        })
    });
    let made: Vec<_> = made.collect();
    let mut count = 0;
    for reply in made {
        count += usize::from(reply.await.unwrap() == 200);
    }
    assert!((1..=6).contains(&count), "{count}");
    assert_eq!(kinesis.ok("DescribeLimits", json!({})).await["OpenShardCount"], json!(count));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shard_count_changes_by_a_factor_and_so_often_a_day() {
    let kinesis = limited(LimitSettings { account: AccountLimits::default(), ..counts() }).await;
    kinesis.create("s", 2).await;
    let scale = |target: u32| json!({"StreamName": "s", "TargetShardCount": target, "ScalingType": "UNIFORM_SCALING"});
    let far = "UpdateShardCount cannot scale up over double your current open shard count. Current open shard count: 2 \
               Target shard count: 5";
    for _ in 0..20 {
        kinesis.assert_refused("UpdateShardCount", scale(5), "LimitExceededException", far).await;
    }
    for turn in 0..10 {
        kinesis.ok("UpdateShardCount", scale(1 + (turn % 2))).await;
    }
    let often = "The shard count of stream s under account 123456789012 was changed 10 times within the last 24 hours, \
                 which is the limit.";
    kinesis.assert_refused("UpdateShardCount", scale(1), "LimitExceededException", often).await;
    kinesis.clock.advance_ms(DAY_MS);
    kinesis.ok("UpdateShardCount", scale(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn modes_change_so_often_a_day_and_few_streams_are_on_demand() {
    let kinesis = limited(LimitSettings {
        account: AccountLimits { shards: None, on_demand_streams: Some(1) },
        ..counts()
    })
    .await;
    kinesis.create("s", 1).await;
    kinesis.create("t", 1).await;
    let switch = |stream: &str, mode: &str| json!({"StreamARN": arn(stream), "StreamModeDetails": {"StreamMode": mode}});
    kinesis.ok("UpdateStreamMode", switch("s", "ON_DEMAND")).await;
    let (kind, told) = kinesis.refused("UpdateStreamMode", switch("t", "ON_DEMAND")).await;
    assert_eq!(kind, "LimitExceededException", "{told}");
    kinesis.ok("UpdateStreamMode", switch("s", "PROVISIONED")).await;
    let (kind, told) = kinesis.refused("UpdateStreamMode", switch("s", "ON_DEMAND")).await;
    assert_eq!(kind, "LimitExceededException", "{told}");
    kinesis.ok("UpdateStreamMode", switch("t", "ON_DEMAND")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_on_demand_stream_is_not_scaled_whatever_room_there_is() {
    let kinesis = limited(counts()).await;
    let create = json!({"StreamName": "s", "StreamModeDetails": {"StreamMode": "ON_DEMAND"}});
    kinesis.ok("CreateStream", create).await;
    let scale = json!({"StreamName": "s", "TargetShardCount": 100, "ScalingType": "UNIFORM_SCALING"});
    let (kind, told) = kinesis.refused("UpdateShardCount", scale).await;
    assert_eq!(kind, "ValidationException", "{told}");
}

/// The change goes on when the connection it was asked for on is gone; once it did not count then.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_counts_though_its_caller_has_gone() {
    let stream = StreamLimits { shard_count_updates_per_day: Some(1), ..StreamLimits::default() };
    let kinesis = limited(LimitSettings { stream, ..LimitSettings::default() }).await;
    kinesis.create("s", 1).await;
    let scale = |target: u32| json!({"StreamName": "s", "TargetShardCount": target, "ScalingType": "UNIFORM_SCALING"});
    {
        let input = scale(2);
        tokio::select! {
            biased;
            _ = kinesis.call("UpdateShardCount", &input) => {}
            () = std::future::ready(()) => {}
        }
    }
    while kinesis.summary("s").await["OpenShardCount"] != json!(2) {
        tokio::task::yield_now().await;
    }
    let (kind, told) = kinesis.refused("UpdateShardCount", scale(4)).await;
    assert_eq!(kind, "LimitExceededException", "{told}");
}

/// Where nobody is checked a caller may name any account: those who make some up once took the place of all others.
#[tokio::test(flavor = "multi_thread")]
async fn accounts_and_streams_that_are_made_up_take_no_place() {
    let kinesis = limited(LimitSettings::aws()).await;
    kinesis.create("s", 1).await;
    for account in ["000000000001", "000000000002"] {
        for _ in 0..20 {
            assert_eq!(kinesis.call_as(account, "DescribeLimits", json!({})).await.0, 200);
        }
    }
    let absent = |turn: u32| json!({"StreamName": format!("absent{turn}")});
    for turn in 0..10 {
        let (kind, _) = kinesis.refused("DescribeStream", absent(turn)).await;
        assert_eq!(kind, "ResourceNotFoundException");
    }
    let (kind, told) = kinesis.refused("DescribeStream", absent(10)).await;
    assert_eq!(
        (kind.as_str(), told.as_str()),
        ("LimitExceededException", "Rate exceeded for account 123456789012.")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_has_so_many_consumers() {
    let kinesis = limited(counts()).await;
    kinesis.create("s", 1).await;
    for name in ["a", "b"] {
        kinesis.register("s", name).await;
    }
    let third = json!({"StreamARN": arn("s"), "ConsumerName": "c"});
    let told = "Stream s under account 123456789012 has 2 registered consumers. Limit: 2.";
    kinesis.assert_refused("RegisterStreamConsumer", third.clone(), "LimitExceededException", told).await;
    kinesis.ok("DeregisterStreamConsumer", json!({"StreamARN": arn("s"), "ConsumerName": "a"})).await;
    kinesis.ok("RegisterStreamConsumer", third).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_past_the_quota_of_a_shard_fail_one_by_one() {
    let throughput = Quota { write_records_per_s: Some(10), ..Quota::default() };
    let limits = LimitSettings {
        shard: ShardLimits { throughput, ..ShardLimits::default() },
        ..LimitSettings::default()
    };
    let kinesis = limited(limits).await;
    kinesis.create("s", 1).await;
    let records: Vec<Value> =
        (0..15).map(|key| json!({"PartitionKey": key.to_string(), "Data": "eA=="})).collect();
    let reply = kinesis.ok("PutRecords", json!({"StreamName": "s", "Records": records})).await;
    assert_eq!(reply["FailedRecordCount"], json!(5), "{reply}");
    let failed = reply["Records"].as_array().unwrap().iter().filter(|entry| entry.get("ErrorCode").is_some());
    for entry in failed {
        assert_eq!(entry["ErrorCode"], "ProvisionedThroughputExceededException");
        let told = "Rate exceeded for shard shardId-000000000000 in stream s under account 123456789012.";
        assert_eq!(entry["ErrorMessage"], told);
    }
    kinesis.clock.advance_ms(1000);
    let again = json!({"StreamName": "s", "PartitionKey": "k", "Data": "eA=="});
    kinesis.ok("PutRecord", again).await;
}
