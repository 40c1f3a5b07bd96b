//! The consumer library of Tidemill: workers of an application share the shards of a stream through leases in the
//! broker, process every record at least once, in order per shard and parents before children, and checkpoint how far
//! they have come. A worker that lost a lease cannot move its checkpoint.
//!
//! ```text
//!  Worker ─► supervisor ──(assign: even shares)──► leases: take, renew, give back ─┐
//!               │ a task per shard held                                            ├─► broker
//!               └─► fetch (push, read ahead) ─► RecordProcessor ─► Checkpointer ───┘
//! ```
//!
//! Ten lines suffice, see [`Worker`]; fewer with [`Worker::for_each`]. Leases and checkpoints live in the broker; there
//! is no other store, and the library writes no file.

mod assign;
mod checkpoint;
mod error;
mod fetch;
mod hold;
mod leases;
mod lineage;
mod look;
mod outlook;
mod processor;
mod record;
mod settings;
mod shard_task;
mod status;
mod store;
mod supervisor;
mod worker;

pub use checkpoint::Checkpointer;
pub use error::{Error, ErrorKind, Result};
pub use processor::{ProcessError, RecordProcessor};
pub use record::{Batch, Record, ShardRef};
pub use settings::{Checkpointing, InitialPosition, WorkerBuilder};
pub use status::{ShardPhase, ShardStatus, WorkerStatus};
pub use tidemill_types::{AppName, Checkpoint, SequenceNumber, ShardId, StreamName, TimestampMs, WorkerId};
pub use worker::{Worker, WorkerHandle};
