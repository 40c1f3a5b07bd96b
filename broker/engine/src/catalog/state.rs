//! What the catalog knows, as a pure value: four tables and two counters, moved by [`Change`]s.
//!
//! A verb plans changes, commits them as one batch, and only then applies them; opening a directory applies the changes
//! that its rows stand for. Both ways lead through [`CatalogState::apply`].
//!
//! Not here: disks, tasks, what a shard does with records.

use super::accounts::AccountRow;
use super::consumers::ConsumerInfo;
use super::reshard::Reshard;
use super::settings::StreamSettings;
use crate::error::{Error, ErrorKind, Result};
use crate::keys::WrappedKey;
use crate::stream::Consumers;
use std::collections::BTreeMap;
use tidemill_storage::LogId;
use tidemill_types::limits::RETENTION_HOURS_MIN;
use tidemill_types::{
    AccountId, ConsumerName, Shard, ShardId, ShardMap, ShardMapVersion, StreamIncarnation, StreamKey,
    TimestampMs,
};

const HOUR_MS: u64 = 3_600_000;

/// One stream, without its shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StreamRow {
    pub(crate) key: StreamKey,
    pub(crate) incarnation: StreamIncarnation,
    pub(crate) created: TimestampMs,
    pub(crate) map_version: ShardMapVersion,
    /// Records that arrived earlier are let go of for good, however long records are kept from now on.
    pub(crate) kept_from: TimestampMs,
    pub(crate) settings: StreamSettings,
}

impl StreamRow {
    /// Records that arrived earlier are no longer kept at the time `now`. Never later than the shortest retention before
    /// `now`: no change of the retention leaves a later `kept_from` behind, but a clock that was ahead then does.
    pub(crate) fn kept_since(&self, now: TimestampMs) -> TimestampMs {
        let before = |hours: u32| now.saturating_sub_ms(u64::from(hours) * HOUR_MS);
        before(self.settings.retention_hours).max(self.let_go_before(now))
    }

    /// Records that arrived earlier were let go of by changes of the retention.
    pub(crate) fn let_go_before(&self, now: TimestampMs) -> TimestampMs {
        self.kept_from.min(now.saturating_sub_ms(u64::from(RETENTION_HOURS_MIN) * HOUR_MS))
    }
}

/// One shard and the log that holds its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShardRow {
    pub(crate) shard: Shard,
    pub(crate) log: LogId,
}

/// The numbers to be given out next; neither is ever given out twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) next_incarnation: u64,
    pub(crate) next_log: u64,
}

/// One step from one state of the catalog to another; also one row of the metadata store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// The counters are now these.
    Counters(Counters),
    /// This stream is there, or is now like this.
    Stream(StreamRow),
    /// The stream is gone.
    StreamGone(StreamKey),
    /// This shard is there, or is now like this.
    Shard(StreamIncarnation, ShardRow),
    /// The shard is gone, with its stream or its last records.
    ShardGone(StreamIncarnation, ShardId),
    /// The stream's shards are about to be changed like this.
    Reshard(StreamIncarnation, Reshard),
    /// That change is done.
    ReshardDone(StreamIncarnation),
    /// This consumer is there, or is now like this.
    Consumer(StreamIncarnation, ConsumerInfo),
    /// The consumer is gone.
    ConsumerGone(StreamIncarnation, ConsumerName),
    /// The stream has this data key, under this number.
    DataKey(StreamIncarnation, u32, WrappedKey),
    /// The data key is gone, with its stream.
    DataKeyGone(StreamIncarnation, u32),
    /// This is what is kept of the account.
    Account(AccountId, AccountRow),
}

/// All streams, shards and consumers, and what is kept of accounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CatalogState {
    counters: Counters,
    streams: BTreeMap<StreamKey, StreamRow>,
    shards: BTreeMap<(StreamIncarnation, ShardId), ShardRow>,
    /// Changes of shards that are decided and not done, at most one for each stream.
    reshards: BTreeMap<StreamIncarnation, Reshard>,
    /// Of those streams that have any.
    consumers: BTreeMap<StreamIncarnation, Consumers>,
    /// Of encrypted streams, and of those that were.
    data_keys: BTreeMap<StreamIncarnation, BTreeMap<u32, WrappedKey>>,
    accounts: BTreeMap<AccountId, AccountRow>,
}

