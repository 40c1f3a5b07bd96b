//! What the broker of the tests holds: shards with frames, and leases.

use bytes::{Bytes, BytesMut};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tidemill_proto::v1;
use tidemill_proto::{Error, ErrorKind};
use tidemill_types::{
    Checkpoint, Frame, FrameHeader, FrameWriter, HashKey, HashKeyRange, ProducerId, SequenceIndex, Shard,
    ShardId, ShardState, TimestampMs,
};
use tokio::time::Instant;
use tonic::Status;

pub(crate) const STREAM: &str = "events";
const CREATED: TimestampMs = TimestampMs::new(1_700_000_000_000);

pub(super) struct ShardModel {
    pub(super) shard: Shard,
    pub(super) frames: Vec<Frame>,
    pub(super) next: u64,
}

#[derive(Default, Clone)]
pub(crate) struct LeaseModel {
    pub(crate) owner: String,
    pub(crate) epoch: u64,
    pub(super) counter: u64,
    pub(crate) checkpoint: Option<Checkpoint>,
    pub(super) expires: Option<Instant>,
    pub(super) lease_ms: u64,
    pub(super) successor: Option<(String, Instant)>,
    pub(crate) pending: Option<v1::PendingCheckpoint>,
}

impl LeaseModel {
    pub(super) fn left_ms(&self) -> u64 {
        let left = self.expires.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()));
        if self.owner.is_empty() { 0 } else { u64::try_from(left.as_millis()).unwrap() }
    }
}

#[derive(Default)]
pub(super) struct Model {
    pub(super) shards: BTreeMap<u32, ShardModel>,
    pub(super) leases: BTreeMap<u32, LeaseModel>,
    pub(super) deleted: bool,
    /// Workers whose lease calls fail.
    pub(super) cut_off: BTreeSet<String>,
    pub(super) takes: Vec<(u32, String)>,
    pub(super) reads: usize,
    pub(super) damage: usize,
}

impl Model {
    pub(super) fn add_shard(&mut self, id: u32, parent: Option<ShardId>, range: HashKeyRange) {
        let shard = Shard {
            id: ShardId::new(id).unwrap(),
            parent,
            adjacent_parent: None,
            range,
            created: CREATED,
            state: ShardState::Open,
        };
        self.shards.insert(id, ShardModel { shard, frames: Vec::new(), next: 1 });
    }
    pub(super) fn append(&mut self, shard: u32, records: &[String]) {
        let model = self.shards.get_mut(&shard).unwrap();
        assert!(model.shard.is_open());
        let mut writer = FrameWriter::with_capacity(1024);
        records.iter().for_each(|record| writer.push("key", record.as_bytes()));
        let made = writer.finish(ProducerId::NONE, 0);
        let header = FrameHeader {
            first: SequenceIndex::new(model.next).unwrap(),
            arrival: CREATED,
            ..*made.header()
        };
        let mut bytes = header.encode().to_vec();
        bytes.extend_from_slice(&made.body());
        model.frames.push(Frame::decode(&bytes.into()).unwrap());
        model.next += records.len() as u64;
    }
    pub(super) fn split(&mut self, parent: u32) -> [u32; 2] {
        let first = self.shards.keys().max().unwrap() + 1;
        let model = self.shards.get_mut(&parent).unwrap();
        model.shard.state =
            ShardState::Closed { ending: SequenceIndex::new(model.next).unwrap(), closed: CREATED };
        model.next += 1;
        let (id, range) = (model.shard.id, model.shard.range);
        let middle = range.start().get() + (range.end().get() - range.start().get()) / 2 + 1;
        let lower = HashKeyRange::new(range.start(), HashKey::new(middle - 1)).unwrap();
        let upper = HashKeyRange::new(HashKey::new(middle), range.end()).unwrap();
        self.add_shard(first, Some(id), lower);
        self.add_shard(first + 1, Some(id), upper);
        [first, first + 1]
    }
    pub(super) fn check_stream(&self, stream: &str) -> Result<(), Status> {
        if self.deleted || stream != STREAM {
            return Err(Error::new(ErrorKind::NotFound, format!("stream {stream} not found")).into());
        }
        Ok(())
    }
    pub(super) fn check_worker(&self, worker: &str) -> Result<(), Status> {
        if self.cut_off.contains(worker) {
            return Err(Error::new(ErrorKind::Unavailable, "cut off by the test").into());
        }
        Ok(())
    }
    /// The lease, if worker and epoch hold it.
    pub(super) fn held(&mut self, worker: &str, lease: &v1::HeldLease) -> Result<&mut LeaseModel, Status> {
        self.check_worker(worker)?;
        self.check_stream(&lease.stream)?;
        let row = self.leases.entry(lease.shard).or_default();
        if row.owner != worker || row.epoch != lease.epoch || row.left_ms() == 0 {
            return Err(Error::new(ErrorKind::Conflict, "the lease is lost").into());
        }
        Ok(row)
    }
    pub(super) fn row(&self, shard: u32) -> v1::LeaseRow {
        let lease = self.leases.get(&shard).cloned().unwrap_or_default();
        v1::LeaseRow {
            shard: Some((&self.shards[&shard].shard).into()),
            owner: lease.owner.clone(),
            epoch: lease.epoch,
            counter: lease.counter,
            checkpoint: lease.checkpoint.map(Into::into),
            expired: lease.left_ms() == 0,
            expires_in_ms: lease.left_ms(),
            successor: lease.successor.as_ref().map(|(worker, _)| worker.clone()).unwrap_or_default(),
            handoff_in_ms: lease.successor.as_ref().map_or(0, |(_, until)| {
                u64::try_from(until.saturating_duration_since(Instant::now()).as_millis()).unwrap()
            }),
            pending: lease.pending,
            ..v1::LeaseRow::default()
        }
    }
    /// The next answer from an index on, or nothing when there is nothing new.
    pub(super) fn answer(
        &mut self,
        shard: u32,
        next: &mut u64,
        max_bytes: usize,
        first: bool,
    ) -> Option<v1::ReadResponse> {
        let model = &self.shards[&shard];
        let from = *next;
        let mut frames = BytesMut::new();
        for frame in model.frames.iter().filter(|frame| frame.header().last().get() >= from) {
            if !frames.is_empty() && frames.len() + frame.bytes().len() > max_bytes {
                break;
            }
            frames.extend_from_slice(frame.bytes());
            *next = frame.header().next().get();
        }
        let closed = !model.shard.is_open();
        let last = model.frames.last().map_or(0, |frame| frame.header().next().get());
        let end_of_shard = closed && *next >= last;
        if frames.is_empty() && !first && !end_of_shard {
            return None;
        }
        if self.damage > 0 && !frames.is_empty() {
            self.damage -= 1;
            let at = frames.len() - 1;
            frames[at] ^= 1;
        }
        Some(v1::ReadResponse {
            shard: first.then(|| (&model.shard).into()),
            frames: Bytes::from(frames),
            from_index: from,
            next_index: *next,
            millis_behind: if *next >= last { 0 } else { 1000 },
            end_of_shard,
            children: Vec::new(),
            records_behind: None,
        })
    }
}
