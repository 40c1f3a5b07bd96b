//! A reshard that is cut short, by a crash or a failure, at each of its steps.

use super::plan;
use crate::catalog::owner::{Catalog, open_stream};
use crate::catalog::row;
use crate::directory;
use crate::engine::Engine;
use crate::error::ErrorKind;
use crate::one_stream::OneStream;
use crate::settings::Settings;
use crate::store::memory::MemoryStore;
use crate::store::redb::RedbStore;
use crate::store::{Store, Verdict};
use crate::stream::{Stream, StreamSpec};
use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tidemill_storage::disk::real::RealDisk;
use tidemill_storage::{LogId, Storage};
use tidemill_types::{
    AccountId, Clock, Frame, FrameWriter, HashKey, ManualClock, PartitionKey, Position, ProducerId, Record,
    SequenceIndex, ShardId, StreamKey, StreamName, TimestampMs,
};
use tokio::time::{sleep, timeout};

const DEADLINE: Duration = Duration::from_secs(20);

fn clock() -> Arc<dyn Clock> {
    Arc::new(ManualClock::new(TimestampMs::new(1_700_000_000_000)))
}

fn key() -> StreamKey {
    StreamKey::new(AccountId::new("000000000000").unwrap(), StreamName::new("s").unwrap())
}

fn id(id: u32) -> ShardId {
    ShardId::new(id).unwrap()
}

fn record(data: &'static str, hash: HashKey) -> Record {
    let key = PartitionKey::new("k").unwrap();
    Record::new(key, Bytes::from_static(data.as_bytes())).unwrap().with_explicit_hash(hash)
}

fn frame(number: u64) -> Frame {
    let mut writer = FrameWriter::with_capacity(100);
    writer.push("k", b"data");
    writer.finish(ProducerId::new(7), number)
}

async fn texts(stream: &Stream, shard: ShardId) -> Vec<String> {
    let from = stream.resolve(shard, Position::TrimHorizon).await.unwrap();
    let page = stream.read_records(shard, from, 100, 1 << 20).await.unwrap();
    page.records.iter().map(|read| String::from_utf8(read.data.to_vec()).unwrap()).collect()
}

/// What a crash leaves behind an intent to merge both shards of a stream, with the logs `sealed` ended.
fn leave_intent(dir: &Path, sealed: &[LogId]) {
    let mut store = RedbStore::open(dir).unwrap();
    let mut state = row::load(&store).unwrap();
    let stored = state.counters();
    let reshard = plan::merge(&state, &key(), id(0), id(1)).unwrap();
    let changes = plan::intend(&state, &key(), reshard, 100).unwrap();
    assert_eq!(store.commit(&[row::batch(&state, &changes, stored)]).unwrap(), [Verdict::Done]);
    changes.into_iter().for_each(|change| state.apply(change));
    let epoch = directory::open(&mut store, None).unwrap().epoch;
    let live: Vec<LogId> = state.logs().collect();
    let disk = Arc::new(RealDisk::new(dir).unwrap());
    let storage = Storage::open(disk, clock(), Settings::default().storage, &live, epoch).unwrap();
    storage.start().unwrap();
    for log in sealed {
        let (done, outcome) = std::sync::mpsc::channel();
        storage.log(*log).unwrap().seal(move |sealed| done.send(sealed).unwrap());
        outcome.recv().unwrap().unwrap();
    }
}

#[tokio::test]
async fn an_intent_that_a_crash_left_behind_is_completed_before_anybody_is_served() {
    for sealed in 0..=2 {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(dir.path(), Settings::default(), clock()).await.unwrap();
        let spec = StreamSpec { shard_count: 2, ..StreamSpec::default() };
        engine.create_stream(&key(), spec).await.unwrap();
        let stream = engine.stream(&key()).unwrap();
        for (data, hash) in [("low", HashKey::MIN), ("high", HashKey::MAX)] {
            stream.put(vec![record(data, hash)]).await.remove(0).unwrap();
        }
        engine.close().await.unwrap();
        drop((stream, engine));
        leave_intent(dir.path(), &[LogId::new(1), LogId::new(2)][..sealed]);

        let engine = Engine::open(dir.path(), Settings::default(), clock()).await.unwrap();
        let stream = engine.stream(&key()).unwrap();
        let [lower, upper, child] = stream.shards().try_into().unwrap();
        assert!(!lower.is_open() && !upper.is_open() && child.is_open(), "{sealed} logs were sealed");
        assert_eq!(stream.map().open(), std::slice::from_ref(&child));
        assert_eq!(child.parents().collect::<Vec<_>>(), [id(0), id(1)]);
        let placed = stream.put(vec![record("new", HashKey::MAX)]).await.remove(0).unwrap();
        assert_eq!(placed.shard, id(2));
        let version = stream.map().version();
        let refused = stream.submit(id(0), version, frame(1)).await.unwrap().await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ShardClosed);
        assert_eq!(texts(&stream, id(0)).await, ["low"]);
        assert_eq!(texts(&stream, id(1)).await, ["high"]);
        assert_eq!(texts(&stream, id(2)).await, ["new"]);
        engine.split_shard(&key(), id(2), HashKey::new(9)).await.unwrap();
        engine.close().await.unwrap();
    }
}

