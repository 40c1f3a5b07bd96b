//! Streams and their routes: which lane takes a record, and how records move when a shard closes.
//!
//! ```text
//!  shard closed ─► its lane stops ─► list shards ─► lanes that vanished fall quiet ─► routes change, records move on
//! ```
//!
//! Routes are immutable and swapped whole. A lane is vacated under its lock, and the new routes are in force before the
//! lock is let go, so a record put later never overtakes one that moves.

use crate::aggregator::{Batch, Terms};
use crate::collector::LingerQueue;
use crate::error::{Error, Result};
use crate::lane::{Gone, Lane, Place};
use crate::producer::Shared;
use crate::retrier::BACKOFF;
use crate::stats::Counters;
use crate::ticket::{Completion, Ticket};
use arc_swap::ArcSwap;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tidemill_proto::ErrorKind;
use tidemill_proto::convert::ShardList;
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
    pub(crate) in_flight_max: usize,
    pub(crate) counters: Arc<Counters>,
    pub(crate) connections: Vec<Arc<crate::sender::Connection>>,
    pub(crate) turn: AtomicUsize,
}

impl LaneMaker {
    fn make(
        &self,
        stream: &StreamName,
        incarnation: StreamIncarnation,
        shard: &Shard,
        map: &ShardMap,
    ) -> Arc<Lane> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let place = Place {
            stream: stream.clone(),
            shard: shard.clone(),
            map_version: map.version(),
            incarnation,
            connection: self.connections[turn % self.connections.len()].clone(),
        };
        Lane::new(place, self.terms.clone(), self.in_flight_max, self.counters.clone())
    }
}

/// A stream that records are put into.
pub(crate) struct Stream {
    name: StreamName,
    incarnation: StreamIncarnation,
    routes: ArcSwap<Routes>,
    /// Held while the set of lanes changes or is walked; holds why the stream has ended.
    topology: Mutex<Option<Error>>,
    refreshing: AtomicBool,
}

impl Stream {
    fn new(name: &StreamName, list: ShardList, maker: &LaneMaker) -> Arc<Self> {
        let lanes = list
            .map
            .open()
            .iter()
            .map(|shard| maker.make(name, list.incarnation, shard, &list.map))
            .collect();
        Arc::new(Self {
            name: name.clone(),
            incarnation: list.incarnation,
            routes: ArcSwap::from_pointee(Routes { map: list.map, lanes }),
            topology: Mutex::new(None),
            refreshing: AtomicBool::new(false),
        })
    }

    /// Takes a record that is charged to the limiter.
    pub(crate) fn push(&self, record: &Record, linger: &LingerQueue) -> Result<Ticket> {
        let hash = record.hash_key();
        loop {
            let routes = self.routes.load();
            let lane = &routes.lanes[routes.map.route_slot(hash)];
            match lane.push(record) {
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
                None => maker.make(&self.name, self.incarnation, shard, &map),
            })
            .collect();
        let mut leaving: Vec<_> = vanished.iter().map(|lane| lane.vacate()).collect();
        for lane in &mut leaving {
            for batch in lane.batches() {
                maker.counters.rerouted();
                move_records(batch, &map, &lanes);
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
fn move_records(batch: Batch, map: &ShardMap, lanes: &[Arc<Lane>]) {
    let count = batch.records();
    let explicit: Vec<_> = (0..count).map(|index| batch.explicit_hash(index)).collect();
    let Batch { frame, owed, deadline, attempts, .. } = batch;
    let origins = owed.into_origins(count);
    for ((record, origin), explicit) in frame.records().zip(origins).zip(explicit) {
        let hash = explicit.unwrap_or_else(|| HashKey::of(record.key));
        lanes[map.route_slot(hash)].adopt(|aggregator, sealed| {
            aggregator.push_moved(&record, explicit, origin, (deadline, &attempts), sealed);
        });
    }
}

/// The streams of a producer, opened when they are first used.
#[derive(Default)]
pub(crate) struct Streams {
    state: RwLock<Known>,
    opening: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Known {
    open: HashMap<String, Arc<Stream>>,
    ended: Option<Error>,
}

impl Streams {
    pub(crate) fn get(&self, name: &str) -> Option<Arc<Stream>> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).open.get(name).cloned()
    }
    pub(crate) fn all(&self) -> Vec<Arc<Stream>> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).open.values().cloned().collect()
    }
    pub(crate) fn lanes(&self) -> Vec<Arc<Lane>> {
        self.all().iter().flat_map(|stream| stream.routes.load().lanes.clone()).collect()
    }
    /// Fails everything, now and later.
    pub(crate) fn end(&self, error: &Error) {
        let open = {
            let mut known = self.state.write().unwrap_or_else(PoisonError::into_inner);
            known.ended.get_or_insert_with(|| error.clone());
            std::mem::take(&mut known.open)
        };
        open.values().for_each(|stream| stream.end(error));
    }
    fn add(&self, stream: Arc<Stream>) -> Result<()> {
        let mut known = self.state.write().unwrap_or_else(PoisonError::into_inner);
        match &known.ended {
            Some(error) => Err(error.clone()),
            None => {
                known.open.insert(stream.name.to_string(), stream);
                Ok(())
            }
        }
    }
    fn remove(&self, stream: &Arc<Stream>) {
        let mut known = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if known.open.get(stream.name.as_str()).is_some_and(|found| Arc::ptr_eq(found, stream)) {
            known.open.remove(stream.name.as_str());
        }
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
        let list = self.control.list_shards(&name).await?;
        let stream = Stream::new(&name, list, &self.maker);
        self.streams.add(stream.clone())?;
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
            match self.control.list_shards(&stream.name).await {
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
