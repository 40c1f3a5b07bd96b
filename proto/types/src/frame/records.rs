//! The records inside a frame.

use super::FrameError;
use super::header::u32_at;
use crate::limits::{PARTITION_KEY_BYTES_MAX, RECORD_DATA_BYTES_MAX};
use crate::sequence::SequenceIndex;
use bytes::Bytes;
use std::ops::Range;

pub(super) const RECORD_HEADER_BYTES: usize = 8;

/// Key, data, and what lies behind the record.
pub(super) type SplitRecord<'a> = (&'a [u8], &'a [u8], &'a [u8]);

/// Splits the first record off a body.
pub(super) fn split_record(body: &[u8]) -> Result<SplitRecord<'_>, FrameError> {
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
    /// Its partition key; empty if it has none.
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
    /// Where the key and the data lie in the bytes of the frame.
    pub fn places(&self) -> [Range<usize>; 2] {
        [self.key.as_bytes(), self.data].map(|part| {
            let begin = part.as_ptr().addr() - self.frame.as_ptr().addr();
            begin..begin + part.len()
        })
    }
}

/// Walks the records of a frame. Ends early only on a frame that [`super::Frame::decode_untrusted`] would have refused.
#[derive(Debug, Clone)]
pub struct RecordIter<'a> {
    pub(super) body: &'a [u8],
    pub(super) bytes: &'a Bytes,
    pub(super) index: SequenceIndex,
    pub(super) left: u32,
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
