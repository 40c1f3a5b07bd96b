//! The simulated service: one stream whose shards grow, split, merge and are deleted, and a source that polls it.
//!
//! A record's data is its place among the user records of its shard, as text; some records are aggregated ones.
//! Not here: leases (network), and what becomes of records (judge).

use super::machine::Clock;
use super::world::World;
use crate::fetch::{Fetched, Outlet, Page, Reader, Reading, Source};
use crate::place::{Checkpoint, ReadFrom};
use crate::record::{Batch, Lens, StoredRecord};
use crate::shard::{ShardInfo, ShardState};
use crate::store::Answer;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::sync::Arc;
use std::time::Duration;
use tidemill_proto::aggregate;
use tidemill_types::{AnySequenceNumber, HashKeyRange, PartitionKey, ShardId, StreamName, TimestampMs};
use tokio::time::{Instant, sleep};

#[derive(Debug, Default)]
pub(super) struct Service {
    shards: Vec<Shard>,
}

#[derive(Debug)]
struct Shard {
    parents: Vec<u32>,
    children: Vec<u32>,
    closed: Option<Duration>,
    deleted: bool,
    stored: Vec<(Duration, StoredRecord)>,
    user_records: usize,
}

/// What a read found.
struct Got {
    stored: Vec<StoredRecord>,
    left: usize,
    end: Option<Vec<ShardInfo>>,
}

fn number(stored: usize) -> AnySequenceNumber {
    (stored * 1000).to_string().parse().unwrap()
}

fn data(key: &str, first: usize, user_records: usize) -> Bytes {
    if user_records == 1 {
        return Bytes::from(first.to_string());
    }
    let records: Vec<_> = (first..first + user_records)
        .map(|ordinal| {
            tidemill_types::Record::new(PartitionKey::new(key).unwrap(), ordinal.to_string()).unwrap()
        })
        .collect();
    aggregate::pack(&records).unwrap().data().clone()
}

impl Service {
    pub(super) fn add_shard(&mut self, parents: &[u32]) -> u32 {
        let id = self.shards.len() as u32;
        self.shards.push(Shard {
            parents: parents.to_vec(),
            children: Vec::new(),
            closed: None,
            deleted: false,
            stored: Vec::new(),
            user_records: 0,
        });
        id
    }
    /// Closes shards and opens their children.
    pub(super) fn reshard(&mut self, now: Duration, parents: &[u32], children: usize) -> Vec<u32> {
        let children: Vec<u32> = (0..children).map(|_| self.add_shard(parents)).collect();
        for parent in parents {
            let parent = &mut self.shards[*parent as usize];
            parent.closed = Some(now);
            parent.children.clone_from(&children);
        }
        children
    }
    pub(super) fn open(&self) -> Vec<u32> {
        (0u32..).zip(&self.shards).filter(|(_, shard)| shard.closed.is_none()).map(|(id, _)| id).collect()
    }
    pub(super) fn delete(&mut self, shard: u32) {
        self.shards[shard as usize].deleted = true;
    }
    /// Appends one record that holds so many user records; its number.
    pub(super) fn append(&mut self, now: Duration, shard: u32, user_records: usize) -> AnySequenceNumber {
        let shard = &mut self.shards[shard as usize];
        let number = number(shard.stored.len() + 1);
        let arrival = TimestampMs::new(now.as_millis() as u64);
        let data = data("key", shard.user_records, user_records);
        shard.user_records += user_records;
        shard.stored.push((now, StoredRecord { number, arrival, key: Bytes::from("key"), data }));
        number
    }

