//! A shard as the data verbs use it: its log, a queue that is bounded in bytes, and the tail that wakes readers.
//!
//! ```text
//!   submit ─ turn (FIFO) ─ bytes of the shard ─ bytes of the broker ─► log.append ─ durable ─► answer, bytes go back
//!                 waiting here is the back-pressure                                        └─► tail: readers wake
//! ```
//!
//! Bytes are given back when storage has answered, so that they bound everything between the door and the disk.

use crate::catalog::settings::StreamMode;
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::ShardMetrics;
use crate::shard::large::LargeFrames;
use crate::shard::pending::PendingAppend;
use crate::shard::quota::{Held, ShardQuota};
use crate::shard::standing::{Refused, Room, Standing};
use crate::shared::{Shared, closing};
use crate::stream::StreamCore;
use std::sync::{Arc, OnceLock};
use tidemill_storage::{Appended, ShardLog};
use tidemill_types::{Frame, ProducerId, SequenceIndex, Shard, StreamKey};
use tokio::sync::{Semaphore, oneshot, watch};

/// One shard of one stream.
pub(crate) struct ShardHandle {
    /// As it was when the handle was made.
    shard: Shard,
    /// As it is since it was closed.
    closed: OnceLock<Shard>,
    standing: Arc<Standing>,
    log: ShardLog,
    shared: Arc<Shared>,
    /// Given out in the order of asking, so that appends reach the log in that order.
    turn: Semaphore,
    /// Permits are bytes of appends that wait for this shard.
    queue: Arc<Semaphore>,
    /// The durable end of the log; changes wake readers.
    tail: Arc<watch::Sender<SequenceIndex>>,
    metrics: Arc<ShardMetrics>,
    quota: Option<Arc<ShardQuota>>,
    large: Arc<LargeFrames>,
}

impl ShardHandle {
    pub(crate) fn new(stream: &StreamKey, shard: Shard, log: ShardLog, shared: Arc<Shared>) -> Self {
        let tail = Arc::new(watch::Sender::new(log.marks().durable()));
        let waker = Arc::clone(&tail);
        log.watch(Arc::new(move |durable| {
            // where no reader waits none is woken: who comes later looks at the log first
            waker.send_if_modified(|tail| {
                *tail = durable;
                waker.receiver_count() > 0
            });
        }));
        Self {
            closed: OnceLock::new(),
            standing: Standing::new(stream, shard.id, shard.is_open()),
            turn: Semaphore::new(1),
            queue: Arc::new(Semaphore::new(shared.settings().queue_bytes_per_shard)),
            tail,
            metrics: Arc::new(shared.metrics().shard(stream, shard.id)),
            quota: ShardQuota::new(shared.settings().quota).map(Arc::new),
            large: Arc::default(),
            shard,
            log,
            shared,
        }
    }

