//! JSON 1.1 → [`Node`]. Texts without escapes borrow from the body.
//!
//! Bounded: the number of values is capped here, depth by serde_json.

use super::NODES_MAX;
use super::node::{Node, Number};
use crate::aws::error::{ApiError, Code};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

/// Parses a body that must be one JSON object.
pub(crate) fn decode(body: &[u8]) -> Result<Node<'_>, ApiError> {
    let mut parser = serde_json::Deserializer::from_slice(body);
    let mut left = NODES_MAX;
    let tree = NodeSeed { left: &mut left }.deserialize(&mut parser);
    match tree {
        Ok(tree @ Node::Map(_)) if parser.end().is_ok() => Ok(tree),
        _ => Err(ApiError::bare(Code::Serialization)),
    }
}

/// Builds one value; `left` counts down over the whole body.
struct NodeSeed<'n> {
    left: &'n mut usize,
}

impl<'de> DeserializeSeed<'de> for NodeSeed<'_> {
    type Value = Node<'de>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node<'de>, D::Error> {
        *self.left = self.left.checked_sub(1).ok_or_else(|| D::Error::custom("too many values"))?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for NodeSeed<'_> {
    type Value = Node<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E: Error>(self) -> Result<Node<'de>, E> {
        Ok(Node::Null)
    }
    fn visit_bool<E: Error>(self, value: bool) -> Result<Node<'de>, E> {
        Ok(Node::Bool(value))
    }
    fn visit_i64<E: Error>(self, value: i64) -> Result<Node<'de>, E> {
        Ok(Node::Number(Number::Whole(value)))
    }
    fn visit_u64<E: Error>(self, value: u64) -> Result<Node<'de>, E> {
        Ok(Node::Number(Number::Whole(i64::try_from(value).unwrap_or(i64::MAX))))
    }
    fn visit_f64<E: Error>(self, value: f64) -> Result<Node<'de>, E> {
        Ok(Node::Number(Number::Fraction(value)))
    }
    fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<Node<'de>, E> {
        Ok(Node::Text(Cow::Borrowed(value)))
    }
    fn visit_str<E: Error>(self, value: &str) -> Result<Node<'de>, E> {
        Ok(Node::Text(Cow::Owned(value.to_owned())))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node<'de>, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(NodeSeed { left: self.left })? {
            list.push(item);
        }
        Ok(Node::List(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node<'de>, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = entries.next_key_seed(KeySeed)? {
            map.push((key, entries.next_value_seed(NodeSeed { left: self.left })?));
        }
        Ok(Node::Map(map))
    }
}