/// In the modes that do not wait for the device a power loss may take the end of a log that the catalog has closed.
#[tokio::test]
async fn a_closed_shard_whose_log_has_lost_its_end_is_read_to_it_and_takes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path(), Settings::default(), clock()).await.unwrap();
    engine.create_stream(&key(), StreamSpec::default()).await.unwrap();
    let stream = engine.stream(&key()).unwrap();
    let version = stream.map().version();
    let first = stream.submit(id(0), version, frame(1)).await.unwrap().await.unwrap();
    engine.close().await.unwrap();
    drop((stream, engine));

    let mut store = RedbStore::open(dir.path()).unwrap();
    let state = row::load(&store).unwrap();
    let stored = state.counters();
    let reshard = plan::split(&state, &key(), id(0), HashKey::new(1 << 127)).unwrap();
    let endings = [(id(0), first.first.plus(10))].into();
    let now = TimestampMs::new(1_700_000_001_000);
    let mut changes = plan::intend(&state, &key(), reshard.clone(), 100).unwrap();
    changes.extend(reshard.finish(&state, state.stream(&key()).unwrap(), &endings, now).unwrap());
    assert_eq!(store.commit(&[row::batch(&state, &changes, stored)]).unwrap(), [Verdict::Done]);
    drop(store);

    let engine = Engine::open(dir.path(), Settings::default(), clock()).await.unwrap();
    let stream = engine.stream(&key()).unwrap();
    assert!(stream.core.handle(id(0)).unwrap().log().is_sealed(), "it is sealed again");
    let version = stream.map().version();
    let again = stream.submit(id(0), version, frame(1)).await.unwrap().await.unwrap();
    assert!(again.duplicate && again.first == first.first);
    let refused = stream.submit(id(0), version, frame(2)).await.unwrap().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ShardClosed);
    let mut following = stream.subscribe(id(0), first.first).unwrap();
    let page = following.next(1 << 20).await.unwrap().unwrap();
    assert_eq!(page.frames.len(), 1);
    let end = match page.end {
        Some(end) => end,
        None => following.next(1 << 20).await.unwrap().unwrap().end.unwrap(),
    };
    assert_eq!(end.iter().map(|child| child.id).collect::<Vec<_>>(), [id(1), id(2)]);
    engine.close().await.unwrap();
}

/// An owner over a store that can be told to fail, and a storage that writes nothing before it is started.
struct Slow {
    one: OneStream,
    store: MemoryStore,
    catalog: Catalog,
}

impl Slow {
    fn new() -> Self {
        let one = OneStream::new(Settings::default());
        let (catalog, store) = one.run_owner();
        Self { one, store, catalog }
    }
    /// Begins to split the only shard; returns when the intent is durable and its log is being sealed.
    async fn begin_split(&self) -> tokio::task::JoinHandle<crate::error::Result<()>> {
        let (catalog, name) = (self.catalog.clone(), self.one.name.clone());
        let commits = self.store.commits();
        let split = tokio::spawn(async move { catalog.split(name, id(0), HashKey::new(1 << 127)).await });
        while self.store.commits() == commits {
            sleep(Duration::from_millis(1)).await;
        }
        // the intent is committed by a thread; the seal follows at once
        sleep(Duration::from_millis(100)).await;
        split
    }
}

