//! Typed replies → bytes. Shapes name their members; this file alone knows how they look on the wire.
//!
//! | | JSON 1.1 | CBOR 1.1 |
//! |---|---|---|
//! | structures, lists | `{…}`, `[…]` | of indefinite length, as the Java SDK writes them |
//! | blobs | base64 | byte strings |
//! | times | seconds, three decimals, never an exponent | tag 1, integer milliseconds |
//!
//! Absent members are left out.

use super::{Encoding, base64};
use crate::aws::error::{ApiError, Code};
use crate::aws::shape::Output;
use minicbor::Encoder;
use minicbor::data::Tag;
use std::convert::Infallible;
use std::fmt::Display;
use std::io::Write;
use tidemill_types::TimestampMs;

/// The tag of times. RFC 8949 has it count seconds; with AWS it counts milliseconds.
const TIME: Tag = Tag::new(1);

/// The members of one structure being written.
pub(crate) struct Members<'w> {
    sink: Sink<'w>,
    empty: bool,
}

impl Members<'_> {
    /// Member names are constants of ASCII letters, so they need no escaping.
    fn name(&mut self, name: &'static str) {
        match self.sink.encoding {
            Encoding::Json => {
                let before = if self.empty { "\"" } else { ",\"" };
                self.sink.raw(before);
                self.sink.raw(name);
                self.sink.raw("\":");
            }
            Encoding::Cbor => self.sink.cbor(|cbor| cbor.str(name).map(drop)),
        }
        self.empty = false;
    }

    pub(crate) fn text(&mut self, name: &'static str, value: &str) {
        self.name(name);
        self.sink.text(value);
    }
    /// An id, position or ARN in its printed form, which never needs escaping.
    pub(crate) fn id(&mut self, name: &'static str, value: impl Display) {
        self.name(name);
        self.sink.id(value);
    }
    pub(crate) fn id_if(&mut self, name: &'static str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.id(name, value);
        }
    }
    pub(crate) fn integer(&mut self, name: &'static str, value: u64) {
        self.name(name);
        match self.sink.encoding {
            Encoding::Json => self.sink.printed(value),
            Encoding::Cbor => self.sink.cbor(|cbor| cbor.u64(value).map(drop)),
        }
    }
    pub(crate) fn boolean(&mut self, name: &'static str, value: bool) {
        self.name(name);
        match self.sink.encoding {
            Encoding::Json => self.sink.printed(value),
            Encoding::Cbor => self.sink.cbor(|cbor| cbor.bool(value).map(drop)),
        }
    }
    pub(crate) fn timestamp(&mut self, name: &'static str, value: TimestampMs) {
        self.name(name);
        let ms = value.get();
        match self.sink.encoding {
            Encoding::Json => self.sink.printed(format_args!("{}.{:03}", value.seconds(), ms % 1000)),
            Encoding::Cbor => self.sink.cbor(|cbor| cbor.tag(TIME)?.u64(ms).map(drop)),
        }
    }
    pub(crate) fn timestamp_if(&mut self, name: &'static str, value: Option<TimestampMs>) {
        if let Some(value) = value {
            self.timestamp(name, value);
        }
    }
    pub(crate) fn blob(&mut self, name: &'static str, value: &[u8]) {
        self.name(name);
        match self.sink.encoding {
            Encoding::Json => {
                self.sink.raw("\"");
                base64::encode(value, self.sink.out);
                self.sink.raw("\"");
            }
            Encoding::Cbor => self.sink.cbor(|cbor| cbor.bytes(value).map(drop)),
        }
    }
    pub(crate) fn structure(&mut self, name: &'static str, value: &impl Output) {
        self.name(name);
        self.sink.structure(value);
    }
    pub(crate) fn structures<'a, T: Output + 'a>(
        &mut self,
        name: &'static str,
        values: impl IntoIterator<Item = &'a T>,
    ) {
        self.list(name, values, |sink, value| sink.structure(value));
    }
    /// A list of ids in their printed form.
    pub(crate) fn ids<T: Display>(&mut self, name: &'static str, values: impl IntoIterator<Item = T>) {
        self.list(name, values, |sink, value| sink.id(value));
    }
    fn list<T>(
        &mut self,
        name: &'static str,
        values: impl IntoIterator<Item = T>,
        push: impl Fn(&mut Sink<'_>, T),
    ) {
        self.name(name);
        let (open, comma, close) = match self.sink.encoding {
            Encoding::Json => (b"[", &b","[..], b"]"),
            Encoding::Cbor => (b"\x9f", &b""[..], b"\xff"),
        };
        self.sink.out.extend_from_slice(open);
        for (place, value) in values.into_iter().enumerate() {
            if place > 0 {
                self.sink.out.extend_from_slice(comma);
            }
            push(&mut self.sink, value);
        }
        self.sink.out.extend_from_slice(close);
    }
}

/// Where values go, and how they are spelled there.
struct Sink<'w> {
    out: &'w mut Vec<u8>,
    encoding: Encoding,
}

impl Sink<'_> {
    fn raw(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    fn printed(&mut self, value: impl Display) {
        write!(self.out, "{value}").expect("a vector takes every write");
    }

    fn cbor(
        &mut self,
        put: impl FnOnce(&mut Encoder<&mut Vec<u8>>) -> Result<(), minicbor::encode::Error<Infallible>>,
    ) {
        put(&mut Encoder::new(&mut *self.out)).expect("a vector takes every write");
    }

    fn text(&mut self, text: &str) {
        match self.encoding {
            Encoding::Json => {
                serde_json::to_writer(&mut *self.out, text)
                    .expect("a text is JSON and a vector takes every write");
            }
            Encoding::Cbor => self.cbor(|cbor| cbor.str(text).map(drop)),
        }
    }

    fn id(&mut self, value: impl Display) {
        match self.encoding {
            Encoding::Json => self.printed(format_args!("\"{value}\"")),
            Encoding::Cbor => self.text(&value.to_string()),
        }
    }

    fn structure<T: Output>(&mut self, value: &T) {
        let (open, close) = match self.encoding {
            Encoding::Json => (b'{', b'}'),
            Encoding::Cbor => (0xbf, 0xff),
        };
        self.out.push(open);
        let sink = Sink { out: &mut *self.out, encoding: self.encoding };
        value.write(&mut Members { sink, empty: true });
        self.out.push(close);
    }
}

/// The body of a reply.
pub(crate) fn encode<T: Output>(encoding: Encoding, output: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(output.size_hint());
    if T::HAS_BODY {
        Sink { out: &mut out, encoding }.structure(output);
    }
    out
}

impl Output for ApiError {
    /// A `SerializationException` spells its message with a capital, all others do not.
    fn write(&self, members: &mut Members<'_>) {
        members.text("__type", self.code().name());
        if !self.message().is_empty() {
            let name = if self.code() == Code::Serialization { "Message" } else { "message" };
            members.text(name, self.message());
        }
    }
}
