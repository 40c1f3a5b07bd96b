//! The decoded request, and the rules by which its values become members of shapes.
//!
//! Unknown members and nulls count as absent. A value of the wrong kind is a `SerializationException` in the words of
//! AWS. Numbers are floored to integers and clamped to their width.

use super::{Encoding, base64};
use crate::aws::error::{ApiError, Code};
use bytes::Bytes;
use std::borrow::Cow;
use std::collections::BTreeMap;
use tidemill_types::TimestampMs;

/// A number as it was written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Number {
    Whole(i64),
    Fraction(f64),
}

impl Number {
    fn floor(self) -> i64 {
        match self {
            Self::Whole(value) => value,
            // a cast of a float saturates
            Self::Fraction(value) => value.floor() as i64,
        }
    }
    fn as_f64(self) -> f64 {
        match self {
            Self::Whole(value) => value as f64,
            Self::Fraction(value) => value,
        }
    }
}

/// A value of a request body. Texts and byte strings borrow from the body, unless they held escapes or came in chunks.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node<'a> {
    Null,
    Bool(bool),
    Number(Number),
    Text(Cow<'a, str>),
    /// A blob in CBOR. JSON has none: there blobs are texts.
    Bytes(Cow<'a, [u8]>),
    List(Vec<Node<'a>>),
    Map(Vec<(Cow<'a, str>, Node<'a>)>),
}

type Result<T> = std::result::Result<T, ApiError>;

impl<'a> Node<'a> {
    /// The members of a structure that came in `encoding`.
    pub(crate) fn into_fields(self, encoding: Encoding) -> Result<Fields<'a>> {
        match self {
            Self::Map(members) => Ok(Fields { members, encoding }),
            Self::Null => Ok(Fields { members: Vec::new(), encoding }),
            Self::List(_) => Err(found_list()),
            _ => Err(ApiError::serialization("Expected null")),
        }
    }

    fn into_text(self) -> Result<String> {
        match self {
            Self::Text(text) => Ok(text.into_owned()),
            other => Err(other.mismatch("an String")),
        }
    }

    /// That this value is of the wrong kind for `target`.
    fn mismatch(&self, target: &str) -> ApiError {
        let class = match self {
            Self::List(_) => return found_list(),
            Self::Map(_) => return found_map(),
            Self::Null => return ApiError::bare(Code::Serialization),
            Self::Bool(_) => "java.lang.Boolean",
            Self::Number(_) => "com.amazon.coral.value.json.numbers.TruncatingBigNumber",
            Self::Text(_) => "java.lang.String",
            Self::Bytes(_) => "java.nio.HeapByteBuffer",
        };
        ApiError::serialization(format!("class {class} can not be converted to {target}"))
    }
}

fn found_list() -> ApiError {
    ApiError::serialization("Start of list found where not expected")
}

fn found_map() -> ApiError {
    ApiError::serialization("Start of structure or map found where not expected.")
}

/// The members of a structure, from which a shape takes those it knows. Of a repeated name the last counts.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    members: Vec<(Cow<'a, str>, Node<'a>)>,
    /// What blobs and times look like.
    encoding: Encoding,
}

