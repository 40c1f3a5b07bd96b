//! What a stream is: the catalog of streams and shards, the three data verbs (append, read, subscribe) and leases.
#![allow(clippy::unimplemented, clippy::needless_pass_by_value, clippy::unused_async)]

mod error;

pub use error::{Error, ErrorKind, Result};
pub use tidemill_storage::{Appended, Durability, Health, Settings as StorageSettings};

use bytes::Bytes;
use std::fmt;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tidemill_types::{
    AppName, Checkpoint, Clock, Frame, LeaseEpoch, Position, Record, SequenceIndex, SequenceNumber, Shard,
    ShardId, ShardMap, ShardMapVersion, StreamName, TimestampMs, WorkerId,
};

/// What an operator may choose about the engine, with defaults that work.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Of the storage below.
    pub storage: StorageSettings,
    /// Bytes of appends that may wait for one shard. Default 16 MiB.
    pub queue_bytes_per_shard: usize,
    /// Bytes of appends that may wait in all. Default 256 MiB.
    pub queue_bytes_total: usize,
    /// Shards of all streams together. Default 20,000.
    pub shards_max: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            storage: StorageSettings::default(),
            queue_bytes_per_shard: 16 << 20,
            queue_bytes_total: 256 << 20,
            shards_max: 20_000,
        }
    }
}

/// All streams of one data directory. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    _inner: Arc<()>,
}

impl Engine {
    /// Opens (or makes) a data directory.
    pub async fn open(data_dir: &Path, settings: Settings, clock: Arc<dyn Clock>) -> Result<Self> {
        let _ = (data_dir, settings, clock);
        unimplemented!()
    }
    /// Refuses new appends, drains what is queued, stops everything.
    pub async fn close(&self) -> Result<()> {
        unimplemented!()
    }
    /// The clock it was opened with.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        unimplemented!()
    }
    /// Makes a stream.
    pub async fn create_stream(&self, name: &StreamName, spec: StreamSpec) -> Result<StreamInfo> {
        let _ = (name, spec);
        unimplemented!()
    }
    /// Removes a stream with all its records and leases.
    pub async fn delete_stream(&self, name: &StreamName) -> Result<()> {
        let _ = name;
        unimplemented!()
    }
    /// Streams with names above `after`, ascending, at most `limit`.
    pub fn list_streams(&self, after: Option<&StreamName>, limit: usize) -> StreamPage {
        let _ = (after, limit);
        unimplemented!()
    }
    /// The stream of this name.
    pub fn stream(&self, name: &StreamName) -> Result<Stream> {
        let _ = name;
        unimplemented!()
    }
    /// The leases of consumer applications.
    pub fn leases(&self) -> &LeaseTable {
        unimplemented!()
    }
    /// Whether writes are taken.
    pub fn health(&self) -> Health {
        unimplemented!()
    }
    /// A secret of the data directory: key for iterator tokens.
    pub fn secret(&self) -> &[u8; 32] {
        unimplemented!()
    }
}

/// What a new stream is to be like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamSpec {
    /// Shards to begin with, 1 to 10,000. Default 1.
    pub shard_count: u32,
    /// Hours a record is kept, 24 to 8,760. Default 24.
    pub retention_hours: u32,
}

impl Default for StreamSpec {
    fn default() -> Self {
        Self { shard_count: 1, retention_hours: 24 }
    }
}

/// Tells streams of the same name apart: rises with each stream made, never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamIncarnation(u64);

impl StreamIncarnation {
    /// From the number.
    pub const fn new(value: u64) -> Self {
        Self(value)
    }
    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// What is known of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamInfo {
    /// Its name.
    pub name: StreamName,
    /// Which stream of that name.
    pub incarnation: StreamIncarnation,
    /// When it was made.
    pub created: TimestampMs,
    /// Hours a record is kept.
    pub retention_hours: u32,
    /// Shards that take records.
    pub open_shards: u32,
}

