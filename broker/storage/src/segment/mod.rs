//! Segments: the files in which a shard's frames live.
//!
//! ```text
//!  0      64                                    end        capacity
//!  header | frame | frame | frame | … | frame | stale or zero |
//! ```
//!
//! A segment is preallocated at its full size, written front to back and mapped for readers. When the next frame does not
//! fit, the segment is full: it never changes again and its index is written beside it. Segments of a log are
//! numbered without gap; none is ever sparse, truncated or changed behind its end except by what is appended.
//!
//! Not here: which bytes are durable (`shard_log`), how they got there (`commit`).

mod cache;
mod index;
mod pages;
mod pool;

pub(crate) use cache::{OpenSegment, OpenSegments};
pub(crate) use index::{IndexEntry, SparseIndex};
pub(crate) use pages::Pages;
pub(crate) use pool::{Pool, Retired};

use crate::LogId;
use crate::bytes_le::{put_u32, put_u64, u32_at, u64_at};
use tidemill_types::SequenceIndex;

/// The folder of all segments.
pub(crate) const FOLDER: &str = "segments";
const MAGIC: &[u8; 8] = b"TMSEGM01";
const SUFFIX: &str = ".segment";
const INDEX_SUFFIX: &str = ".index";

/// Which segment of which log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SegmentId {
    pub log: LogId,
    pub number: u64,
}

impl SegmentId {
    /// Its file: `segments/<log>-<number>.segment`, both in hexadecimal.
    pub(crate) fn file(self) -> String {
        format!("{FOLDER}/{:016x}-{:08x}{SUFFIX}", self.log.get(), self.number)
    }
    /// The file of its index.
    pub(crate) fn index_file(self) -> String {
        format!("{FOLDER}/{:016x}-{:08x}{INDEX_SUFFIX}", self.log.get(), self.number)
    }
    /// What a name in the folder stands for, if it follows the pattern.
    pub(crate) fn parse(name: &str) -> Option<(Self, NameKind)> {
        let (stem, kind) = match name.strip_suffix(SUFFIX) {
            Some(stem) => (stem, NameKind::Segment),
            None => (name.strip_suffix(INDEX_SUFFIX)?, NameKind::Index),
        };
        let (log, number) = stem.split_once('-')?;
        let log = LogId::new(u64::from_str_radix(log, 16).ok()?);
        let number = u64::from_str_radix(number, 16).ok()?;
        Some((Self { log, number }, kind))
    }
}

/// What a file in the folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NameKind {
    Segment,
    Index,
}

/// The first bytes of a segment: whose it is.
///
/// ```text
///  0 magic 8 | 8 crc32 of 12..64 | 12 reserved 4 | 16 log 8 | 24 number 8 | 32 base index 8 | 40 capacity 8 | 48 reserved 16
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub id: SegmentId,
    /// Index of the first frame.
    pub base: SequenceIndex,
    /// Size of the file.
    pub capacity: u64,
}

impl SegmentHeader {
    pub(crate) const BYTES: usize = 64;

    pub(crate) fn encode(&self) -> [u8; Self::BYTES] {
        let mut out = [0; Self::BYTES];
        out[..8].copy_from_slice(MAGIC);
        put_u64(&mut out, 16, self.id.log.get());
        put_u64(&mut out, 24, self.id.number);
        put_u64(&mut out, 32, self.base.get());
        put_u64(&mut out, 40, self.capacity);
        let crc = crc32fast::hash(&out[12..]);
        put_u32(&mut out, 8, crc);
        out
    }

    /// `None` unless the bytes are a header.
    pub(crate) fn decode(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        if &bytes[..8] != MAGIC || u32_at(bytes, 8) != crc32fast::hash(&bytes[12..]) {
            return None;
        }
        Some(Self {
            id: SegmentId { log: LogId::new(u64_at(bytes, 16)), number: u64_at(bytes, 24) },
            base: SequenceIndex::new(u64_at(bytes, 32)).ok()?,
            capacity: u64_at(bytes, 40),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_print_as_they_parse_and_hold_only_our_own_ids() {
        let id = SegmentId { log: LogId::new(u64::MAX), number: 17 };
        let name = id.file();
        assert_eq!(name, "segments/ffffffffffffffff-00000011.segment");
        assert_eq!(SegmentId::parse(name.strip_prefix("segments/").unwrap()), Some((id, NameKind::Segment)));
        assert_eq!(SegmentId::parse("ffffffffffffffff-00000011.index"), Some((id, NameKind::Index)));
        assert_eq!(SegmentId::parse("pool-1.segment"), None);
    }

    #[test]
    fn headers_with_any_changed_byte_are_refused() {
        let header = SegmentHeader {
            id: SegmentId { log: LogId::new(3), number: 4 },
            base: SequenceIndex::new(5).unwrap(),
            capacity: 65_536,
        };
        let bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Some(header));
        for at in 0..bytes.len() {
            let mut changed = bytes;
            changed[at] ^= 1;
            assert_eq!(SegmentHeader::decode(&changed), None, "byte {at}");
        }
    }
}
