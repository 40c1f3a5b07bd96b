//! The frame: the unit of append, journal, index, read and, later, of replication. Encoded once by who produces it,
//! checked once by the broker, then the same bytes lie in the journal, in the segment and go to native readers.
//!
//! ```text
//!  offset size                                  set by
//!   0     4   bytes of the whole frame          writer
//!   4     4   crc32 of bytes 8..64              broker  (all integers little-endian)
//!   8     1   version = 1                       writer
//!   9     1   kind: 0 records, 1 close          writer
//!  10     2   attributes, 0 (codec, encryption) writer
//!  12     4   crc32 of the body                 writer
//!  16     8   log: identity of the shard's log  broker
//!  24     8   first sequence index              broker
//!  32     4   records                           writer
//!  36     4   indexes before it in its group    broker
//!  40     8   arrival time, ms                  broker
//!  48     8   producer id, 0 = none             writer
//!  56     8   producer's batch number           writer
//!  64         body: per record
//!               4 data bytes, 2 key bytes, 2 flags = 0, key (UTF-8), data
//! ```
//!
//! These bytes outlive the process: FORMAT.md describes them, a change needs a new version, numbers are never reused.
//!
//! *Indexes before it in its group* lets recovery tell a torn tail from damage: what was written together with a frame
//! may be torn beside it, what came before that group was durable when the group was written.
//!
//! Not here: routing, limits of a stream, anything about files.

use crate::error::Error;
use crate::limits::{FRAME_BYTES_MAX, FRAME_RECORDS_MAX, PARTITION_KEY_BYTES_MAX, RECORD_DATA_BYTES_MAX};
use crate::record::PartitionKey;
use crate::sequence::SequenceIndex;
use crate::time::TimestampMs;
use bytes::{BufMut, Bytes, BytesMut};

const VERSION: u8 = 1;
const RECORD_HEADER_BYTES: usize = 8;

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

/// The fields of a frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Bytes of the whole frame, header included.
    pub frame_bytes: u32,
    /// What it says.
    pub kind: FrameKind,
    /// Codec and encryption; 0 today.
    pub attributes: u16,
    /// crc32 of the body.
    pub body_crc: u32,
    /// Identity of the shard's log (`LogId` of the storage).
    pub log: u64,
    /// Index of the first record.
    pub first: SequenceIndex,
    /// Records within.
    pub count: u32,
    /// Indexes of the same write group and shard that come before this frame.
    pub group_before: u32,
    /// When it arrived at the broker.
    pub arrival: TimestampMs,
    /// Who wrote it.
    pub producer: ProducerId,
    /// The producer's number for it.
    pub batch_number: u64,
}

impl FrameHeader {
    /// Bytes of a header.
    pub const BYTES: usize = 64;

    /// Sequence indexes the frame takes: its records, or one for a close.
    pub fn indexes(&self) -> u64 {
        u64::from(self.count).max(1)
    }
    /// The index of its last record.
    pub fn last(&self) -> SequenceIndex {
        self.first.plus(self.indexes() - 1)
    }
    /// The index right after its last record.
    pub fn next(&self) -> SequenceIndex {
        self.first.plus(self.indexes())
    }
    /// The first index of the write group it belongs to; everything below was durable when it was written.
    pub fn group_first(&self) -> SequenceIndex {
        let first = self.first.get().saturating_sub(u64::from(self.group_before));
        SequenceIndex::new(first).expect("below a valid index")
    }

