//! Workers against a broker that lives in the test: leases, shards, faults, in real time with short leases.

#![allow(clippy::unwrap_used)] // a test fails by panicking, also outside of test functions

mod control;
mod failures;
mod fake;
mod handoff;
mod leases;
mod life;
mod probe;
mod shards;
