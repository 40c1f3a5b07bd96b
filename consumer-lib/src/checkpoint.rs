//! Checkpoints: how far a shard is processed, stored under the lease's epoch so that a worker that lost the lease
//! cannot move them.
//!
//! ```text
//!      stored ≤ asked ≤ reach          reach: the end of what was delivered; the end of the shard once that was told
//! ```
//!
//! Not here: when automatic checkpoints are made (shard_task).

use crate::error::{Error, ErrorKind, Result};
use crate::hold::Hold;
use crate::place::{Checkpoint, PendingCheckpoint};
use crate::record::Record;
use crate::store::LeaseStore;
use bytes::Bytes;
use parking_lot::Mutex;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::sync::Arc;
use std::time::Duration;
use tidemill_proto::ErrorKind as WireKind;
use tidemill_proto::client::Backoff;
use tidemill_types::LeaseEpoch;

const BACKOFF: Backoff =
    Backoff { base: Duration::from_millis(20), cap: Duration::from_secs(1), attempts_max: u32::MAX };

/// Stores how far one shard is processed. Clones speak of the same shard and lease.
///
/// Checkpoints only move forward. A call repeats by itself while the broker cannot be reached, until the lease has run
/// out. Cancelling a call is safe; whether the checkpoint was stored is then unknown.
#[derive(Debug, Clone)]
pub struct Checkpointer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Arc<dyn LeaseStore>,
    hold: Arc<Hold>,
    marks: Mutex<Marks>,
}

/// What is to be stored.
enum Asked {
    Done(Checkpoint),
    Prepared(PendingCheckpoint),
}

#[derive(Debug, Clone, Copy)]
struct Marks {
    stored: Checkpoint,
    reach: Checkpoint,
}

impl Marks {
    fn check(&self, asked: Checkpoint) -> Result<()> {
        let wrong = |why: &str| Err(Error::new(ErrorKind::Invalid, format!("not checkpointed: {why}")));
        if asked < self.stored {
            return wrong("a later record is checkpointed already, and checkpoints do not move back");
        }
        if asked > self.reach {
            return wrong("the record was not delivered to this processor");
        }
        Ok(())
    }
}

impl Checkpointer {
    pub(crate) fn new(store: Arc<dyn LeaseStore>, hold: Arc<Hold>, stored: Checkpoint) -> Self {
        let marks = Mutex::new(Marks { stored, reach: stored });
        Self { inner: Arc::new(Inner { store, hold, marks }) }
    }

    /// Checkpoints everything delivered: in `process` up to the end of the batch, in `shutdown` up to the last batch
    /// that was processed, in `shard_ended` the whole shard.
    ///
    /// [`ErrorKind::LeaseLost`] if another worker has the shard, or may have it, because this one could not renew its
    /// lease in time; stop working on it.
    pub async fn checkpoint(&self) -> Result<()> {
        let reach = self.inner.marks.lock().reach;
        self.store(reach).await
    }

    /// Checkpoints everything up to and including `record`, which was delivered to this processor; of an aggregated record,
    /// up to and including this user record.
    ///
    /// [`ErrorKind::Invalid`] if a later record is checkpointed already or the record was not delivered here;
    /// [`ErrorKind::LeaseLost`] as for [`Checkpointer::checkpoint`].
    pub async fn checkpoint_at(&self, record: &Record) -> Result<()> {
        let asked = self.place_of(record)?;
        self.store(asked).await
    }

    /// First half of a two-phase checkpoint of everything delivered: stores `state` (at most 4 KiB, the application's own:
    /// say, the name of a transaction) beside the checkpoint. Commit it with [`Prepared::commit`] once the work is done for
    /// good. If this worker dies before, whoever takes the shard is given what was prepared
    /// ([`Start::pending`](crate::Start::pending)), and records from the last *committed* checkpoint on.
    ///
    /// Errors as [`Checkpointer::checkpoint`]; [`ErrorKind::Invalid`] if the state is too large.
    pub async fn prepare(&self, state: impl Into<Bytes>) -> Result<Prepared> {
        let reach = self.inner.marks.lock().reach;
        self.prepare_to(reach, state.into()).await
    }

    /// As [`Checkpointer::prepare`], up to and including `record`. Errors also as [`Checkpointer::checkpoint_at`].
    pub async fn prepare_at(&self, record: &Record, state: impl Into<Bytes>) -> Result<Prepared> {
        let asked = self.place_of(record)?;
        self.prepare_to(asked, state.into()).await
    }

