//! How subscriptions end.

use super::*;
use crate::auth::Gate;
use crate::aws::{AwsState, router};
use crate::limits::LimitSettings;
use tidemill_types::{AccountId, Region};
use tokio_util::sync::CancellationToken;

// covers: SubscribeToShard wrong-state
#[tokio::test]
async fn a_second_subscriber_is_refused_for_five_seconds_and_then_wins() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 2).await;
    let consumer = register(&kinesis, "s", "c").await;
    let other = register(&kinesis, "s", "other").await;
    tokio::time::pause();
    let mut first = subscribed(&kinesis, &consumer, 0, latest()).await;
    first.records().await;
    let in_use =
        format!("Another active subscription exists for consumer {consumer} at shard shardId-000000000000.");
    let in_use = ("ResourceInUseException".to_owned(), in_use);
    assert_eq!(refused(&kinesis, input(&consumer, 0, &latest())).await, in_use);
    subscribed(&kinesis, &consumer, 1, latest()).await;
    subscribed(&kinesis, &other, 0, latest()).await;
    tokio::time::advance(Duration::from_secs(5)).await;
    let mut second = subscribed(&kinesis, &consumer, 0, latest()).await;
    assert_eq!(first.exception().await, in_use);
    drop(first);
    assert_eq!(second.records().await["Records"], json!([]));
    drop(second);
    assert_eq!(refused(&kinesis, input(&consumer, 0, &latest())).await, in_use);
    tokio::time::advance(Duration::from_secs(5)).await;
    subscribed(&kinesis, &consumer, 0, latest()).await;
}

/// The KCL refuses an end with a continuation number, or without children.
// covers: SubscribeToShard success
#[tokio::test(flavor = "multi_thread")]
async fn a_closed_shard_ends_with_its_children() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 1).await;
    let consumer = register(&kinesis, "s", "c").await;
    let mut live = subscribed(&kinesis, &consumer, 0, latest()).await;
    live.records().await;
    kinesis.put("s", "a", "last").await;
    let half = (1u128 << 127).to_string();
    let split =
        json!({"StreamName": "s", "ShardToSplit": "shardId-000000000000", "NewStartingHashKey": half});
    kinesis.ok("SplitShard", split).await;
    let late = register(&kinesis, "s", "late").await;
    let mut late = subscribed(&kinesis, &late, 0, horizon()).await;
    for events in [&mut live, &mut late] {
        assert_eq!(events.data(1).await, ["last"]);
        let mut event = tokio::time::timeout(SOON, events.records()).await.expect("the end is told");
        while event.get("ContinuationSequenceNumber").is_some() {
            assert_eq!((&event["Records"], event.get("ChildShards")), (&json!([]), None));
            event = events.records().await;
        }
        assert_eq!((&event["Records"], &event["MillisBehindLatest"]), (&json!([]), &json!(0)));
        let children = event["ChildShards"].as_array().unwrap();
        let ids: Vec<&str> = children.iter().map(|child| child["ShardId"].as_str().unwrap()).collect();
        assert_eq!(ids, ["shardId-000000000001", "shardId-000000000002"]);
        assert_eq!(children[0]["ParentShards"], json!(["shardId-000000000000"]));
        assert_eq!(children[1]["HashKeyRange"]["StartingHashKey"], json!(half));
        assert!(events.next().await.is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_stream_ends_its_subscriptions() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 1).await;
    let consumer = register(&kinesis, "s", "c").await;
    let mut events = subscribed(&kinesis, &consumer, 0, latest()).await;
    events.records().await;
    kinesis.ok("DeleteStream", json!({"StreamName": "s", "EnforceConsumerDeletion": true})).await;
    let (kind, message) = tokio::time::timeout(SOON, events.exception()).await.unwrap();
    assert_eq!(kind, "ResourceNotFoundException");
    assert!(message.contains("stream s under account 123456789012"), "{message}");
}

/// A consumer registered again under the same name is another one.
#[tokio::test(flavor = "multi_thread")]
async fn a_deregistered_consumer_is_sent_no_more_records() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 1).await;
    let consumer = register(&kinesis, "s", "c").await;
    let mut events = subscribed(&kinesis, &consumer, 0, latest()).await;
    events.records().await;
    kinesis.ok("DeregisterStreamConsumer", json!({"ConsumerARN": consumer})).await;
    register(&kinesis, "s", "c").await;
    kinesis.put("s", "a", "not for it").await;
    let (kind, message) = tokio::time::timeout(SOON, events.exception()).await.unwrap();
    assert_eq!(
        (kind, message),
        ("ResourceNotFoundException".into(), format!("Consumer {consumer} was deregistered."))
    );
    let (kind, _) = refused(&kinesis, input(&consumer, 0, &latest())).await;
    assert_eq!(kind, "ResourceNotFoundException");
}

/// The state behind a router of its own.
fn guarded(kinesis: &mut Kinesis, stopping: &CancellationToken) -> AwsState {
    let gate = Gate::open(AccountId::new("123456789012").unwrap(), Region::new("us-east-1").unwrap());
    let state = AwsState::guarded(kinesis.engine.clone(), gate, LimitSettings::default(), stopping.clone());
    kinesis.router = router(state.clone());
    state
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_stops_ends_subscriptions_without_an_error() {
    let mut kinesis = Kinesis::start().await;
    let stopping = CancellationToken::new();
    guarded(&mut kinesis, &stopping);
    kinesis.create("s", 1).await;
    let consumer = register(&kinesis, "s", "c").await;
    let mut events = subscribed(&kinesis, &consumer, 0, latest()).await;
    events.records().await;
    stopping.cancel();
    assert!(tokio::time::timeout(SOON, events.next()).await.unwrap().is_none());
}

#[tokio::test]
async fn who_does_not_read_for_a_minute_is_given_up_and_its_seat_is_free() {
    let mut kinesis = Kinesis::start().await;
    let state = guarded(&mut kinesis, &CancellationToken::new());
    kinesis.create("s", 1).await;
    let consumer = register(&kinesis, "s", "c").await;
    for _ in 0..5 {
        kinesis.put("s", "a", &"x".repeat(900_000)).await;
    }
    tokio::time::pause();
    let mut events = subscribed(&kinesis, &consumer, 0, horizon()).await;
    assert_eq!(events.data(1).await.len(), 1, "others follow as they are asked for");
    tokio::time::sleep(Duration::from_secs(55)).await;
    assert_eq!((events.data(1).await.len(), state.seats().count()), (1, 1));
    tokio::time::sleep(Duration::from_secs(62)).await;
    assert_eq!(state.seats().count(), 0);
    let mut left = 0;
    while events.next().await.is_some() {
        left += 1;
    }
    assert!(left <= 1, "{left} frames were kept for it");
}
