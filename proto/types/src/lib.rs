//! The nouns of Tidemill: names, hash keys, shards, sequence numbers, records, frames, leases.
//!
//! Both sides of every wire agree on these, so they live apart from both. A value of one of these types
//! is valid by construction; nothing behind the edge checks it again. This crate does no I/O, knows no
//! async runtime, no protobuf and no serde.

mod arn;
mod error;
mod frame;
mod hash_key;
mod incarnation;
mod lease;
pub mod limits;
mod name;
mod record;
mod sequence;
mod shard;
mod shard_map;
mod stream_key;
mod time;

pub use arn::{ConsumerArn, StreamArn};
pub use error::{Error, Result};
pub use frame::{
    Frame, FrameError, FrameHeader, FrameKind, FrameWriter, Frames, ProducerId, RecordIter, RecordView,
    Sealed, Sealing,
};
pub use hash_key::{HashKey, HashKeyRange};
pub use incarnation::StreamIncarnation;
pub use lease::{Checkpoint, LeaseEpoch, PendingCheckpoint, WorkerId};
pub use name::{AccountId, AppName, ConsumerName, Region, StreamName};
pub use record::{PartitionKey, Record};
pub use sequence::{AnySequenceNumber, Epoch, Position, SequenceIndex, SequenceNumber};
pub use shard::{Shard, ShardId, ShardState};
pub use shard_map::{ShardMap, ShardMapVersion};
pub use stream_key::StreamKey;
pub use time::{Clock, ManualClock, MonotonicMs, SystemClock, TimestampMs};
