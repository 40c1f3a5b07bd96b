//! A stream: what is known of it, and the handle through which its records come and go.
//!
//! The verbs are in [`crate::append`], [`crate::read`] and [`crate::subscribe`].

use crate::catalog::consumers::{ConsumerInfo, consumer_not_found};
use crate::catalog::settings::{Distribution, StreamSettings};
use crate::catalog::state::StreamRow;
use crate::error::{Error, ErrorKind, Result};
use crate::seal::StreamKeys;
use crate::shard::handle::{ShardHandle, gone};
use crate::shared::Shared;
use arc_swap::ArcSwap;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use tidemill_types::{
    ConsumerName, SequenceNumber, Shard, ShardId, ShardMap, StreamIncarnation, StreamKey, TimestampMs,
};

/// What a new stream is to be like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSpec {
    /// Shards to begin with, 1 to 10,000. Default 1.
    pub shard_count: u32,
    /// Everything else. `encryption` must be none: it is a change of its own.
    pub settings: StreamSettings,
}

impl Default for StreamSpec {
    fn default() -> Self {
        Self { shard_count: 1, settings: StreamSettings::default() }
    }
}

/// What is known of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamInfo {
    /// Its account and name.
    pub key: StreamKey,
    /// Which stream of that name.
    pub incarnation: StreamIncarnation,
    /// When it was made.
    pub created: TimestampMs,
    /// Shards that take records.
    pub open_shards: u32,
    /// Registered consumers.
    pub consumers: u32,
    /// What it is set to.
    pub settings: StreamSettings,
}

/// A stream before and after a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Updated {
    /// As it was.
    pub before: StreamInfo,
    /// As it is.
    pub after: StreamInfo,
}

/// What scaling a stream came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scaled {
    /// Open shards before.
    pub before: u32,
    /// Open shards now.
    pub after: u32,
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

/// The shards of a stream at one moment: what is told of them here does not change, their handles go with the time.
pub(crate) struct ShardSet {
    map: Arc<ShardMap>,
    /// By id.
    shards: Vec<(Shard, Arc<ShardHandle>)>,
    /// For each shard that has any, its children by id.
    children: HashMap<ShardId, Vec<ShardId>>,
}

impl ShardSet {
    pub(crate) fn new(map: Arc<ShardMap>, mut shards: Vec<(Shard, Arc<ShardHandle>)>) -> Self {
        shards.sort_by_key(|(shard, _)| shard.id);
        let mut children: HashMap<ShardId, Vec<ShardId>> = HashMap::new();
        for (shard, _) in &shards {
            shard.parents().for_each(|parent| children.entry(parent).or_default().push(shard.id));
        }
        Self { map, shards, children }
    }
    pub(crate) fn map(&self) -> &Arc<ShardMap> {
        &self.map
    }
    pub(crate) fn handles(&self) -> impl Iterator<Item = &Arc<ShardHandle>> {
        self.shards.iter().map(|(_, handle)| handle)
    }
    pub(crate) fn shards(&self) -> impl Iterator<Item = &Shard> {
        self.shards.iter().map(|(shard, _)| shard)
    }
    pub(crate) fn get(&self, id: ShardId) -> Option<&Arc<ShardHandle>> {
        Some(&self.shards[self.slot(id)?].1)
    }
    /// Ids count up, so the place is known at once unless a shard between has left: then it is searched for. To search among 10,000
    /// always took 2 % of the machine, in lines of memory that nobody had looked at lately.
    fn slot(&self, id: ShardId) -> Option<usize> {
        let first = self.shards.first()?.0.id.get();
        let guess = id.get().checked_sub(first).and_then(|guess| usize::try_from(guess).ok());
        match guess.filter(|guess| self.shards.get(*guess).is_some_and(|(shard, _)| shard.id == id)) {
            None => self.shards.binary_search_by_key(&id, |(shard, _)| shard.id).ok(),
            found => found,
        }
    }
    /// The shards that came from `parent` by split or merge.
    pub(crate) fn children(&self, parent: ShardId) -> Vec<Shard> {
        let ids = self.children.get(&parent).into_iter().flatten();
        ids.filter_map(|id| Some(self.shards[self.slot(*id)?].0.clone())).collect()
    }
}

