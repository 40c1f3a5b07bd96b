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
use crate::record::Record;
use crate::store::BrokerStore;
use parking_lot::Mutex;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::sync::Arc;
use std::time::Duration;
use tidemill_proto::ErrorKind as WireKind;
use tidemill_proto::client::Backoff;
use tidemill_types::Checkpoint;

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
    store: BrokerStore,
    hold: Arc<Hold>,
    marks: Mutex<Marks>,
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
    pub(crate) fn new(store: BrokerStore, hold: Arc<Hold>, stored: Checkpoint) -> Self {
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

    /// Checkpoints everything up to and including `record`, which was delivered to this processor.
    ///
    /// [`ErrorKind::Invalid`] if a later record is checkpointed already or the record was not delivered here;
    /// [`ErrorKind::LeaseLost`] as for [`Checkpointer::checkpoint`].
    pub async fn checkpoint_at(&self, record: &Record) -> Result<()> {
        let at = self.inner.hold.at();
        if record.stream() != at.stream() || record.shard() != at.shard() {
            let told = format!(
                "not checkpointed: the record is of {}/{}, not of {at}",
                record.stream(),
                record.shard()
            );
            return Err(Error::new(ErrorKind::Invalid, told));
        }
        let asked = Checkpoint::At { number: record.sequence_number(), sub: record.sub_sequence_number() };
        self.inner.marks.lock().check(asked)?;
        self.store(asked).await
    }

    /// The last checkpoint stored.
    pub fn stored(&self) -> Checkpoint {
        self.inner.marks.lock().stored
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
        let inner = &*self.inner;
        let mut rng = StdRng::seed_from_u64(inner.hold.epoch().get());
        for attempt in 1.. {
            if !inner.hold.is_held() {
                break;
            }
            if inner.marks.lock().stored == asked {
                return Ok(());
            }
            let Err(error) = inner.store.checkpoint(&inner.hold, asked).await else {
                let mut marks = inner.marks.lock();
                marks.stored = marks.stored.max(asked);
                return Ok(());
            };
            // two calls of one processor may overtake each other; the later one speaks for both
            if inner.marks.lock().stored >= asked {
                return Ok(());
            }
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::shard;
    use tidemill_types::{SequenceIndex, TimestampMs};

    fn at(index: u64, sub: u64) -> Checkpoint {
        let index = SequenceIndex::new(index).unwrap();
        Checkpoint::At { number: shard(0).number(index, TimestampMs::new(1_700_000_000_000)), sub }
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
