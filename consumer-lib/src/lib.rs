//! The consumer library of Tidemill, what the KCL is to Java: workers of an application share the shards of streams through
//! leases, process every record at least once, in order per shard and parents before children, and checkpoint how far they
//! have come.
//!
//! ```no_run
//! use tidemill_consumer::Worker;
//!
//! # async fn hello() -> Result<(), tidemill_consumer::Error> {
//! let worker = Worker::builder("http://127.0.0.1:4567", "my-app", "events").build()?;
//! let stop = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
//! worker.for_each(|record| async move { Ok(println!("{}: {:?}", record.partition_key(), record.data())) }, stop).await
//! # }
//! ```
//!
//! Start it as often as you like, on as many machines: the workers share the shards.
//!
//! ```text
//!  Worker ─► supervisor ──(assign: even shares)──► leases: take, hand over, renew, give back ─┐
//!               │ a task per shard held                                                       ├─► lease store
//!               └─► fetch (read ahead) ─► RecordProcessor ─► Checkpointer ────────────────────┘
//! ```
//!
//! # Three ways to take records
//!
//! - [`Worker::for_each`]: a closure for each record.
//! - [`Worker::run`] or [`Worker::start`]: a [`RecordProcessor`] for each shard, with strictly paired calls: `initialize`, then
//!   `process` for batches, then exactly one of `shard_ended`, `lease_lost` and `shutdown`.
//! - [`Worker::batches`]: a stream of batches, each to be acknowledged.
//!
//! # What it promises
//!
//! - **At least once.** A record counts as processed when its checkpoint is stored; whoever takes a shard over begins behind
//!   the last one. By default what was processed is checkpointed once a second and whenever a shard changes hands in order;
//!   [`Checkpointing::Manual`] leaves it to the processor: after a record, a batch, within an aggregated record, or in
//!   two phases ([`Checkpointer::prepare`]).
//! - **In order.** Within a shard as stored; a child shard begins when all its parents are processed to their end.
//! - **Fenced.** A worker that has lost a lease, or was paused for longer than it lasts, delivers nothing more and cannot move
//!   the checkpoint. [`Checkpointer::lease_epoch`] carries the fence into other systems.
//! - **Handed over, not torn away.** A worker that joins asks for its share; the owners finish their batches and checkpoint
//!   first, so that nothing comes twice. So does [`WorkerHandle::stop`]: a rolling restart re-delivers nothing. A worker that
//!   died is replaced within twice the lease time.
//! - **Nothing is skipped** unless the application says so: [`OnFailure`].
//!
//! What may come twice: what a worker that died had processed since its last checkpoint; what an owner that did not hand over in
//! time had; and what a producer stored twice.
//!
//! # Memory, pauses, lag
//!
//! Each shard is read ahead by at most [`WorkerBuilder::prefetch_bytes`]; a slow processor holds up its own shard alone.
//! [`WorkerHandle::pause`] and [`WorkerHandle::resume`] do so on purpose. [`WorkerHandle::status`] tells phase, lag in records
//! and in time, checkpoint and trouble of each shard; the same is measured through the `metrics` facade under the names of
//! the KCL (`RecordsProcessed`, `MillisBehindLatest`, …; the list stands in `metrics.rs`). Without a recorder nothing is kept.
//!
//! # Who gets which shard
//!
//! A pure function of what all workers see, so no leader is needed: by count or by throughput ([`Balance`]), with the fewest
//! moves, all in one round. [`Worker::dry_run`] tells what would move.
//!
//! # Where leases live
//!
//! In the broker; for tests in memory ([`MemoryLeases`]). With the feature `aws` also in a DynamoDB table, laid out as the KCL
//! lays it out, so that workers of the Java KCL and of this library can share an application.
//!
//! # Amazon Kinesis
//!
//! With the feature `aws`, `Worker::kinesis` reads from Amazon Kinesis, or whatever speaks its API: by polling, or pushed to a
//! registered consumer (enhanced fan-out). Everything else is as above; the module `aws` has the settings and says what differs.
//!
//! | feature | default | brings |
//! |---|---|---|
//! | `aws` | no | Amazon Kinesis and DynamoDB with the official SDK |
//!
//! # Runtime and dependencies
//!
//! Needs a tokio runtime of any kind. Leases are renewed on it, so do not block its threads for long. The default features need
//! a C compiler only for the TLS provider of rustls (aws-lc).

mod assign;
#[cfg(feature = "aws")]
pub mod aws;
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
#[cfg(test)]
mod sim;
mod status;
mod store;
mod streams;
mod supervisor;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod testing;
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
pub use tidemill_proto::client::{Dial, Endpoint};
pub use tidemill_types::AnySequenceNumber as SequenceNumber;
pub use tidemill_types::{AppName, LeaseEpoch, ShardId, StreamName, TimestampMs, WorkerId};
pub use worker::{Worker, WorkerHandle};
