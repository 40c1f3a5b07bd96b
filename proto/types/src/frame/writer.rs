//! Building a frame: what a producer does.

use super::records::RECORD_HEADER_BYTES;
use super::{Frame, FrameHeader, FrameKind, ProducerId};
use crate::limits::{FRAME_BYTES_MAX, FRAME_RECORDS_MAX, RECORD_DATA_BYTES_MAX};
use crate::sequence::SequenceIndex;
use crate::time::TimestampMs;
use bytes::{BufMut, BytesMut};
use std::mem::MaybeUninit;

/// How far ahead memory is fetched: more than the processor has on its way at a time would be in vain.
const FETCHED_AHEAD_MAX: usize = 4096;
#[cfg(target_arch = "x86_64")]
const CACHE_LINE_BYTES: usize = 64;

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
    /// Adds a record. It must fit ([`FrameWriter::fits`]); `key` is a valid partition key, empty for a record without one; `data` has at most 10 MiB.
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
        let spare = self.buffer.spare_capacity_mut();
        let next = Self::record_bytes(key.len(), data.len()).min(FETCHED_AHEAD_MAX).min(spare.len());
        fetch_ahead(&spare[..next]);
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

/// Has the processor fetch the memory that the next record will be written to. A producer's frames are larger than its caches, and a
/// record that is copied to where nothing is cached holds up the next locked instruction until it has arrived: a put took 490 ns,
/// 170 of them so, and takes 320 when the memory is fetched while other shards have their turn (1 KiB records, 8 shards).
fn fetch_ahead(memory: &[MaybeUninit<u8>]) {
    #[cfg(target_arch = "x86_64")]
    for line in memory.chunks(CACHE_LINE_BYTES) {
        use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
        // SAFETY: a hint; it reads and writes nothing, whatever the address
        #[allow(unsafe_code)]
        unsafe {
            _mm_prefetch::<_MM_HINT_ET0>(line.as_ptr().cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = memory; // no such instruction in stable Rust
}
