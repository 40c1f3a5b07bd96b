//! The native wire contract: what `proto/schema/v1` says, as Rust.
//!
//! Generated messages and services ([`v1`]), their conversion to and from the nouns of `tidemill-types` ([`convert`]),
//! the one table between what went wrong and a gRPC status ([`Error`], [`ErrorKind`]), the channel that both client
//! libraries share ([`client`]), messages with records that are not copied ([`bulk`]), and the aggregated records of the Kinesis Producer Library ([`aggregate`]). No engine,
//! no storage, no policy of a library lives here.

pub mod aggregate;
pub mod bulk;
pub mod client;
pub mod convert;
mod status;

pub use status::{ERROR_KIND_METADATA, Error, ErrorKind, Outcome, Result};

/// Messages, clients and servers as generated from `schema/v1`; the schema documents them field by field.
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::pedantic)]
pub mod v1 {
    tonic::include_proto!("tidemill.v1");
}

/// The descriptors of the schema, encoded: what the reflection service answers from.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