impl Default for CatalogState {
    fn default() -> Self {
        let counters = Counters { next_incarnation: 1, next_log: 1 };
        Self {
            counters,
            streams: BTreeMap::new(),
            shards: BTreeMap::new(),
            reshards: BTreeMap::new(),
            consumers: BTreeMap::new(),
            data_keys: BTreeMap::new(),
            accounts: BTreeMap::new(),
        }
    }
}

impl CatalogState {
    /// Takes one step.
    pub(crate) fn apply(&mut self, change: Change) {
        match change {
            Change::Counters(counters) => {
                // after a failed verb the numbers it had planned are skipped
                self.counters.next_incarnation =
                    self.counters.next_incarnation.max(counters.next_incarnation);
                self.counters.next_log = self.counters.next_log.max(counters.next_log);
            }
            Change::Stream(row) => {
                self.streams.insert(row.key.clone(), row);
            }
            Change::StreamGone(name) => {
                self.streams.remove(&name);
            }
            Change::Shard(incarnation, row) => {
                self.shards.insert((incarnation, row.shard.id), row);
            }
            Change::ShardGone(incarnation, id) => {
                self.shards.remove(&(incarnation, id));
            }
            Change::Reshard(incarnation, reshard) => {
                self.reshards.insert(incarnation, reshard);
            }
            Change::ReshardDone(incarnation) => {
                self.reshards.remove(&incarnation);
            }
            Change::Consumer(incarnation, consumer) => {
                self.consumers.entry(incarnation).or_default().insert(consumer.name.clone(), consumer);
            }
            Change::ConsumerGone(incarnation, name) => {
                if let Some(consumers) = self.consumers.get_mut(&incarnation) {
                    consumers.remove(&name);
                    if consumers.is_empty() {
                        self.consumers.remove(&incarnation);
                    }
                }
            }
            Change::DataKey(incarnation, number, wrapped) => {
                self.data_keys.entry(incarnation).or_default().insert(number, wrapped);
            }
            Change::DataKeyGone(incarnation, number) => {
                if let Some(keys) = self.data_keys.get_mut(&incarnation) {
                    keys.remove(&number);
                    if keys.is_empty() {
                        self.data_keys.remove(&incarnation);
                    }
                }
            }
            Change::Account(account, row) => {
                self.accounts.insert(account, row);
            }
        }
    }

