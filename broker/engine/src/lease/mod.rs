//! Leases: which worker of an application may process which shard, and how far it has come.

pub(crate) mod ending;
mod lag;
mod nouns;
mod operate;
mod reset;
mod row;
mod stored;
pub(crate) mod table;
#[cfg(test)]
mod tests;

pub use lag::Lag;
pub use nouns::{
    App, AppPage, AppStream, HeldLease, LeaseRow, Renewal, Renewed, RequestHandoff, ResetCheckpoints, Steal,
    Successor, TakeLease,
};
pub use reset::{Effect, Holders, ResetRow};
pub use table::LeaseTable;
