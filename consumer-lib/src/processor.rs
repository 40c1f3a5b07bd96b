//! What the user writes: a [`RecordProcessor`] per shard, or a closure for each record ([`ForEach`]).
//!
//! ```text
//!  initialize ─► process ─► process ─► … ─┬─► shard_ended   the shard was closed and read to its end
//!                                         ├─► lease_lost    another worker has the shard now, or the stream is gone
//!                                         └─► shutdown      this worker was asked to stop
//! ```
//!
//! Calls for one shard never overlap; shards run beside one another. Not here: when each is called (shard_task).

use crate::checkpoint::Checkpointer;
use crate::record::{Batch, Record, ShardRef};
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use tidemill_types::{Checkpoint, SequenceNumber};

/// Why a processor could not do its work. Made from any error by `?`, or from a message.
pub struct ProcessError(Box<dyn std::error::Error + Send + Sync>);

impl ProcessError {
    /// From a message for a person.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into().into())
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for ProcessError {
    fn from(error: E) -> Self {
        Self(Box::new(error))
    }
}

impl fmt::Display for ProcessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for ProcessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
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
    /// Called once before the first batch, with the checkpoint that this worker starts behind. An error is retried
    /// with back-off while the lease is held.
    fn initialize(
        &mut self,
        shard: &ShardRef,
        from: Checkpoint,
    ) -> impl Future<Output = Result<(), ProcessError>> + Send {
        let _ = (shard, from);
        async { Ok(()) }
    }

    /// Processes a batch. After an error **the same batch is delivered again**, with back-off (up to 10 s between
    /// attempts), for as long as the lease is held and the worker is not stopped; nothing is ever skipped. A processor
    /// that wants to skip or divert what it cannot process returns `Ok`.
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

    /// The worker stops: finish what is buffered and checkpoint. With automatic checkpoints, everything processed is
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
pub(crate) struct ForEach<H> {
    handle: Arc<H>,
    done: Option<(SequenceNumber, u64)>,
}

impl<H> ForEach<H> {
    pub(crate) fn new(handle: Arc<H>) -> Self {
        Self { handle, done: None }
    }
}

impl<H, Fut> RecordProcessor for ForEach<H>
where
    H: Fn(Record) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), ProcessError>> + Send,
{
    async fn process(&mut self, batch: Batch, _: &Checkpointer) -> Result<(), ProcessError> {
        for record in batch.records() {
            let place = (record.sequence_number(), record.sub_sequence_number());
            if self.done.is_none_or(|done| done < place) {
                (self.handle)(record).await?;
                self.done = Some(place);
            }
        }
        Ok(())
    }
}
