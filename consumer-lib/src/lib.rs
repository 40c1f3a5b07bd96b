//! The consumer library of Tidemill: workers of an application share the shards of a stream through leases, process every
//! record at least once, in order per shard and parents before children, and checkpoint how far they have come. A worker that
//! lost a lease cannot move its checkpoint.
//!
//! ```text
//!  Worker ─► supervisor ──(assign: even shares)──► leases: take, hand over, renew, give back ─┐
//!               │ a task per shard held                                                       ├─► lease store
//!               └─► fetch (read ahead) ─► RecordProcessor ─► Checkpointer ────────────────────┘
//! ```
//!
//! Ten lines suffice, see [`Worker`]; fewer with [`Worker::for_each`]. Leases and checkpoints live in the broker; there
//! is no other store, and the library writes no file.

mod assign;
mod batches;
mod checkpoint;
mod claims;
mod dead_letter;
mod delivery;
mod error;
mod failure;
mod fetch;
mod hold;
mod initial;
mod leases;
mod lineage;
mod look;
mod metrics;
mod outlook;
mod place;
mod processor;
mod record;
mod service;
mod settings;
mod shard;
mod shard_task;
mod status;
mod store;
mod streams;
mod supervisor;
mod worker;

pub use assign::{Balance, Move};
pub use batches::{Batches, Delivered};
pub use checkpoint::{Checkpointer, Prepared};
pub use dead_letter::DeadLetterStream;
pub use error::{Error, ErrorKind, Result};
pub use failure::{DeadLetter, OnFailure};
pub use initial::InitialPosition;
pub use place::{Checkpoint, PendingCheckpoint};
pub use processor::{ProcessError, RecordProcessor, Start};
pub use record::{Batch, Misrouted, Record};
pub use settings::{Checkpointing, WorkerBuilder};
pub use shard::ShardRef;
pub use status::{ShardPhase, ShardStatus, WorkerStatus};
pub use store::MemoryLeases;
pub use tidemill_proto::client::Endpoint;
pub use tidemill_types::AnySequenceNumber as SequenceNumber;
pub use tidemill_types::{AppName, LeaseEpoch, ShardId, StreamName, TimestampMs, WorkerId};
pub use worker::{Worker, WorkerHandle};
