//! Streams and their routes: which lane takes a record, and how records move when a shard closes.
//!
//! ```text
//!  shard closed ─► its lane stops ─► list shards ─► lanes that vanished fall quiet ─► routes change, records move on
//! ```
//!
//! Routes are immutable and swapped whole. A lane is vacated under its lock, and the new routes are in force before the
//! lock is let go, so a record put later never overtakes one that moves.

use crate::aggregator::{Moved, Terms};
use crate::batch::Batch;
use crate::collector::LingerQueue;
use crate::error::{Error, Result};
use crate::lane::{Gone, Lane, Manner, Place};
use crate::limiter::{Charge, Limiter};
use crate::meters::{RequestMeters, ShardMeters};
use crate::producer::Shared;
use crate::retrier::BACKOFF;
use crate::sink::Opened;
use crate::stats::{Counters, Held};
use crate::ticket::{Completion, Ticket};
use arc_swap::ArcSwap;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidemill_proto::ErrorKind;
use tidemill_types::{HashKey, Record, Shard, ShardMap, StreamIncarnation, StreamName};
use tokio::time::sleep;

/// How long to wait when a broker refuses a shard as closed and yet lists it as open.
const CONTRADICTION_WAIT: Duration = Duration::from_millis(100);

struct Routes {
    map: ShardMap,
    /// As the open shards of the map.
    lanes: Vec<Arc<Lane>>,
}

/// What lanes are made of.
pub(crate) struct LaneMaker {
    pub(crate) terms: Terms,
    pub(crate) manner: Manner,
    pub(crate) counters: Arc<Counters>,
    pub(crate) connections: Vec<Arc<crate::sender::Connection>>,
    pub(crate) turn: AtomicUsize,
}

impl LaneMaker {
    fn make(&self, of: &Stream, shard: &Shard, map: &ShardMap) -> Arc<Lane> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let place = Place {
            stream: of.name.clone(),
            shard: shard.clone(),
            map_version: map.version(),
            incarnation: of.incarnation,
            connection: self.connections[turn % self.connections.len()].clone(),
            requests: of.requests.clone(),
        };
        let meters = ShardMeters::new(self.counters.clone(), &of.name, shard.id);
        Lane::new(place, self.terms.clone(), self.manner, meters)
    }
}

/// A stream that records are put into.
pub(crate) struct Stream {
    name: StreamName,
    incarnation: StreamIncarnation,
    record_bytes_max: Option<usize>,
    requests: Arc<RequestMeters>,
    routes: ArcSwap<Routes>,
    /// Held while the set of lanes changes or is walked; holds why the stream has ended.
    topology: Mutex<Option<Error>>,
    refreshing: AtomicBool,
}

impl Stream {
    fn new(name: &StreamName, opened: Opened, maker: &LaneMaker) -> Arc<Self> {
        let Opened { list, record_bytes_max } = opened;
        let nowhere = Routes { map: list.map.clone(), lanes: Vec::new() };
        let stream = Self {
            name: name.clone(),
            incarnation: list.incarnation,
            record_bytes_max,
            requests: Arc::new(RequestMeters::new(name)),
            routes: ArcSwap::from_pointee(nowhere),
            topology: Mutex::new(None),
            refreshing: AtomicBool::new(false),
        };
        let lanes = list.map.open().iter().map(|shard| maker.make(&stream, shard, &list.map)).collect();
        stream.routes.store(Arc::new(Routes { map: list.map, lanes }));
        Arc::new(stream)
    }

    /// Takes a record that is charged to the limiter.
    pub(crate) fn push(
        &self,
        record: &Record,
        time_to_live: Option<Duration>,
        linger: &LingerQueue,
    ) -> Result<Ticket> {
        if let Some(most) = self.record_bytes_max {
            check(record, most)?;
        }
        let hash = record.hash_key();
        loop {
            let routes = self.routes.load();
            let lane = &routes.lanes[routes.map.route_slot(hash)];
            match lane.push(record, time_to_live) {
                Ok((ticket, opened)) => {
                    if let Some(since) = opened {
                        linger.add(since, lane.clone());
                    }
                    return Ok(ticket);
                }
                Err(Gone::Moved) => {} // newer routes are in force
                Err(Gone::Ended(error)) => return Err(error),
            }
        }
    }

    /// Sends all open batches; tells what the unresolved tickets wait on.
    pub(crate) fn flush(&self, into: &mut Vec<Arc<Completion>>) {
        let _whole = self.topology.lock().unwrap_or_else(PoisonError::into_inner);
        self.routes.load().lanes.iter().for_each(|lane| lane.flush(into));
    }

    fn end(&self, error: &Error) {
        let mut ended = self.topology.lock().unwrap_or_else(PoisonError::into_inner);
        *ended = Some(error.clone());
        self.routes.load().lanes.iter().for_each(|lane| lane.end(error));
    }

