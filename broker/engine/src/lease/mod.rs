//! Leases: which worker of an application may process which shard, and how far it has come.

pub(crate) mod ending;
mod lag;
mod nouns;
mod row;
mod stored;
pub(crate) mod table;
#[cfg(test)]
mod tests;

pub use lag::Lag;
pub use nouns::{HeldLease, LeaseRow, Renewal, Renewed, RequestHandoff, Steal, Successor, TakeLease};
pub use table::LeaseTable;
