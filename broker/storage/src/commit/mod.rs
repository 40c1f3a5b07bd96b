//! The commit: what is queued becomes durable. One owner takes what all logs have queued, numbers and places it, and
//! sends it one of two ways:
//!
//! ```text
//!              ┌ small ─► journal: one write for all ─► copied to its places ─┐
//!  queue ─► sequence                                                           ├─► publish, answer
//!              └ large ─► straight to its places, logs in parallel ───────────┘
//! ```
//!
//! A log has one group in flight: what comes meanwhile waits, so that answers keep the order of the appends and a group
//! that is torn by a crash is the last of its log.
//!
//! Not here: threads (`background`), the format of the journal.

mod direct;
mod group;
mod queue;
mod sequence;

pub(crate) use direct::DirectGroup;
pub(crate) use group::{Committer, round};
pub(crate) use queue::{Done, Item, LogQueue, Queue};