    /// The 64 bytes, checksum included.
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut out = [0u8; Self::BYTES];
        out[0..4].copy_from_slice(&self.frame_bytes.to_le_bytes());
        out[8] = VERSION;
        out[9] = match self.kind {
            FrameKind::Records => 0,
            FrameKind::Close => 1,
        };
        out[10..12].copy_from_slice(&self.attributes.to_le_bytes());
        out[12..16].copy_from_slice(&self.body_crc.to_le_bytes());
        out[16..24].copy_from_slice(&self.log.to_le_bytes());
        out[24..32].copy_from_slice(&self.first.get().to_le_bytes());
        out[32..36].copy_from_slice(&self.count.to_le_bytes());
        out[36..40].copy_from_slice(&self.group_before.to_le_bytes());
        out[40..48].copy_from_slice(&self.arrival.get().to_le_bytes());
        out[48..56].copy_from_slice(&self.producer.get().to_le_bytes());
        out[56..64].copy_from_slice(&self.batch_number.to_le_bytes());
        // the length is outside the checksum's span but mixed in: a wrong length must not find a right header
        let crc = header_crc(&out);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads and checks a header at the start of `bytes`; the body is not looked at.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let Some(head) = bytes.first_chunk::<{ Self::BYTES }>() else {
            return Err(FrameError::Short { needed: Self::BYTES, found: bytes.len() });
        };
        if u32_at(head, 4) != header_crc(head) {
            return Err(FrameError::HeaderChecksum);
        }
        if head[8] != VERSION {
            return Err(FrameError::Version(head[8]));
        }
        let kind = match head[9] {
            0 => FrameKind::Records,
            1 => FrameKind::Close,
            _ => return Err(FrameError::Malformed("unknown kind")),
        };
        let header = Self {
            frame_bytes: u32_at(head, 0),
            kind,
            attributes: u16::from_le_bytes([head[10], head[11]]),
            body_crc: u32_at(head, 12),
            log: u64_at(head, 16),
            first: SequenceIndex::new(u64_at(head, 24))
                .map_err(|_| FrameError::Malformed("index beyond 63 bits"))?,
            count: u32_at(head, 32),
            group_before: u32_at(head, 36),
            arrival: TimestampMs::new(u64_at(head, 40)),
            producer: ProducerId::new(u64_at(head, 48)),
            batch_number: u64_at(head, 56),
        };
        header.check_sizes()?;
        Ok(header)
    }

    fn check_sizes(&self) -> Result<(), FrameError> {
        let bytes = self.frame_bytes as usize;
        if !(Self::BYTES..=FRAME_BYTES_MAX).contains(&bytes) {
            return Err(FrameError::Malformed("length out of bounds"));
        }
        if self.count > FRAME_RECORDS_MAX {
            return Err(FrameError::Malformed("too many records"));
        }
        match self.kind {
            FrameKind::Records if self.count == 0 => Err(FrameError::Malformed("no record within")),
            FrameKind::Close if self.count != 0 || bytes != Self::BYTES => {
                Err(FrameError::Malformed("a close carries nothing"))
            }
            _ => Ok(()),
        }
    }
}

fn header_crc(head: &[u8; FrameHeader::BYTES]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&head[8..]);
    crc.update(&head[0..4]);
    crc.finalize()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    (u64::from(u32_at(bytes, at + 4)) << 32) | u64::from(u32_at(bytes, at))
}

/// Builds a frame record by record: what a producer does. The broker's fields stay zero until it sequences the frame.
#[derive(Debug)]
pub struct FrameWriter {
    buffer: BytesMut,
    count: u32,
}