    /// The shard. Once it shows closed its log has its last record, and its children can be seen.
    pub(crate) fn shard(&self) -> &Shard {
        self.closed.get().unwrap_or(&self.shard)
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
    /// From now on every verb answers this error; whoever waits here is woken.
    pub(crate) fn mark_gone(&self, error: Error) {
        self.standing.mark_gone(error);
        self.queue.close();
        self.turn.close();
        self.tail.send_modify(|_| ());
    }
    /// An error unless the shard may be read: its stream is there and the engine open.
    pub(crate) fn check_readable(&self) -> Result<()> {
        match self.standing.gone() {
            Some(error) => Err(error),
            None => self.shared.check_open(),
        }
    }

    /// The parent of a reshard that begins: what its log refuses waits until it shows closed, or the reshard is given up.
    pub(crate) fn begin_switch(&self) {
        self.standing.begin_switch();
    }
    /// The reshard was given up for now; nothing happens if it was not.
    pub(crate) fn cancel_switch(&self) {
        self.standing.cancel_switch();
    }
    /// Ends the log behind all that was handed over: at once, whether or not the result is waited for. The result is an
    /// index that no record of the shard is above.
    pub(crate) fn seal(&self) -> impl Future<Output = Result<SequenceIndex>> + use<> {
        let (done, outcome) = oneshot::channel();
        let (log, standing) = (self.log.clone(), Arc::clone(&self.standing));
        if !log.is_sealed() {
            self.log.seal(move |sealed| drop(done.send(sealed)));
        }
        async move {
            let failed = match outcome.await {
                Ok(Ok(sealed)) => return Ok(sealed.first),
                _ if log.is_sealed() => return Ok(log.marks().durable()),
                Ok(Err(error)) => Some(error),
                Err(_) => None,
            };
            let what = format!("could not end a shard of stream {}", standing.stream());
            Err(match failed {
                Some(error) => Error::from_storage(&what, error),
                None => Error::new(ErrorKind::UnknownOutcome, what),
            })
        }
    }
    /// Shows the shard closed, as the catalog has it. Its log is sealed, its children can be seen.
    pub(crate) fn close(&self, shard: Shard) {
        debug_assert!(!shard.is_open());
        let _ = self.closed.set(shard); // closed already, by the same change
        self.standing.close();
        self.tail.send_modify(|_| ());
    }
    /// Whether a closed shard has records and no closing entry: the disk has lost what it had synced. One without records
    /// needs none.
    pub(crate) fn has_lost_its_end(&self) -> bool {
        let marks = self.log.marks();
        !self.shard().is_open() && !self.log.is_sealed() && marks.horizon() < marks.durable()
    }

    /// An error unless the log may be asked. A sealed one takes nothing new, but it is the one that knows whether a batch
    /// was stored before the end: that is answered with its first outcome, anything else as closed.
    fn check_writable(&self, core: &StreamCore) -> Result<()> {
        self.check_readable()?;
        core.check_taking()?;
        if self.shard().is_open() || self.log.is_sealed() {
            Ok(())
        } else if self.has_lost_its_end() {
            Err(self.standing.being_closed())
        } else {
            Err(self.standing.closed())
        }
    }
    /// Why a semaphore was closed.
    fn ended(&self) -> Error {
        self.check_readable().err().unwrap_or_else(closing)
    }

    /// Waits for room, seals the frame if its stream is encrypted, then hands it over; what was held of the quota for it
    /// counts if it is stored. Dropped before it returns, nothing was handed over.
    pub(crate) async fn submit(
        &self,
        core: &StreamCore,
        frame: Frame,
        held: Option<Held>,
    ) -> Result<PendingAppend> {
        self.check_writable(core)?;
        let bytes = frame.header().frame_bytes;
        let _turn = self.turn.acquire().await.map_err(|_| self.ended())?;
        let of_shard = Arc::clone(&self.queue).acquire_many_owned(bytes).await.map_err(|_| self.ended())?;
        let of_all =
            Arc::clone(self.shared.queue()).acquire_many_owned(bytes).await.map_err(|_| self.ended())?;
        let frame = match core.sealed_with() {
            // it is not stored: either it is closed, or the batch was stored before
            _ if self.log.is_sealed() => frame,
            Some(data_key) => core.keys().seal(data_key, self.log.id(), frame).await?,
            None => frame,
        };
        self.check_writable(core)?;
        Ok(self.hand_over(frame, (of_shard, of_all), held))
    }
    /// The first outcome of a batch that is stored.
    pub(crate) fn outcome_of(&self, producer: ProducerId, number: u64) -> Option<Appended> {
        self.log.outcome_of(producer, number).filter(|_| self.check_readable().is_ok())
    }
    /// Whether a frame that lies at or behind `from`, or may lie there soon, is too large to be read beside other work.
    pub(crate) fn has_large_ahead(&self, from: SequenceIndex) -> bool {
        self.large.are_ahead(from)
    }

    /// The quota for writing; one of an on-demand stream has none.
    fn write_quota(&self, core: &StreamCore) -> Option<&Arc<ShardQuota>> {
        self.quota.as_ref().filter(|_| core.row().settings.mode == StreamMode::Provisioned)
    }
    fn now_us(&self) -> u64 {
        self.shared.clock().monotonic_us()
    }

    /// Counts a record that is about to be written against the quota. Errors: `Throttled`; it does not count then.
    pub(crate) fn take_record(&self, core: &StreamCore, bytes: usize) -> Result<()> {
        let taken = self.write_quota(core).is_none_or(|quota| quota.take_record(self.now_us(), bytes as u64));
        if taken { Ok(()) } else { Err(self.rate_exceeded()) }
    }
    /// Holds quota for a batch that is about to be written. Errors: `Throttled`.
    pub(crate) fn hold_batch(&self, core: &StreamCore, records: u32, bytes: usize) -> Result<Option<Held>> {
        let Some(quota) = self.write_quota(core) else { return Ok(None) };
        let held = quota.hold_batch(self.now_us(), u64::from(records), bytes as u64);
        held.map(Some).ok_or_else(|| self.rate_exceeded())
    }
    /// Holds quota for a read of so many bytes. Errors: `Throttled`.
    pub(crate) fn hold_read(&self, bytes: usize) -> Result<Option<Held>> {
        let Some(quota) = &self.quota else { return Ok(None) };
        let held = quota.hold_read(self.now_us(), bytes as u64);
        held.map(Some).ok_or_else(|| self.rate_exceeded())
    }
    /// Counts what a read came to, in place of what was held for it.
    pub(crate) fn end_read(&self, held: Option<Held>, bytes: usize) {
        if let Some(held) = held {
            held.came_to(self.now_us(), bytes as u64);
        }
    }
    /// Counts a call for records against the quota. Errors: `Throttled`; it does not count then.
    pub(crate) fn take_call(&self) -> Result<()> {
        let taken = self.quota.as_ref().is_none_or(|quota| quota.take_call(self.now_us()));
        if taken { Ok(()) } else { Err(self.rate_exceeded()) }
    }
    /// Counts what a call for records came to.
    pub(crate) fn add_read(&self, bytes: usize) {
        if let Some(quota) = &self.quota {
            quota.add_read(self.now_us(), bytes as u64);
        }
    }
    fn rate_exceeded(&self) -> Error {
        let (id, stream) = (self.shard.id, self.standing.stream());
        Error::new(ErrorKind::Throttled, format!("Rate exceeded for shard {id} in stream {stream}."))
    }

    /// The error for a queue that stays full.
    pub(crate) fn no_room(&self) -> Error {
        let (id, stream) = (self.shard.id, self.standing.stream());
        Error::new(
            ErrorKind::Throttled,
            format!("too many bytes wait for {id} of stream {stream}; repeat after a pause"),
        )
    }

    fn hand_over(&self, frame: Frame, room: Room, held: Option<Held>) -> PendingAppend {
        let (done, outcome) = oneshot::channel();
        let shared = Arc::clone(&self.shared);
        let bytes = u64::from(frame.header().frame_bytes);
        let sealed = frame.header().is_sealed();
        let (metrics, standing) = (Arc::clone(&self.metrics), Arc::clone(&self.standing));
        let large = self.large.note(frame.bytes().len());
        self.log.append(frame, move |result| {
            // settled before the answer, which another append may follow at once
            let stored = result.as_ref().ok().filter(|appended| !appended.duplicate);
            if let (Some(large), Some(appended)) = (large, stored) {
                large.stored(appended.first.plus(u64::from(appended.count)));
            }
            if let (Some(held), Some(_)) = (held, stored) {
                held.count(shared.clock().monotonic_us());
            }
            let answer = match result {
                Ok(appended) => {
                    if !appended.duplicate {
                        metrics.records_in.increment(u64::from(appended.count));
                        metrics.bytes_in.increment(bytes);
                    }
                    Ok(appended)
                }
                Err(error) if error.kind() == tidemill_storage::ErrorKind::Closed => {
                    let (of_shard, of_all) = room;
                    drop(of_all);
                    return standing.refuse(Refused { done, of_shard, shared });
                }
                Err(error) => Err(standing.gone().unwrap_or_else(|| {
                    Error::from_storage(&format!("append to stream {}", standing.stream()), error)
                })),
            };
            drop(room);
            // whoever gave up waiting does not mind
            let _ = done.send(shared.metrics().note(answer));
        });
        PendingAppend::new(outcome, sealed)
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
    use tidemill_types::{FrameWriter, ShardId, ShardState};

    async fn append(core: &StreamCore, handle: &ShardHandle, number: u64) -> Result<Appended> {
        let mut writer = FrameWriter::with_capacity(100);
        writer.push("k", b"data");
        handle.submit(core, writer.finish(ProducerId::new(7), number), None).await?.await
    }

    /// A batch was stored, its answer was lost, and the shard was closed before the producer asked again. Told that the
    /// shard is closed, the producer would store it a second time, in a child.
    #[tokio::test]
    async fn a_batch_repeated_after_the_close_gets_its_first_outcome_and_a_new_one_is_refused() {
        let one = OneStream::new(Settings::default());
        one.storage.start().unwrap();
        let open = one.stream.core.handle(ShardId::new(0).unwrap()).unwrap();
        let first = append(&one.stream.core, &open, 1).await.unwrap();

        let closed = one.shared.clock().now();
        let state = ShardState::Closed { ending: open.log.marks().durable(), closed };
        let shard = Shard { state, ..open.shard.clone() };
        let closed = ShardHandle::new(&one.name, shard, open.log.clone(), Arc::clone(&one.shared));
        assert_eq!(
            append(&one.stream.core, &closed, 2).await.unwrap_err().kind(),
            ErrorKind::Unavailable,
            "not sealed again yet"
        );
        let (done, sealed) = oneshot::channel();
        open.log.seal(move |outcome| done.send(outcome).unwrap());
        sealed.await.unwrap().unwrap();

        let again = append(&one.stream.core, &closed, 1).await.unwrap();
        assert!(again.duplicate);
        assert_eq!((again.first, again.count, again.arrival), (first.first, first.count, first.arrival));
        assert_eq!(append(&one.stream.core, &closed, 2).await.unwrap_err().kind(), ErrorKind::ShardClosed);
        one.storage.close().unwrap();
    }
}
