//! The catalog: which streams and shards there are.
//!
//! ```text
//!   verb ─► owner (one task): plan (pure) ─► commit (one batch) ─► apply (pure) ─► registry: what the data verbs see
//! ```
//!
//! [`state`] is a value that knows nothing of disks and tasks; [`streams`] holds the plans; [`row`] says how a change
//! is written down; [`owner`] runs the verbs one after the other; [`registry`] is what everybody else reads.

pub(crate) mod accounts;
pub(crate) mod consumers;
pub(crate) mod owner;
pub(crate) mod registry;
mod reshard;
pub(crate) mod row;
pub(crate) mod settings;
mod settings_row;
pub(crate) mod state;
pub(crate) mod streams;
#[cfg(test)]
mod tests;
mod update;