impl FrameWriter {
    /// An empty frame with room for `body_bytes`.
    pub fn with_capacity(body_bytes: usize) -> Self {
        let mut buffer = BytesMut::with_capacity(FrameHeader::BYTES + body_bytes);
        buffer.put_bytes(0, FrameHeader::BYTES);
        Self { buffer, count: 0 }
    }
    /// Bytes that a record of this size takes in a frame.
    pub const fn record_bytes(key_bytes: usize, data_bytes: usize) -> usize {
        RECORD_HEADER_BYTES + key_bytes + data_bytes
    }
    /// Whether another record of this size still fits the limits of a frame.
    pub fn fits(&self, key_bytes: usize, data_bytes: usize) -> bool {
        self.count < FRAME_RECORDS_MAX
            && self.buffer.len() + Self::record_bytes(key_bytes, data_bytes) <= FRAME_BYTES_MAX
    }
    /// Adds a record. It must fit ([`FrameWriter::fits`]); `key` is a valid partition key, `data` has at most 10 MiB.
    pub fn push(&mut self, key: &str, data: &[u8]) {
        assert!(self.fits(key.len(), data.len()), "the caller checks that a record fits");
        assert!(data.len() <= RECORD_DATA_BYTES_MAX);
        let key_bytes = u16::try_from(key.len()).expect("a partition key has at most 1024 bytes");
        self.buffer.put_u32_le(u32::try_from(data.len()).expect("checked above"));
        self.buffer.put_u16_le(key_bytes);
        self.buffer.put_u16_le(0);
        self.buffer.put_slice(key.as_bytes());
        self.buffer.put_slice(data);
        self.count += 1;
    }
    /// Records so far.
    pub fn count(&self) -> u32 {
        self.count
    }
    /// Bytes so far, header included.
    pub fn frame_bytes(&self) -> usize {
        self.buffer.len()
    }
    /// Whether there is no record yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
    /// Seals the frame under the producer's number for it. At least one record must be within.
    pub fn finish(mut self, producer: ProducerId, batch_number: u64) -> Frame {
        assert!(self.count > 0, "a frame of records carries at least one");
        let header = FrameHeader {
            frame_bytes: u32::try_from(self.buffer.len()).expect("bounded by FRAME_BYTES_MAX"),
            kind: FrameKind::Records,
            attributes: 0,
            body_crc: crc32fast::hash(&self.buffer[FrameHeader::BYTES..]),
            log: 0,
            first: SequenceIndex::ZERO,
            count: self.count,
            group_before: 0,
            arrival: TimestampMs::default(),
            producer,
            batch_number,
        };
        self.buffer[..FrameHeader::BYTES].copy_from_slice(&header.encode());
        Frame { header, bytes: self.buffer.freeze() }
    }
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
            PartitionKey::check(key)
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
    /// The records in order, each with its index.
    pub fn records(&self) -> RecordIter<'_> {
        RecordIter {
            body: &self.bytes[FrameHeader::BYTES..],
            bytes: &self.bytes,
            index: self.header.first,
            left: self.header.count,
        }
    }
}

/// Key, data, and what lies behind the record.
type SplitRecord<'a> = (&'a [u8], &'a [u8], &'a [u8]);

/// Splits the first record off a body.
fn split_record(body: &[u8]) -> Result<SplitRecord<'_>, FrameError> {
    let short = |needed| FrameError::Short { needed, found: body.len() };
    if body.len() < RECORD_HEADER_BYTES {
        return Err(short(RECORD_HEADER_BYTES));
    }
    let data_bytes = u32_at(body, 0) as usize;
    let key_bytes = usize::from(u16::from_le_bytes([body[4], body[5]]));
    if data_bytes > RECORD_DATA_BYTES_MAX {
        return Err(FrameError::Malformed("a record of more than 10 MiB"));
    }
    if key_bytes > PARTITION_KEY_BYTES_MAX {
        return Err(FrameError::Malformed("a partition key of more than 1024 bytes"));
    }
    if body[6] != 0 || body[7] != 0 {
        return Err(FrameError::Malformed("unknown record flags"));
    }
    let rest = &body[RECORD_HEADER_BYTES..];
    if rest.len() < key_bytes + data_bytes {
        return Err(short(RECORD_HEADER_BYTES + key_bytes + data_bytes));
    }
    let (key, rest) = rest.split_at(key_bytes);
    let (data, rest) = rest.split_at(data_bytes);
    Ok((key, data, rest))
}

/// One record inside a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// Its index in the shard.
    pub index: SequenceIndex,
    /// Its partition key.
    pub key: &'a str,
    /// Its data.
    pub data: &'a [u8],
    frame: &'a Bytes,
}

impl RecordView<'_> {
    /// The data as shared bytes, without a copy.
    pub fn data_bytes(&self) -> Bytes {
        self.frame.slice_ref(self.data)
    }
}

/// Walks the records of a frame. Ends early only on a frame that [`Frame::decode_untrusted`] would have refused.
#[derive(Debug, Clone)]
pub struct RecordIter<'a> {
    body: &'a [u8],
    bytes: &'a Bytes,
    index: SequenceIndex,
    left: u32,
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = RecordView<'a>;

    fn next(&mut self) -> Option<RecordView<'a>> {
        if self.left == 0 {
            return None;
        }
        let (key, data, rest) = split_record(self.body).ok()?;
        let key = std::str::from_utf8(key).ok()?;
        let index = self.index;
        self.body = rest;
        self.index = index.next();
        self.left -= 1;
        Some(RecordView { index, key, data, frame: self.bytes })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left as usize))
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

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
