//! The header of a frame: 64 bytes, drawn in the parent module.

use super::sealed::SEALED_EXTRA_BYTES;
use super::{FrameError, FrameKind, ProducerId};
use crate::limits::{FRAME_BYTES_MAX, FRAME_RECORDS_MAX};
use crate::sequence::SequenceIndex;
use crate::time::TimestampMs;

const VERSION: u8 = 1;

/// The fields of a frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Bytes of the whole frame, header included.
    pub frame_bytes: u32,
    /// What it says.
    pub kind: FrameKind,
    /// 0, or [`FrameHeader::SEALED`].
    pub attributes: u16,
    /// crc32 of the body.
    pub body_crc: u32,
    /// Identity of the shard's log (`LogId` of the storage).
    pub log: u64,
    /// Index of the first record.
    pub first: SequenceIndex,
    /// Records within, or lost there.
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
    /// The attribute of a frame whose body is encrypted.
    pub const SEALED: u16 = 1;

    /// Whether the body is encrypted.
    pub const fn is_sealed(&self) -> bool {
        self.attributes & Self::SEALED != 0
    }

    /// Sequence indexes the frame takes: its records, those that were lost, or one for a close.
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
            FrameKind::Lost => 2,
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
            2 => FrameKind::Lost,
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
        if self.attributes & !Self::SEALED != 0 {
            return Err(FrameError::Malformed("unknown attributes"));
        }
        let bytes = self.frame_bytes as usize;
        let extra = if self.is_sealed() { SEALED_EXTRA_BYTES } else { 0 };
        if !(Self::BYTES + extra..=FRAME_BYTES_MAX + extra).contains(&bytes) {
            return Err(FrameError::Malformed("length out of bounds"));
        }
        if self.count > FRAME_RECORDS_MAX {
            return Err(FrameError::Malformed("too many records"));
        }
        match self.kind {
            FrameKind::Records if self.count == 0 => Err(FrameError::Malformed("no record within")),
            FrameKind::Close if self.count != 0 || self.attributes != 0 || bytes != Self::BYTES => {
                Err(FrameError::Malformed("a close carries nothing"))
            }
            FrameKind::Lost if self.count == 0 || self.attributes != 0 => {
                Err(FrameError::Malformed("lost records are at least one, and not sealed"))
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

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    (u64::from(u32_at(bytes, at + 4)) << 32) | u64::from(u32_at(bytes, at))
}