impl<'a> Fields<'a> {
    fn take(&mut self, name: &str) -> Option<Node<'a>> {
        let (_, node) = self.members.iter_mut().rev().find(|(key, _)| key == name)?;
        match std::mem::replace(node, Node::Null) {
            Node::Null => None,
            node => Some(node),
        }
    }

    pub(crate) fn text(&mut self, name: &str) -> Result<Option<String>> {
        self.take(name).map(Node::into_text).transpose()
    }

    pub(crate) fn integer(&mut self, name: &str) -> Result<Option<i32>> {
        let convert = |node| match node {
            Node::Number(number) => {
                let clamped = number.floor().clamp(i64::from(i32::MIN), i64::from(i32::MAX));
                Ok(i32::try_from(clamped).expect("it was clamped to the range"))
            }
            other => Err(other.mismatch("an Integer")),
        };
        self.take(name).map(convert).transpose()
    }

    pub(crate) fn boolean(&mut self, name: &str) -> Result<Option<bool>> {
        let convert = |node| match node {
            Node::Bool(value) => Ok(value),
            Node::Text(text) => {
                let shown = excerpt(&text).to_uppercase();
                Err(ApiError::serialization(format!("'{shown}' can not be converted to an Boolean")))
            }
            other => Err(other.mismatch("an Boolean")),
        };
        self.take(name).map(convert).transpose()
    }

    /// Bytes: a base64 text in JSON, a byte string in CBOR.
    pub(crate) fn blob(&mut self, name: &str) -> Result<Option<Bytes>> {
        let encoding = self.encoding;
        let convert = |node| match node {
            Node::Text(text) if encoding == Encoding::Json => base64::decode(&text).map_err(|reason| {
                let shown = excerpt(&text);
                ApiError::serialization(format!("'{shown}' can not be converted to a Blob: {reason}"))
            }),
            Node::Bytes(bytes) => Ok(Bytes::from(bytes.into_owned())),
            other => Err(other.mismatch("a Blob")),
        };
        self.take(name).map(convert).transpose()
    }

    /// A time since the epoch: milliseconds in CBOR, seconds with a fraction in JSON. Old Java SDKs send milliseconds in
    /// JSON too; a number that large would be the year 5138 in seconds, so it is taken for milliseconds.
    pub(crate) fn timestamp(&mut self, name: &str) -> Result<Option<TimestampMs>> {
        const SECONDS_MAX: f64 = 1e11;
        let encoding = self.encoding;
        let convert = |node| match node {
            Node::Number(number) => {
                let value = number.as_f64();
                let in_seconds = encoding == Encoding::Json && value <= SECONDS_MAX;
                let ms = if in_seconds { value * 1000.0 } else { value };
                Ok(TimestampMs::new(ms.round() as u64)) // a negative one saturates to the epoch
            }
            other => Err(other.mismatch("milliseconds since epoch")),
        };
        self.take(name).map(convert).transpose()
    }

    /// The elements of a list of structures; a null element is a structure without members.
    pub(crate) fn structures(&mut self, name: &str) -> Result<Option<Vec<Fields<'a>>>> {
        match self.take(name) {
            None => Ok(None),
            Some(Node::List(items)) => {
                let encoding = self.encoding;
                items.into_iter().map(|item| item.into_fields(encoding)).collect::<Result<_>>().map(Some)
            }
            Some(Node::Map(_)) => Err(found_map()),
            Some(_) => Err(ApiError::serialization("Expected list or null")),
        }
    }

    pub(crate) fn structure(&mut self, name: &str) -> Result<Option<Fields<'a>>> {
        self.take(name).map(|node| node.into_fields(self.encoding)).transpose()
    }

    /// The texts of a list; nulls among them do not count.
    pub(crate) fn text_list(&mut self, name: &str) -> Result<Option<Vec<String>>> {
        match self.take(name) {
            None => Ok(None),
            Some(Node::List(items)) => {
                let items = items.into_iter().filter(|item| *item != Node::Null);
                items.map(Node::into_text).collect::<Result<_>>().map(Some)
            }
            Some(Node::Map(_)) => Err(found_map()),
            Some(_) => Err(ApiError::serialization("Expected list or null")),
        }
    }

    /// A map from text to text. Of a repeated key the last counts; a key whose value is null is not there.
    pub(crate) fn text_map(&mut self, name: &str) -> Result<Option<BTreeMap<String, String>>> {
        match self.take(name) {
            None => Ok(None),
            Some(Node::Map(entries)) => {
                let last: BTreeMap<Cow<'a, str>, Node<'a>> = entries.into_iter().collect();
                let given = last.into_iter().filter(|(_, value)| *value != Node::Null);
                given
                    .map(|(key, value)| Ok((key.into_owned(), value.into_text()?)))
                    .collect::<Result<_>>()
                    .map(Some)
            }
            Some(Node::List(_)) => Err(found_list()),
            Some(_) => Err(ApiError::serialization("Expected map or null")),
        }
    }
}

/// The beginning of a text that is shown back to the caller: messages stay short whatever was sent.
pub(crate) fn excerpt(text: &str) -> Cow<'_, str> {
    const CHARS_MAX: usize = 1024;
    match text.char_indices().nth(CHARS_MAX) {
        None => Cow::Borrowed(text),
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
    }
}
