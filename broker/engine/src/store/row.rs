//! How values of the metadata store are written: a version byte, then fields one behind the other, integers
//! little-endian, texts with their length in front. No names, no padding.
//!
//! These bytes outlive the process: FORMAT.md lists the fields of each kind of row; a change needs a new version.

use crate::error::{Error, ErrorKind, Result};
use bytes::{BufMut, Bytes, BytesMut};

/// Builds a row.
pub(crate) struct RowWriter {
    bytes: BytesMut,
}

impl RowWriter {
    /// A row of this version.
    pub(crate) fn new(version: u8) -> Self {
        Self { bytes: BytesMut::from(&[version][..]) }
    }
    pub(crate) fn u8(mut self, value: u8) -> Self {
        self.bytes.put_u8(value);
        self
    }
    pub(crate) fn u32(mut self, value: u32) -> Self {
        self.bytes.put_u32_le(value);
        self
    }
    pub(crate) fn u64(mut self, value: u64) -> Self {
        self.bytes.put_u64_le(value);
        self
    }
    pub(crate) fn u128(mut self, value: u128) -> Self {
        self.bytes.put_u128_le(value);
        self
    }
    /// Bytes of a length that the row's version tells.
    pub(crate) fn bytes(mut self, value: &[u8]) -> Self {
        self.bytes.put_slice(value);
        self
    }
    /// A text of at most 65,535 bytes.
    pub(crate) fn text(mut self, value: &str) -> Self {
        self.bytes.put_u16_le(u16::try_from(value.len()).expect("every text is bounded where it comes in"));
        self.bytes.put_slice(value.as_bytes());
        self
    }
    /// At most 65,535 bytes.
    pub(crate) fn blob(mut self, value: &[u8]) -> Self {
        self.bytes.put_u16_le(u16::try_from(value.len()).expect("what is kept is bounded where it comes in"));
        self.bytes.put_slice(value);
        self
    }
    pub(crate) fn finish(self) -> Bytes {
        self.bytes.freeze()
    }
}

/// Reads a row, field by field, in the order they were written. Bytes that do not fit are an error, never a panic.
#[derive(Debug)]
pub(crate) struct RowReader<'a> {
    what: &'static str,
    bytes: &'a [u8],
    version: u8,
}

impl<'a> RowReader<'a> {
    /// Over `bytes`, a row of the kind `what`; an error if it is of a later version than `known`.
    pub(crate) fn new(what: &'static str, bytes: &'a [u8], known: u8) -> Result<Self> {
        let mut row = Self { what, bytes, version: 0 };
        row.version = row.u8()?;
        if row.version == 0 || row.version > known {
            let version = row.version;
            return Err(Error::new(
                ErrorKind::Damaged,
                format!(
                    "the {what} in the metadata store has version {version}; this program knows up to {known}"
                ),
            ));
        }
        Ok(row)
    }
    /// The version it was written in.
    pub(crate) fn version(&self) -> u8 {
        self.version
    }
    /// An error that says the row makes no sense.
    pub(crate) fn damaged(&self, why: impl std::fmt::Display) -> Error {
        Error::new(ErrorKind::Damaged, format!("the {} in the metadata store is damaged: {why}", self.what))
    }
    /// So many bytes.
    pub(crate) fn bytes<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.take()
    }
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let Some((head, rest)) = self.bytes.split_first_chunk::<N>() else {
            return Err(self.damaged("it is too short"));
        };
        self.bytes = rest;
        Ok(*head)
    }
    pub(crate) fn u8(&mut self) -> Result<u8> {
        self.take::<1>().map(|b| b[0])
    }
    pub(crate) fn u32(&mut self) -> Result<u32> {
        self.take().map(u32::from_le_bytes)
    }
    pub(crate) fn u64(&mut self) -> Result<u64> {
        self.take().map(u64::from_le_bytes)
    }
    pub(crate) fn u128(&mut self) -> Result<u128> {
        self.take().map(u128::from_le_bytes)
    }
    pub(crate) fn text(&mut self) -> Result<&'a str> {
        std::str::from_utf8(self.blob()?).map_err(|_| self.damaged("a text is not UTF-8"))
    }
    pub(crate) fn blob(&mut self) -> Result<&'a [u8]> {
        let length = usize::from(u16::from_le_bytes(self.take()?));
        if self.bytes.len() < length {
            return Err(self.damaged("it is too short"));
        }
        let (blob, rest) = self.bytes.split_at(length);
        self.bytes = rest;
        Ok(blob)
    }
    /// The end: nothing may be left.
    pub(crate) fn finish(self) -> Result<()> {
        if self.bytes.is_empty() { Ok(()) } else { Err(self.damaged("bytes behind its end")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_read_as_they_were_written() {
        let row = RowWriter::new(1).u8(7).u32(8).u64(u64::MAX).u128(u128::MAX).text("日本").finish();
        let mut reader = RowReader::new("row", &row, 1).unwrap();
        assert_eq!((reader.u8().unwrap(), reader.u32().unwrap()), (7, 8));
        assert_eq!((reader.u64().unwrap(), reader.u128().unwrap()), (u64::MAX, u128::MAX));
        assert_eq!(reader.text().unwrap(), "日本");
        reader.finish().unwrap();
    }

    #[test]
    fn a_row_that_is_cut_or_too_long_or_too_new_is_told() {
        let row = RowWriter::new(1).u64(5).text("abc").finish();
        for cut in 0..row.len() {
            let read = RowReader::new("row", &row[..cut], 1).and_then(|mut r| {
                r.u64()?;
                r.text()?;
                r.finish()
            });
            assert_eq!(read.unwrap_err().kind(), ErrorKind::Damaged, "cut at {cut}");
        }
        let mut reader = RowReader::new("row", &row, 1).unwrap();
        reader.u64().unwrap();
        assert!(reader.finish().is_err());
        assert!(RowReader::new("row", &row, 0).unwrap_err().to_string().contains("version 1"));
    }
}
