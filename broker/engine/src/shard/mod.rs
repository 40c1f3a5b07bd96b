//! One shard at work: what waits to be stored, and who waits for what is stored.

pub(crate) mod handle;
pub(crate) mod large;
pub(crate) mod pending;
pub(crate) mod quota;
mod standing;
