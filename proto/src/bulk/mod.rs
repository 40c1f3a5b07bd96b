//! Messages that carry records, over gRPC without a copy of the records.
//!
//! ```text
//!  message ─► Outgoing: the small fields, encoded ┬─► body of the call ─► DATA frames ─► Incoming ─► message
//!                       the records, as they are ─┘        (HTTP/2)                 (a slice of what came)
//! ```
//!
//! Why: tonic's codec copies each message into a buffer on either side, and these are megabytes that lie in a map or in a
//! receive buffer already. The bytes on the wire are those of any gRPC peer: protobuf lets fields come in any order, so
//! the records go last. What this does not do: compress, or know what the records are.

mod incoming;
mod outgoing;
#[cfg(test)]
mod tests;

pub use incoming::Incoming;
pub use outgoing::Outgoing;

use crate::v1::{AppendRequest, AppendResponse, ReadRequest, ReadResponse};
use bytes::Bytes;

/// Before each message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// A message of the calls that carry records.
pub trait Message: prost::Message + Default {
    /// Takes out the field that may be large, with its number in the schema; none if the message has no such field.
    fn take_bulk(&mut self) -> Option<(u32, Bytes)>;
}

impl Message for AppendRequest {
    fn take_bulk(&mut self) -> Option<(u32, Bytes)> {
        Some((5, std::mem::take(&mut self.frame)))
    }
}

impl Message for ReadResponse {
    fn take_bulk(&mut self) -> Option<(u32, Bytes)> {
        Some((2, std::mem::take(&mut self.frames)))
    }
}

impl Message for AppendResponse {
    fn take_bulk(&mut self) -> Option<(u32, Bytes)> {
        None
    }
}

impl Message for ReadRequest {
    fn take_bulk(&mut self) -> Option<(u32, Bytes)> {
        None
    }
}