/// Some streams, and whether there are more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamPage {
    /// Names ascending.
    pub streams: Vec<StreamInfo>,
    /// Whether more follow.
    pub more: bool,
}

/// Where a record went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// Its shard.
    pub shard: ShardId,
    /// Its number there.
    pub number: SequenceNumber,
}

/// Why a sequence number is not one of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NumberProblem {
    /// It belongs to this other shard.
    OtherShard(ShardId),
    /// It belongs to an earlier (or another) stream: the shard was created at another time.
    OtherStream,
}

impl fmt::Display for NumberProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherShard(shard) => write!(f, "the sequence number belongs to {shard}"),
            Self::OtherStream => {
                write!(f, "the sequence number belongs to another stream or an earlier one of the same name")
            }
        }
    }
}

/// A handle on a stream.
#[derive(Clone)]
pub struct Stream {
    _inner: Arc<()>,
}

impl Stream {
    /// What is known of it.
    pub fn info(&self) -> StreamInfo {
        unimplemented!()
    }
    /// Whether it was deleted.
    pub fn is_deleted(&self) -> bool {
        unimplemented!()
    }
    /// All shards by id, open and closed.
    pub fn shards(&self) -> Vec<Shard> {
        unimplemented!()
    }
    /// The open shards.
    pub fn map(&self) -> Arc<ShardMap> {
        unimplemented!()
    }
    /// Routes, stores, waits until durable.
    pub async fn put(&self, records: Vec<Record>) -> Vec<Result<Placed>> {
        let _ = records;
        unimplemented!()
    }
    /// Hands a batch over as soon as there is room.
    pub async fn submit(
        &self,
        shard: ShardId,
        map_version: ShardMapVersion,
        frame: Frame,
    ) -> Result<PendingAppend> {
        let _ = (shard, map_version, frame);
        unimplemented!()
    }
    /// Hands a batch over if there is room.
    pub fn try_submit(
        &self,
        shard: ShardId,
        map_version: ShardMapVersion,
        frame: Frame,
    ) -> Result<PendingAppend> {
        let _ = (shard, map_version, frame);
        unimplemented!()
    }
    /// Whether `number` is one of `shard`.
    pub fn check_number(
        &self,
        shard: ShardId,
        number: &SequenceNumber,
    ) -> std::result::Result<(), NumberProblem> {
        let _ = (shard, number);
        unimplemented!()
    }
    /// Where a position lies.
    pub fn resolve(&self, shard: ShardId, position: Position) -> Result<SequenceIndex> {
        let _ = (shard, position);
        unimplemented!()
    }
    /// Frames from `from` on.
    pub async fn read(&self, shard: ShardId, from: SequenceIndex, max_bytes: usize) -> Result<FramePage> {
        let _ = (shard, from, max_bytes);
        unimplemented!()
    }
    /// Records from `from` on.
    pub async fn read_records(
        &self,
        shard: ShardId,
        from: SequenceIndex,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<RecordPage> {
        let _ = (shard, from, max_records, max_bytes);
        unimplemented!()
    }
    /// Follows a shard.
    pub fn subscribe(&self, shard: ShardId, from: SequenceIndex) -> Result<Subscription> {
        let _ = (shard, from);
        unimplemented!()
    }
}

/// An append on its way. Dropping it does not cancel the append.
pub struct PendingAppend {
    _inner: (),
}

impl Future for PendingAppend {
    type Output = Result<Appended>;
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        unimplemented!()
    }
}

/// Some frames of a shard.
#[derive(Debug, Clone)]
pub struct FramePage {
    /// Whole frames; the first may begin before `from`.
    pub frames: Vec<Frame>,
    /// The first index that was asked for.
    pub from: SequenceIndex,
    /// The index to go on from.
    pub next: SequenceIndex,
    /// How far behind the tip, by arrival time.
    pub millis_behind: u64,
    /// The children, when a closed shard was read to its end.
    pub end: Option<Vec<Shard>>,
}