    /// Lanes whose shard is not in `map`.
    fn vanished(&self, map: &ShardMap) -> Vec<Arc<Lane>> {
        let routes = self.routes.load();
        routes.lanes.iter().filter(|lane| same_shard(map, &lane.shard).is_none()).cloned().collect()
    }
    fn stopped(&self) -> Vec<Arc<Lane>> {
        self.routes.load().lanes.iter().filter(|lane| lane.is_stopped()).cloned().collect()
    }

    /// Puts the new routes in force and moves what the vanished lanes hold. Those are stopped and quiet.
    fn install(&self, map: ShardMap, maker: &LaneMaker) {
        let ended = self.topology.lock().unwrap_or_else(PoisonError::into_inner);
        if ended.is_some() {
            return;
        }
        let vanished = self.vanished(&map);
        let old = self.routes.load_full();
        let lanes: Vec<_> = map
            .open()
            .iter()
            .map(|shard| match old.lanes.iter().find(|lane| is_same(&lane.shard, shard)) {
                Some(lane) => {
                    lane.set_map_version(map.version());
                    lane.clone()
                }
                None => maker.make(self, shard, &map),
            })
            .collect();
        let mut leaving: Vec<_> = vanished.iter().map(|lane| lane.vacate()).collect();
        for lane in &mut leaving {
            for batch in lane.batches() {
                maker.counters.rerouted();
                move_records(batch, &map, &lanes, &maker.terms.limiter);
            }
        }
        // sealed before anyone can put there: moved records and new ones never share a batch
        lanes
            .iter()
            .filter(|lane| !old.lanes.iter().any(|other| Arc::ptr_eq(lane, other)))
            .for_each(Lane::send_all);
        self.routes.store(Arc::new(Routes { map, lanes }));
        leaving.into_iter().for_each(crate::lane::Vacating::moved);
    }
}

fn is_same(one: &Shard, other: &Shard) -> bool {
    one.id == other.id && one.range == other.range
}
fn same_shard<'a>(map: &'a ShardMap, shard: &Shard) -> Option<&'a Shard> {
    Some(map.route(shard.range.start())).filter(|found| is_same(found, shard))
}

/// Gives the records of a batch to the lanes that take them now. Both maps tile the hash space and lanes that stay keep
/// their range, so these lanes are new and hold nothing else.
fn move_records(batch: Batch, map: &ShardMap, lanes: &[Arc<Lane>], limiter: &Limiter) {
    let count = batch.records();
    let own = |index| (batch.explicit_hash(index), batch.own_deadline(index));
    let owns: Vec<_> = (0..count).map(own).collect();
    let Batch { frame, owed, since, deadline, attempts, uncertain, .. } = batch;
    let origins = owed.into_origins(count);
    for ((record, origin), (explicit, own_deadline)) in frame.records().zip(origins).zip(owns) {
        let Some(origin) = origin else {
            limiter.release(Charge::of(record.key.len(), record.data.len()));
            continue;
        };
        let hash = explicit.unwrap_or_else(|| HashKey::of(record.key));
        let lane = &lanes[map.route_slot(hash)];
        let attempts = &attempts;
        let moved = Moved { explicit, origin, own_deadline, since, deadline, attempts, uncertain };
        lane.adopt(|aggregator, sealed| aggregator.push_moved(&record, moved, sealed));
        lane.meters.came(1);
    }
}

/// What the service would refuse together with everything it travels with is refused before.
fn check(record: &Record, bytes_max: usize) -> Result<()> {
    if record.key().is_absent() {
        return Err(Error::invalid("Amazon takes no record without a partition key"));
    }
    if record.counted_bytes() > bytes_max {
        let bytes = record.counted_bytes();
        let told =
            format!("the stream takes records of at most {bytes_max} bytes, data and key; found {bytes}");
        return Err(Error::invalid(told));
    }
    Ok(())
}

/// The streams of a producer, opened when they are first used.
#[derive(Default)]
pub(crate) struct Streams {
    /// Swapped whole: each put looks here.
    known: ArcSwap<Known>,
    opening: tokio::sync::Mutex<()>,
}

#[derive(Default, Clone)]
struct Known {
    /// Sorted: a name among a few is found faster by comparing than by hashing.
    open: BTreeMap<String, Arc<Stream>>,
    ended: Option<Error>,
}

