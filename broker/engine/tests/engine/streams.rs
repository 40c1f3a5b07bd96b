//! Streams come, are listed, go, and survive a restart.

use crate::support::{Broker, START, account, first_shard_record, named, record, shard};
use std::sync::Arc;
use tidemill_engine::{ConsumersOnDelete, Engine, ErrorKind, Health, Settings, StreamSpec};
use tidemill_types::{Clock, HashKey, ManualClock, Position};

#[tokio::test]
async fn a_new_stream_has_shards_that_tile_the_hash_space() {
    let broker = Broker::new().await;
    let stream = broker.stream("s", 4).await;
    let info = stream.info();
    assert_eq!((info.open_shards, info.settings.retention_hours, info.created), (4, 24, START));
    assert_eq!(stream.shards().len(), 4);
    assert_eq!(stream.map().route(HashKey::MAX).id, shard(3));
    assert_eq!(broker.engine.health(), Health::Healthy);
    let again = broker.engine.create_stream(&named("s"), StreamSpec::default()).await;
    assert_eq!(again.unwrap_err().kind(), ErrorKind::AlreadyExists);
    let none = StreamSpec { shard_count: 0, ..StreamSpec::default() };
    assert_eq!(broker.engine.create_stream(&named("t"), none).await.unwrap_err().kind(), ErrorKind::Invalid);
    let unknown = broker.engine.stream(&named("t")).unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
    assert_eq!(unknown.to_string(), "Stream t under account 000000000000 not found.");
}

#[tokio::test]
async fn streams_are_listed_by_name_page_by_page() {
    let broker = Broker::new().await;
    for name in ["c", "a", "b"] {
        broker.stream(name, 1).await;
    }
    let names = |page: &tidemill_engine::StreamPage| {
        page.streams.iter().map(|info| info.key.name.to_string()).collect::<Vec<_>>()
    };
    let first = broker.engine.list_streams(&account(), None, 2);
    assert_eq!((names(&first), first.more), (vec!["a".to_owned(), "b".to_owned()], true));
    let second = broker.engine.list_streams(&account(), Some(&named("b").name), 2);
    assert_eq!((names(&second), second.more), (vec!["c".to_owned()], false));
}

#[tokio::test]
async fn a_deleted_stream_is_gone_for_its_handles_and_its_name_is_free_at_once() {
    let broker = Broker::new().await;
    let old = broker.stream("s", 1).await;
    old.put(vec![record("a", "old")]).await[0].as_ref().unwrap();
    let mut following =
        old.subscribe(shard(0), old.resolve(shard(0), Position::Latest).await.unwrap()).unwrap();
    let waiting = tokio::spawn(async move { following.next(1 << 20).await });
    tokio::task::yield_now().await;
    broker.engine.delete_stream(&named("s"), ConsumersOnDelete::Refuse).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap_err().kind(), ErrorKind::NotFound);
    assert!(old.is_deleted());
    assert_eq!(old.put(vec![record("a", "x")]).await[0].as_ref().unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(old.resolve(shard(0), Position::Latest).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(
        broker.engine.delete_stream(&named("s"), ConsumersOnDelete::Refuse).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );

    let new = broker.stream("s", 1).await;
    assert!(new.info().incarnation > old.info().incarnation);
    let from = new.resolve(shard(0), Position::TrimHorizon).await.unwrap();
    assert!(new.read_records(shard(0), from, 10, 1 << 20).await.unwrap().records.is_empty());
}

#[tokio::test]
async fn a_reopened_directory_has_its_streams_and_records_and_numbers_go_on_above() {
    let broker = Broker::new().await;
    let secret = *broker.engine.secret();
    let stream = broker.stream("s", 3).await;
    broker.stream("gone", 2).await;
    broker.engine.delete_stream(&named("gone"), ConsumersOnDelete::Refuse).await.unwrap();
    let before = *stream.put(vec![first_shard_record("one")]).await[0].as_ref().unwrap();
    let (info, shards) = (stream.info(), stream.shards());
    drop(stream);

    let broker = broker.reopen().await;
    assert_eq!(*broker.engine.secret(), secret);
    let listed = broker.engine.list_streams(&account(), None, 10);
    assert_eq!(listed.streams, std::slice::from_ref(&info));
    let stream = broker.engine.stream(&named("s")).unwrap();
    assert_eq!(stream.shards(), shards);
    let after = *stream.put(vec![first_shard_record("two")]).await[0].as_ref().unwrap();
    assert!(after.number > before.number);
    assert!(after.number.index().epoch() > before.number.index().epoch());
    let from = stream.resolve(shard(0), Position::TrimHorizon).await.unwrap();
    let page = stream.read_records(shard(0), from, 10, 1 << 20).await.unwrap();
    let read: Vec<_> = page.records.iter().map(|r| (r.number, r.data.as_ref())).collect();
    assert_eq!(read, [(before.number, b"one".as_slice()), (after.number, b"two")]);
    let next = broker.stream("next", 1).await;
    assert!(next.info().incarnation.get() > info.incarnation.get() + 1, "an incarnation was used twice");
}

#[tokio::test]
async fn a_directory_in_use_is_refused_by_name() {
    let broker = Broker::new().await;
    let clock = Arc::new(ManualClock::new(START)) as Arc<dyn Clock>;
    let second = Engine::open(broker.dir.path(), Settings::default(), clock).await;
    let error = second.err().expect("the directory is in use");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains(&broker.dir.path().display().to_string()), "{error}");
}

#[tokio::test]
async fn a_broker_holds_no_more_shards_than_it_was_told() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(START)) as Arc<dyn Clock>;
    let engine =
        Engine::open(dir.path(), Settings { shards_max: 3, ..Settings::default() }, clock).await.unwrap();
    let spec = StreamSpec { shard_count: 2, ..StreamSpec::default() };
    engine.create_stream(&named("a"), spec.clone()).await.unwrap();
    assert_eq!(
        engine.create_stream(&named("b"), spec.clone()).await.unwrap_err().kind(),
        ErrorKind::Throttled
    );
    engine.delete_stream(&named("a"), ConsumersOnDelete::Refuse).await.unwrap();
    engine.create_stream(&named("b"), spec.clone()).await.unwrap();
}

#[tokio::test]
async fn a_closed_engine_refuses_everything_and_closing_twice_is_fine() {
    let broker = Broker::new().await;
    let stream = broker.stream("s", 1).await;
    let mut following =
        stream.subscribe(shard(0), stream.resolve(shard(0), Position::Latest).await.unwrap()).unwrap();
    let waiting = tokio::spawn(async move { following.next(1 << 20).await });
    tokio::task::yield_now().await;
    broker.engine.close().await.unwrap();
    broker.engine.close().await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
    let put = stream.put(vec![record("a", "x")]).await;
    assert_eq!(put[0].as_ref().unwrap_err().kind(), ErrorKind::Unavailable);
    let created = broker.engine.create_stream(&named("t"), StreamSpec::default()).await;
    assert_eq!(created.unwrap_err().kind(), ErrorKind::Unavailable);
}