#[tokio::test]
async fn a_batch_behind_the_end_is_told_of_it_only_when_the_new_map_is_there() {
    let slow = Slow::new();
    let stream = slow.one.stream.clone();
    let version = stream.map().version();
    let before = stream.submit(id(0), version, frame(1)).await.unwrap();
    let put_before = {
        let stream = stream.clone();
        tokio::spawn(async move { stream.put(vec![record("put", HashKey::MAX)]).await.remove(0) })
    };
    tokio::task::yield_now().await;
    let split = slow.begin_split().await;
    let behind = stream.submit(id(0), version, frame(2)).await.unwrap();
    let told = {
        let stream = stream.clone();
        tokio::spawn(async move { (behind.await, stream.map().version()) })
    };
    let put_behind = {
        let stream = stream.clone();
        tokio::spawn(async move { stream.put(vec![record("rerouted", HashKey::MAX)]).await.remove(0) })
    };
    sleep(Duration::from_millis(50)).await;
    assert!(!told.is_finished() && !put_behind.is_finished());
    slow.one.storage.start().unwrap();

    let (told, map) = timeout(DEADLINE, told).await.unwrap().unwrap();
    assert_eq!((told.unwrap_err().kind(), map), (ErrorKind::ShardClosed, version.next()));
    split.await.unwrap().unwrap();
    let first = before.await.unwrap();
    assert_eq!(put_before.await.unwrap().unwrap().shard, id(0));
    assert_eq!(put_behind.await.unwrap().unwrap().shard, id(2), "a put follows to the child");
    let again = stream.submit(id(0), version, frame(1)).await.unwrap().await.unwrap();
    assert!(again.duplicate && again.first == first.first, "stored before the end: its first outcome");
    slow.one.storage.close().unwrap();
}

