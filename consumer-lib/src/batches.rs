//! Batches as a stream, for applications that would rather loop than be called: each is acknowledged, or comes again.
//!
//! ```text
//!  shard task ─► Forward::process ─► one batch a shard waits here ─► Batches::next ─► ack ──► Ok: checkpointed in time
//!                      ▲                                                  └──────► fail, or dropped ──► Err: comes again
//!                      └──────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A shard gives its next batch when the last one is acknowledged, so order within shards is kept and at most one batch of each
//! shard is out. Not here: what happens after failures (failure).

use crate::checkpoint::Checkpointer;
use crate::processor::{ProcessError, RecordProcessor};
use crate::record::Batch;
use futures_core::Stream;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::{mpsc, oneshot};

/// The batches of all shards that a worker holds, as they come; made by [`Worker::batches`](crate::Worker::batches).
///
/// Dropping it stops nothing: batches then fail until the worker is stopped.
#[derive(Debug)]
pub struct Batches(mpsc::Receiver<Delivered>);

/// A batch that is to be acknowledged. When it is dropped instead, it comes again.
#[derive(Debug)]
#[must_use = "a batch that is not acknowledged comes again"]
pub struct Delivered {
    batch: Batch,
    checkpointer: Checkpointer,
    answer: oneshot::Sender<Result<(), ProcessError>>,
}

impl Batches {
    /// The next batch; nothing once the worker has ended. Cancelling is safe: nothing is lost.
    pub async fn next(&mut self) -> Option<Delivered> {
        self.0.recv().await
    }
}

impl Stream for Batches {
    type Item = Delivered;
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Delivered>> {
        self.0.poll_recv(context)
    }
}

impl Delivered {
    /// The records.
    pub fn batch(&self) -> &Batch {
        &self.batch
    }
    /// For checkpoints within the batch, and to see whether the lease is still held.
    pub fn checkpointer(&self) -> &Checkpointer {
        &self.checkpointer
    }
    /// It is processed. The next batch of its shard comes.
    pub fn ack(self) {
        // a worker that has ended needs no answer
        let _ = self.answer.send(Ok(()));
    }
    /// It could not be processed: comes again, or is dealt with as
    /// [`WorkerBuilder::on_failure`](crate::WorkerBuilder::on_failure) says.
    pub fn fail(self, error: ProcessError) {
        let _ = self.answer.send(Err(error));
    }
}

/// Gives the batches of its shard to the stream.
#[derive(Debug, Clone)]
pub(crate) struct Forward(mpsc::Sender<Delivered>);

pub(crate) fn channel() -> (Forward, Batches) {
    // every shard has one batch out at most; what waits here is one more
    let (tx, rx) = mpsc::channel(1);
    (Forward(tx), Batches(rx))
}

impl RecordProcessor for Forward {
    async fn process(&mut self, batch: Batch, checkpointer: &Checkpointer) -> Result<(), ProcessError> {
        let (answer, answered) = oneshot::channel();
        let delivered = Delivered { batch, checkpointer: checkpointer.clone(), answer };
        if self.0.send(delivered).await.is_err() {
            return Err(ProcessError::new(
                "nobody takes batches any more: the stream of batches was dropped",
            ));
        }
        let dropped = |_| Err(ProcessError::new("the batch was dropped without an acknowledgement"));
        answered.await.unwrap_or_else(dropped)
    }
}
