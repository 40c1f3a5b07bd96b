//! Writers under kills, and the book of what they were told.

use super::lock;
use crate::support::record;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidemill_engine::{ErrorKind, Placed, Stream};
use tidemill_types::{Frame, FrameWriter, HashKey, ProducerId, ShardId, ShardMapVersion};
use tokio::time::sleep;

/// Partition keys of each writer.
pub(super) const KEYS: u64 = 7;
pub(super) const WRITER_SHIFT: u32 = 40;

pub(super) fn id(writer: u64, count: u64) -> u64 {
    (writer << WRITER_SHIFT) | count
}

pub(super) fn key(id: u64) -> String {
    format!("w{}-k{}", id >> WRITER_SHIFT, id % KEYS)
}
/// What writers were told in this round.
#[derive(Default)]
pub(super) struct Book {
    pub(super) acknowledged: HashMap<u64, Placed>,
    pub(super) refused: HashSet<u64>,
}

/// A batch that is to be stored once, whatever happens.
#[derive(Default)]
pub(super) struct Native {
    pub(super) count: u64,
    /// Where it was sent last, and what; none: the next one is to be made.
    pub(super) pending: Option<(ShardId, ShardMapVersion, Frame, Vec<u64>)>,
}
pub(super) async fn write_records(
    stream: Stream,
    stop: Arc<AtomicBool>,
    writer: u64,
    counts: Arc<Vec<AtomicU64>>,
    book: Arc<Mutex<Book>>,
) {
    while !stop.load(Ordering::SeqCst) {
        let from = counts[writer as usize].fetch_add(5, Ordering::SeqCst);
        let ids: Vec<u64> = (from..from + 5).map(|count| id(writer, count)).collect();
        let placed = stream.put(ids.iter().map(|id| record(&key(*id), &id.to_string())).collect()).await;
        let mut book = lock(&book);
        for (id, placed) in ids.into_iter().zip(placed) {
            match placed {
                Ok(placed) => drop(book.acknowledged.insert(id, placed)),
                Err(error) if error.kind() == ErrorKind::UnknownOutcome => {}
                Err(_) => drop(book.refused.insert(id)),
            }
        }
    }
}

/// As the producer library does it: route by the map, number, repeat what has no answer, route anew when told to.
pub(super) async fn write_batches(
    stream: Stream,
    stop: Arc<AtomicBool>,
    writer: u64,
    native: Arc<tokio::sync::Mutex<Native>>,
    book: Arc<Mutex<Book>>,
) {
    let mut native = native.lock().await;
    while native.pending.is_some() || !stop.load(Ordering::SeqCst) {
        let (shard, version, frame, ids) = match native.pending.clone() {
            Some(pending) => pending,
            None => {
                let first = native.count;
                native.count += 3 * KEYS;
                // all of one key
                let ids: Vec<u64> = (0..3).map(|n| id(writer, first + n * KEYS)).collect();
                let mut frame = FrameWriter::with_capacity(200);
                ids.iter().for_each(|id| frame.push(&key(*id), id.to_string().as_bytes()));
                let map = stream.map();
                let shard = map.route(HashKey::of(&key(ids[0]))).id;
                let pending = (shard, map.version(), frame.finish(ProducerId::new(writer), first + 1), ids);
                native.pending = Some(pending.clone());
                pending
            }
        };
        let stored = match stream.submit(shard, version, frame.clone()).await {
            Ok(pending) => pending.await,
            Err(error) => Err(error),
        };
        match stored {
            Ok(appended) => {
                let of =
                    stream.shards().into_iter().find(|known| known.id == shard).expect("it was just there");
                let mut book = lock(&book);
                for (nth, id) in (0..).zip(ids) {
                    let number = of.number(appended.first.plus(nth), appended.arrival);
                    book.acknowledged.insert(id, Placed { shard, number, encrypted: false });
                }
                native.pending = None;
            }
            Err(error) if error.kind() == ErrorKind::ShardClosed => {
                let map = stream.map();
                let child = map.route(HashKey::of(&key(ids[0]))).id;
                assert_ne!(child, shard, "told to route anew before the new map was there");
                native.pending = Some((child, map.version(), frame, ids));
            }
            Err(error) => {
                assert!(
                    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::UnknownOutcome),
                    "{error}"
                );
                sleep(Duration::from_millis(1)).await;
            }
        }
    }
}
