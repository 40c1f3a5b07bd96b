//! Resharding: shards are split and merged while records come and go.
//!
//! ```text
//!   plan (pure) ─► intent row, durable ─► parents' logs sealed, durable ─► one batch: parents closed, children open,
//!   map version + 1, intent gone ─► the new shards are shown in one store ─► readers of the parents wake and see the end
//! ```
//!
//! Sealing cannot be taken back, so the intent comes first: after a crash, or a failure in between, it is completed
//! before the engine serves, and again from time to time until it succeeds. Until then sealed parents refuse appends as
//! unavailable. [`plan`] says which shards come of which; [`finish`] gives them their times once the last record of the
//! parents is known; [`run`] does it; [`expiry`] lets go of closed shards whose records have passed the retention.

mod check;
pub(crate) mod expiry;
mod finish;
pub(super) mod plan;
pub(super) mod row;
mod run;
#[cfg(test)]
mod run_tests;
#[cfg(test)]
mod tests;
mod uniform;

use std::collections::HashSet;
use tidemill_storage::LogId;
use tidemill_types::{HashKeyRange, ShardId};

/// Which shards of a stream end, and which come in their place. Kept as a row from the decision to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reshard {
    /// Open shards that are to be closed, by id.
    pub(crate) parents: Vec<ShardId>,
    /// The shards that come, by id. One that is a parent of another is only passed through: it comes closed and empty.
    pub(crate) children: Vec<Child>,
}

impl Reshard {
    /// How many of the shards that come are open in the end.
    fn opening(&self) -> usize {
        let passed_through: HashSet<ShardId> = self.children.iter().flat_map(Child::parents).collect();
        self.children.iter().filter(|child| !passed_through.contains(&child.id)).count()
    }
}

/// A shard that is to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Child {
    pub(crate) id: ShardId,
    pub(crate) log: LogId,
    pub(crate) parent: ShardId,
    /// Of a merge, the upper parent.
    pub(crate) adjacent_parent: Option<ShardId>,
    pub(crate) range: HashKeyRange,
}

impl Child {
    /// The shards it comes from.
    pub(crate) fn parents(&self) -> impl Iterator<Item = ShardId> {
        std::iter::once(self.parent).chain(self.adjacent_parent)
    }
}
