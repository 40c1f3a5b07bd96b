//! What the catalog knows, as a pure value: two tables and two counters, moved by [`Change`]s.
//!
//! A verb plans changes, commits them as one batch, and only then applies them; opening a directory applies the changes
//! that its rows stand for. Both ways lead through [`CatalogState::apply`].
//!
//! Not here: disks, tasks, what a shard does with records.

use super::settings::StreamSettings;
use crate::error::{Error, ErrorKind, Result};
use std::collections::BTreeMap;
use tidemill_storage::LogId;
use tidemill_types::{Shard, ShardId, ShardMap, ShardMapVersion, StreamIncarnation, StreamKey, TimestampMs};

/// One stream, without its shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StreamRow {
    pub(crate) key: StreamKey,
    pub(crate) incarnation: StreamIncarnation,
    pub(crate) created: TimestampMs,
    pub(crate) map_version: ShardMapVersion,
    pub(crate) settings: StreamSettings,
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
    /// The shard is gone, with its stream.
    ShardGone(StreamIncarnation, ShardId),
}

/// All streams and shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CatalogState {
    counters: Counters,
    streams: BTreeMap<StreamKey, StreamRow>,
    shards: BTreeMap<(StreamIncarnation, ShardId), ShardRow>,
}

impl Default for CatalogState {
    fn default() -> Self {
        let counters = Counters { next_incarnation: 1, next_log: 1 };
        Self { counters, streams: BTreeMap::new(), shards: BTreeMap::new() }
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
    /// Whether what the rows say fits together: each stream's open shards tile the hash space, every shard has a stream,
    /// no log serves two shards, no number is above its counter.
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
        let mut logs = std::collections::HashSet::new();
        for ((incarnation, id), row) in &self.shards {
            if !known.contains(incarnation) {
                return damaged(format!("{id} belongs to no stream (incarnation {})", incarnation.get()));
            }
            if row.log.get() >= self.counters.next_log || !logs.insert(row.log) {
                return damaged(format!(
                    "{id} of incarnation {} has the log {}",
                    incarnation.get(),
                    row.log.get()
                ));
            }
        }
        Ok(())
    }
}