/// Some records of a shard.
#[derive(Debug, Clone)]
pub struct RecordPage {
    /// In order.
    pub records: Vec<ReadRecord>,
    /// The index to go on from.
    pub next: SequenceIndex,
    /// How far behind the tip, by arrival time.
    pub millis_behind: u64,
    /// The children, when a closed shard was read to its end.
    pub end: Option<Vec<Shard>>,
}

/// A record that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRecord {
    /// Its number.
    pub number: SequenceNumber,
    /// When it arrived.
    pub arrival: TimestampMs,
    /// Its partition key.
    pub key: String,
    /// Its data.
    pub data: Bytes,
}

/// Follows one shard.
pub struct Subscription {
    _inner: (),
}

impl Subscription {
    /// The next frames; waits at the tip. Cancel-safe.
    pub async fn next(&mut self, max_bytes: usize) -> Result<Option<FramePage>> {
        let _ = max_bytes;
        unimplemented!()
    }
    /// Like `next`, but answers an empty page when nothing came for `idle`.
    pub async fn next_or_idle(&mut self, max_bytes: usize, idle: Duration) -> Result<Option<FramePage>> {
        let _ = (max_bytes, idle);
        unimplemented!()
    }
}

/// The leases of all applications.
pub struct LeaseTable {
    _inner: (),
}

/// Whether a lease may be taken from a worker that still holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steal {
    /// Only a lease that is free or has run out.
    Never,
    /// Any.
    Allowed,
}

/// What a worker asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakeLease {
    /// The shard.
    pub shard: ShardId,
    /// Who asks.
    pub worker: WorkerId,
    /// The epoch the worker saw.
    pub expected_epoch: LeaseEpoch,
    /// It runs out when not renewed for so long: 500 to 600,000.
    pub lease_ms: u64,
    /// Whether a live owner loses it.
    pub steal: Steal,
    /// The checkpoint if there is none yet.
    pub initial: Checkpoint,
}

/// A lease as its holder knows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HeldLease {
    /// The stream.
    pub stream: StreamName,
    /// The shard.
    pub shard: ShardId,
    /// The epoch it was taken under.
    pub epoch: LeaseEpoch,
}

/// A lease as the table has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRow {
    /// The shard.
    pub shard: Shard,
    /// Who holds it.
    pub owner: Option<WorkerId>,
    /// The fencing counter.
    pub epoch: LeaseEpoch,
    /// How often it was taken or renewed under this epoch.
    pub counter: u64,
    /// How far the application has come; none if nobody ever took it.
    pub checkpoint: Option<Checkpoint>,
    /// Until it runs out; 0: expired or unowned.
    pub expires_in_ms: u64,
}

impl LeaseTable {
    /// One row for each shard of the stream.
    pub async fn list(&self, app: &AppName, stream: &StreamName) -> Result<Vec<LeaseRow>> {
        let _ = (app, stream);
        unimplemented!()
    }
    /// Takes a lease.
    pub async fn take(&self, app: &AppName, stream: &StreamName, request: TakeLease) -> Result<LeaseRow> {
        let _ = (app, stream, request);
        unimplemented!()
    }
    /// Keeps leases alive; returns the lost ones.
    pub async fn renew(
        &self,
        app: &AppName,
        worker: &WorkerId,
        held: &[HeldLease],
    ) -> Result<Vec<HeldLease>> {
        let _ = (app, worker, held);
        unimplemented!()
    }
    /// Gives a lease back.
    pub async fn release(&self, app: &AppName, worker: &WorkerId, held: &HeldLease) -> Result<()> {
        let _ = (app, worker, held);
        unimplemented!()
    }
    /// Notes how far the holder has come.
    pub async fn checkpoint(
        &self,
        app: &AppName,
        worker: &WorkerId,
        held: &HeldLease,
        checkpoint: Checkpoint,
    ) -> Result<()> {
        let _ = (app, worker, held, checkpoint);
        unimplemented!()
    }
}
