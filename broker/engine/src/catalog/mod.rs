//! The catalog: which streams, shards and consumers there are, and what they are set to.
//!
//! ```text
//!   verb ─► owner (one task): plan (pure) ─► commit (one batch) ─► apply (pure) ─► registry: what the data verbs see
//! ```
//!
//! [`state`] is a value that knows nothing of disks and tasks; the plans are with what they are about ([`streams`],
//! [`update`], [`consumers`], [`accounts`]); [`row`] says how a change is written down; [`owner`] runs the verbs one after the other; [`registry`] is what everybody else reads.

pub(crate) mod accounts;
pub(crate) mod consumers;
mod encryption;
pub(crate) mod owner;
pub(crate) mod registry;
pub(crate) mod reshard;
pub(crate) mod row;
pub(crate) mod settings;
mod settings_row;
pub(crate) mod state;
pub(crate) mod streams;
mod tags;
#[cfg(test)]
mod tests;
mod update;
