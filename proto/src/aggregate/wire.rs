//! As much of the encoding of protobuf as the format needs: fields of varints and of bytes, others skipped.
//!
//! Why by hand: a body of ten million bytes can name millions of tiny records; walked like this they cost no memory until
//! somebody takes them, and required members that are missing are noticed.

use std::ops::Range;

/// The bytes are not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// One field of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) number: u64,
    pub(super) value: Value,
}

/// What a field holds; bytes by their place.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Value {
    Varint(u64),
    Bytes(Range<usize>),
    Fixed,
}

/// The fields of a message, one by one; ends at its end, or with the first thing that is no field.
pub(super) fn fields(message: &[u8]) -> Fields<'_> {
    Fields { message, at: 0 }
}

pub(super) struct Fields<'a> {
    message: &'a [u8],
    at: usize,
}

impl Fields<'_> {
    /// Where the next field begins.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.message.get(self.at).ok_or(Malformed)?;
            self.at += 1;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(Malformed);
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    fn skip(&mut self, bytes: u64) -> Result<Range<usize>, Malformed> {
        let left = (self.message.len() - self.at) as u64;
        if bytes > left {
            return Err(Malformed);
        }
        let start = self.at;
        self.at += usize::try_from(bytes).map_err(|_| Malformed)?;
        Ok(start..self.at)
    }

    fn field(&mut self) -> Result<Field, Malformed> {
        let tag = self.varint()?;
        let number = tag >> 3;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.skip(8).map(|_| Value::Fixed)?,
            2 => {
                let bytes = self.varint()?;
                Value::Bytes(self.skip(bytes)?)
            }
            5 => self.skip(4).map(|_| Value::Fixed)?,
            _ => return Err(Malformed),
        };
        if number == 0 { Err(Malformed) } else { Ok(Field { number, value }) }
    }
}

impl Iterator for Fields<'_> {
    type Item = Result<Field, Malformed>;
    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.message.len() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.at = self.message.len();
        }
        Some(field)
    }
}

/// Writes a field that holds a number.
pub(super) fn put_varint(into: &mut Vec<u8>, number: u64, value: u64) {
    raw_varint(into, number << 3);
    raw_varint(into, value);
}

/// Writes a field that holds bytes.
pub(super) fn put_bytes(into: &mut Vec<u8>, number: u64, value: &[u8]) {
    raw_varint(into, number << 3 | 2);
    raw_varint(into, value.len() as u64);
    into.extend_from_slice(value);
}

fn raw_varint(into: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        into.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    into.push(value.to_le_bytes()[0]);
}

/// Bytes that [`put_varint`] writes.
pub(super) fn varint_field_bytes(number: u64, value: u64) -> usize {
    varint_bytes(number << 3) + varint_bytes(value)
}

/// Bytes that [`put_bytes`] writes for so many.
pub(super) fn bytes_field_bytes(number: u64, bytes: usize) -> usize {
    varint_bytes(number << 3 | 2) + varint_bytes(bytes as u64) + bytes
}

fn varint_bytes(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}
