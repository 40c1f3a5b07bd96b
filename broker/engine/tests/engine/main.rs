//! The engine without sockets: one binary, so that it is linked once.

#![allow(clippy::unwrap_used)] // shared set-up stands outside of test functions

mod leases;
mod records;
mod streams;
mod support;
