//! The frame: the unit of append, journal, index, read and, later, of replication. Encoded once by who produces it,
//! checked once by the broker, then the same bytes lie in the journal, in the segment and go to native readers.
//!
//! ```text
//!  offset size                                  set by
//!   0     4   bytes of the whole frame          writer
//!   4     4   crc32 of bytes 8..64              broker  (all integers little-endian)
//!   8     1   version = 1                       writer
//!   9     1   kind: 0 records, 1 close, 2 lost  writer
//!  10     2   attributes: bit 0 = sealed        broker
//!  12     4   crc32 of the body                 writer
//!  16     8   log: identity of the shard's log  broker
//!  24     8   first sequence index              broker
//!  32     4   records                           writer
//!  36     4   indexes before it in its group    broker
//!  40     8   arrival time, ms                  broker
//!  48     8   producer id, 0 = none             writer
//!  56     8   producer's batch number           writer
//!  64         body: per record
//!               4 data bytes, 2 key bytes, 2 flags = 0, key (UTF-8, may be empty), data
//! ```
//!
//! A sealed frame's body is encrypted: [`sealed`] draws it.
//!
//! These bytes outlive the process: FORMAT.md describes them, a change needs a new version, numbers are never reused.
//!
//! *Indexes before it in its group* lets recovery tell a torn tail from damage: what was written together with a frame
//! may be torn beside it, what came before that group was durable when the group was written.
//!
//! Not here: routing, limits of a stream, anything about files.

mod header;
mod records;
mod sealed;
#[cfg(test)]
mod tests;
mod writer;

pub use header::FrameHeader;
pub use records::{RecordIter, RecordView};
pub(crate) use sealed::SEALED_EXTRA_BYTES;
pub use sealed::{Sealed, Sealing};
pub use writer::FrameWriter;

use crate::error::Error;
use crate::record::PartitionKey;
use crate::sequence::SequenceIndex;
use crate::time::TimestampMs;
use bytes::Bytes;
use records::split_record;

/// Who wrote a batch, so that a retry is recognised; drawn at random by each producer. Zero means "nobody".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerId(u64);

impl ProducerId {
    /// No producer: a batch that is never recognised again (Kinesis puts).
    pub const NONE: Self = Self(0);
    /// From the number.
    pub const fn new(value: u64) -> Self {
        Self(value)
    }
    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// What a frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// It carries records.
    Records,
    /// It ends the shard: nothing follows. It carries no record and takes one sequence index.
    Close,
    /// Records that were lost to damage lay here. It carries none, takes their sequence indexes, and its body means nothing.
    /// Only `tidemill repair` writes it; readers pass over it.
    Lost,
}

/// What is wrong with the bytes of a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Fewer bytes than a header, or than the header says.
    #[error("frame needs {needed} bytes, found {found}")]
    Short {
        /// Bytes needed.
        needed: usize,
        /// Bytes there are.
        found: usize,
    },
    /// The header does not match its checksum.
    #[error("frame header does not match its checksum")]
    HeaderChecksum,
    /// The body does not match its checksum.
    #[error("frame body does not match its checksum")]
    BodyChecksum,
    /// A later version than this program knows.
    #[error("frame version {0} is not known to this version of tidemill")]
    Version(u8),
    /// Fields that contradict each other or break a limit.
    #[error("malformed frame: {0}")]
    Malformed(&'static str),
}
/// A frame whose header and body match their checksums. Cheap to clone: the bytes are shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    header: FrameHeader,
    bytes: Bytes,
}

