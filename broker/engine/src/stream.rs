//! A stream: what is known of it, and the handle through which its records come and go.
//!
//! The verbs are in [`crate::append`], [`crate::read`] and [`crate::subscribe`].

use crate::catalog::state::StreamRow;
use crate::error::{Error, ErrorKind, Result};
use crate::shard::handle::{ShardHandle, gone};
use arc_swap::ArcSwap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tidemill_types::limits::RETENTION_HOURS_DEFAULT;
use tidemill_types::{SequenceNumber, Shard, ShardId, ShardMap, StreamIncarnation, StreamName, TimestampMs};

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
        Self { shard_count: 1, retention_hours: RETENTION_HOURS_DEFAULT }
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

/// Why a sequence number is not one of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NumberProblem {
    /// It belongs to this other shard.
    OtherShard(ShardId),
    /// It belongs to another stream, or to an earlier one of the same name: its shard was created at another time.
    OtherStream,
    /// It is of this shard, but lies at or above its durable tip: no record has had it yet.
    NotYet,
}

impl fmt::Display for NumberProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherShard(shard) => write!(f, "the sequence number belongs to {shard}"),
            Self::OtherStream => f.write_str(
                "the sequence number belongs to another stream, or to an earlier one of the same name",
            ),
            Self::NotYet => f.write_str("no record has had this sequence number yet"),
        }
    }
}

/// The shards of a stream at one moment.
pub(crate) struct ShardSet {
    map: Arc<ShardMap>,
    /// By id.
    handles: Vec<Arc<ShardHandle>>,
}

impl ShardSet {
    pub(crate) fn new(map: Arc<ShardMap>, mut handles: Vec<Arc<ShardHandle>>) -> Self {
        handles.sort_by_key(|handle| handle.shard().id);
        Self { map, handles }
    }
    pub(crate) fn map(&self) -> &Arc<ShardMap> {
        &self.map
    }
    pub(crate) fn handles(&self) -> impl Iterator<Item = &Arc<ShardHandle>> {
        self.handles.iter()
    }
    pub(crate) fn get(&self, id: ShardId) -> Option<&Arc<ShardHandle>> {
        let slot = self.handles.binary_search_by_key(&id, |handle| handle.shard().id).ok()?;
        Some(&self.handles[slot])
    }
    /// The shards that came from `parent` by split or merge.
    pub(crate) fn children(&self, parent: ShardId) -> Vec<Shard> {
        let shards = self.handles().map(|handle| handle.shard());
        shards.filter(|shard| shard.parents().any(|id| id == parent)).cloned().collect()
    }
}

/// What all handles of a stream share.
pub(crate) struct StreamCore {
    row: StreamRow,
    shards: ArcSwap<ShardSet>,
    deleted: AtomicBool,
}

impl StreamCore {
    pub(crate) fn new(row: StreamRow, shards: ShardSet) -> Self {
        Self { row, shards: ArcSwap::from_pointee(shards), deleted: AtomicBool::new(false) }
    }
    pub(crate) fn name(&self) -> &StreamName {
        &self.row.name
    }
    pub(crate) fn incarnation(&self) -> StreamIncarnation {
        self.row.incarnation
    }
    pub(crate) fn retention_hours(&self) -> u32 {
        self.row.retention_hours
    }
    pub(crate) fn info(&self) -> StreamInfo {
        let open = self.shards.load().map().open().len();
        self.row.info(u32::try_from(open).expect("bounded by SHARDS_PER_STREAM_MAX"))
    }
    pub(crate) fn shard_set(&self) -> Arc<ShardSet> {
        self.shards.load_full()
    }
    pub(crate) fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::SeqCst)
    }
    pub(crate) fn mark_deleted(&self) {
        self.deleted.store(true, Ordering::SeqCst);
        self.shards.load().handles().for_each(|handle| handle.mark_deleted());
    }
    /// The shard; an error if the stream is gone or never had it.
    pub(crate) fn handle(&self, id: ShardId) -> Result<Arc<ShardHandle>> {
        if self.is_deleted() {
            return Err(gone(self.name()));
        }
        self.shards.load().get(id).cloned().ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("{id} not found in stream {}", self.name()))
        })
    }
}

/// A handle on a stream, cheap to clone. Once the stream is deleted its verbs answer `NotFound`, also when a stream of
/// the same name was made since.
#[derive(Clone)]
pub struct Stream {
    pub(crate) core: Arc<StreamCore>,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stream").field(self.core.name()).field(&self.core.incarnation()).finish()
    }
}

impl Stream {
    /// What is known of it.
    pub fn info(&self) -> StreamInfo {
        self.core.info()
    }
    /// Whether it was deleted.
    pub fn is_deleted(&self) -> bool {
        self.core.is_deleted()
    }
    /// All shards by id, open and closed.
    pub fn shards(&self) -> Vec<Shard> {
        self.core.shard_set().handles().map(|handle| handle.shard().clone()).collect()
    }
    /// The open shards, by hash range.
    pub fn map(&self) -> Arc<ShardMap> {
        Arc::clone(self.core.shard_set().map())
    }
    /// Whether `number` is one that `shard` has given out, or may have: anything below its durable tip, its starting
    /// number and those of lost or trimmed records included; of a closed shard, anything up to its ending number. A
    /// reader sent further ahead would miss what comes before.
    pub fn check_number(
        &self,
        shard: ShardId,
        number: &SequenceNumber,
    ) -> std::result::Result<(), NumberProblem> {
        if number.shard() != shard {
            return Err(NumberProblem::OtherShard(number.shard()));
        }
        let set = self.core.shard_set();
        let ours = |known: &&Arc<ShardHandle>| {
            known.shard().starting_number().shard_created_s() == number.shard_created_s()
        };
        let handle = set.get(shard).filter(ours).ok_or(NumberProblem::OtherStream)?;
        let below_tip = number.index() < handle.log().marks().durable();
        let before_end = handle.shard().ending_number().is_some_and(|end| number.index() <= end.index());
        if below_tip || before_end { Ok(()) } else { Err(NumberProblem::NotYet) }
    }
}