/// A member's name, borrowed where it can be.
struct KeySeed;

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = Cow<'de, str>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for KeySeed {
    type Value = Cow<'de, str>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member name")
    }
    fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(value))
    }
    fn visit_str<E: Error>(self, value: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(value.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Encoding;
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;
    use tidemill_types::TimestampMs;

    fn fields(body: &str) -> super::super::Fields<'_> {
        decode(body.as_bytes()).unwrap().into_fields(Encoding::Json).unwrap()
    }

    #[test]
    fn members_are_taken_under_the_rules_of_aws() {
        let mut fields = fields(
            r#"{"S":"a\u00e9","I":1.9,"Big":1e30,"Neg":-99999999999,"B":true,"Data":"aGk=","N":null,
                "T":1700000000.123,"Ms":1700000000123,"Old":-5,"S2":"one","S2":"two","Unknown":[1,{"x":[]}]}"#,
        );
        assert_eq!(fields.text("S").unwrap().unwrap(), "aé");
        assert_eq!(fields.integer("I").unwrap(), Some(1));
        assert_eq!(fields.integer("Big").unwrap(), Some(i32::MAX));
        assert_eq!(fields.integer("Neg").unwrap(), Some(i32::MIN));
        assert_eq!(fields.boolean("B").unwrap(), Some(true));
        assert_eq!(fields.blob("Data").unwrap(), Some(Bytes::from_static(b"hi")));
        assert_eq!(fields.text("N").unwrap(), None);
        assert_eq!(fields.timestamp("T").unwrap(), Some(TimestampMs::new(1_700_000_000_123)));
        assert_eq!(fields.timestamp("Ms").unwrap(), Some(TimestampMs::new(1_700_000_000_123)));
        assert_eq!(fields.timestamp("Old").unwrap(), Some(TimestampMs::new(0)));
        assert_eq!(fields.text("S2").unwrap().unwrap(), "two");
        assert_eq!(fields.text("Absent").unwrap(), None);
    }

    #[test]
    fn values_of_the_wrong_kind_are_named_in_the_words_of_aws() {
        let big = "class com.amazon.coral.value.json.numbers.TruncatingBigNumber can not be converted to";
        let list = "Start of list found where not expected";
        let map = "Start of structure or map found where not expected.";
        let all = r#"{"B":true,"N":1,"T":"hello","L":[],"M":{}}"#;
        let text = |name| fields(all).text(name).unwrap_err().message().to_owned();
        assert_eq!(text("B"), "class java.lang.Boolean can not be converted to an String");
        assert_eq!(text("N"), format!("{big} an String"));
        assert_eq!(text("L"), list);
        assert_eq!(text("M"), map);
        let integer = |name| fields(all).integer(name).unwrap_err().message().to_owned();
        assert_eq!(integer("T"), "class java.lang.String can not be converted to an Integer");
        assert_eq!(integer("B"), "class java.lang.Boolean can not be converted to an Integer");
        let boolean = |name| fields(all).boolean(name).unwrap_err().message().to_owned();
        assert_eq!(boolean("T"), "'HELLO' can not be converted to an Boolean");
        assert_eq!(boolean("N"), format!("{big} an Boolean"));
        let blob = |name| fields(all).blob(name).unwrap_err().message().to_owned();
        assert_eq!(blob("N"), format!("{big} a Blob"));
        let five = "Base64 encoded length is expected a multiple of 4 bytes but found: 5";
        assert_eq!(blob("T"), format!("'hello' can not be converted to a Blob: {five}"));
        let time = fields(all).timestamp("T").unwrap_err();
        assert_eq!(time.message(), "class java.lang.String can not be converted to milliseconds since epoch");
        let lists = |name| fields(all).structures(name).unwrap_err().message().to_owned();
        assert_eq!(lists("T"), "Expected list or null");
        assert_eq!(lists("M"), map);
        assert_eq!(fields(all).structure("T").unwrap_err().message(), "Expected null");
        let maps = |name| fields(all).text_map(name).unwrap_err().message().to_owned();
        assert_eq!((maps("N").as_str(), maps("L").as_str()), ("Expected map or null", list));
        let texts = |name| fields(all).text_list(name).unwrap_err().message().to_owned();
        assert_eq!((texts("N").as_str(), texts("M").as_str()), ("Expected list or null", map));
    }

    #[test]
    fn lists_and_maps_of_texts_hold_texts_only() {
        let all = r#"{"L":["a",null,"b"],"M":{"k":"1","n":null,"k":"2"},"Bad":["a",1],"BadMap":{"k":{}}}"#;
        assert_eq!(fields(all).text_list("L").unwrap().unwrap(), ["a", "b"]);
        let map = fields(all).text_map("M").unwrap().unwrap();
        assert_eq!(map.into_iter().collect::<Vec<_>>(), [("k".to_owned(), "2".to_owned())]);
        assert_eq!((fields(all).text_list("X"), fields(all).text_map("X")), (Ok(None), Ok(None)));
        let found = fields(all).text_list("Bad").unwrap_err();
        assert!(found.message().ends_with("TruncatingBigNumber can not be converted to an String"));
        let found = fields(all).text_map("BadMap").unwrap_err();
        assert_eq!(found.message(), "Start of structure or map found where not expected.");
    }

    #[test]
    fn what_is_no_json_object_is_a_serialization_exception() {
        let deep = "[".repeat(1000);
        let many = format!("{{\"a\":[{}0]}}", "0,".repeat(NODES_MAX));
        let texts =
            ["", "x", "{", "{}{}", "[]", "1", "\"a\"", "null", "{\"a\":}", "{'a':1}", "{\"a\":\"\\ud800\"}"];
        for text in texts.into_iter().chain([deep.as_str(), many.as_str()]) {
            assert_eq!(decode(text.as_bytes()).unwrap_err().code(), Code::Serialization);
        }
        assert!(decode(b"{\"a\":\"\xff\"}").is_err());
        assert!(decode(b" {} \n").is_ok());
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(body: Vec<u8>) {
            let _ = decode(&body);
        }

        #[test]
        fn no_json_like_text_makes_conversion_panic(body in r#"\{("[SID]":("[a-z=\\u0-9]{0,6}"|-?[0-9]{0,25}(\.[0-9]{1,3})?(e[0-9]{1,3})?|true|null|\[\]|\{\}),?){0,4}\}"#) {
            if let Ok(tree) = decode(body.as_bytes()) {
                for name in ["S", "I", "D"] {
                    let fields = || tree.clone().into_fields(Encoding::Json).unwrap();
                    let _ = (fields().text(name), fields().integer(name), fields().blob(name));
                    let _ = (fields().timestamp(name), fields().boolean(name), fields().structures(name));
                }
            }
        }
    }
}