/// What all handles of a stream share.
pub(crate) struct StreamCore {
    key: StreamKey,
    incarnation: StreamIncarnation,
    /// The stream's row as it was committed last.
    row: ArcSwap<StreamRow>,
    shards: ArcSwap<ShardSet>,
    consumers: ArcSwap<Consumers>,
    keys: Arc<StreamKeys>,
    shared: Arc<Shared>,
    deleted: AtomicBool,
    /// Why nothing is taken any more, though it is there and can be read.
    halted: OnceLock<Error>,
}

/// The registered consumers of a stream.
pub(crate) type Consumers = BTreeMap<ConsumerName, ConsumerInfo>;

impl StreamCore {
    pub(crate) fn new(
        row: StreamRow,
        shards: ShardSet,
        consumers: Consumers,
        keys: Arc<StreamKeys>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            key: row.key.clone(),
            incarnation: row.incarnation,
            row: ArcSwap::from_pointee(row),
            shards: ArcSwap::from_pointee(shards),
            consumers: ArcSwap::from_pointee(consumers),
            keys,
            shared,
            deleted: AtomicBool::new(false),
            halted: OnceLock::new(),
        }
    }
    pub(crate) fn key(&self) -> &StreamKey {
        &self.key
    }
    pub(crate) fn incarnation(&self) -> StreamIncarnation {
        self.incarnation
    }
    /// Records that arrived earlier are no longer kept at the time `now`; the beginning of time if the clock is in doubt.
    pub(crate) fn kept_since(&self, now: TimestampMs) -> TimestampMs {
        self.shared.kept_since(&self.row.load(), now)
    }
    /// Records that arrived earlier were let go of by changes of the retention; the beginning of time if the clock is in doubt.
    pub(crate) fn let_go_before(&self, now: TimestampMs) -> TimestampMs {
        self.shared.even_time().certain(self.row.load().let_go_before(now), now, &**self.shared.clock())
    }
    pub(crate) fn info(&self) -> StreamInfo {
        let row = self.row.load();
        let count = |n: usize| u32::try_from(n).expect("shards and consumers are bounded");
        StreamInfo {
            key: self.key.clone(),
            incarnation: self.incarnation,
            created: row.created,
            open_shards: count(self.shards.load().map().open().len()),
            consumers: count(self.consumers.load().len()),
            settings: row.settings.clone(),
        }
    }
    /// The row as it was committed last.
    pub(crate) fn row(&self) -> Arc<StreamRow> {
        self.row.load_full()
    }
    /// The keys its records are sealed with.
    pub(crate) fn keys(&self) -> &Arc<StreamKeys> {
        &self.keys
    }
    /// The number of the data key that what is written now is sealed with, if any is.
    pub(crate) fn sealed_with(&self) -> Option<u32> {
        self.row.load().settings.encryption.as_ref().map(|encryption| encryption.data_key)
    }
    /// Shows a row that was committed.
    pub(crate) fn set_row(&self, row: StreamRow) {
        self.row.store(Arc::new(row));
    }
    /// Shows consumers that were committed.
    pub(crate) fn set_consumers(&self, consumers: Consumers) {
        self.consumers.store(Arc::new(consumers));
    }
    pub(crate) fn consumers(&self) -> Arc<Consumers> {
        self.consumers.load_full()
    }
    pub(crate) fn shard_set(&self) -> Arc<ShardSet> {
        self.shards.load_full()
    }
    pub(crate) fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::SeqCst)
    }
    /// It may have been deleted or not: the next start finds out, and what was written until then might go with it. So
    /// nothing more is taken.
    pub(crate) fn halt(&self) {
        let message = format!(
            "whether the deletion of stream {} was stored is not known; it takes no records until the broker is restarted",
            self.key
        );
        let _ = self.halted.set(Error::new(ErrorKind::Unavailable, message)); // halted already, for the same reason
    }
    /// An error unless records are taken, as far as the stream goes.
    pub(crate) fn check_taking(&self) -> Result<()> {
        self.halted.get().cloned().map_or(Ok(()), Err)
    }
    pub(crate) fn mark_deleted(&self) {
        self.deleted.store(true, Ordering::SeqCst);
        self.shards.load().handles().for_each(|handle| handle.mark_gone(gone(&self.key)));
    }
    /// An error if the stream is gone.
    pub(crate) fn check_there(&self) -> Result<()> {
        if self.is_deleted() { Err(gone(&self.key)) } else { Ok(()) }
    }
    /// The shard; an error if the stream is gone or never had it.
    pub(crate) fn handle(&self, id: ShardId) -> Result<Arc<ShardHandle>> {
        self.check_there()?;
        self.shards.load().get(id).cloned().ok_or_else(|| no_such_shard(&self.key, id))
    }
    /// Shows other shards, in one step; then tells those that were closed or have gone.
    pub(crate) fn show(&self, shards: ShardSet) {
        let after = Arc::new(shards);
        let before = self.shards.swap(Arc::clone(&after));
        for (shard, handle) in &before.shards {
            match after.slot(shard.id) {
                None => handle.mark_gone(no_such_shard(&self.key, shard.id)),
                Some(slot) if shard.is_open() && !after.shards[slot].0.is_open() => {
                    handle.close(after.shards[slot].0.clone());
                }
                Some(_) => {}
            }
        }
    }
}

