//! The chaos test's memory: what its processes write down while they are killed, and the checker that judges it.
//!
//! ```text
//!  chaos_producer ─ acknowledgements ─► log files ─┐
//!  chaos_worker ─── deliveries, ends ─► log files ─┼─► History ─► check (pure) ─► Verdict, or every promise broken
//!  observer ─────── rows of leases ────────────────┤
//!  director ─────── what it did to whom ───────────┘
//! ```
//!
//! All stamps are of the machine's one monotonic clock, so those of different processes can be compared. Not here: the
//! processes and what is done to them (`tests/chaos`).

mod check;
mod history;
mod line;
mod log;
mod mark;

pub use check::{Verdict, check};
pub use history::{Ack, Batch, Ending, History, Kill, Pause, Session, Sighting};
pub use line::{ProducerLine, WorkerLine};
pub use log::{EventLog, monotonic_ns};
pub use mark::{Mark, RecordId};