    pub(crate) fn counters(&self) -> Counters {
        self.counters
    }
    pub(crate) fn stream(&self, name: &StreamKey) -> Option<&StreamRow> {
        self.streams.get(name)
    }
    pub(crate) fn streams(&self) -> impl Iterator<Item = &StreamRow> {
        self.streams.values()
    }
    /// The shards of a stream, by id.
    pub(crate) fn shards(&self, stream: StreamIncarnation) -> impl Iterator<Item = &ShardRow> {
        let (first, last) = (ShardId::new(0), ShardId::new(i32::MAX as u32));
        let (first, last) = (first.expect("zero is a shard id"), last.expect("the largest shard id"));
        self.shards.range((stream, first)..=(stream, last)).map(|(_, row)| row)
    }
    /// The registered consumers of a stream, if it has any.
    pub(crate) fn consumers(&self, stream: StreamIncarnation) -> Option<&Consumers> {
        self.consumers.get(&stream)
    }
    /// The data keys of a stream, by number; none if it was never encrypted.
    pub(crate) fn data_keys(&self, stream: StreamIncarnation) -> Option<&BTreeMap<u32, WrappedKey>> {
        self.data_keys.get(&stream)
    }
    /// What is kept of an account; nothing of one that was never heard of.
    pub(crate) fn account(&self, account: &AccountId) -> AccountRow {
        self.accounts.get(account).copied().unwrap_or_default()
    }
    /// The accounts of which something is kept.
    pub(crate) fn accounts(&self) -> impl Iterator<Item = (&AccountId, &AccountRow)> {
        self.accounts.iter()
    }
    pub(crate) fn shard(&self, stream: StreamIncarnation, id: ShardId) -> Option<&ShardRow> {
        self.shards.get(&(stream, id))
    }
    /// Which stream has which shard, of all streams.
    pub(crate) fn shard_keys(&self) -> impl Iterator<Item = (StreamIncarnation, ShardId)> {
        self.shards.keys().copied()
    }
    /// Whether something is decided about the shards of any stream and not done.
    pub(crate) fn has_reshards(&self) -> bool {
        !self.reshards.is_empty()
    }
    /// What is decided about the shards of a stream and not done.
    pub(crate) fn reshard(&self, stream: StreamIncarnation) -> Option<&Reshard> {
        self.reshards.get(&stream)
    }
    /// The streams about whose shards something is decided and not done.
    pub(crate) fn resharded(&self) -> Vec<StreamKey> {
        let pending = |row: &&StreamRow| self.reshards.contains_key(&row.incarnation);
        self.streams().filter(pending).map(|row| row.key.clone()).collect()
    }
    /// The open shards of all streams.
    pub(crate) fn open_shard_count(&self) -> usize {
        self.shards.values().filter(|row| row.shard.is_open()).count()
    }
    /// All shards, open and closed, of all streams.
    pub(crate) fn shard_count(&self) -> usize {
        self.shards.len()
    }
    /// The logs that hold records.
    pub(crate) fn logs(&self) -> impl Iterator<Item = LogId> {
        self.shards.values().map(|row| row.log)
    }
    /// The open shards of a stream as a map; an error if they do not tile the hash space.
    pub(crate) fn map(&self, stream: &StreamRow) -> Result<ShardMap> {
        let shards = self.shards(stream.incarnation).map(|row| row.shard.clone());
        ShardMap::new(stream.map_version, shards).map_err(|e| {
            Error::caused(ErrorKind::Damaged, format!("the catalog's shards of stream {}", stream.key), e)
        })
    }
    /// Whether what the rows say fits together: each stream's open shards tile the hash space, also when what is decided
    /// about them is done; every shard and every consumer has a stream, no log serves two shards, no number is above its
    /// counter.
    pub(crate) fn check(&self) -> Result<()> {
        let damaged =
            |what: String| Err(Error::new(ErrorKind::Damaged, format!("the catalog is damaged: {what}")));
        let mut known = std::collections::HashSet::new();
        for stream in self.streams() {
            self.map(stream)?;
            let incarnation = stream.incarnation;
            if incarnation.get() >= self.counters.next_incarnation || !known.insert(incarnation) {
                return damaged(format!("stream {} has the incarnation {}", stream.key, incarnation.get()));
            }
        }
        if let Some(incarnation) = self.consumers.keys().find(|incarnation| !known.contains(incarnation)) {
            return damaged(format!("consumers belong to no stream (incarnation {})", incarnation.get()));
        }
        if let Some(incarnation) = self.reshards.keys().find(|incarnation| !known.contains(incarnation)) {
            return damaged(format!(
                "a split or merge belongs to no stream (incarnation {})",
                incarnation.get()
            ));
        }
        if let Some(incarnation) = self.data_keys.keys().find(|incarnation| !known.contains(incarnation)) {
            return damaged(format!("data keys belong to no stream (incarnation {})", incarnation.get()));
        }
        let lacks_key = |stream: &&StreamRow| {
            let used = stream.settings.encryption.as_ref().map(|encryption| encryption.data_key);
            let known = self.data_keys(stream.incarnation);
            used.is_some_and(|number| !known.is_some_and(|keys| keys.contains_key(&number)))
        };
        if let Some(stream) = self.streams().find(lacks_key) {
            return damaged(format!("the data key of stream {} is missing", stream.key));
        }
        if let Some((incarnation, id)) =
            self.shards.keys().find(|(incarnation, _)| !known.contains(incarnation))
        {
            return damaged(format!("{id} belongs to no stream (incarnation {})", incarnation.get()));
        }
        let there = self.shards.iter().map(|((incarnation, id), row)| (*incarnation, *id, row.log));
        let coming = self.reshards.iter().flat_map(|(incarnation, reshard)| {
            reshard.children.iter().map(|child| (*incarnation, child.id, child.log))
        });
        let mut logs = std::collections::HashSet::new();
        for (incarnation, id, log) in there.chain(coming) {
            if log.get() >= self.counters.next_log || !logs.insert(log) {
                return damaged(format!(
                    "{id} of incarnation {} has the log {}",
                    incarnation.get(),
                    log.get()
                ));
            }
        }
        self.streams().try_for_each(|stream| match self.reshard(stream.incarnation) {
            Some(reshard) => reshard.check(self, stream),
            None => Ok(()),
        })
    }
}