    fn info(&self, id: u32) -> ShardInfo {
        let shard = &self.shards[id as usize];
        let mut parents = shard.parents.iter().map(|parent| ShardId::new(*parent).unwrap());
        ShardInfo {
            id: ShardId::new(id).unwrap(),
            parent: parents.next(),
            adjacent_parent: parents.next(),
            range: HashKeyRange::uniform(1)[0],
            state: if shard.closed.is_some() { ShardState::Closed } else { ShardState::Open },
            created: None,
        }
    }
    fn listed(&self) -> Vec<ShardInfo> {
        (0u32..).zip(&self.shards).filter(|(_, shard)| !shard.deleted).map(|(id, _)| self.info(id)).collect()
    }
    /// The first stored record to read.
    fn begin(&self, shard: u32, from: ReadFrom, now: Duration) -> usize {
        let stored = &self.shards[shard as usize].stored;
        match from {
            ReadFrom::TrimHorizon | ReadFrom::AtTime(_) => 0,
            ReadFrom::Latest => stored.partition_point(|(arrival, _)| *arrival <= now),
            ReadFrom::Behind { number, .. } => stored.partition_point(|(_, record)| record.number < number),
        }
    }
    fn read(&self, shard: u32, from: usize, now: Duration, most: usize) -> Got {
        let shard = &self.shards[shard as usize];
        let visible = shard.stored.partition_point(|(arrival, _)| *arrival <= now);
        let to = visible.min(from + most);
        let ended = to == shard.stored.len() && shard.closed.is_some_and(|closed| closed <= now);
        Got {
            stored: shard.stored[from..to].iter().map(|(_, record)| record.clone()).collect(),
            left: visible - to,
            end: ended.then(|| shard.children.iter().map(|child| self.info(*child)).collect()),
        }
    }
}

/// The service as one machine reaches it.
#[derive(Debug)]
pub(super) struct SimSource {
    pub(super) world: Arc<World>,
    pub(super) clock: Clock,
    pub(super) instance: usize,
}

impl Source for SimSource {
    fn shards<'a>(&'a self, _: &'a StreamName) -> Answer<'a, Vec<ShardInfo>> {
        Box::pin(async { Ok(self.world.service.lock().listed()) })
    }
    fn read(&self, reading: Reading) -> Reader {
        let (world, clock, instance) = (Arc::clone(&self.world), self.clock, self.instance);
        Reader::start(reading.prefetch_bytes, move |outlet| async move {
            Poll { world, clock, instance, reading, outlet }.run().await;
        })
    }
}

struct Poll {
    world: Arc<World>,
    clock: Clock,
    instance: usize,
    reading: Reading,
    outlet: Outlet,
}

impl Poll {
    async fn run(self) {
        let Self { world, clock, instance, reading, outlet } = self;
        let mut rng = StdRng::seed_from_u64(reading.seed);
        let shard = reading.at.shard().get();
        let pause = async |rng: &mut StdRng, least: u64, most: u64| {
            sleep(Duration::from_millis(rng.random_range(least..=most))).await;
        };
        pause(&mut rng, 1, 30).await;
        let mut from = world.service.lock().begin(shard, reading.from, clock.now());
        let mut anchor = None;
        if reading.from == ReadFrom::Latest {
            anchor = Some(Checkpoint::At { number: number(from), sub: 0 });
            world.judge.lock().begun_at_newest(shard, number(from));
        }
        let after = match reading.from {
            ReadFrom::Behind { number, sub } => Some((number, sub)),
            _ => None,
        };
        if outlet.put(Fetched::Begun(anchor)).await.is_err() {
            return;
        }
        loop {
            if world.weather.lock().breaks(instance, clock.now(), &mut rng) {
                pause(&mut rng, 50, 800).await;
                continue;
            }
            let most = rng.random_range(1..=12);
            let Got { stored, left, end } = world.service.lock().read(shard, from, clock.now(), most);
            let came = stored.len();
            let room = outlet.room(stored.iter().map(|record| record.data.len()).sum()).await;
            let lens = Lens::new(reading.at.clone(), &reading.shard, reading.misrouted);
            from += came;
            let ended = end.is_some();
            let page = Page {
                batch: Batch::of_stored(lens, stored, after),
                millis_behind: left as u64,
                records_behind: Some(left as u64),
                received: Instant::now(),
                room,
                end_of_shard: end,
            };
            if outlet.put(Fetched::Page(page)).await.is_err() || ended {
                return;
            }
            if left == 0 {
                pause(&mut rng, 40, 300).await;
            } else {
                pause(&mut rng, 1, 20).await;
            }
        }
    }
}
