//! Readers that walk the lineage while it grows, and what they must find.

use super::lock;
use super::writer::{Book, WRITER_SHIFT, key};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidemill_engine::Stream;
use tidemill_types::{HashKey, Position, SequenceIndex, SequenceNumber, Shard, ShardId};
use tokio::time::sleep;

/// A record as a reader meets it.
#[derive(Clone)]
pub(super) struct Met {
    pub(super) shard: ShardId,
    pub(super) number: SequenceNumber,
    pub(super) id: u64,
}

/// How far a walk has come.
#[derive(Default)]
pub(super) struct Walk {
    pub(super) next: BTreeMap<ShardId, SequenceIndex>,
    pub(super) ended: HashSet<ShardId>,
    pub(super) met: Vec<Met>,
}
fn tiles(open: &[&Shard]) -> bool {
    open.first().is_some_and(|shard| shard.range.start() == HashKey::MIN)
        && open.last().is_some_and(|shard| shard.range.end() == HashKey::MAX)
        && open.windows(2).all(|pair| pair[0].range.touches(pair[1].range))
}

/// Looks at the shards as those do who list them.
pub(super) async fn observe(stream: Stream, stop: Arc<AtomicBool>, observed: Arc<AtomicU64>) {
    let mut version = stream.map().version();
    while !stop.load(Ordering::SeqCst) {
        let map = stream.map();
        assert!(map.version() >= version, "the version of the map fell");
        version = map.version();
        assert!(tiles(&map.open().iter().collect::<Vec<_>>()), "the map has a hole");

        let listed = stream.shards();
        let mut open: Vec<&Shard> = listed.iter().filter(|shard| shard.is_open()).collect();
        open.sort_by_key(|shard| shard.range.start());
        assert!(tiles(&open), "the list has a hole");
        let parents: HashSet<ShardId> = listed.iter().flat_map(Shard::parents).collect();
        let state_fits = |shard: &Shard| shard.is_open() != parents.contains(&shard.id);
        assert!(listed.iter().all(state_fits), "an open shard has children, or a closed one has none");
        observed.fetch_add(1, Ordering::Relaxed);
        sleep(Duration::from_micros(200)).await;
    }
}

/// Takes every shard whose parents are done as far as it goes; returns whether there was anything.
pub(super) async fn step(stream: &Stream, walk: &Mutex<Walk>) -> bool {
    let mut moved = false;
    let listed = stream.shards();
    let known: HashSet<ShardId> = listed.iter().map(|shard| shard.id).collect();
    for of in &listed {
        let from = {
            let walk = lock(walk);
            let waits = of.parents().any(|parent| known.contains(&parent) && !walk.ended.contains(&parent));
            if waits || walk.ended.contains(&of.id) {
                continue;
            }
            walk.next.get(&of.id).copied()
        };
        let from = match from {
            Some(from) => from,
            None => stream.resolve(of.id, Position::TrimHorizon).await.expect("a listed shard is there"),
        };
        let page = stream.read_records(of.id, from, 1000, 1 << 20).await.expect("a listed shard can be read");
        let mut walk = lock(walk);
        moved |= !page.records.is_empty() || page.end.is_some() || page.next != from;
        walk.next.insert(of.id, page.next);
        for read in page.records {
            let id = std::str::from_utf8(&read.data).unwrap().parse().unwrap();
            assert_eq!(read.key, key(id));
            walk.met.push(Met { shard: of.id, number: read.number, id });
        }
        if let Some(children) = page.end {
            assert!(!children.is_empty(), "an end without children");
            assert!(children.iter().all(|child| child.parents().any(|parent| parent == of.id)));
            walk.ended.insert(of.id);
        }
    }
    moved
}

/// Walks the lineage while it grows; comes to an end when the writers have.
pub(super) async fn follow(stream: Stream, stop: Arc<AtomicBool>, walk: Arc<Mutex<Walk>>) {
    loop {
        // the order matters: a pass that began after the end of all writing and met nothing has met all
        let stopped = stop.load(Ordering::SeqCst);
        if !step(&stream, &walk).await {
            if stopped {
                return;
            }
            sleep(Duration::from_millis(2)).await;
        }
    }
}

/// Holds what was met since `base` (counts, by writer) against what writers were told.
pub(super) fn verify(met: &[Met], book: &Book, base: &[u64]) -> usize {
    let count = |id: u64| id & ((1 << WRITER_SHIFT) - 1);
    let of_round = |met: &&Met| count(met.id) >= base[(met.id >> WRITER_SHIFT) as usize];
    let mut found: HashMap<u64, &Met> = HashMap::new();
    let mut last: HashMap<String, &Met> = HashMap::new();
    for met in met.iter().filter(of_round) {
        if let Some(first) = found.insert(met.id, met) {
            panic!("{:x} was read from {} and from {}", met.id, first.number, met.number);
        }
        if let Some(before) = last.insert(key(met.id), met) {
            assert!(before.id < met.id, "{}: {:x} comes before {:x}", key(met.id), before.id, met.id);
            assert!(before.number < met.number, "numbers of a key rise along the lineage");
        }
    }
    for (id, placed) in &book.acknowledged {
        let met = found.get(id).unwrap_or_else(|| panic!("{id:x}, acknowledged as {placed:?}, is lost"));
        assert_eq!(
            (met.shard, met.number),
            (placed.shard, placed.number),
            "{id:x} lies where it was said to lie"
        );
    }
    assert!(!book.refused.iter().any(|id| found.contains_key(id)), "a refused record is stored");
    found.len() - book.acknowledged.len()
}