impl Frame {
    /// The closing entry of a log.
    pub fn close() -> Self {
        let header = FrameHeader {
            frame_bytes: FrameHeader::BYTES as u32,
            kind: FrameKind::Close,
            attributes: 0,
            body_crc: 0,
            log: 0,
            first: SequenceIndex::ZERO,
            count: 0,
            group_before: 0,
            arrival: TimestampMs::default(),
            producer: ProducerId::NONE,
            batch_number: 0,
        };
        Self { header, bytes: Bytes::copy_from_slice(&header.encode()) }
    }
    /// Takes the frame at the start of `bytes` and checks both checksums. Bytes behind it are ignored.
    pub fn decode(bytes: &Bytes) -> Result<Self, FrameError> {
        let header = FrameHeader::decode(bytes)?;
        let length = header.frame_bytes as usize;
        if bytes.len() < length {
            return Err(FrameError::Short { needed: length, found: bytes.len() });
        }
        let bytes = bytes.slice(..length);
        if crc32fast::hash(&bytes[FrameHeader::BYTES..]) != header.body_crc {
            return Err(FrameError::BodyChecksum);
        }
        Ok(Self { header, bytes })
    }
    /// Like [`Frame::decode`] for what came from outside: `bytes` is the frame exactly, and every record is walked and
    /// checked against the limits, so that nothing behind this call can meet a malformed record.
    pub fn decode_untrusted(bytes: &Bytes) -> Result<Self, FrameError> {
        Self::decode_walking(bytes, PartitionKey::check)
    }
    /// Like [`Frame::decode_untrusted`] for a stream that takes records without a partition key: it may be empty.
    pub fn decode_untrusted_keyless(bytes: &Bytes) -> Result<Self, FrameError> {
        Self::decode_walking(bytes, |key| if key.is_empty() { Ok(()) } else { PartitionKey::check(key) })
    }
    fn decode_walking(
        bytes: &Bytes,
        check_key: impl Fn(&str) -> Result<(), Error>,
    ) -> Result<Self, FrameError> {
        let frame = Self::decode(bytes)?;
        if frame.bytes.len() != bytes.len() {
            return Err(FrameError::Malformed("bytes behind the frame"));
        }
        if frame.header.kind != FrameKind::Records || frame.header.attributes != 0 {
            return Err(FrameError::Malformed("kind or attributes not allowed here"));
        }
        let mut body = &frame.bytes[FrameHeader::BYTES..];
        for _ in 0..frame.header.count {
            let (key, _, rest) = split_record(body)?;
            let key = std::str::from_utf8(key)
                .map_err(|_| FrameError::Malformed("a partition key is not UTF-8"))?;
            check_key(key)
                .map_err(|_: Error| FrameError::Malformed("a partition key must have 1 to 256 characters"))?;
            body = rest;
        }
        if !body.is_empty() {
            return Err(FrameError::Malformed("bytes behind the last record"));
        }
        Ok(frame)
    }
    /// The header.
    pub fn header(&self) -> &FrameHeader {
        &self.header
    }
    /// The whole frame.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
    /// The body alone: the records.
    pub fn body(&self) -> Bytes {
        self.bytes.slice(FrameHeader::BYTES..)
    }
    /// The records in order, each with its index; none of a sealed frame, nor of one of another kind.
    pub fn records(&self) -> RecordIter<'_> {
        RecordIter {
            body: &self.bytes[FrameHeader::BYTES..],
            bytes: &self.bytes,
            index: self.header.first,
            left: match self.header.kind {
                FrameKind::Records if !self.header.is_sealed() => self.header.count,
                _ => 0,
            },
        }
    }
}
/// Walks frames that lie one behind the other, checking each. Ends after the first error.
#[derive(Debug, Clone)]
pub struct Frames {
    bytes: Bytes,
}

impl Frames {
    /// Over the frames in `bytes`.
    pub fn new(bytes: Bytes) -> Self {
        Self { bytes }
    }
}

impl Iterator for Frames {
    type Item = Result<Frame, FrameError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.bytes.is_empty() {
            return None;
        }
        let frame = Frame::decode(&self.bytes);
        match &frame {
            Ok(frame) => self.bytes = self.bytes.slice(frame.bytes.len()..),
            Err(_) => self.bytes = Bytes::new(),
        }
        Some(frame)
    }
}
