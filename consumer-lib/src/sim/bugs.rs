//! Bugs that a test plants, to see that the simulation finds them. One is planted on a thread at most.

use std::cell::Cell;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// The store takes renewals and checkpoints whatever the owner and the epoch.
    EpochIgnored,
    /// A worker does not look at its own clock for whether it holds a lease.
    BlindHold,
    /// A lease is handed over before its shard is drained.
    HandsOverUndrained,
    /// Of the parents of a merged shard only one is waited for.
    OneParent,
    /// A shard is begun behind the record after the checkpoint.
    FromBehind,
    /// A shutdown while a batch fails checkpoints that batch.
    FailedIsReached,
    /// It pays to move a lease for a difference of one.
    Restless,
    /// A processor is told nothing when the lease is lost.
    NoLastCall,
}

pub(crate) const BUGS: [Bug; 8] = [
    Bug::EpochIgnored,
    Bug::BlindHold,
    Bug::HandsOverUndrained,
    Bug::OneParent,
    Bug::FromBehind,
    Bug::FailedIsReached,
    Bug::Restless,
    Bug::NoLastCall,
];

thread_local! {
    static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
}

pub(crate) fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

pub(crate) fn is_planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}
