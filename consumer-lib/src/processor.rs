//! What the user writes: a [`RecordProcessor`] per shard, or a closure for each record ([`ForEach`]).
//!
//! ```text
//!  initialize ─► process ─► process ─► … ─┬─► shard_ended   the shard was closed and read to its end
//!                                         ├─► lease_lost    another worker has the shard now, or the stream is gone
//!                                         └─► shutdown      this worker was asked to stop, or to hand the shard over
//! ```
//!
//! Calls for one shard never overlap; shards run beside one another. Not here: when each is called (shard_task), and how
//! often after failures (failure, delivery).

use crate::checkpoint::Checkpointer;
use crate::place::{Checkpoint, PendingCheckpoint};
use crate::record::{Batch, Record};
use crate::shard::ShardRef;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use tidemill_types::{AnySequenceNumber, LeaseEpoch};

/// Why a processor could not do its work. Made from any error by `?`, or from a message.
pub struct ProcessError {
    cause: Box<dyn std::error::Error + Send + Sync>,
    at: Option<(AnySequenceNumber, u64)>,
}

impl ProcessError {
    /// From a message for a person.
    pub fn new(message: impl Into<String>) -> Self {
        Self { cause: message.into().into(), at: None }
    }
    /// Says which record of the batch it was, **and that all before it are processed**: delivery goes on with this one, and
    /// the policy for failing records ([`OnFailure`](crate::OnFailure)) counts for it alone. Without this the whole batch
    /// is delivered again.
    #[must_use]
    pub fn at(self, record: &Record) -> Self {
        Self { at: Some(record.place()), ..self }
    }
    pub(crate) fn place(&self) -> Option<(AnySequenceNumber, u64)> {
        self.at
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for ProcessError {
    fn from(error: E) -> Self {
        Self { cause: Box::new(error), at: None }
    }
}

impl fmt::Display for ProcessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)
    }
}

impl fmt::Debug for ProcessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.cause, f)
    }
}

/// What a processor begins with.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Start {
    /// The shard.
    pub shard: ShardRef,
    /// The checkpoint that delivery begins behind.
    pub from: Checkpoint,
    /// What an earlier owner prepared and did not commit ([`Checkpointer::prepare`]): find out whether its work was done for
    /// good, and undo or skip it.
    pub pending: Option<PendingCheckpoint>,
    /// The fencing number of the lease; see [`Checkpointer::lease_epoch`].
    pub epoch: LeaseEpoch,
}

/// Processes the records of one shard; the worker makes one for each shard whose lease it takes.
///
/// After `initialize` has returned `Ok`, exactly one of `shard_ended`, `lease_lost` and `shutdown` completes, then the
/// processor is dropped. When `initialize` never succeeded, none is called. A panic in any of them ends the processor
/// without a further call; the lease is given back and the shard is taken up again later, from the last checkpoint.
///
/// Delivery is at least once: after a failure the next holder starts behind the last checkpoint and sees again what came
/// after it, with the same sequence numbers. Do not block the thread in here; spawn blocking work
/// (`tokio::task::spawn_blocking`), or leases are not renewed in time on a small runtime.
pub trait RecordProcessor: Send + 'static {
    /// Called once before the first batch. An error is retried with back-off while the lease is held.
    fn initialize(&mut self, start: &Start) -> impl Future<Output = Result<(), ProcessError>> + Send {
        let _ = start;
        async { Ok(()) }
    }

    /// Processes a batch. After an error **it is delivered again**, with back-off (up to 10 s between attempts), for as
    /// long as the lease is held and the worker is not stopped; nothing is ever skipped, unless the application says so
    /// ([`OnFailure`](crate::OnFailure)). [`ProcessError::at`] says which record it was, so that those before it do not come again.
    ///
    /// It is not cancelled when the lease is lost meanwhile; checkpoints then fail with
    /// [`ErrorKind::LeaseLost`](crate::ErrorKind::LeaseLost), and `lease_lost` follows. It is dropped in the middle only
    /// when the worker is aborted or the deadline of a stop passes.
    fn process(
        &mut self,
        batch: Batch,
        checkpointer: &Checkpointer,
    ) -> impl Future<Output = Result<(), ProcessError>> + Send;

    /// The shard was closed (split or merged) and every record was processed. When this returns `Ok` the shard is
    /// checkpointed as ended, for good, and its children begin. An error is retried with back-off.
    fn shard_ended(
        &mut self,
        checkpointer: &Checkpointer,
    ) -> impl Future<Output = Result<(), ProcessError>> + Send {
        let _ = checkpointer;
        async { Ok(()) }
    }

    /// The lease is lost: another worker may already process what follows the last checkpoint. Drop what was buffered.
    fn lease_lost(&mut self) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// The worker stops, or hands the shard over to another one: finish what is buffered and checkpoint. With automatic checkpoints, everything processed is
    /// checkpointed after this returned `Ok`. Not retried.
    fn shutdown(
        &mut self,
        checkpointer: &Checkpointer,
    ) -> impl Future<Output = Result<(), ProcessError>> + Send {
        let _ = checkpointer;
        async { Ok(()) }
    }
}

/// A processor that calls a closure for each record. After an error it goes on with the record that failed.
pub(crate) struct ForEach<H>(Arc<H>);

impl<H> ForEach<H> {
    pub(crate) fn new(handle: Arc<H>) -> Self {
        Self(handle)
    }
}

impl<H, Fut> RecordProcessor for ForEach<H>
where
    H: Fn(Record) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), ProcessError>> + Send,
{
    async fn process(&mut self, batch: Batch, _: &Checkpointer) -> Result<(), ProcessError> {
        for record in batch.records() {
            (self.0)(record.clone()).await.map_err(|error| error.at(&record))?;
        }
        Ok(())
    }
}
