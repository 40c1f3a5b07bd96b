//! Tidemill: a Kinesis you run yourself. This crate is wire and wiring: sockets, formats, identity, configuration, the
//! command line.
//!
//! Why: everything a stream *is* lives in `tidemill-engine`, behind three verbs; here the wire ends. [`server::Broker`]
//! starts a whole broker inside any process, as tests and the demo do. What it does not do: keep records or decide
//! about them.

mod auth;
pub mod aws;
#[cfg(test)]
mod captured_log;
pub mod cli;
mod clock;
pub mod config;
mod error;
mod grpc;
pub mod limits;
mod open_files;
mod ops;
pub mod server;
pub mod tls;

pub use auth::{AccessSettings, CredentialSettings, Effect, PolicySettings, Secret, StatementSettings};
pub use error::{Error, ErrorKind, Result};
