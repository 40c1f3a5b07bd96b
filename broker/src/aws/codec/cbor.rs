//! CBOR 1.1 → [`Node`]: what the Java SDKs send. Texts and byte strings of one piece borrow from the body.
//!
//! Containers and strings of indefinite length are taken like those of known length. Tags are passed over: the only one
//! that clients send is 1, on times, and what its number counts is a matter of the encoding (milliseconds, against RFC
//! 8949). Bounded as JSON is: in depth and in number of values; lengths that a body announces reserve nothing.

use super::NODES_MAX;
use super::node::{Node, Number};
use crate::aws::error::{ApiError, Code};
use minicbor::data::Type;
use minicbor::decode::{Decoder, Error};
use std::borrow::Cow;

/// Containers within containers; serde_json's limit for JSON.
const DEPTH_MAX: usize = 127;

/// Parses a body that must be one CBOR map.
pub(crate) fn decode(body: &[u8]) -> Result<Node<'_>, ApiError> {
    let mut reader = Reader { decoder: Decoder::new(body), nodes_left: NODES_MAX };
    match reader.value(DEPTH_MAX) {
        Ok(tree @ Node::Map(_)) if reader.decoder.position() == body.len() => Ok(tree),
        _ => Err(ApiError::bare(Code::Serialization)),
    }
}

/// That the body is no CBOR, or past the bounds. Where and why is nothing AWS tells.
struct Malformed;

impl From<Error> for Malformed {
    fn from(_: Error) -> Self {
        Self
    }
}

type Read<T> = Result<T, Malformed>;

/// How many elements a container still has.
#[derive(Clone, Copy)]
enum Rest {
    Known(u64),
    UntilBreak,
}

struct Reader<'b> {
    decoder: Decoder<'b>,
    /// Counts down over the whole body.
    nodes_left: usize,
}

