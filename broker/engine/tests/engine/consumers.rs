//! Registered consumers: each of its own name and time, gone with their stream, kept over restarts.

use crate::support::{Broker, account, named};
use tidemill_engine::{ConsumerUpdate, ConsumersOnDelete, ErrorKind, Tags};
use tidemill_types::ConsumerName;

fn name(text: &str) -> ConsumerName {
    ConsumerName::new(text).unwrap()
}

fn tags<const N: usize>(given: [(&str, &str); N]) -> Tags {
    given.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[tokio::test]
async fn a_consumer_is_registered_changed_found_and_survives() {
    let broker = Broker::new().await;
    let stream = broker.stream("s", 1).await;
    let made = broker.engine.register_consumer(&named("s"), &name("b"), tags([("k", "v")])).await.unwrap();
    assert_eq!((made.name.as_str(), made.created), ("b", broker.engine.clock().now()));
    broker.engine.register_consumer(&named("s"), &name("a"), Tags::new()).await.unwrap();
    assert_eq!(stream.info().consumers, 2);
    let tag = ConsumerUpdate::Tag(tags([("more", "")]));
    broker.engine.update_consumer(&named("s"), &name("b"), tag).await.unwrap();
    let untag = ConsumerUpdate::Untag(vec!["k".to_owned()]);
    broker.engine.update_consumer(&named("s"), &name("b"), untag).await.unwrap();
    let policy = ConsumerUpdate::Policy(Some("{}".to_owned()));
    broker.engine.update_consumer(&named("s"), &name("b"), policy).await.unwrap();
    let found = stream.consumer(&name("b")).unwrap();
    assert_eq!((&found.tags, found.policy.as_deref()), (&tags([("more", "")]), Some("{}")));
    let all = stream.consumers();
    assert_eq!(all.iter().map(|consumer| consumer.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    drop(stream);

    let broker = broker.crash().await;
    assert_eq!(broker.engine.stream(&named("s")).unwrap().consumers(), all);
    let broker = broker.reopen().await;
    let stream = broker.engine.stream(&named("s")).unwrap();
    assert_eq!((stream.consumers(), stream.info().consumers), (all, 2));
    broker.engine.deregister_consumer(&named("s"), &name("a")).await.unwrap();
    assert_eq!(stream.consumer(&name("a")).unwrap_err().kind(), ErrorKind::NotFound);
    drop(stream);
    let broker = broker.reopen().await;
    assert_eq!(broker.engine.stream(&named("s")).unwrap().info().consumers, 1);
}

#[tokio::test]
async fn what_a_consumer_cannot_be_is_refused() {
    let broker = Broker::new().await;
    broker.stream("s", 1).await;
    let register = |stream: &'static str, consumer: &str, tags| {
        let (engine, consumer) = (broker.engine.clone(), name(consumer));
        async move { engine.register_consumer(&named(stream), &consumer, tags).await }
    };
    register("s", "a", Tags::new()).await.unwrap();
    assert_eq!(register("s", "a", Tags::new()).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(register("t", "a", Tags::new()).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(register("s", "b", tags([("<", "")])).await.unwrap_err().kind(), ErrorKind::Invalid);
    let gone = broker.engine.deregister_consumer(&named("s"), &name("b")).await.unwrap_err();
    assert_eq!(gone.to_string(), "Consumer b of stream s under account 000000000000 not found.");
    let update = ConsumerUpdate::Policy(None);
    let gone = broker.engine.update_consumer(&named("s"), &name("b"), update).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);

    for n in 1..20 {
        register("s", &format!("c{n}"), Tags::new()).await.unwrap();
    }
    assert_eq!(register("s", "more", Tags::new()).await.unwrap_err().kind(), ErrorKind::Throttled);
    broker.engine.set_commitment(&account(), true).await.unwrap();
    for n in 20..50 {
        register("s", &format!("c{n}"), Tags::new()).await.unwrap();
    }
    assert_eq!(register("s", "more", Tags::new()).await.unwrap_err().kind(), ErrorKind::Throttled);
}

/// The second is part of a consumer's ARN: one ARN never means two consumers.
#[tokio::test]
async fn a_consumer_that_comes_again_has_a_later_second_whatever_happened_between() {
    let broker = Broker::new().await;
    broker.stream("s", 1).await;
    let first = broker.engine.register_consumer(&named("s"), &name("a"), Tags::new()).await.unwrap();
    broker.engine.deregister_consumer(&named("s"), &name("a")).await.unwrap();
    let second = broker.engine.register_consumer(&named("s"), &name("a"), Tags::new()).await.unwrap();
    assert!(second.created.seconds() > first.created.seconds());

    let refused = broker.engine.delete_stream(&named("s"), ConsumersOnDelete::Refuse).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    assert!(refused.to_string().contains("registered consumers"), "{refused}");
    broker.engine.delete_stream(&named("s"), ConsumersOnDelete::Remove).await.unwrap();
    let broker = broker.crash().await;
    let stream = broker.stream("s", 1).await;
    assert!(stream.consumers().is_empty(), "they went with their stream");
    let third = broker.engine.register_consumer(&named("s"), &name("a"), Tags::new()).await.unwrap();
    assert!(third.created.seconds() > second.created.seconds());
    broker.clock.advance_ms(60_000);
    broker.engine.deregister_consumer(&named("s"), &name("a")).await.unwrap();
    let fourth = broker.engine.register_consumer(&named("s"), &name("a"), Tags::new()).await.unwrap();
    assert_eq!(fourth.created, broker.engine.clock().now(), "the clock rules again");
}
