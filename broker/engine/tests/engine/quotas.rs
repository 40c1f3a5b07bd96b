//! Quotas of a shard: who is let through, who is told to wait, and when it goes on.

use crate::support::{START, frame, named, record, shard, texts};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tidemill_engine::{
    Engine, Error, ErrorKind, Quota, Settings, Stream, StreamMode, StreamSettings, StreamSpec, StreamUpdate,
};
use tidemill_types::{Clock, ManualClock, PartitionKey, Record, SequenceIndex};
use tokio::runtime::Builder;

struct Limited {
    _dir: TempDir,
    clock: Arc<ManualClock>,
    engine: Engine,
    stream: Stream,
}

async fn limited(quota: Quota) -> Limited {
    let (dir, clock) = (tempfile::tempdir().unwrap(), Arc::new(ManualClock::new(START)));
    let settings = Settings { quota, ..Settings::default() };
    let engine = Engine::open(dir.path(), settings, Arc::clone(&clock) as Arc<dyn Clock>).await.unwrap();
    let settings = StreamSettings { record_kib_max: 10_240, ..StreamSettings::default() };
    let spec = StreamSpec { settings, ..StreamSpec::default() };
    engine.create_stream(&named("s"), spec).await.unwrap();
    let stream = engine.stream(&named("s")).unwrap();
    Limited { _dir: dir, clock, engine, stream }
}

fn sized(bytes: usize) -> Record {
    Record::new(PartitionKey::new("k").unwrap(), Bytes::from(vec![b'x'; bytes - 1])).unwrap()
}

fn assert_throttled(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::Throttled);
    let message = "Rate exceeded for shard shardId-000000000000 in stream s under account 000000000000.";
    assert_eq!(error.to_string(), message);
}

#[tokio::test]
async fn a_put_beyond_the_quota_is_stored_in_part_and_the_rest_is_told_to_come_again() {
    let limited = limited(Quota::AWS).await;
    let placed =
        limited.stream.put(vec![sized(400 << 10), sized(400 << 10), sized(400 << 10), sized(100)]).await;
    assert_throttled(placed[2].as_ref().unwrap_err());
    assert!(placed[0].is_ok() && placed[1].is_ok() && placed[3].is_ok(), "each is judged alone");
    assert!(placed[3].as_ref().unwrap().number > placed[1].as_ref().unwrap().number);
    limited.clock.advance_ms(500);
    assert_eq!(limited.stream.put(vec![sized(400 << 10)]).await.iter().filter(|p| p.is_ok()).count(), 1);

    limited.clock.advance_ms(2000);
    let placed = limited.stream.put((0..1500).map(|n| record("k", &n.to_string())).collect()).await;
    assert_eq!(placed.iter().filter(|placed| placed.is_ok()).count(), 1000);
    assert!(placed[..1000].iter().all(Result::is_ok), "in the order of the request");
}

#[tokio::test]
async fn a_batch_passes_whole_or_not_at_all_and_a_stored_one_costs_nothing_when_it_is_repeated() {
    let limited = limited(Quota { write_records_per_s: Some(3), ..Quota::default() }).await;
    let submit = async |data: &[&str], number| {
        let version = limited.stream.map().version();
        limited.stream.submit(shard(0), version, frame(data, 7, number)).await?.await
    };
    let first = submit(&["a", "b"], 1).await.unwrap();
    for _ in 0..10 {
        let again = submit(&["a", "b"], 1).await.unwrap();
        assert!(again.duplicate && again.first == first.first);
    }
    submit(&["c", "d", "e"], 2).await.expect("less than a second is owed");
    assert_throttled(&submit(&["f"], 3).await.unwrap_err());
    assert!(submit(&["a", "b"], 1).await.unwrap().duplicate, "its first outcome, also when nothing passes");
    limited.clock.advance_ms(500);
    assert_throttled(&submit(&["f"], 3).await.unwrap_err());
    limited.clock.advance_ms(200);
    submit(&["f"], 3).await.unwrap();
    let page = limited.stream.read(shard(0), SequenceIndex::ZERO, 1 << 20).await.unwrap();
    assert_eq!(texts(&page).concat(), "abcdef");
}

#[tokio::test]
async fn a_batch_larger_than_a_second_passes_beside_small_puts_that_never_end() {
    let limited = limited(Quota { write_records_per_s: Some(10), ..Quota::default() }).await;
    let large: Vec<&str> = vec!["x"; 20];
    let mut tried = 0;
    loop {
        while limited.stream.put(vec![record("k", "small")]).await[0].is_ok() {}
        limited.clock.advance_ms(50);
        tried += 1;
        let version = limited.stream.map().version();
        match limited.stream.submit(shard(0), version, frame(&large, 7, 1)).await {
            Ok(pending) => {
                pending.await.unwrap();
                break;
            }
            Err(error) => assert_throttled(&error),
        }
        assert!(tried < 10, "it starves");
    }
    assert_throttled(limited.stream.put(vec![record("k", "small")]).await[0].as_ref().unwrap_err());
}

