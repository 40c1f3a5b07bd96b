//! Typed replies → bytes. Shapes name their members; this file alone knows how they look on the wire: blobs in base64,
//! timestamps as seconds with three decimals and never an exponent, absent members left out.

use super::base64;
use crate::aws::error::{ApiError, Code};
use crate::aws::shape::Output;
use std::fmt::Display;
use std::io::Write;
use tidemill_types::TimestampMs;

/// The members of one structure being written.
pub(crate) struct Members<'w> {
    out: &'w mut Vec<u8>,
    empty: bool,
}

impl<'w> Members<'w> {
    fn open(out: &'w mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, empty: true }
    }
    fn close(self) {
        self.out.push(b'}');
    }

    /// Member names are constants of ASCII letters, so they need no escaping.
    fn name(&mut self, name: &'static str) {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn number(&mut self, name: &'static str, value: impl Display) {
        self.name(name);
        write!(self.out, "{value}").expect("a vector takes every write");
    }

    pub(crate) fn text(&mut self, name: &'static str, value: &str) {
        self.name(name);
        push_text(self.out, value);
    }
    /// An id, position or ARN in its printed form, which never needs escaping.
    pub(crate) fn id(&mut self, name: &'static str, value: impl Display) {
        self.name(name);
        push_id(self.out, value);
    }
    pub(crate) fn id_if(&mut self, name: &'static str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.id(name, value);
        }
    }
    pub(crate) fn integer(&mut self, name: &'static str, value: u64) {
        self.number(name, value);
    }
    pub(crate) fn boolean(&mut self, name: &'static str, value: bool) {
        self.number(name, value);
    }
    pub(crate) fn timestamp(&mut self, name: &'static str, value: TimestampMs) {
        self.number(name, format_args!("{}.{:03}", value.seconds(), value.get() % 1000));
    }
    pub(crate) fn blob(&mut self, name: &'static str, value: &[u8]) {
        self.name(name);
        self.out.push(b'"');
        base64::encode(value, self.out);
        self.out.push(b'"');
    }
    pub(crate) fn structure(&mut self, name: &'static str, value: &impl Output) {
        self.name(name);
        push_structure(self.out, value);
    }
    pub(crate) fn structures<'a, T: Output + 'a>(
        &mut self,
        name: &'static str,
        values: impl IntoIterator<Item = &'a T>,
    ) {
        self.list(name, values, push_structure);
    }
    /// A list of ids in their printed form.
    pub(crate) fn ids<T: Display>(&mut self, name: &'static str, values: impl IntoIterator<Item = T>) {
        self.list(name, values, push_id);
    }
    fn list<T>(
        &mut self,
        name: &'static str,
        values: impl IntoIterator<Item = T>,
        push: impl Fn(&mut Vec<u8>, T),
    ) {
        self.name(name);
        self.out.push(b'[');
        for (place, value) in values.into_iter().enumerate() {
            if place > 0 {
                self.out.push(b',');
            }
            push(self.out, value);
        }
        self.out.push(b']');
    }
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a text is JSON and a vector takes every write");
}

fn push_id(out: &mut Vec<u8>, value: impl Display) {
    write!(out, "\"{value}\"").expect("a vector takes every write");
}

fn push_structure<T: Output>(out: &mut Vec<u8>, value: &T) {
    let mut members = Members::open(out);
    value.write(&mut members);
    members.close();
}

/// The body of a reply.
pub(crate) fn encode<T: Output>(output: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(output.size_hint());
    if T::HAS_BODY {
        push_structure(&mut out, output);
    }
    out
}

/// The body of an error. A `SerializationException` spells its message with a capital, all others do not.
pub(crate) fn encode_error(error: &ApiError) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    let mut members = Members::open(&mut out);
    members.text("__type", error.code().name());
    if !error.message().is_empty() {
        let name = if error.code() == Code::Serialization { "Message" } else { "message" };
        members.text(name, error.message());
    }
    members.close();
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sample;
    impl Output for Sample {
        fn write(&self, members: &mut Members<'_>) {
            members.text("T", "a\"\\\né\u{1}");
            members.id("I", "shardId-000000000000");
            members.id_if("None", None::<u64>);
            members.integer("N", 10_485_760);
            members.boolean("B", false);
            members.timestamp("At", TimestampMs::new(1_700_000_000_007));
            members.blob("D", b"hi");
            members.structures("L", &[Inner, Inner]);
            members.ids("E", [0u8; 0]);
        }
    }
    struct Inner;
    impl Output for Inner {
        fn write(&self, members: &mut Members<'_>) {
            members.structure("X", &Empty);
        }
    }
    struct Empty;
    impl Output for Empty {
        fn write(&self, _: &mut Members<'_>) {}
    }

    #[test]
    fn members_are_written_as_json_1_1() {
        let text = String::from_utf8(encode(&Sample)).unwrap();
        let escaped = r#""T":"a\"\\\né\u0001""#;
        let rest = r#""I":"shardId-000000000000","N":10485760,"B":false,"At":1700000000.007,"D":"aGk=","#;
        assert_eq!(text, format!("{{{escaped},{rest}{}}}", r#""L":[{"X":{}},{"X":{}}],"E":[]"#));
    }

    #[test]
    fn errors_carry_type_and_message() {
        let text = |error: ApiError| String::from_utf8(encode_error(&error)).unwrap();
        assert_eq!(text(ApiError::bare(Code::InternalFailure)), r#"{"__type":"InternalFailure"}"#);
        assert_eq!(text(ApiError::invalid("x")), r#"{"__type":"InvalidArgumentException","message":"x"}"#);
        assert_eq!(
            text(ApiError::serialization("x")),
            r#"{"__type":"SerializationException","Message":"x"}"#
        );
    }
}
