//! Bytes ⇄ typed shapes. Every encoding decodes into one tree ([`Node`]) that borrows from the body, from which each
//! shape takes its members under one set of conversion rules; replies go through one [`Members`] writer.
//!
//! JSON 1.1 and CBOR 1.1 are offered. They differ in three things only, and only in here: how values are spelled, that
//! blobs are base64 texts in JSON and byte strings in CBOR, and that times count seconds in JSON and milliseconds in
//! CBOR. A further encoding adds a variant to [`Encoding`], a decoder that builds the tree, and its branch in the
//! writer; no shape changes.

mod base64;
mod cbor;
mod json;
mod node;
mod writer;

#[cfg(test)]
mod tests;

pub(crate) use node::{Fields, Node, excerpt};
pub(crate) use writer::Members;

use super::error::ApiError;
use super::shape::Output;

/// Most values in one request: a body of a few bytes per value would otherwise grow a hundredfold as a tree. The
/// largest legal one, 10,000 queue streams, stays below.
const NODES_MAX: usize = 100_000;

/// How a request and its reply are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// `application/x-amz-json-1.1`.
    Json,
    /// `application/x-amz-cbor-1.1`, what Java SDKs speak unless told otherwise.
    Cbor,
}

impl Encoding {
    /// The encoding of this media type, parameters cut off.
    pub(crate) fn from_media_type(media_type: &str) -> Option<Self> {
        let all = [Self::Json, Self::Cbor];
        all.into_iter().find(|encoding| media_type.eq_ignore_ascii_case(encoding.content_type()))
    }
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/x-amz-json-1.1",
            Self::Cbor => "application/x-amz-cbor-1.1",
        }
    }
    /// Parses a request body.
    pub(crate) fn decode(self, body: &[u8]) -> Result<Node<'_>, ApiError> {
        match self {
            Self::Json => json::decode(body),
            Self::Cbor => cbor::decode(body),
        }
    }
    /// The body of a reply; empty for operations without output.
    pub(crate) fn encode(self, output: &impl Output) -> Vec<u8> {
        writer::encode(self, output)
    }
    /// The body that tells of an error.
    pub(crate) fn encode_error(self, error: &ApiError) -> Vec<u8> {
        writer::encode(self, error)
    }
}
