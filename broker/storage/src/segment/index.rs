//! The sparse index of a segment: every so many bytes, which frame begins there and when it arrived.
//!
//! Kept in memory for the segment being filled (and in checkpoints), written beside a full one as a sidecar:
//!
//! ```text
//!  0 magic 8 | 8 crc32 of 12.. | 12 entries 4 | 16 log 8 | 24 number 8 | then per entry: index 8, arrival 8, offset 8
//! ```
//!
//! A sidecar is an aid: a missing or damaged one is made anew by walking the segment.

use super::SegmentId;
use crate::bytes_le::{Fields, put_u32, u32_at};
use tidemill_types::{FrameHeader, SequenceIndex, TimestampMs};

const MAGIC: &[u8; 8] = b"TMINDX01";
const SPACING_MIN: u64 = 64 << 10;
const ENTRIES_MAX: u64 = 512;

/// A frame and where it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    pub first: SequenceIndex,
    pub arrival: TimestampMs,
    pub offset: u64,
}

/// Entries in the order of the segment: indexes, arrivals and offsets all rise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SparseIndex {
    entries: Vec<IndexEntry>,
    spacing: u64,
}

impl SparseIndex {
    /// Of an empty segment of this capacity. Every 64 KiB, or wider in large segments so that entries stay few: a seek
    /// walks at most one spacing of frame headers.
    pub(crate) fn new(capacity: u64) -> Self {
        Self { entries: Vec::new(), spacing: SPACING_MIN.max(capacity / ENTRIES_MAX) }
    }
    /// From stored entries.
    pub(crate) fn from_entries(capacity: u64, entries: Vec<IndexEntry>) -> Self {
        Self { entries, ..Self::new(capacity) }
    }
    /// Notes the frame at `offset`, the next of the segment.
    pub(crate) fn note(&mut self, header: &FrameHeader, offset: u64) {
        if self.entries.last().is_none_or(|last| offset >= last.offset + self.spacing) {
            if self.entries.is_empty() {
                self.entries.reserve_exact(1); // all that an idle shard needs
            }
            self.entries.push(IndexEntry { first: header.first, arrival: header.arrival, offset });
        }
    }
    pub(crate) fn entries(&self) -> &[IndexEntry] {
        &self.entries
    }
    /// Where to begin walking for the frame that holds `index`; `None`: at the first frame.
    pub(crate) fn seek(&self, index: SequenceIndex) -> Option<u64> {
        let after = self.entries.partition_point(|entry| entry.first <= index);
        after.checked_sub(1).map(|at| self.entries[at].offset)
    }
    /// Where to begin walking for the first frame that arrived at or after `time`; `None`: at the first frame.
    pub(crate) fn seek_time(&self, time: TimestampMs) -> Option<u64> {
        let after = self.entries.partition_point(|entry| entry.arrival < time);
        after.checked_sub(1).map(|at| self.entries[at].offset)
    }

    /// The bytes of the sidecar.
    pub(crate) fn encode(&self, id: SegmentId) -> Vec<u8> {
        let mut out = Vec::with_capacity(32 + self.entries.len() * 24);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(
            &u32::try_from(self.entries.len()).expect("bounded by ENTRIES_MAX").to_le_bytes(),
        );
        out.extend_from_slice(&id.log.get().to_le_bytes());
        out.extend_from_slice(&id.number.to_le_bytes());
        for entry in &self.entries {
            out.extend_from_slice(&entry.first.get().to_le_bytes());
            out.extend_from_slice(&entry.arrival.get().to_le_bytes());
            out.extend_from_slice(&entry.offset.to_le_bytes());
        }
        let crc = crc32fast::hash(&out[12..]);
        put_u32(&mut out, 8, crc);
        out
    }

    /// `None` unless the bytes are the sidecar of this segment.
    pub(crate) fn decode(id: SegmentId, capacity: u64, bytes: &[u8]) -> Option<Self> {
        if bytes.len() < 32 || &bytes[..8] != MAGIC || u32_at(bytes, 8) != crc32fast::hash(&bytes[12..]) {
            return None;
        }
        let mut fields = Fields(&bytes[12..]);
        let count = fields.count(24)?;
        if fields.u64()? != id.log.get() || fields.u64()? != id.number {
            return None;
        }
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            let first = SequenceIndex::new(fields.u64()?).ok()?;
            entries.push(IndexEntry {
                first,
                arrival: TimestampMs::new(fields.u64()?),
                offset: fields.u64()?,
            });
        }
        Some(Self::from_entries(capacity, entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LogId;
    use proptest::prelude::*;
    use tidemill_types::{FrameKind, ProducerId};

    fn header(first: u64, arrival: u64) -> FrameHeader {
        FrameHeader {
            frame_bytes: 64,
            kind: FrameKind::Records,
            attributes: 0,
            body_crc: 0,
            log: 1,
            first: SequenceIndex::new(first).unwrap(),
            count: 1,
            group_before: 0,
            arrival: TimestampMs::new(arrival),
            producer: ProducerId::NONE,
            batch_number: 0,
        }
    }

    proptest! {
        /// The index may send a reader to an earlier frame, never past the one it looks for.
        #[test]
        fn a_seek_lands_at_or_before_the_frame(
            steps in proptest::collection::vec((1u64..50, 0u64..5, 64u64..40_000), 1..200), pick: proptest::sample::Index,
        ) {
            let mut index = SparseIndex::new(1 << 20);
            let (mut first, mut arrival, mut offset) = (1, 100, 64);
            let mut frames = Vec::new();
            for (records, ms, bytes) in steps {
                index.note(&header(first, arrival), offset);
                frames.push((first, arrival, offset));
                first += records;
                arrival += ms;
                offset += bytes;
            }
            let (first, arrival, offset) = frames[pick.index(frames.len())];
            prop_assert!(index.seek(SequenceIndex::new(first).unwrap()).unwrap() <= offset);
            let earliest = frames.iter().find(|f| f.1 >= arrival).unwrap();
            prop_assert!(index.seek_time(TimestampMs::new(arrival)).unwrap_or(64) <= earliest.2);
            let id = SegmentId { log: LogId::new(1), number: 2 };
            let bytes = index.encode(id);
            prop_assert_eq!(SparseIndex::decode(id, 1 << 20, &bytes), Some(index));
            let mut changed = bytes.clone();
            let at = pick.index(bytes.len());
            changed[at] ^= 0x10;
            prop_assert_eq!(SparseIndex::decode(id, 1 << 20, &changed), None);
            prop_assert_eq!(SparseIndex::decode(SegmentId { number: 3, ..id }, 1 << 20, &bytes), None);
        }
    }
}
