//! The bytes of the journal.
//!
//! ```text
//!  file:   block 0 (4 KiB)  magic 8 | crc32 of 12..64 | flags 4 | generation 8 | first group 8 | file bytes 8 | zero
//!          groups, each aligned to 4 KiB
//!  group:  magic 4 | crc32 of the rest of the heads 4 | generation 8 | number 8 | frame bytes 8 | runs 4 | zero 12
//!          per run: log 8 | segment 8 | base index 8 | capacity 8 | offset 8 | bytes 8 | zero 8
//!          the frames of all runs, one behind the other | zero to 4 KiB
//! ```
//!
//! A run names its place wholly, so that replay can make a segment anew. A frame's own checksums cover its bytes; the group's
//! covers the heads alone. A generation is given out once: what an earlier use of a file left behind never counts.

use crate::LogId;
use crate::bytes_le::{Fields, put_u32, put_u64, u32_at, u64_at};
use crate::disk::ALIGNMENT;
use crate::segment::{SegmentHeader, SegmentId};
use bytes::Bytes;
use tidemill_types::{Epoch, Frame, FrameHeader, SequenceIndex};

const FILE_MAGIC: &[u8; 8] = b"TMJRNL01";
const GROUP_MAGIC: u32 = u32::from_le_bytes(*b"TMGR");
/// Flag: each group was durable before the next was written.
const SYNCHRONOUS: u32 = 1;
pub(crate) const GROUP_HEAD_BYTES: usize = 48;
pub(crate) const RUN_HEAD_BYTES: usize = 56;

/// Whether a file's groups were made durable one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durable {
    EachGroup,
    Later,
}

/// Block 0 of a journal file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileHeader {
    pub generation: u64,
    pub first_group: u64,
    pub file_bytes: u64,
    pub durable: Durable,
}

impl FileHeader {
    pub(super) const BYTES: usize = 64;

    pub(crate) fn encode(&self) -> [u8; Self::BYTES] {
        let mut out = [0; Self::BYTES];
        out[..8].copy_from_slice(FILE_MAGIC);
        put_u32(&mut out, 12, if self.durable == Durable::EachGroup { SYNCHRONOUS } else { 0 });
        put_u64(&mut out, 16, self.generation);
        put_u64(&mut out, 24, self.first_group);
        put_u64(&mut out, 32, self.file_bytes);
        let crc = crc32fast::hash(&out[12..]);
        put_u32(&mut out, 8, crc);
        out
    }

    /// `None` unless the bytes begin with the header of a file of this size.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.first_chunk::<{ Self::BYTES }>()?;
        if &bytes[..8] != FILE_MAGIC || u32_at(bytes, 8) != crc32fast::hash(&bytes[12..]) {
            return None;
        }
        let durable = if u32_at(bytes, 12) & SYNCHRONOUS != 0 { Durable::EachGroup } else { Durable::Later };
        let file_bytes = u64_at(bytes, 32);
        Some(Self { generation: u64_at(bytes, 16), first_group: u64_at(bytes, 24), file_bytes, durable })
    }
}

/// The heads of a group whose frames lie where `runs` say.
pub(crate) fn encode_group_heads(
    out: &mut [u8],
    generation: u64,
    number: u64,
    runs: &[(SegmentHeader, u64, u64)],
) {
    put_u32(out, 0, GROUP_MAGIC);
    put_u64(out, 8, generation);
    put_u64(out, 16, number);
    put_u64(out, 24, runs.iter().map(|(_, _, bytes)| bytes).sum());
    put_u32(out, 32, u32::try_from(runs.len()).expect("a group is bounded in bytes"));
    for (at, (segment, offset, bytes)) in runs.iter().enumerate() {
        let at = GROUP_HEAD_BYTES + at * RUN_HEAD_BYTES;
        put_u64(out, at, segment.id.log.get());
        put_u64(out, at + 8, segment.id.number);
        put_u64(out, at + 16, segment.base.get());
        put_u64(out, at + 24, segment.capacity);
        put_u64(out, at + 32, *offset);
        put_u64(out, at + 40, *bytes);
    }
    let heads = GROUP_HEAD_BYTES + runs.len() * RUN_HEAD_BYTES;
    let crc = crc32fast::hash(&out[8..heads]);
    put_u32(out, 4, crc);
}

