//! The engine without sockets: one binary, so that it is linked once.

#![allow(clippy::unwrap_used)] // shared set-up stands outside of test functions

mod apps;
mod consumers;
mod encryption;
mod first_start;
mod handoffs;
mod leases;
mod quotas;
mod records;
mod reshard;
mod reshard_chaos;
mod reshard_stall;
mod settings;
mod streams;
mod support;