impl<'b> Reader<'b> {
    fn value(&mut self, depth_left: usize) -> Read<Node<'b>> {
        self.nodes_left = self.nodes_left.checked_sub(1).ok_or(Malformed)?;
        while self.decoder.datatype()? == Type::Tag {
            self.decoder.tag()?;
        }
        match self.decoder.datatype()? {
            Type::Null => self.decoder.null().map(|()| Node::Null).map_err(Malformed::from),
            Type::Undefined => self.decoder.undefined().map(|()| Node::Null).map_err(Malformed::from),
            Type::Bool => Ok(Node::Bool(self.decoder.bool()?)),
            Type::F16 => self.half().map(|value| Node::Number(Number::Fraction(value))),
            Type::F32 | Type::F64 => Ok(Node::Number(Number::Fraction(self.decoder.f64()?))),
            Type::String | Type::StringIndef => self.text().map(Node::Text),
            Type::Bytes | Type::BytesIndef => self.bytes().map(Node::Bytes),
            Type::Array | Type::ArrayIndef => self.list(depth_left.checked_sub(1).ok_or(Malformed)?),
            Type::Map | Type::MapIndef => self.map(depth_left.checked_sub(1).ok_or(Malformed)?),
            Type::Simple | Type::Break | Type::Unknown(_) | Type::Tag => Err(Malformed),
            _ => self.integer(),
        }
    }

    fn integer(&mut self) -> Read<Node<'b>> {
        let value = i128::from(self.decoder.int()?);
        let clamped = value.clamp(i128::from(i64::MIN), i128::from(i64::MAX));
        let whole = i64::try_from(clamped).expect("it was clamped to the range");
        Ok(Node::Number(Number::Whole(whole)))
    }

    /// A float of 16 bits: sign, 5 bits of exponent, 10 of fraction.
    fn half(&mut self) -> Read<f64> {
        let at = self.decoder.position();
        let &[_, high, low] =
            self.decoder.input().get(at..at + 3).and_then(|b| b.first_chunk()).ok_or(Malformed)?;
        self.decoder.set_position(at + 3);
        let (exponent, fraction) =
            (i32::from(high >> 2 & 0x1f), f64::from(u16::from_be_bytes([high & 3, low])));
        let size = match exponent {
            0 => fraction * 2f64.powi(-24),
            0x1f if fraction == 0.0 => f64::INFINITY,
            0x1f => f64::NAN,
            _ => (1.0 + fraction / 1024.0) * 2f64.powi(exponent - 15),
        };
        Ok(if high & 0x80 == 0 { size } else { -size })
    }

    fn text(&mut self) -> Read<Cow<'b, str>> {
        if self.decoder.datatype()? == Type::String {
            return Ok(Cow::Borrowed(self.decoder.str()?));
        }
        let mut whole = String::new();
        for chunk in self.decoder.str_iter()? {
            whole.push_str(chunk?);
        }
        Ok(Cow::Owned(whole))
    }

    fn bytes(&mut self) -> Read<Cow<'b, [u8]>> {
        if self.decoder.datatype()? == Type::Bytes {
            return Ok(Cow::Borrowed(self.decoder.bytes()?));
        }
        let mut whole = Vec::new();
        for chunk in self.decoder.bytes_iter()? {
            whole.extend_from_slice(chunk?);
        }
        Ok(Cow::Owned(whole))
    }

    fn list(&mut self, depth_left: usize) -> Read<Node<'b>> {
        let mut rest = self.decoder.array()?.map_or(Rest::UntilBreak, Rest::Known);
        let mut list = Vec::new();
        while self.has_next(&mut rest)? {
            list.push(self.value(depth_left)?);
        }
        Ok(Node::List(list))
    }

    fn map(&mut self, depth_left: usize) -> Read<Node<'b>> {
        let mut rest = self.decoder.map()?.map_or(Rest::UntilBreak, Rest::Known);
        let mut map = Vec::new();
        while self.has_next(&mut rest)? {
            let key = self.text()?;
            map.push((key, self.value(depth_left)?));
        }
        Ok(Node::Map(map))
    }

    /// Whether the container goes on; if not, its end is behind the reader.
    fn has_next(&mut self, rest: &mut Rest) -> Read<bool> {
        match rest {
            Rest::Known(0) => Ok(false),
            Rest::Known(count) => {
                *count -= 1;
                Ok(true)
            }
            Rest::UntilBreak if self.decoder.datatype()? == Type::Break => {
                self.decoder.set_position(self.decoder.position() + 1);
                Ok(false)
            }
            Rest::UntilBreak => Ok(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Encoding, Fields};
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;
    use tidemill_types::TimestampMs;

    fn unhex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte =
            |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).expect("two digits");
        digits.chunks(2).map(byte).collect()
    }

    fn fields(body: &[u8]) -> Fields<'_> {
        decode(body).unwrap().into_fields(Encoding::Cbor).unwrap()
    }

    /// The worked example of the API: what the Java SDK sends.
    #[test]
    fn a_put_record_of_the_java_sdk_is_read() {
        let body = unhex("bf6a53747265616d4e616d6562733164446174614268696c506172746974696f6e4b65796161ff");
        let mut fields = fields(&body);
        assert_eq!(fields.text("StreamName").unwrap().unwrap(), "s1");
        assert_eq!(fields.blob("Data").unwrap(), Some(Bytes::from_static(b"hi")));
        assert_eq!(fields.text("PartitionKey").unwrap().unwrap(), "a");
    }

    #[test]
    fn strings_in_chunks_and_containers_of_known_length_are_read() {
        // {"T": (_ "a", "", "é"), "D": (_ h'68', h'69'), "L": ["x", (_ )], "M": {(_ "k"): "v"}}
        let body = unhex("a4 6154 7f61616062c3a9ff 6144 5f41684169ff 614c 8261787fff 614d a1 7f616bff 6176");
        let mut fields = fields(&body);
        assert_eq!(fields.text("T").unwrap().unwrap(), "aé");
        assert_eq!(fields.blob("D").unwrap(), Some(Bytes::from_static(b"hi")));
        assert_eq!(fields.text_list("L").unwrap().unwrap(), ["x", ""]);
        assert_eq!(fields.text_map("M").unwrap().unwrap()["k"], "v");
        let once = unhex("a1 6144 43010203");
        let Node::Map(members) = decode(&once).unwrap() else { panic!("a map") };
        assert!(matches!(&members[0].1, Node::Bytes(Cow::Borrowed([1, 2, 3]))));
    }

    #[test]
    fn times_count_milliseconds_with_and_without_tag() {
        let spelled = [
            "c1 1b0000018bcfe5687b",        // tag 1, integer
            "1b0000018bcfe5687b",           // integer
            "c1 fb4278bcfe5687b000",        // tag 1, double
            "fb4278bcfe5687b000",           // double
            "d9d9f7 c1 1b0000018bcfe5687b", // two tags
        ];
        for text in spelled {
            let body = unhex(&format!("bf 6154 {text} ff"));
            let time = fields(&body).timestamp("T").unwrap();
            assert_eq!(time, Some(TimestampMs::new(1_700_000_000_123)), "{text}");
        }
        let small = [("c1 05", 5), ("f9 4500", 5), ("fa 40a00000", 5), ("c1 24", 0), ("f9 7e00", 0)];
        for (text, ms) in small {
            let body = unhex(&format!("bf 6154 {text} ff"));
            assert_eq!(fields(&body).timestamp("T").unwrap(), Some(TimestampMs::new(ms)), "{text}");
        }
    }

    #[test]
    fn numbers_become_integers_as_in_json() {
        let cases = [
            ("01", 1),
            ("20", -1),
            ("f9 3e00", 1),      // 1.5
            ("fa bfc00000", -2), // -1.5
            ("1bffffffffffffffff", i32::MAX),
            ("3bffffffffffffffff", i32::MIN),
            ("f9 7c00", i32::MAX), // infinity
            ("f9 fc00", i32::MIN),
            ("f9 7bff", 65_504), // the largest half
            ("f9 8001", -1),     // the smallest below nothing
            ("d8 20 07", 7),     // an unknown tag
        ];
        for (text, value) in cases {
            let body = unhex(&format!("a1 6149 {text}"));
            assert_eq!(fields(&body).integer("I").unwrap(), Some(value), "{text}");
        }
    }

    #[test]
    fn absent_and_repeated_members_are_as_in_json() {
        let body = unhex("bf 614e f6 6155 f7 6142 f5 6153 6161 6153 6162 ff");
        let mut fields = fields(&body);
        assert_eq!((fields.text("N"), fields.text("U")), (Ok(None), Ok(None)));
        assert_eq!(fields.boolean("B").unwrap(), Some(true));
        assert_eq!(fields.text("S").unwrap().unwrap(), "b");
    }

    #[test]
    fn blobs_are_byte_strings_and_texts_are_texts() {
        let body = unhex("a2 6144 64 6147 6b3d 6153 42 6869");
        let told = fields(&body).blob("D").unwrap_err();
        assert_eq!(told.message(), "class java.lang.String can not be converted to a Blob");
        let told = fields(&body).text("S").unwrap_err();
        assert_eq!(told.message(), "class java.nio.HeapByteBuffer can not be converted to an String");
    }

    #[test]
    fn what_is_no_cbor_map_is_a_serialization_exception() {
        let bodies = [
            "",
            "bf",
            "a1",
            "a1 6161",
            "a1 6161 62",
            "ff",
            "80",
            "01",
            "f6",
            "6161", // cut off, or no map
            "a0 00",
            "bfff ff",
            "a1 6161 01 ff", // something behind
            "a1 01 02",
            "a1 4161 02",
            "a1 c0 6161 02", // keys that are no texts
            "bf 6161 ff",
            "a1 6161 ff",
            "a1 6161 81 ff",
            "9f bfff", // breaks out of place
            "a1 61ff 01",
            "a1 6161 62 c328",
            "a1 6161 7f 61c3 61a9 ff", // no UTF-8
            "a1 6161 7f 4161 ff",
            "a1 6161 5f 6161 ff",
            "a1 6161 7f 7f6161ff ff", // chunks of another kind
            "a1 6161 e0",
            "a1 6161 f8ff",
            "a1 6161 1c",
            "a1 6161 5c",
            "a1 6161 fc",
            "a1 6161 f97c", // no values
            "a1 6161 5bffffffffffffffff",
            "a1 6161 9bffffffffffffffff 01",
            "bbffffffffffffffff",
        ];
        for text in bodies {
            assert_eq!(decode(&unhex(text)).unwrap_err().code(), Code::Serialization, "{text}");
        }
        assert!(decode(&unhex("a0")).is_ok());
        assert!(decode(&unhex("d9d9f7 bfff")).is_ok());
    }

    #[test]
    fn depth_and_number_of_values_are_bounded() {
        let nested = |depth: usize| [vec![0xa1, 0x61, b'a'], vec![0x81; depth], vec![0x01]].concat();
        assert!(decode(&nested(DEPTH_MAX - 1)).is_ok());
        assert!(decode(&nested(DEPTH_MAX)).is_err());
        assert!(decode(&nested(10_000_000)).is_err());
        assert!(decode(&[vec![0xa1, 0x61, b'a'], vec![0xc1; 10_000_000]].concat()).is_err());
        let many = |count: usize| [vec![0xa1, 0x61, b'a', 0x9f], vec![0x00; count], vec![0xff]].concat();
        assert!(decode(&many(NODES_MAX - 2)).is_ok());
        assert!(decode(&many(NODES_MAX - 1)).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(body: Vec<u8>) {
            let _ = decode(&body);
            let _ = decode(&[vec![0xbf, 0x61, b'a'], body].concat());
        }
    }
}