#[test]
fn reads_at_the_same_time_share_one_quota() {
    // reads wait for the one thread that may block, until the test lets go of it
    let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let limited = limited(Quota { read_bytes_per_s: Some(1 << 20), ..Quota::default() }).await;
        limited.stream.put(vec![sized(1000)]).await[0].as_ref().unwrap();
        let read = || limited.stream.read(shard(0), SequenceIndex::ZERO, 2 << 20);
        let (let_go, held) = std::sync::mpsc::channel::<()>();
        tokio::task::spawn_blocking(move || held.recv());
        let second = async {
            let second = read().await;
            drop(let_go);
            second
        };
        let (first, second) = tokio::join!(read(), second);
        assert_eq!(first.unwrap().frames.len(), 1);
        assert_throttled(&second.unwrap_err());
        assert_eq!(read().await.unwrap().frames.len(), 1, "it was a small page after all");
    });
}

#[tokio::test]
async fn streams_on_demand_have_no_quota_for_writing() {
    let limited = limited(Quota { write_records_per_s: Some(1), ..Quota::default() }).await;
    let put = async || limited.stream.put(vec![record("k", "x")]).await.remove(0);
    put().await.unwrap();
    assert_throttled(&put().await.unwrap_err());
    let update = StreamUpdate::Mode { mode: StreamMode::OnDemand, warm_mibps: None };
    limited.engine.update_stream(&named("s"), update).await.unwrap();
    for _ in 0..10 {
        put().await.unwrap();
    }
}

#[tokio::test]
async fn five_calls_a_second_may_read_and_a_large_page_holds_up_the_next() {
    let limited = limited(Quota { write_bytes_per_s: None, ..Quota::AWS }).await;
    let mut from = SequenceIndex::ZERO;
    let mut read = async |max_bytes| {
        let page = limited.stream.read_records(shard(0), from, 100, max_bytes).await?;
        from = page.next;
        Ok::<usize, Error>(page.records.len())
    };
    assert!(
        limited.stream.put(vec![sized(5 << 20), sized(5 << 20), sized(10)]).await.iter().all(Result::is_ok)
    );
    assert_eq!(read(10 << 20).await.unwrap(), 2);
    limited.clock.advance_ms(3_900);
    assert_throttled(&read(1).await.unwrap_err());
    assert_throttled(&limited.stream.read(shard(0), SequenceIndex::ZERO, 1).await.unwrap_err());
    limited.clock.advance_ms(200);
    assert_eq!(read(1).await.unwrap(), 1);
    for _ in 0..4 {
        assert_eq!(read(1).await.unwrap(), 0, "calls at the tip count as well");
    }
    assert_throttled(&read(1).await.unwrap_err());
    limited.clock.advance_ms(200);
    read(1).await.unwrap();
    assert_throttled(&read(1).await.unwrap_err());
}

#[tokio::test]
async fn a_subscription_waits_instead_of_failing_and_is_told_that_it_is_behind() {
    let limited = limited(Quota { read_bytes_per_s: Some(1 << 20), ..Quota::default() }).await;
    limited
        .stream
        .put((0..3).map(|_| sized(600 << 10)).collect())
        .await
        .iter()
        .for_each(|p| assert!(p.is_ok()));
    for _ in 0..2 {
        limited.stream.put(vec![sized(600 << 10)]).await[0].as_ref().unwrap();
    }
    let mut following = limited.stream.subscribe(shard(0), SequenceIndex::ZERO).unwrap();
    let started = tokio::time::Instant::now();
    let page = following.next(1).await.unwrap().unwrap();
    assert_eq!((page.frames.len(), page.frames[0].header().count), (1, 3), "1,800 KiB: 0.8 s too fast");
    let page = following.next_or_idle(1, Duration::from_millis(20)).await.unwrap().unwrap();
    assert!(page.frames.is_empty() && page.millis_behind > 0);
    let page = following.next(1).await.unwrap().unwrap();
    assert_eq!(page.frames.len(), 1);
    let waited = started.elapsed();
    assert!(waited >= Duration::from_millis(750) && waited < Duration::from_secs(3), "{waited:?}");

    let mut other = limited.stream.subscribe(shard(0), page.next).unwrap();
    assert_eq!(other.next(1).await.unwrap().unwrap().frames.len(), 1, "each has its own");
    let waits = tokio::spawn(async move { following.next(1).await.map(|_| ()) });
    tokio::time::sleep(Duration::from_millis(20)).await;
    limited.engine.delete_stream(&named("s"), tidemill_engine::ConsumersOnDelete::Refuse).await.unwrap();
    assert_eq!(waits.await.unwrap().unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_quota_of_nothing_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings { quota: Quota { reads_per_s: Some(0), ..Quota::AWS }, ..Settings::default() };
    let opened = Engine::open(dir.path(), settings, Arc::new(ManualClock::new(START))).await;
    assert_eq!(opened.err().unwrap().kind(), ErrorKind::Invalid);
}
