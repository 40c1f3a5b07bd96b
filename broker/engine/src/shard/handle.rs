//! A shard as the data verbs use it: its log, a queue that is bounded in bytes, and the tail that wakes readers.
//!
//! ```text
//!   submit ─ turn (FIFO) ─ bytes of the shard ─ bytes of the broker ─► log.append ─ durable ─► answer, bytes go back
//!                 waiting here is the back-pressure                                        └─► tail: readers wake
//! ```
//!
//! Bytes are given back when storage has answered, so that they bound everything between the door and the disk.

use crate::error::{Error, ErrorKind, Result};
use crate::metrics::ShardMetrics;
use crate::shard::pending::PendingAppend;
use crate::shared::{Shared, closing};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tidemill_storage::ShardLog;
use tidemill_types::{Frame, SequenceIndex, Shard, StreamKey};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

/// One shard of one stream.
pub(crate) struct ShardHandle {
    stream: StreamKey,
    shard: Shard,
    log: ShardLog,
    shared: Arc<Shared>,
    /// Given out in the order of asking, so that appends reach the log in that order.
    turn: Semaphore,
    /// Permits are bytes of appends that wait for this shard.
    queue: Arc<Semaphore>,
    /// The durable end of the log; changes wake readers.
    tail: Arc<watch::Sender<SequenceIndex>>,
    deleted: Arc<AtomicBool>,
    metrics: Arc<ShardMetrics>,
}

/// The bytes that an append takes up while it waits.
type Room = (OwnedSemaphorePermit, OwnedSemaphorePermit);

impl ShardHandle {
    pub(crate) fn new(stream: &StreamKey, shard: Shard, log: ShardLog, shared: Arc<Shared>) -> Self {
        let tail = Arc::new(watch::Sender::new(log.marks().durable()));
        let waker = Arc::clone(&tail);
        log.watch(Arc::new(move |durable| {
            waker.send_replace(durable);
        }));
        Self {
            stream: stream.clone(),
            turn: Semaphore::new(1),
            queue: Arc::new(Semaphore::new(shared.settings().queue_bytes_per_shard)),
            tail,
            deleted: Arc::new(AtomicBool::new(false)),
            metrics: Arc::new(shared.metrics().shard(stream, shard.id)),
            shard,
            log,
            shared,
        }
    }

    pub(crate) fn shard(&self) -> &Shard {
        &self.shard
    }
    pub(crate) fn log(&self) -> &ShardLog {
        &self.log
    }
    pub(crate) fn metrics(&self) -> &ShardMetrics {
        &self.metrics
    }
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
    /// Follows the durable end of the log.
    pub(crate) fn tail(&self) -> watch::Receiver<SequenceIndex> {
        self.tail.subscribe()
    }
    /// From now on every verb answers that the stream is gone; whoever waits here is woken.
    pub(crate) fn mark_deleted(&self) {
        self.deleted.store(true, Ordering::SeqCst);
        self.queue.close();
        self.turn.close();
        self.tail.send_modify(|_| ());
    }
    /// An error unless the shard may be read: its stream is there and the engine open.
    pub(crate) fn check_readable(&self) -> Result<()> {
        if self.deleted.load(Ordering::SeqCst) {
            return Err(gone(&self.stream));
        }
        self.shared.check_open()
    }

    /// An error unless the log may be asked. A sealed one takes nothing new, but it is the one that knows whether a batch
    /// was stored before the end: that is answered with its first outcome, anything else as closed.
    fn check_writable(&self) -> Result<()> {
        self.check_readable()?;
        if self.shard.is_open() || self.log.is_sealed() { Ok(()) } else { Err(self.closed()) }
    }
    fn closed(&self) -> Error {
        let (id, stream) = (self.shard.id, &self.stream);
        Error::new(
            ErrorKind::ShardClosed,
            format!("{id} of stream {stream} is closed; route by the new shard map"),
        )
    }
    /// Why a semaphore was closed.
    fn ended(&self) -> Error {
        self.check_readable().err().unwrap_or_else(closing)
    }

