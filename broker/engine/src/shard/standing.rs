//! How a shard stands with those who append to it: open, being closed, closed, or gone.
//!
//! A log that is sealed refuses what comes. While the catalog is being changed, whoever was refused waits here, so that a
//! producer that is told "closed" finds the new map at once; should the change fail, it is told to try again later.

use crate::error::{Error, ErrorKind, Result};
use crate::shared::Shared;
use parking_lot::Mutex;
use std::sync::{Arc, OnceLock};
use tidemill_storage::Appended;
use tidemill_types::{ShardId, StreamKey};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// The bytes that an append takes up while it waits, of the shard and of the broker.
pub(super) type Room = (OwnedSemaphorePermit, OwnedSemaphorePermit);

/// An append that the sealed log has refused, and the room it keeps in its shard until it is answered. It keeps none of
/// the broker's, which is for all streams.
pub(super) struct Refused {
    pub(super) done: oneshot::Sender<Result<Appended>>,
    pub(super) of_shard: OwnedSemaphorePermit,
    pub(super) shared: Arc<Shared>,
}

impl Refused {
    fn answer(self, error: Error) {
        drop(self.of_shard);
        // whoever gave up waiting does not mind
        let _ = self.done.send(self.shared.metrics().note(Err(error)));
    }
}

enum Phase {
    Open,
    /// The catalog is being changed; these wait for the outcome.
    Switching(Vec<Refused>),
    Closed,
}

pub(super) struct Standing {
    stream: StreamKey,
    shard: ShardId,
    phase: Mutex<Phase>,
    gone: OnceLock<Error>,
}

impl Standing {
    pub(super) fn new(stream: &StreamKey, shard: ShardId, is_open: bool) -> Arc<Self> {
        let phase = Mutex::new(if is_open { Phase::Open } else { Phase::Closed });
        Arc::new(Self { stream: stream.clone(), shard, phase, gone: OnceLock::new() })
    }
    pub(super) fn stream(&self) -> &StreamKey {
        &self.stream
    }
    /// From now on every verb is answered with this error.
    pub(super) fn mark_gone(&self, error: Error) {
        let _ = self.gone.set(error); // gone already, and that is what is told
    }
    pub(super) fn gone(&self) -> Option<Error> {
        self.gone.get().cloned()
    }
    /// The error for a shard that takes no more records.
    pub(super) fn closed(&self) -> Error {
        let message =
            format!("{} of stream {} is closed; route by the new shard map", self.shard, self.stream);
        Error::new(ErrorKind::ShardClosed, message)
    }
    /// The error for a shard of which it cannot be told yet what it holds.
    pub(super) fn being_closed(&self) -> Error {
        let message = format!(
            "{} of stream {} is being split or merged; repeat after a pause",
            self.shard, self.stream
        );
        Error::new(ErrorKind::Unavailable, message)
    }

    /// Answers an append that the sealed log has refused, now or when the change under way is done.
    pub(super) fn refuse(&self, refused: Refused) {
        if let Some(gone) = self.gone() {
            return refused.answer(gone);
        }
        let mut phase = self.phase.lock();
        let error = match &mut *phase {
            Phase::Switching(waiting) => return waiting.push(refused),
            Phase::Open => self.being_closed(),
            Phase::Closed => self.closed(),
        };
        drop(phase);
        refused.answer(error);
    }

    /// The catalog is about to be changed.
    pub(super) fn begin_switch(&self) {
        let mut phase = self.phase.lock();
        if matches!(*phase, Phase::Open) {
            *phase = Phase::Switching(Vec::new());
        }
    }
    /// The catalog could not be changed; nothing happens if it was.
    pub(super) fn cancel_switch(&self) {
        let mut phase = self.phase.lock();
        if let Phase::Switching(waiting) = &mut *phase {
            let waiting = std::mem::take(waiting);
            *phase = Phase::Open;
            drop(phase);
            waiting.into_iter().for_each(|refused| refused.answer(self.being_closed()));
        }
    }
    /// The shard is closed, and its children can be seen.
    pub(super) fn close(&self) {
        let before = std::mem::replace(&mut *self.phase.lock(), Phase::Closed);
        if let Phase::Switching(waiting) = before {
            waiting.into_iter().for_each(|refused| refused.answer(self.closed()));
        }
    }
}