impl Streams {
    pub(crate) fn get(&self, name: &str) -> Option<Arc<Stream>> {
        self.with(name, Arc::clone)
    }
    /// Does something with a stream, if it is open.
    pub(crate) fn with<T>(&self, name: &str, act: impl FnOnce(&Arc<Stream>) -> T) -> Option<T> {
        self.known.load().open.get(name).map(act)
    }
    pub(crate) fn all(&self) -> Vec<Arc<Stream>> {
        self.known.load().open.values().cloned().collect()
    }
    pub(crate) fn lanes(&self) -> Vec<Arc<Lane>> {
        self.all().iter().flat_map(|stream| stream.routes.load().lanes.clone()).collect()
    }
    /// What is held, beside its bytes.
    pub(crate) fn held(&self, now: tokio::time::Instant) -> Held {
        let mut held = Held::default();
        for (records, oldest) in self.lanes().iter().map(|lane| lane.holds()) {
            held.records += records;
            held.oldest = held.oldest.max(oldest.map(|oldest| now.saturating_duration_since(oldest)));
        }
        held
    }
    /// Fails everything, now and later.
    pub(crate) fn end(&self, error: &Error) {
        let before = self.known.rcu(|known| Known {
            open: BTreeMap::new(),
            ended: Some(known.ended.as_ref().unwrap_or(error).clone()),
        });
        before.open.values().for_each(|stream| stream.end(error));
    }
    fn add(&self, stream: &Arc<Stream>) -> Result<()> {
        let before = self.known.rcu(|known| {
            let mut known = Known::clone(known);
            if known.ended.is_none() {
                known.open.insert(stream.name.to_string(), stream.clone());
            }
            known
        });
        before.ended.clone().map_or(Ok(()), Err)
    }
    fn remove(&self, stream: &Arc<Stream>) {
        self.known.rcu(|known| {
            let mut known = Known::clone(known);
            known.open.retain(|_, found| !Arc::ptr_eq(found, stream));
            known
        });
    }
}

impl Shared {
    /// The stream, asking the broker for its shards if it is not open yet. One at a time.
    pub(crate) async fn open(&self, name: &str) -> Result<Arc<Stream>> {
        let name = StreamName::new(name)?;
        let _turn = self.streams.opening.lock().await;
        if let Some(stream) = self.streams.get(name.as_str()) {
            return Ok(stream);
        }
        let opened = self.sink.open(&name).await?;
        let stream = Stream::new(&name, opened, &self.maker);
        self.streams.add(&stream)?;
        Ok(stream)
    }

    /// A lane's shard takes no more: finds out what does. One task a stream.
    pub(crate) fn refresh(self: &Arc<Self>, lane: &Lane) {
        let Some(stream) = self.streams.get(lane.stream.as_str()) else { return };
        if stream.refreshing.swap(true, Ordering::AcqRel) {
            return;
        }
        let shared = self.clone();
        self.spawn(async move {
            loop {
                shared.follow(&stream).await;
                stream.refreshing.store(false, Ordering::Release);
                // a lane may have stopped meanwhile and left it to this task
                if stream.stopped().is_empty() || stream.refreshing.swap(true, Ordering::AcqRel) {
                    return;
                }
            }
        });
    }

    async fn follow(&self, stream: &Arc<Stream>) {
        let mut failures = 0;
        while !stream.stopped().is_empty() {
            match self.sink.list_shards(&stream.name).await {
                Ok(list) if list.incarnation != stream.incarnation => return self.deleted(stream),
                Ok(list) => {
                    let vanished = stream.vanished(&list.map);
                    if vanished.is_empty() {
                        sleep(CONTRADICTION_WAIT).await;
                        stream.stopped().iter().for_each(Lane::resume);
                        return;
                    }
                    tracing::debug!(stream = %stream.name, version = %list.map.version(), "shards changed");
                    quieten(&vanished).await;
                    return stream.install(list.map, &self.maker);
                }
                Err(error) if error.kind() == ErrorKind::NotFound => return self.deleted(stream),
                Err(error) => {
                    failures += 1;
                    tracing::debug!(stream = %stream.name, %error, "cannot list the shards");
                    // records that wait for this expire; when none is left there is nothing to follow
                    if stream.stopped().iter().all(|lane| lane.is_empty()) {
                        return stream.stopped().iter().for_each(Lane::resume);
                    }
                    let wait = BACKOFF.wait(failures, &mut rand::rng());
                    sleep(wait).await;
                }
            }
        }
    }

    fn deleted(&self, stream: &Arc<Stream>) {
        self.streams.remove(stream);
        stream.end(&Error::new(ErrorKind::NotFound, format!("the stream {} was deleted", stream.name)));
    }
}

/// Waits until nothing of these lanes is unanswered; bounded by the records' deadlines.
async fn quieten(lanes: &[Arc<Lane>]) {
    for lane in lanes {
        lane.stop();
        lane.wake();
    }
    for lane in lanes {
        while !lane.is_quiet() {
            lane.changed.notified().await;
        }
    }
}