/// Frames that replay puts to their place.
#[derive(Debug, Clone)]
pub(crate) struct ReplayRun {
    pub segment: SegmentHeader,
    pub offset: u64,
    pub bytes: Bytes,
}

/// A whole group, every frame checked.
#[derive(Debug, Clone)]
pub(crate) struct ReplayGroup {
    pub number: u64,
    pub runs: Vec<ReplayRun>,
    /// What it takes in the file.
    pub file_bytes: usize,
}

impl ReplayGroup {
    /// Whether it was written before this epoch. One that only announces frames does not tell.
    pub(crate) fn is_before(&self, epoch: Epoch) -> bool {
        self.epoch().is_some_and(|own| own < epoch)
    }

    /// The epoch in which it was written; none if it only announces frames.
    pub(crate) fn epoch(&self) -> Option<Epoch> {
        let frames = self.runs.iter().filter_map(|run| FrameHeader::decode(&run.bytes).ok());
        frames.map(|header| header.first.epoch()).max()
    }
}

/// Reads the group at the start of `bytes`; `None` unless all of it is intact and of this generation.
pub(crate) fn decode_group(bytes: &Bytes, generation: u64) -> Option<ReplayGroup> {
    if bytes.len() < GROUP_HEAD_BYTES || u32_at(bytes, 0) != GROUP_MAGIC || u64_at(bytes, 8) != generation {
        return None;
    }
    let count = usize::try_from(u32_at(bytes, 32)).ok()?;
    let heads = count.checked_mul(RUN_HEAD_BYTES)?.checked_add(GROUP_HEAD_BYTES)?;
    if heads > bytes.len() || u32_at(bytes, 4) != crc32fast::hash(&bytes[8..heads]) {
        return None;
    }
    let frame_bytes = usize::try_from(u64_at(bytes, 24)).ok()?;
    let end = heads.checked_add(frame_bytes)?;
    if end > bytes.len() {
        return None;
    }
    let mut fields = Fields(&bytes[GROUP_HEAD_BYTES..heads]);
    let mut at = heads;
    let mut runs = Vec::with_capacity(count);
    for _ in 0..count {
        let id = SegmentId { log: LogId::new(fields.u64()?), number: fields.u64()? };
        let segment =
            SegmentHeader { id, base: SequenceIndex::new(fields.u64()?).ok()?, capacity: fields.u64()? };
        let (offset, length) = (fields.u64()?, usize::try_from(fields.u64()?).ok()?);
        fields.u64()?;
        let run_end = at.checked_add(length).filter(|run_end| *run_end <= end)?;
        if offset < SegmentHeader::BYTES as u64 || offset.checked_add(length as u64)? > segment.capacity {
            return None;
        }
        let run = ReplayRun { segment, offset, bytes: bytes.slice(at..run_end) };
        frames_are_intact(&run)?;
        runs.push(run);
        at = run_end;
    }
    (at == end).then(|| ReplayGroup {
        number: u64_at(bytes, 16),
        runs,
        file_bytes: end.next_multiple_of(ALIGNMENT),
    })
}

fn frames_are_intact(run: &ReplayRun) -> Option<()> {
    let mut rest = run.bytes.clone();
    while !rest.is_empty() {
        let frame = Frame::decode(&rest).ok()?;
        if frame.header().log != run.segment.id.log.get() {
            return None;
        }
        rest = rest.slice(frame.bytes().len()..);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn file_headers_with_any_changed_byte_are_refused() {
        let header =
            FileHeader { generation: 3, first_group: 9, file_bytes: 1 << 20, durable: Durable::EachGroup };
        let bytes = header.encode();
        assert_eq!(FileHeader::decode(&bytes), Some(header));
        for at in 0..bytes.len() {
            let mut changed = bytes;
            changed[at] ^= 4;
            assert_eq!(FileHeader::decode(&changed), None, "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn garbage_is_no_group_and_no_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), generation: u64) {
            if bytes.len() >= 16 {
                put_u32(&mut bytes, 0, GROUP_MAGIC);
                put_u64(&mut bytes, 8, generation);
            }
            prop_assert!(decode_group(&Bytes::from(bytes), generation).is_none());
        }
    }
}