    async fn prepare_to(&self, at: Checkpoint, state: Bytes) -> Result<Prepared> {
        let pending = PendingCheckpoint::new(at, state)?;
        self.ask(&Asked::Prepared(pending)).await?;
        Ok(Prepared { checkpointer: self.clone(), at })
    }

    fn place_of(&self, record: &Record) -> Result<Checkpoint> {
        let at = self.inner.hold.at();
        if record.at() != at {
            let told = format!("not checkpointed: the record is of {}, not of {at}", record.at());
            return Err(Error::new(ErrorKind::Invalid, told));
        }
        let asked = Checkpoint::At { number: record.sequence_number(), sub: record.sub_sequence_number() };
        self.inner.marks.lock().check(asked)?;
        Ok(asked)
    }

    /// The last checkpoint stored.
    pub fn stored(&self) -> Checkpoint {
        self.inner.marks.lock().stored
    }

    /// The fencing number of the lease: rises with every change of owner, so what a processor writes elsewhere can carry it,
    /// and a later owner's be preferred.
    pub fn lease_epoch(&self) -> LeaseEpoch {
        self.inner.hold.epoch()
    }

    /// Whether the lease is still held; once false, always false. A long `process` may look now and then and give up.
    pub fn is_lease_held(&self) -> bool {
        self.inner.hold.is_held()
    }

    /// What `checkpoint` stores from now on.
    pub(crate) fn set_reach(&self, reach: Checkpoint) {
        self.inner.marks.lock().reach = reach;
    }

    pub(crate) async fn store(&self, asked: Checkpoint) -> Result<()> {
        self.ask(&Asked::Done(asked)).await
    }

    async fn ask(&self, asked: &Asked) -> Result<()> {
        let inner = &*self.inner;
        let mut rng = StdRng::seed_from_u64(inner.hold.epoch().get());
        for attempt in 1.. {
            if !inner.hold.is_held() {
                break;
            }
            let Err(error) = self.ask_once(asked).await else { return Ok(()) };
            match error.kind() {
                WireKind::Conflict | WireKind::NotFound => inner.hold.lost_by_word(),
                kind if kind.is_retryable() => {
                    tracing::debug!(shard = %inner.hold.at(), %error, "checkpoint not stored, trying again");
                    let wait = BACKOFF.wait(attempt, &mut rng);
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = inner.hold.lost() => {}
                    }
                }
                _ => return Err(error.into()),
            }
        }
        Err(Error::lease_lost(inner.hold.at()))
    }

    async fn ask_once(&self, asked: &Asked) -> tidemill_proto::Result<()> {
        let inner = &*self.inner;
        let checkpoint = match asked {
            Asked::Prepared(pending) => return inner.store.prepare(&inner.hold, pending).await,
            Asked::Done(checkpoint) => *checkpoint,
        };
        if inner.marks.lock().stored == checkpoint {
            return Ok(());
        }
        let stored = inner.store.checkpoint(&inner.hold, checkpoint).await;
        let mut marks = inner.marks.lock();
        if stored.is_ok() {
            marks.stored = marks.stored.max(checkpoint);
        }
        // two calls of one processor may overtake each other; the later one speaks for both
        if marks.stored >= checkpoint { Ok(()) } else { stored }
    }
}

/// A checkpoint that was prepared ([`Checkpointer::prepare`]) and not yet committed.
#[derive(Debug)]
#[must_use = "only committing it moves the checkpoint"]
pub struct Prepared {
    checkpointer: Checkpointer,
    at: Checkpoint,
}

impl Prepared {
    /// How far it reaches.
    pub fn at(&self) -> Checkpoint {
        self.at
    }
    /// Second half: moves the checkpoint there and forgets what was prepared. Errors and cancelling are as for
    /// [`Checkpointer::checkpoint`]; it may be repeated.
    pub async fn commit(&self) -> Result<()> {
        self.checkpointer.inner.marks.lock().check(self.at)?;
        self.checkpointer.store(self.at).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(index: u64, sub: u64) -> Checkpoint {
        Checkpoint::At { number: index.to_string().parse().unwrap(), sub }
    }

    #[test]
    fn checkpoints_move_forward_within_what_was_delivered() {
        let marks = Marks { stored: at(5, 1), reach: at(9, 0) };
        for good in [at(5, 1), at(5, 2), at(6, 0), at(9, 0)] {
            assert!(marks.check(good).is_ok(), "{good:?} was refused");
        }
        for bad in
            [Checkpoint::TrimHorizon, Checkpoint::Latest, at(5, 0), at(4, 9), at(9, 1), Checkpoint::ShardEnd]
        {
            assert_eq!(marks.check(bad).unwrap_err().kind(), ErrorKind::Invalid, "{bad:?} was taken");
        }
    }
}
