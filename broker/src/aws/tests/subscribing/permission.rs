//! A subscription lasts no longer than what its caller was permitted by.

use super::super::permissions::caller_with;
use super::*;
use crate::aws::Call;
use crate::aws::codec::Encoding;
use crate::aws::operation::{Answer, Operation, act};
use tokio_util::sync::CancellationToken;

const ALL: &str = "statements = [{ effect = 'allow', actions = ['*'], streams = ['*'] }]";

/// A subscription of a caller with a credential, until that is cancelled.
async fn subscribed_with(
    kinesis: &Kinesis,
    credential: &str,
    consumer: &str,
    valid: &CancellationToken,
) -> Events<Body> {
    let (state, caller) = caller_with(kinesis, credential, ALL);
    let call = Call { state, caller, valid: valid.clone(), operation: Operation::SubscribeToShard };
    let body = input(consumer, 0, &latest()).to_string();
    let tree = Encoding::Json.decode(body.as_bytes()).unwrap();
    let Ok(Answer::Events(body)) = act(call.operation, call, tree, Encoding::Json).await else {
        panic!("not subscribed");
    };
    let mut events = Events { body, bytes: BytesMut::new() };
    assert_eq!(events.next().await.unwrap().0, "initial-response");
    events.records().await;
    events
}

async fn ends(events: &mut Events<Body>) {
    let ended = tokio::time::timeout(SOON, async { while events.next().await.is_some() {} });
    ended.await.expect("the subscription ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_credentials_end_a_subscription() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 1).await;
    let consumer = register(&kinesis, "s", "c").await;
    let valid = CancellationToken::new();
    let mut events = subscribed_with(&kinesis, "", &consumer, &valid).await;
    kinesis.put("s", "a", "before").await;
    assert_eq!(events.data(1).await, ["before"]);
    valid.cancel();
    kinesis.put("s", "a", "after").await;
    assert!(tokio::time::timeout(SOON, events.next()).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_ends_with_the_credential_that_it_was_made_with() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 1).await;
    let consumer = register(&kinesis, "s", "c").await;
    let (credential, valid) = ("expires = 2023-11-14T22:13:22Z", CancellationToken::new());
    let begun = tokio::time::Instant::now();
    let mut events = subscribed_with(&kinesis, credential, &consumer, &valid).await;
    ends(&mut events).await;
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
}

/// By the policy of the consumer, or by that of its stream.
#[tokio::test(flavor = "multi_thread")]
async fn a_denial_ends_a_subscription_and_is_told_to_who_subscribes_again() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 1).await;
    let stream = "arn:aws:kinesis:us-east-1:123456789012:stream/s".to_owned();
    for (name, of_stream) in [("c", false), ("d", true)] {
        let consumer = register(&kinesis, "s", name).await;
        let mut events = subscribed(&kinesis, &consumer, 0, latest()).await;
        events.records().await;
        let arn = if of_stream { &stream } else { &consumer };
        let denial = json!({"Effect": "Deny", "Principal": "*", "Action": "kinesis:*", "Resource": arn});
        let policy = json!({"Version": "2012-10-17", "Statement": [denial]}).to_string();
        kinesis.ok("PutResourcePolicy", json!({"ResourceARN": arn, "Policy": policy})).await;
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let told = tokio::time::timeout(SOON, events.next()).await.unwrap();
        assert_eq!(told, None, "{name}");
        let (kind, message) = refused(&kinesis, input(&consumer, 0, &latest())).await;
        assert_eq!(kind, "AccessDeniedException", "{name}");
        assert!(message.ends_with("with an explicit deny in a resource-based policy"), "{message}");
        let (kind, _) = kinesis.refused("DescribeStreamConsumer", json!({"ConsumerARN": consumer})).await;
        assert_eq!(kind, "AccessDeniedException", "{name}");
    }
}
