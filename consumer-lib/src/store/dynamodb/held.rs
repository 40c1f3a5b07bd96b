//! The leases that this worker holds, each with the counter that its row must have: every write moves it, so writes to one
//! row go one after the other.
//!
//! ```text
//!  take ─► held at n ──(renew, checkpoint, prepare)──► held at n+1 …
//!             │ a write is refused: somebody else moved the counter, or the lease was taken again
//!             └──► lost, for good
//! ```
//!
//! An epoch is the counter with which the lease was taken: it rises from take to take, whoever takes.

use super::change::Asked;
use super::row::Row;
use crate::hold::Hold;
use crate::place::Checkpoint;
use crate::shard::ShardRef;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tidemill_proto::{Error, ErrorKind, Result};
use tidemill_types::LeaseEpoch;

#[derive(Debug)]
pub(super) struct Held {
    pub(super) key: String,
    pub(super) epoch: LeaseEpoch,
    pub(super) state: tokio::sync::Mutex<State>,
    /// The checkpoint as far as it is known to be stored: none moves back.
    reached: Mutex<Checkpoint>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Held { counter: u64, asked: Asked },
    Lost,
}

impl Held {
    pub(super) fn new(taken: &Row) -> Self {
        let state = State::Held { counter: taken.counter, asked: Asked::NotYet };
        Self {
            key: taken.key.clone(),
            epoch: LeaseEpoch::new(taken.counter),
            state: tokio::sync::Mutex::new(state),
            reached: Mutex::new(taken.checkpoint),
        }
    }
    /// `Invalid` for a checkpoint that lies behind what is stored.
    pub(super) fn not_back(&self, at: Checkpoint) -> Result<()> {
        let reached = *self.reached.lock();
        if at < reached {
            let told = format!("checkpoints do not move back: at {reached:?}, asked for {at:?}");
            return Err(Error::new(ErrorKind::Invalid, told));
        }
        Ok(())
    }
    pub(super) fn reached(&self, at: Checkpoint) {
        let mut reached = self.reached.lock();
        *reached = at.max(*reached);
    }
}

/// By shard; an entry goes when its lease is lost, given back, or taken anew.
#[derive(Debug, Default)]
pub(super) struct HeldLeases {
    by_shard: Mutex<HashMap<ShardRef, Arc<Held>>>,
}

impl HeldLeases {
    pub(super) fn of_shard(&self, at: &ShardRef) -> Option<Arc<Held>> {
        self.by_shard.lock().get(at).cloned()
    }
    /// `Conflict` if it is held no more.
    pub(super) fn of_hold(&self, hold: &Hold) -> Result<Arc<Held>> {
        let held = self.of_shard(hold.at()).filter(|held| held.epoch == hold.epoch());
        held.ok_or_else(|| lost(hold.at()))
    }
    pub(super) fn insert(&self, at: ShardRef, held: Held) {
        self.by_shard.lock().insert(at, Arc::new(held));
    }
    pub(super) fn remove(&self, at: &ShardRef, epoch: LeaseEpoch) {
        let mut by_shard = self.by_shard.lock();
        if by_shard.get(at).is_some_and(|held| held.epoch == epoch) {
            by_shard.remove(at);
        }
    }
}

pub(super) fn lost(at: &ShardRef) -> Error {
    Error::new(ErrorKind::Conflict, format!("the lease of {at} is another's, or nobody's"))
}

/// What a row says to the holder whose write was refused: where it stands now, or that the lease is lost. A counter that
/// is one ahead was moved by the holder itself: by a request whose answer did not arrive, or which was sent twice.
pub(super) fn standing(row: Option<&Row>, me: &str, counter: u64) -> State {
    match row {
        Some(row) if row.holder() == Some(me) && (row.counter == counter || row.counter == counter + 1) => {
            let asked = if row.successor().is_some() { Asked::Already } else { Asked::NotYet };
            State::Held { counter: row.counter, asked }
        }
        _ => State::Lost,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_holder_finds_out_from_the_row_whether_it_still_holds() {
        let row = |owner: &str, checkpoint_owner: Option<&str>, counter| Row {
            key: "shardId-000000000000".into(),
            owner: Some(owner.to_owned()),
            checkpoint_owner: checkpoint_owner.map(str::to_owned),
            counter,
            checkpoint: Checkpoint::TrimHorizon,
            pending: None,
            bytes_per_s: 0,
        };
        let held = |counter, asked| State::Held { counter, asked };
        let cases = [
            (row("me", None, 8), held(8, Asked::NotYet)),
            (row("next", Some("me"), 7), held(7, Asked::Already)),
            (row("next", Some("me"), 8), held(8, Asked::Already)),
            (row("me", None, 9), State::Lost),
            (row("me", Some("other"), 8), State::Lost),
            (row("other", None, 8), State::Lost),
        ];
        for (row, expected) in cases {
            assert_eq!(standing(Some(&row), "me", 7), expected, "{row:?}");
        }
        assert_eq!(standing(None, "me", 7), State::Lost);
    }
}
