//! Simulation: assignment, handoff and fencing explored in virtual time, whole workers against the memory store.
//!
//! ```text
//!   seed ─► scenario ─► run: one loop drives ─┬─► machines of workers (runtime, clock): Worker, SimSource, SimStore, Probe
//!                        │                    └─► machine of the store: MemoryStore
//!                        └──────────────► judge ◄── told of every call, take, checkpoint …
//! ```
//!
//! Everything follows from the seed: what happens, when, and in which order machines run; the same seed leaves the same trace.
//! A machine that is not driven is a process that was stopped; one that is dropped is a process that was killed. Requests
//! already sent are still done.
//!
//! Some seeds run with every `cargo test`. More of them, others, and one alone with its whole trace:
//!
//! ```text
//! TIDEMILL_SIM_SEEDS=10000 cargo test -p tidemill-consumer --release sim -- --nocapture
//! TIDEMILL_SIM_SEEDS=70000..80000 cargo test -p tidemill-consumer --release sim -- --nocapture
//! TIDEMILL_SIM_SEED=17 cargo test -p tidemill-consumer sim -- --nocapture
//! ```
//!
//! Not here: the broker's own lease store (`tests/`), threads, and real processes.

pub(crate) mod bugs;
mod facts;
mod judge;
mod machine;
mod network;
mod play;
mod probe;
mod run;
mod scenario;
mod service;
mod sessions;
mod tests;
mod world;
