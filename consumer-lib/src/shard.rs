//! What a worker knows of shards: their names, parents and ranges, whatever service they live on.
//!
//! Not here: their leases (store), and who may be worked on (lineage).

use std::fmt;
use tidemill_types::{HashKeyRange, Shard, ShardId, StreamName, TimestampMs};

/// A shard of a stream, by name. Prints as `stream/shardId-000000000000`. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardRef {
    stream: StreamName,
    shard: ShardId,
}

impl ShardRef {
    pub(crate) fn new(stream: StreamName, shard: ShardId) -> Self {
        Self { stream, shard }
    }
    /// The stream.
    pub fn stream(&self) -> &StreamName {
        &self.stream
    }
    /// The shard within the stream.
    pub fn shard(&self) -> ShardId {
        self.shard
    }
}

impl fmt::Display for ShardRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.stream, self.shard)
    }
}

/// Whether a shard takes records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ShardState {
    Open,
    Closed,
}

/// What is known of one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShardInfo {
    pub(crate) id: ShardId,
    /// The shard it came from by split or merge (of a merge, the lower one).
    pub(crate) parent: Option<ShardId>,
    /// Of a merge, the upper parent.
    pub(crate) adjacent_parent: Option<ShardId>,
    pub(crate) range: HashKeyRange,
    pub(crate) state: ShardState,
    /// When a broker of ours made it; completes its sequence numbers. Unknown of other services.
    pub(crate) created: Option<TimestampMs>,
}

impl ShardInfo {
    pub(crate) fn is_open(&self) -> bool {
        self.state == ShardState::Open
    }
    /// The shards it came from.
    pub(crate) fn parents(&self) -> impl Iterator<Item = ShardId> {
        self.parent.into_iter().chain(self.adjacent_parent)
    }
}

impl From<&Shard> for ShardInfo {
    fn from(shard: &Shard) -> Self {
        Self {
            id: shard.id,
            parent: shard.parent,
            adjacent_parent: shard.adjacent_parent,
            range: shard.range,
            state: if shard.is_open() { ShardState::Open } else { ShardState::Closed },
            created: Some(shard.created),
        }
    }
}