#[tokio::test]
async fn a_reshard_that_cannot_be_committed_refuses_for_a_while_and_completes_by_itself() {
    let slow = Slow::new();
    let stream = slow.one.stream.clone();
    let version = stream.map().version();
    slow.store.set_failing(true);
    let refused = slow.catalog.split(slow.one.name.clone(), id(0), HashKey::new(9)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "nothing was done");
    slow.store.set_failing(false);

    let split = slow.begin_split().await;
    let behind = stream.submit(id(0), version, frame(1)).await.unwrap();
    slow.store.set_failing(true);
    slow.one.storage.start().unwrap();
    assert_eq!(behind.await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(split.await.unwrap().unwrap_err().kind(), ErrorKind::UnknownOutcome);
    let put = stream.put(vec![record("x", HashKey::MIN)]).await.remove(0);
    assert_eq!(put.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(stream.shards()[0].is_open(), "nobody sees an end without children");
    let busy = slow.catalog.scale(slow.one.name.clone(), 4).await.unwrap_err();
    assert_eq!(
        (busy.kind(), busy.to_string().as_str()),
        (ErrorKind::Conflict, "Stream s under account 000000000000 not ACTIVE, instead in state UPDATING")
    );

    slow.store.set_failing(false);
    timeout(DEADLINE, async {
        while stream.map().version() == version {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("it is tried again");
    assert_eq!(stream.put(vec![record("x", HashKey::MIN)]).await.remove(0).unwrap().shard, id(1));
    let state = row::load(&slow.store);
    assert!(state.is_err() || !state.unwrap().has_reshards());
    slow.one.storage.close().unwrap();
}

/// Such a log takes no segment, however many there are; and nothing on disk says that it ended.
#[tokio::test]
async fn a_shard_that_never_had_a_record_is_closed_without_a_file_and_stays_closed_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path(), Settings::default(), clock()).await.unwrap();
    engine.create_stream(&key(), StreamSpec { shard_count: 2, ..StreamSpec::default() }).await.unwrap();
    let stream = engine.stream(&key()).unwrap();
    let version = stream.map().version();
    engine.merge_shards(&key(), id(0), id(1)).await.unwrap();
    let parent = stream.core.handle(id(0)).unwrap();
    assert!(parent.log().is_sealed());
    assert_eq!(parent.log().segment_bytes(), 0);
    let refused = |stream: Stream| async move {
        match stream.submit(id(0), version, frame(1)).await {
            Ok(pending) => pending.await.unwrap_err().kind(),
            Err(error) => error.kind(),
        }
    };
    assert_eq!(refused(stream.clone()).await, ErrorKind::ShardClosed);
    drop((stream, engine, parent)); // as after a crash

    let engine = timeout(DEADLINE, async {
        loop {
            match Engine::open(dir.path(), Settings::default(), clock()).await {
                Err(error) if error.kind() == ErrorKind::Unavailable => sleep(Duration::from_millis(5)).await,
                opened => return opened.unwrap(),
            }
        }
    });
    let engine = engine.await.unwrap();
    let stream = engine.stream(&key()).unwrap();
    assert!(!stream.core.handle(id(0)).unwrap().log().is_sealed());
    assert_eq!(refused(stream.clone()).await, ErrorKind::ShardClosed);
    let page = stream.read_records(id(0), SequenceIndex::ZERO, 10, 1 << 20).await.unwrap();
    let from = page.next;
    let end = match page.end {
        Some(end) => end,
        None => stream.read_records(id(0), from, 10, 1 << 20).await.unwrap().end.unwrap(),
    };
    assert_eq!(end.iter().map(|child| child.id).collect::<Vec<_>>(), [id(2)]);
    assert_eq!(stream.put(vec![record("x", HashKey::MIN)]).await.remove(0).unwrap().shard, id(2));
    engine.close().await.unwrap();
}

#[tokio::test]
async fn a_put_follows_to_the_child_also_when_the_new_map_took_longer_than_a_put_waits_for_room() {
    let slow = Slow::new();
    let stream = slow.one.stream.clone();
    let version = stream.map().version();
    let first = stream.submit(id(0), version, frame(1)).await.unwrap();
    let split = slow.begin_split().await;
    let put = tokio::spawn(async move { stream.put(vec![record("late", HashKey::MAX)]).await.remove(0) });
    sleep(Duration::from_millis(2_200)).await;
    slow.one.storage.start().unwrap();
    assert_eq!(put.await.unwrap().unwrap().shard, id(2));
    first.await.unwrap();
    split.await.unwrap().unwrap();
    slow.one.storage.close().unwrap();
}

#[tokio::test]
async fn what_waits_for_a_map_that_does_not_come_is_refused_in_time_and_takes_no_room_of_other_streams() {
    let slow = Slow::new();
    let stream = slow.one.stream.clone();
    let version = stream.map().version();
    let first = stream.submit(id(0), version, frame(1)).await.unwrap();
    let split = slow.begin_split().await;
    let behind = stream.submit(id(0), version, frame(2)).await.unwrap();
    let put = tokio::spawn(async move { stream.put(vec![record("x", HashKey::MIN)]).await.remove(0) });
    let held = slow.store.hold();
    slow.one.storage.start().unwrap();
    first.await.unwrap();
    timeout(DEADLINE, async {
        while slow.one.shared.queued_bytes() > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("what is parked keeps none of the broker's room");
    assert!(!put.is_finished(), "it waits for the map");
    tokio::time::pause(); // from here on, waiting costs no time
    assert_eq!(behind.await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(put.await.unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(!split.is_finished());
    tokio::time::resume();
    drop(held);
    split.await.unwrap().unwrap();
    slow.one.storage.close().unwrap();
}

#[tokio::test]
async fn an_intent_is_completed_however_many_other_verbs_come() {
    let slow = Slow::new();
    let stream = slow.one.stream.clone();
    let version = stream.map().version();
    let split = slow.begin_split().await;
    slow.store.set_failing(true);
    slow.one.storage.start().unwrap();
    assert_eq!(split.await.unwrap().unwrap_err().kind(), ErrorKind::UnknownOutcome);
    slow.store.set_failing(false);
    timeout(DEADLINE, async {
        while stream.map().version() == version {
            slow.catalog.expire().await.unwrap(); // nothing to be done, again and again
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("it has its turn");
    slow.one.storage.close().unwrap();
}

#[tokio::test]
async fn a_closed_shard_that_has_lost_its_end_is_sealed_again_as_soon_as_it_can_be() {
    let mut one = OneStream::new(Settings::default());
    let stored = one.stream.submit(id(0), one.stream.map().version(), frame(1)).await.unwrap();
    while one.storage.step() > 0 {}
    let endings = [(id(0), stored.await.unwrap().first)].into();
    let reshard = plan::split(&one.state, &one.name, id(0), HashKey::new(1 << 127)).unwrap();
    let mut changes = plan::intend(&one.state, &one.name, reshard.clone(), 100).unwrap();
    let row = one.state.stream(&one.name).unwrap();
    changes.extend(reshard.finish(&one.state, row, &endings, TimestampMs::new(1_700_000_001_000)).unwrap());
    changes.into_iter().for_each(|change| one.state.apply(change));
    one.state.logs().for_each(|log| drop(one.storage.create_log(log)));
    let core = open_stream(&one.state, &one.name, &one.shared, &one.storage).unwrap();
    one.registry.insert(Arc::clone(&core));
    let log = core.handle(id(0)).unwrap().log().clone();
    for _ in 0..65_536 {
        log.append(frame(1), |_| ()); // the queue is full: no room for a closing entry
    }
    let (catalog, _store) = one.run_owner();
    catalog.settle_at_open().await.unwrap();
    assert!(!log.is_sealed());
    one.storage.start().unwrap();
    timeout(DEADLINE, async {
        while !log.is_sealed() {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("it is tried again");
    one.storage.close().unwrap();
}
