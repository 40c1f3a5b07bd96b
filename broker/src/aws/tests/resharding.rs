//! Splitting, merging and scaling, and what readers and listings make of it.

use super::{Kinesis, START_MS, data_of};
use serde_json::{Value, json};

const ARN: &str = "arn:aws:kinesis:us-east-1:123456789012:stream/s";
const INVALID: &str = "InvalidArgumentException";
const HALF: &str = "170141183460469231731687303715884105728";
const MAX: &str = "340282366920938463463374607431768211455";

fn split(shard: u32, at: &str) -> Value {
    json!({"StreamName": "s", "ShardToSplit": format!("shardId-{shard:012}"), "NewStartingHashKey": at})
}

fn merge(shard: u32, adjacent: u32) -> Value {
    let id = |n: u32| format!("shardId-{n:012}");
    json!({"StreamName": "s", "ShardToMerge": id(shard), "AdjacentShardToMerge": id(adjacent)})
}

fn ids(page: &Value) -> Vec<u32> {
    let number = |shard: &Value| shard["ShardId"].as_str().unwrap()["shardId-".len()..].parse().unwrap();
    page["Shards"].as_array().unwrap().iter().map(number).collect()
}

async fn listed(kinesis: &Kinesis, filter: Value) -> Vec<u32> {
    ids(&kinesis.ok("ListShards", json!({"StreamName": "s", "ShardFilter": filter})).await)
}

/// Shard 0 split into 1 and 2 after ten seconds; after twenty these merged into 3.
async fn resharded() -> Kinesis {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 1).await;
    kinesis.put("s", "a", "before").await;
    kinesis.clock.advance_ms(10_000);
    assert_eq!(kinesis.ok("SplitShard", split(0, HALF)).await, Value::Null);
    kinesis.clock.advance_ms(5_000);
    kinesis.put("s", "a", "lower").await;
    kinesis.put("s", "b", "upper").await;
    kinesis.clock.advance_ms(5_000);
    assert_eq!(kinesis.ok("MergeShards", merge(1, 2)).await, Value::Null);
    kinesis.clock.advance_ms(5_000);
    kinesis.put("s", "a", "after").await;
    kinesis
}

