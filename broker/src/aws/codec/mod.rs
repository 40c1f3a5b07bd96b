//! Bytes ⇄ typed shapes. Every encoding decodes into one tree ([`Node`]) that borrows from the body, from which each
//! shape takes its members under one set of conversion rules; replies go through one [`Members`] writer.
//!
//! JSON 1.1 is offered. A further encoding adds a variant to [`Encoding`], a decoder that builds the tree, and its
//! branch in the writer; no shape changes.

mod base64;
mod json;
mod node;
mod writer;

pub(crate) use node::{Fields, Node, excerpt};
pub(crate) use writer::Members;

use super::error::ApiError;
use super::shape::Output;

/// How a request and its reply are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// `application/x-amz-json-1.1`.
    Json,
}

impl Encoding {
    /// The encoding of this media type, parameters cut off.
    pub(crate) fn from_media_type(media_type: &str) -> Option<Self> {
        media_type.eq_ignore_ascii_case("application/x-amz-json-1.1").then_some(Self::Json)
    }
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/x-amz-json-1.1",
        }
    }
    /// Parses a request body.
    pub(crate) fn decode(self, body: &[u8]) -> Result<Node<'_>, ApiError> {
        match self {
            Self::Json => json::decode(body),
        }
    }
    /// The body of a reply; empty for operations without output.
    pub(crate) fn encode(self, output: &impl Output) -> Vec<u8> {
        match self {
            Self::Json => writer::encode(output),
        }
    }
    /// The body that tells of an error.
    pub(crate) fn encode_error(self, error: &ApiError) -> Vec<u8> {
        match self {
            Self::Json => writer::encode_error(error),
        }
    }
}