/// The error for a shard that a stream does not have.
pub(crate) fn no_such_shard(key: &StreamKey, id: ShardId) -> Error {
    let message = format!("Could not find shard {id} in stream {} under account {}.", key.name, key.account);
    Error::new(ErrorKind::NotFound, message)
}

/// A handle on a stream, cheap to clone. Once the stream is deleted its verbs answer `NotFound`, also when a stream of
/// the same name was made since.
#[derive(Clone)]
pub struct Stream {
    pub(crate) core: Arc<StreamCore>,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stream").field(self.core.key()).field(&self.core.incarnation()).finish()
    }
}

impl Stream {
    /// What is known of it.
    pub fn info(&self) -> StreamInfo {
        self.core.info()
    }
    /// Which stream of its name it is.
    pub fn incarnation(&self) -> StreamIncarnation {
        self.core.incarnation()
    }
    /// Records that arrived earlier are no longer kept at the time `now`. It falls with the clock only.
    pub fn kept_since(&self, now: TimestampMs) -> TimestampMs {
        self.core.kept_since(now)
    }
    /// Looks at what it is set to, without a copy.
    pub fn with_settings<T>(&self, look: impl FnOnce(&StreamSettings) -> T) -> T {
        look(&self.core.row.load().settings)
    }
    /// Largest record it takes, data and partition key together, in bytes.
    pub fn record_bytes_max(&self) -> usize {
        self.core.row().settings.record_bytes_max()
    }
    /// Whether it takes records without a partition key.
    pub fn takes_keyless(&self) -> bool {
        self.core.row().settings.distribution == Distribution::Auto
    }
    /// Its registered consumers, by name.
    pub fn consumers(&self) -> Vec<ConsumerInfo> {
        self.core.consumers().values().cloned().collect()
    }
    /// The registered consumer of that name. Errors: `NotFound`.
    pub fn consumer(&self, name: &ConsumerName) -> Result<ConsumerInfo> {
        let found = self.core.consumers().get(name).cloned();
        found.ok_or_else(|| consumer_not_found(self.core.key(), name))
    }
    /// Whether it was deleted.
    pub fn is_deleted(&self) -> bool {
        self.core.is_deleted()
    }
    /// All shards by id, open and closed.
    pub fn shards(&self) -> Vec<Shard> {
        self.core.shard_set().shards().cloned().collect()
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
