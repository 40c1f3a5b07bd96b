//! The limits of Kinesis in its own words.

use super::*;
use tidemill_types::{ManualClock, StreamName, TimestampMs};

fn account() -> AccountId {
    AccountId::new("123456789012").unwrap()
}

fn stream(name: &str) -> StreamKey {
    StreamKey::new(account(), StreamName::new(name).unwrap())
}

fn shard(index: u32) -> ShardId {
    ShardId::new(index).unwrap()
}

fn aws() -> (Limits, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(TimestampMs::new(0)));
    (Limits::new(LimitSettings::aws(), clock.clone()), clock)
}

fn refused<T>(result: Result<T>) -> (Code, String) {
    let error = result.err().expect("it is refused");
    (error.code(), error.message().to_owned())
}

#[test]
fn without_limits_everything_goes() {
    let limits = Limits::new(LimitSettings::default(), Arc::new(ManualClock::new(TimestampMs::new(0))));
    for _ in 0..1000 {
        for operation in Operation::ALL {
            limits.admit(&account(), *operation, Some(&stream("s"))).unwrap();
        }
        limits.admit_iterator(&stream("s"), shard(0)).unwrap();
        limits.admit_subscription("c", &stream("s"), shard(0)).unwrap();
        limits.change(&stream("s"), Change::Mode).unwrap().happened();
    }
    limits.scale(1, 10_000).unwrap();
    assert!(limits.shards(&account(), "r", u32::MAX, || u32::MAX).is_ok());
    assert!(limits.consumer(&stream("s"), || u32::MAX).is_ok());
}

#[test]
fn calls_of_an_account_are_counted_by_operation_and_a_few_by_stream() {
    let (limits, clock) = aws();
    let call = |operation, name| limits.admit(&account(), operation, Some(&stream(name)));
    for turn in 0..10 {
        let name = if turn % 2 == 0 { "a" } else { "b" };
        call(Operation::DescribeStream, name).unwrap();
    }
    assert_eq!(
        refused(call(Operation::DescribeStream, "a")),
        (Code::LimitExceeded, "Rate exceeded for stream a under account 123456789012.".into())
    );
    for name in ["a", "b"] {
        for _ in 0..20 {
            call(Operation::DescribeStreamConsumer, name).unwrap();
        }
        assert!(call(Operation::DescribeStreamConsumer, name).is_err());
    }
    let other = AccountId::new("000000000001").unwrap();
    limits.admit(&other, Operation::DescribeStream, Some(&stream("a"))).unwrap();
    limits.admit(&account(), Operation::DescribeLimits, None).unwrap();
    assert_eq!(
        refused(limits.admit(&account(), Operation::DescribeLimits, None)).1,
        "Rate exceeded for account 123456789012."
    );
    clock.advance_ms(1000);
    limits.admit(&account(), Operation::DescribeLimits, None).unwrap();
    for _ in 0..10_000 {
        call(Operation::PutRecord, "a").unwrap();
    }
}

#[test]
fn iterators_are_counted_by_shard_and_subscriptions_by_consumer() {
    let (limits, _) = aws();
    let (s, third) = (stream("s"), shard(3));
    for _ in 0..5 {
        limits.admit_iterator(&s, third).unwrap();
    }
    let message = "Rate exceeded for shard shardId-000000000003 in stream s under account 123456789012.";
    assert_eq!(
        refused(limits.admit_iterator(&s, third)),
        (Code::ProvisionedThroughputExceeded, message.into())
    );
    limits.admit_iterator(&s, shard(4)).unwrap();
    limits.admit_subscription("one", &s, third).unwrap();
    limits.admit_subscription("two", &s, third).unwrap();
    assert_eq!(refused(limits.admit_subscription("one", &s, third)).0, Code::LimitExceeded);
}

#[test]
fn what_an_account_may_have_is_told_with_the_figures() {
    let settings = LimitSettings {
        account: AccountLimits { shards: Some(5), on_demand_streams: Some(1) },
        stream: StreamLimits { consumers: Some(20), ..StreamLimits::default() },
        ..LimitSettings::aws()
    };
    let limits = Limits::new(settings, Arc::new(ManualClock::new(TimestampMs::new(0))));
    let _three = limits.shards(&account(), "eu-west-1", 3, || 2).unwrap();
    let (code, message) = refused(limits.shards(&account(), "eu-west-1", 1, || 2));
    assert_eq!(code, Code::LimitExceeded);
    assert!(message.starts_with(
        "This request would exceed the shard limit for the account 123456789012 in eu-west-1. Current shard count for \
         the account: 5. Limit: 5. Number of additional shards that would have resulted from this request: 1. Refer to"
    ), "{message}");
    assert!(limits.on_demand_stream(&account(), "r", || 0).is_ok());
    assert_eq!(refused(limits.on_demand_stream(&account(), "r", || 1)).0, Code::LimitExceeded);
    assert!(limits.consumer(&stream("s"), || 19).is_ok());
    assert_eq!(refused(limits.consumer(&stream("s"), || 20)).0, Code::LimitExceeded);
}

#[test]
fn the_shard_count_is_at_most_doubled_or_halved() {
    let (limits, clock) = aws();
    for (open, target) in [(1, 2), (2, 4), (4, 2), (3, 6), (5, 3), (7, 7)] {
        limits.scale(open, target).unwrap();
    }
    let message = "UpdateShardCount cannot scale up over double your current open shard count. Current open shard \
                   count: 1 Target shard count: 4";
    assert_eq!(refused(limits.scale(1, 4)), (Code::LimitExceeded, message.into()));
    let message = "UpdateShardCount cannot scale down below half your current open shard count. Current open shard \
                   count: 5 Target shard count: 2";
    assert_eq!(refused(limits.scale(5, 2)).1, message);
    for _ in 0..10 {
        limits.change(&stream("s"), Change::ShardCount).unwrap().happened();
    }
    let (code, message) = refused(limits.change(&stream("s"), Change::ShardCount));
    assert_eq!(code, Code::LimitExceeded);
    assert!(message.contains("stream s under account 123456789012 was changed 10 times"), "{message}");
    limits.change(&stream("t"), Change::ShardCount).unwrap().happened();
    clock.advance_ms(24 * 60 * 60 * 1000);
    limits.change(&stream("s"), Change::ShardCount).unwrap().happened();
}