// covers: SplitShard, MergeShards, ListShards, GetRecords success
#[tokio::test(flavor = "multi_thread")]
async fn a_closed_shard_ends_in_its_children_which_carry_on() {
    let kinesis = resharded().await;
    let begin = || json!({"ShardIteratorType": "TRIM_HORIZON"});
    let expected: [(&str, &[&str], &[u32]); 4] = [
        ("before", &["0"], &[1, 2]),
        ("lower", &["0"], &[3]),
        ("upper", &["0"], &[3]),
        ("after", &["1", "2"], &[]),
    ];
    for (shard, (data, _, children)) in (0u32..).zip(expected) {
        let mut page = kinesis.read(&kinesis.iterator("s", shard, begin()).await).await;
        assert_eq!(data_of(&page), [data]);
        if let Some(next) = page["NextShardIterator"].as_str().filter(|_| !children.is_empty()) {
            page = kinesis.read(next).await;
        }
        assert_eq!(page.get("NextShardIterator").is_none(), !children.is_empty(), "{page}");
        let found = json!({"Shards": page.get("ChildShards").cloned().unwrap_or_else(|| json!([]))});
        assert_eq!(ids(&found), children);
        assert_eq!(page["MillisBehindLatest"], 0);
    }
    let end = kinesis.iterator("s", 1, json!({"ShardIteratorType": "LATEST"})).await;
    let end = kinesis.read(&end).await;
    assert_eq!(end["Records"], json!([]));
    let child = json!([{
        "ShardId": "shardId-000000000003", "ParentShards": ["shardId-000000000001", "shardId-000000000002"],
        "HashKeyRange": {"StartingHashKey": "0", "EndingHashKey": MAX}
    }]);
    assert_eq!(end["ChildShards"], child);
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_tell_their_parents_ranges_and_ends() {
    let kinesis = resharded().await;
    let page = kinesis.ok("ListShards", json!({"StreamName": "s"})).await;
    let shards = page["Shards"].as_array().unwrap();
    assert_eq!(shards[1]["ParentShardId"], "shardId-000000000000");
    assert_eq!(shards[2]["HashKeyRange"], json!({"StartingHashKey": HALF, "EndingHashKey": MAX}));
    assert_eq!(shards[3]["ParentShardId"], "shardId-000000000001");
    assert_eq!(shards[3]["AdjacentParentShardId"], "shardId-000000000002");
    let number = |shard: &Value, end: &str| shard["SequenceNumberRange"][end].as_str().map(str::to_owned);
    for (shard, child) in [(0, 1), (0, 2), (1, 3), (2, 3)] {
        let end = number(&shards[shard], "EndingSequenceNumber").expect("a closed shard has an end");
        assert!(end < number(&shards[child], "StartingSequenceNumber").unwrap());
    }
    assert_eq!(number(&shards[3], "EndingSequenceNumber"), None);
    let summary = kinesis.summary("s").await;
    assert_eq!((&summary["OpenShardCount"], &summary["StreamStatus"]), (&json!(1), &json!("ACTIVE")));
    let described = kinesis.ok("DescribeStream", json!({"StreamName": "s"})).await;
    assert_eq!(described["StreamDescription"]["Shards"], page["Shards"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_filter_shows_the_shards_of_its_time_page_by_page() {
    let kinesis = resharded().await;
    let at = |kind: &str, after_s: u64| json!({"Type": kind, "Timestamp": START_MS / 1000 + after_s});
    let after = json!({"Type": "AFTER_SHARD_ID", "ShardId": "shardId-000000000001"});
    let cases = [
        (json!({"Type": "FROM_TRIM_HORIZON"}), vec![0, 1, 2, 3]),
        (json!({"Type": "AT_TRIM_HORIZON"}), vec![0]),
        (json!({"Type": "AT_LATEST"}), vec![3]),
        (after, vec![2, 3]),
        (at("AT_TIMESTAMP", 1), vec![0]),
        (at("AT_TIMESTAMP", 14), vec![1, 2]),
        (at("AT_TIMESTAMP", 25), vec![3]),
        (at("FROM_TIMESTAMP", 1), vec![0, 1, 2, 3]),
        (at("FROM_TIMESTAMP", 14), vec![1, 2, 3]),
        (at("FROM_TIMESTAMP", 25), vec![3]),
    ];
    for (filter, expected) in cases {
        assert_eq!(listed(&kinesis, filter.clone()).await, expected, "{filter}");
        let mut input = json!({"StreamName": "s", "ShardFilter": filter, "MaxResults": 1});
        let mut paged = Vec::new();
        for _ in 0..=expected.len() {
            let page = kinesis.ok("ListShards", input).await;
            paged.extend(ids(&page));
            let Some(token) = page.get("NextToken") else { break };
            input = json!({"NextToken": token, "MaxResults": 1});
        }
        assert_eq!(paged, expected, "{filter} in pages");
    }
}

/// After a shorter and again a longer retention the horizon of the longer one lies before the first shard that is left,
/// and beside one that is as old as the stream: nothing tiled the hash space there.
#[tokio::test(flavor = "multi_thread")]
async fn shards_at_the_horizon_tile_the_hash_space_when_retention_went_down_and_up() {
    const HOUR_MS: u64 = 3_600_000;
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 2).await;
    let retention = |hours: u32| json!({"StreamName": "s", "RetentionPeriodHours": hours});
    kinesis.ok("IncreaseStreamRetentionPeriod", retention(48)).await;
    kinesis.ok("SplitShard", split(0, "9")).await;
    kinesis.clock.advance_ms(30 * HOUR_MS);
    let at_horizon = || json!({"Type": "AT_TRIM_HORIZON"});
    assert_eq!(listed(&kinesis, at_horizon()).await, [0, 1]);
    kinesis.ok("DecreaseStreamRetentionPeriod", retention(24)).await;
    assert_eq!(listed(&kinesis, at_horizon()).await, [1, 2, 3]);
    kinesis.ok("IncreaseStreamRetentionPeriod", retention(48)).await;
    assert_eq!(listed(&kinesis, at_horizon()).await, [1, 2, 3]);
    let long_ago = json!({"Type": "AT_TIMESTAMP", "Timestamp": START_MS / 1000});
    assert_eq!(listed(&kinesis, long_ago).await, [1, 2, 3]);
}

// covers: SplitShard, MergeShards validation not-found wrong-state
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_split_or_merged_is_told_in_the_words_of_the_service() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 4).await;
    let under = "in stream s under account 123456789012";
    let quarter = "85070591730234615865843651857942052863";
    let range = |at: &str| {
        format!(
            "NewStartingHashKey {at} used in SplitShard() on shard shardId-000000000000 {under} is not both greater than \
             one plus the shard's StartingHashKey 0 and less than the shard's EndingHashKey {quarter}."
        )
    };
    for at in ["0", "1", quarter, MAX] {
        kinesis.assert_refused("SplitShard", split(0, at), INVALID, &range(at)).await;
    }
    let above = "340282366920938463463374607431768211456";
    assert_eq!(kinesis.refused("SplitShard", split(0, above)).await.0, INVALID);
    let apart = format!(
        "Shards shardId-000000000000 and shardId-000000000002 {under} are not an adjacent pair of shards eligible for \
         merging"
    );
    kinesis.assert_refused("MergeShards", merge(0, 2), INVALID, &apart).await;
    let reversed = format!(
        "Shards shardId-000000000001 and shardId-000000000000 {under} are not an adjacent pair of shards eligible for \
         merging"
    );
    kinesis.assert_refused("MergeShards", merge(1, 0), INVALID, &reversed).await;
    let missing = format!("Could not find shard shardId-000000000009 {under}.");
    let not_found = "ResourceNotFoundException";
    kinesis.assert_refused("SplitShard", split(9, "9"), not_found, &missing).await;
    kinesis.assert_refused("MergeShards", merge(9, 0), not_found, &missing).await;
    let nonsense = json!({"StreamName": "s", "ShardToSplit": "shard.x", "NewStartingHashKey": "9"});
    assert_eq!(kinesis.refused("SplitShard", nonsense).await.0, not_found);
    kinesis.ok("MergeShards", merge(0, 1)).await;
    let closed = |shard: &str| {
        format!(
            "Shard {shard} {under} has already been merged or split, and thus is not eligible for merging or splitting."
        )
    };
    let first = closed("shardId-000000000000");
    kinesis.assert_refused("SplitShard", split(0, "9"), INVALID, &first).await;
    kinesis.assert_refused("MergeShards", merge(0, 1), INVALID, &first).await;
    let mode = json!({"StreamARN": ARN, "StreamModeDetails": {"StreamMode": "ON_DEMAND"}});
    kinesis.ok("UpdateStreamMode", mode).await;
    let by_hand = "Request is invalid. Stream s under account 123456789012 is in On-Demand mode.";
    for (operation, input) in [("SplitShard", split(2, HALF)), ("MergeShards", merge(2, 3))] {
        kinesis.assert_refused(operation, input, "ValidationException", by_hand).await;
    }
}

// covers: UpdateShardCount success validation wrong-state
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_scaled_to_equal_shards() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 2).await;
    let scale = |target: i64| json!({"StreamName": "s", "TargetShardCount": target, "ScalingType": "UNIFORM_SCALING"});
    let reply = kinesis.ok("UpdateShardCount", scale(3)).await;
    let expected =
        json!({"StreamName": "s", "StreamARN": ARN, "CurrentShardCount": 2, "TargetShardCount": 3});
    assert_eq!(reply, expected);
    let open =
        kinesis.ok("ListShards", json!({"StreamName": "s", "ShardFilter": {"Type": "AT_LATEST"}})).await;
    let mut ends: Vec<&str> = open["Shards"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["HashKeyRange"]["EndingHashKey"].as_str().unwrap())
        .collect();
    ends.sort_unstable();
    let thirds = ["113427455640312821154458202477256070484", "226854911280625642308916404954512140969", MAX];
    assert_eq!(ends, thirds);
    assert_eq!(kinesis.summary("s").await["OpenShardCount"], 3);
    for (target, kind) in
        [(0, "ValidationException"), (-1, "ValidationException"), (3, INVALID), (10_001, INVALID)]
    {
        assert_eq!(kinesis.refused("UpdateShardCount", scale(target)).await.0, kind, "{target}");
    }
    let mut other = scale(4);
    other["ScalingType"] = "ODD".into();
    assert_eq!(kinesis.refused("UpdateShardCount", other).await.0, "ValidationException");
    let mode = json!({"StreamARN": ARN, "StreamModeDetails": {"StreamMode": "ON_DEMAND"}});
    kinesis.ok("UpdateStreamMode", mode).await;
    assert_eq!(kinesis.refused("UpdateShardCount", scale(4)).await.0, "ValidationException");
}
