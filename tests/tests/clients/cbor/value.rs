//! As much of CBOR (RFC 8949) as the replies of this protocol have, and the requests of these tests need.

use anyhow::{Context, Result, bail, ensure};

/// Replies nest no deeper.
const DEPTH_MAX: usize = 16;

/// A decoded value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Number(i128),
    Bytes(Vec<u8>),
    Text(String),
    List(Vec<Value>),
    Map(Vec<(String, Value)>),
    Tagged(u64, Box<Value>),
    Bool(bool),
    Null,
}

impl Value {
    /// A member of a map.
    pub(crate) fn at(&self, name: &str) -> Option<&Value> {
        match self {
            Self::Map(members) => members.iter().find(|(known, _)| known == name).map(|(_, value)| value),
            _ => None,
        }
    }
}

/// Bytes from hexadecimal digits.
pub(crate) fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits.bytes().filter(|digit| !digit.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).expect("digits are ASCII");
        u8::from_str_radix(pair, 16).expect("two hexadecimal digits")
    };
    digits.chunks(2).map(byte).collect()
}

/// A text of less than 64 KiB, encoded.
pub(crate) fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).expect("a short text");
    let head = match u8::try_from(length) {
        Ok(short @ ..24) => vec![0x60 | short],
        Ok(short) => vec![0x78, short],
        Err(_) => [vec![0x79], length.to_be_bytes().to_vec()].concat(),
    };
    [head, text.as_bytes().to_vec()].concat()
}

/// A map without a length, of members that are encoded already.
pub(crate) fn object(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = vec![0xbf];
    for (name, value) in members {
        bytes.extend(text(name));
        bytes.extend(value);
    }
    bytes.push(0xff);
    bytes
}

/// The one value that `bytes` are.
pub(crate) fn decode(bytes: &[u8]) -> Result<Value> {
    let mut reader = Reader { bytes, at: 0 };
    let value = reader.value(0)?;
    ensure!(reader.at == bytes.len(), "bytes behind the value, at {}", reader.at);
    Ok(value)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn take(&mut self, count: usize) -> Result<&[u8]> {
        let end = self.at.checked_add(count).context("a length past all bounds")?;
        let taken = self.bytes.get(self.at..end).with_context(|| format!("cut short at {}", self.at))?;
        self.at = end;
        Ok(taken)
    }

    /// Major type and argument; no argument where the length is left open.
    fn head(&mut self) -> Result<(u8, Option<u64>)> {
        let first = self.take(1)?[0];
        let argument = match first & 0x1f {
            short @ ..24 => Some(u64::from(short)),
            sized @ 24..=27 => {
                let bytes = self.take(1 << (sized - 24))?;
                Some(bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
            }
            31 => None,
            other => bail!("additional information {other} has no meaning"),
        };
        Ok((first >> 5, argument))
    }

    /// Whether another member follows.
    fn more(&mut self, left: &mut Option<u64>) -> Result<bool> {
        match left {
            Some(0) => Ok(false),
            Some(count) => {
                *count -= 1;
                Ok(true)
            }
            None if self.bytes.get(self.at) == Some(&0xff) => {
                self.at += 1;
                Ok(false)
            }
            None => Ok(true),
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value> {
        ensure!(depth < DEPTH_MAX, "nested too deep");
        let at = self.at;
        let (major, argument) = self.head()?;
        Ok(match (major, argument) {
            (0, Some(number)) => Value::Number(number.into()),
            (1, Some(number)) => Value::Number(-1 - i128::from(number)),
            (2, Some(length)) => Value::Bytes(self.take(usize::try_from(length)?)?.to_vec()),
            (3, Some(length)) => {
                Value::Text(String::from_utf8(self.take(usize::try_from(length)?)?.to_vec())?)
            }
            (4, mut left) => {
                let mut list = Vec::new();
                while self.more(&mut left)? {
                    list.push(self.value(depth + 1)?);
                }
                Value::List(list)
            }
            (5, mut left) => {
                let mut members = Vec::new();
                while self.more(&mut left)? {
                    let Value::Text(name) = self.value(depth + 1)? else {
                        bail!("a name is no text, at {at}")
                    };
                    members.push((name, self.value(depth + 1)?));
                }
                Value::Map(members)
            }
            (6, Some(tag)) => Value::Tagged(tag, Box::new(self.value(depth + 1)?)),
            (7, Some(20 | 21)) => Value::Bool(argument == Some(21)),
            (7, Some(22)) => Value::Null,
            other => bail!("unexpected {other:?} at {at}"),
        })
    }
}