    /// Waits for room, then hands the frame over. Dropped before it returns, nothing was handed over.
    pub(crate) async fn submit(&self, frame: Frame) -> Result<PendingAppend> {
        self.check_writable()?;
        let bytes = frame.header().frame_bytes;
        let _turn = self.turn.acquire().await.map_err(|_| self.ended())?;
        let of_shard = Arc::clone(&self.queue).acquire_many_owned(bytes).await.map_err(|_| self.ended())?;
        let of_all =
            Arc::clone(self.shared.queue()).acquire_many_owned(bytes).await.map_err(|_| self.ended())?;
        self.check_writable()?;
        Ok(self.hand_over(frame, (of_shard, of_all)))
    }

    /// The error for a queue that stays full.
    pub(crate) fn no_room(&self) -> Error {
        let (id, stream) = (self.shard.id, &self.stream);
        Error::new(
            ErrorKind::Throttled,
            format!("too many bytes wait for {id} of stream {stream}; repeat after a pause"),
        )
    }

    fn hand_over(&self, frame: Frame, room: Room) -> PendingAppend {
        let (done, outcome) = oneshot::channel();
        let shared = Arc::clone(&self.shared);
        let bytes = u64::from(frame.header().frame_bytes);
        let (metrics, deleted, stream) =
            (Arc::clone(&self.metrics), Arc::clone(&self.deleted), self.stream.clone());
        self.log.append(frame, move |result| {
            drop(room);
            let answer = match result {
                Ok(appended) => {
                    if !appended.duplicate {
                        metrics.records_in.increment(u64::from(appended.count));
                        metrics.bytes_in.increment(bytes);
                    }
                    Ok(appended)
                }
                Err(_) if deleted.load(Ordering::SeqCst) => Err(gone(&stream)),
                Err(error) => Err(Error::from_storage(&format!("append to stream {stream}"), error)),
            };
            // whoever gave up waiting does not mind
            let _ = done.send(shared.metrics().note(answer));
        });
        PendingAppend::new(outcome)
    }
}

/// The error of every verb on a stream that was deleted.
pub(crate) fn gone(stream: &StreamKey) -> Error {
    Error::new(ErrorKind::NotFound, format!("Stream {stream} not found."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::one_stream::OneStream;
    use crate::settings::Settings;
    use tidemill_storage::Appended;
    use tidemill_types::{FrameWriter, ProducerId, ShardId, ShardState};

    async fn append(handle: &ShardHandle, number: u64) -> Result<Appended> {
        let mut writer = FrameWriter::with_capacity(100);
        writer.push("k", b"data");
        handle.submit(writer.finish(ProducerId::new(7), number)).await?.await
    }

    /// A batch was stored, its answer was lost, and the shard was closed before the producer asked again. Told that the
    /// shard is closed, the producer would store it a second time, in a child.
    #[tokio::test]
    async fn a_batch_repeated_after_the_close_gets_its_first_outcome_and_a_new_one_is_refused() {
        let one = OneStream::new(Settings::default());
        one.storage.start().unwrap();
        let open = one.stream.core.handle(ShardId::new(0).unwrap()).unwrap();
        let first = append(&open, 1).await.unwrap();

        let closed = one.shared.clock().now();
        let state = ShardState::Closed { ending: open.log.marks().durable(), closed };
        let shard = Shard { state, ..open.shard.clone() };
        let closed = ShardHandle::new(&one.name, shard, open.log.clone(), Arc::clone(&one.shared));
        assert_eq!(append(&closed, 2).await.unwrap_err().kind(), ErrorKind::ShardClosed, "not sealed yet");
        let (done, sealed) = oneshot::channel();
        open.log.seal(move |outcome| done.send(outcome).unwrap());
        sealed.await.unwrap().unwrap();

        let again = append(&closed, 1).await.unwrap();
        assert!(again.duplicate);
        assert_eq!((again.first, again.count, again.arrival), (first.first, first.count, first.arrival));
        assert_eq!(append(&closed, 2).await.unwrap_err().kind(), ErrorKind::ShardClosed);
        one.storage.close().unwrap();
    }
}
