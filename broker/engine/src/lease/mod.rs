//! Leases: which worker of an application may process which shard, and how far it has come.

pub(crate) mod row;
pub(crate) mod table;
#[cfg(test)]
mod tests;

pub use table::{HeldLease, LeaseRow, LeaseTable, Steal, TakeLease};
