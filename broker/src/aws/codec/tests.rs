//! Both encodings side by side: the vectors of the specification, and that they carry equal values.

use super::*;
use crate::aws::error::Code;
use bytes::Bytes;
use minicbor::Encoder;
use minicbor::data::Tag;
use node::Number;
use proptest::collection::vec;
use proptest::prelude::*;
use std::borrow::Cow;
use tidemill_types::TimestampMs;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

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
    let text = String::from_utf8(Encoding::Json.encode(&Sample)).unwrap();
    let escaped = r#""T":"a\"\\\né\u0001""#;
    let rest = r#""I":"shardId-000000000000","N":10485760,"B":false,"At":1700000000.007,"D":"aGk=","#;
    assert_eq!(text, format!("{{{escaped},{rest}{}}}", r#""L":[{"X":{}},{"X":{}}],"E":[]"#));
}

#[test]
fn members_are_written_as_cbor_1_1() {
    let expected = [
        "bf",
        "6154 67 61225c0a c3a9 01",
        "6149 74 73686172 6449642d 30303030 30303030 30303030",
        "614e 1a00a00000",
        "6142 f4",
        "624174 c1 1b0000018bcfe56807",
        "6144 42 6869",
        "614c 9f bf6158bfffff bf6158bfffff ff",
        "6145 9fff",
        "ff",
    ];
    assert_eq!(hex(&Encoding::Cbor.encode(&Sample)), expected.concat().replace(' ', ""));
}

/// GetRecords of the specification, with the members and the spelling of the Java SDK.
#[test]
fn a_get_records_reply_is_written_as_the_vector_says() {
    struct Record;
    impl Output for Record {
        fn write(&self, members: &mut Members<'_>) {
            members.id("SequenceNumber", 1);
            members.timestamp("ApproximateArrivalTimestamp", TimestampMs::new(1_700_000_000_123));
            members.blob("Data", b"hi");
            members.text("PartitionKey", "a");
        }
    }
    struct Page;
    impl Output for Page {
        fn write(&self, members: &mut Members<'_>) {
            members.structures("Records", &[Record]);
            members.text("NextShardIterator", "AAA");
            members.integer("MillisBehindLatest", 0);
        }
    }
    let vector = "bf675265636f7264739fbf6e53657175656e63654e756d6265726131781b417070726f78696d6174654172726976616c54\
                  696d657374616d70c11b0000018bcfe5687b64446174614268696c506172746974696f6e4b65796161ffff714e65787453\
                  686172644974657261746f7263414141724d696c6c6973426568696e644c617465737400ff";
    assert_eq!(hex(&Encoding::Cbor.encode(&Page)), vector);
}

#[test]
fn errors_carry_type_and_message() {
    let text = |error: &ApiError| String::from_utf8(Encoding::Json.encode_error(error)).unwrap();
    assert_eq!(text(&ApiError::bare(Code::InternalFailure)), r#"{"__type":"InternalFailure"}"#);
    assert_eq!(text(&ApiError::invalid("x")), r#"{"__type":"InvalidArgumentException","message":"x"}"#);
    assert_eq!(text(&ApiError::serialization("x")), r#"{"__type":"SerializationException","Message":"x"}"#);
    let vector =
        "bf665f5f7479706578195265736f757263654e6f74466f756e64457863657074696f6e676d6573736167656178ff";
    let not_found = ApiError::new(Code::ResourceNotFound, "x");
    assert_eq!(hex(&Encoding::Cbor.encode_error(&not_found)), vector);
}

#[test]
fn media_types_name_the_encodings() {
    for encoding in [Encoding::Json, Encoding::Cbor] {
        let upper = encoding.content_type().to_uppercase();
        assert_eq!(Encoding::from_media_type(&upper), Some(encoding));
    }
    assert_eq!(Encoding::from_media_type("application/cbor"), None);
}

/// A value both encodings can spell.
fn any_value() -> impl Strategy<Value = Node<'static>> {
    let leaf = prop_oneof![
        Just(Node::Null),
        any::<bool>().prop_map(Node::Bool),
        any::<i64>().prop_map(|whole| Node::Number(Number::Whole(whole))),
        any::<i32>().prop_map(|eighths| Node::Number(Number::Fraction(f64::from(eighths) / 8.0))),
        any::<String>().prop_map(|text| Node::Text(Cow::Owned(text))),
    ];
    leaf.prop_recursive(4, 64, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Node::List),
            vec(("[A-Za-z]{1,8}", inner), 0..6).prop_map(as_map),
        ]
    })
}

fn as_map(members: Vec<(String, Node<'static>)>) -> Node<'static> {
    Node::Map(members.into_iter().map(|(name, value)| (Cow::Owned(name), value)).collect())
}

fn put_json(value: &Node<'_>, out: &mut String) {
    let text = |text: &str| serde_json::to_string(text).unwrap();
    let joined = |parts: Vec<String>| parts.join(",");
    let spelled = |value: &Node<'_>| {
        let mut out = String::new();
        put_json(value, &mut out);
        out
    };
    out.push_str(&match value {
        Node::Null => "null".to_owned(),
        Node::Bool(value) => value.to_string(),
        Node::Number(Number::Whole(whole)) => whole.to_string(),
        Node::Number(Number::Fraction(fraction)) => format!("{fraction:?}"),
        Node::Text(value) => text(value),
        Node::Bytes(_) => unreachable!("JSON has no byte strings"),
        Node::List(items) => format!("[{}]", joined(items.iter().map(spelled).collect())),
        Node::Map(members) => {
            let member =
                |(name, value): &(Cow<'_, str>, Node<'_>)| format!("{}:{}", text(name), spelled(value));
            format!("{{{}}}", joined(members.iter().map(member).collect()))
        }
    });
}

/// `dice` chooses among the spellings that CBOR has for one value.
fn put_cbor(value: &Node<'_>, dice: &mut impl Iterator<Item = u8>, out: &mut Vec<u8>) {
    let throw = dice.next().unwrap_or_default();
    let mut cbor = Encoder::new(&mut *out);
    if throw & 1 == 1 {
        cbor.tag(Tag::new(u64::from(throw))).unwrap();
    }
    let known = throw & 2 == 0;
    match value {
        Node::Null if known => cbor.null().map(drop).unwrap(),
        Node::Null => cbor.undefined().map(drop).unwrap(),
        Node::Bool(value) => cbor.bool(*value).map(drop).unwrap(),
        Node::Number(Number::Whole(whole)) => cbor.i64(*whole).map(drop).unwrap(),
        Node::Number(Number::Fraction(fraction)) => match *fraction as f32 {
            single if !known && f64::from(single) == *fraction => cbor.f32(single).map(drop).unwrap(),
            _ => cbor.f64(*fraction).map(drop).unwrap(),
        },
        Node::Text(text) if known => cbor.str(text).map(drop).unwrap(),
        Node::Text(text) => {
            cbor.begin_str().unwrap();
            text.chars().for_each(|part| cbor.str(part.encode_utf8(&mut [0; 4])).map(drop).unwrap());
            cbor.end().unwrap();
        }
        Node::Bytes(bytes) => cbor.bytes(bytes).map(drop).unwrap(),
        Node::List(items) => {
            if known { cbor.array(items.len() as u64) } else { cbor.begin_array() }.map(drop).unwrap();
            items.iter().for_each(|item| put_cbor(item, dice, out));
            out.extend((!known).then_some(0xff));
        }
        Node::Map(members) => {
            if known { cbor.map(members.len() as u64) } else { cbor.begin_map() }.map(drop).unwrap();
            for (name, value) in members {
                put_cbor(&Node::Text(name.clone()), &mut std::iter::repeat(throw & 2), out);
                put_cbor(value, dice, out);
            }
            out.extend((!known).then_some(0xff));
        }
    }
}

/// A member of a reply.
#[derive(Debug, Clone)]
enum Member {
    Text(String),
    Id(u128),
    Integer(u64),
    Boolean(bool),
    Time(u64),
    Blob(Vec<u8>),
    Structure(Box<Member>),
    Structures(Vec<Member>),
    Ids(Vec<u128>),
}

fn any_member() -> impl Strategy<Value = Member> {
    let leaf = prop_oneof![
        any::<String>().prop_map(Member::Text),
        any::<u128>().prop_map(Member::Id),
        (0u64..=i32::MAX as u64).prop_map(Member::Integer),
        any::<bool>().prop_map(Member::Boolean),
        (0u64..100_000_000_000_000).prop_map(Member::Time),
        any::<Vec<u8>>().prop_map(Member::Blob),
        vec(any::<u128>(), 0..4).prop_map(Member::Ids),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|member| Member::Structure(Box::new(member))),
            vec(inner, 0..4).prop_map(Member::Structures),
        ]
    })
}

impl Output for Member {
    fn write(&self, members: &mut Members<'_>) {
        match self {
            Self::Text(text) => members.text("M", text),
            Self::Id(id) => members.id("M", id),
            Self::Integer(value) => members.integer("M", *value),
            Self::Boolean(value) => members.boolean("M", *value),
            Self::Time(ms) => members.timestamp("M", TimestampMs::new(*ms)),
            Self::Blob(bytes) => members.blob("M", bytes),
            Self::Structure(inner) => members.structure("M", &**inner),
            Self::Structures(inner) => members.structures("M", inner),
            Self::Ids(ids) => members.ids("M", ids),
        }
        members.boolean("Behind", true);
    }
}

/// That the reply in `fields` carries what `member` says.
fn assert_carries(fields: &mut Fields<'_>, member: &Member) {
    match member {
        Member::Text(text) => assert_eq!(fields.text("M").unwrap().as_ref(), Some(text)),
        Member::Id(id) => assert_eq!(fields.text("M").unwrap(), Some(id.to_string())),
        Member::Integer(value) => {
            assert_eq!(fields.integer("M").unwrap().map(i64::from), i64::try_from(*value).ok());
        }
        Member::Boolean(value) => assert_eq!(fields.boolean("M").unwrap(), Some(*value)),
        Member::Time(ms) => assert_eq!(fields.timestamp("M").unwrap(), Some(TimestampMs::new(*ms))),
        Member::Blob(bytes) => assert_eq!(fields.blob("M").unwrap(), Some(Bytes::from(bytes.clone()))),
        Member::Structure(inner) => assert_carries(&mut fields.structure("M").unwrap().unwrap(), inner),
        Member::Structures(inner) => {
            let found = fields.structures("M").unwrap().unwrap();
            assert_eq!(found.len(), inner.len());
            found.into_iter().zip(inner).for_each(|(mut fields, member)| assert_carries(&mut fields, member));
        }
        Member::Ids(ids) => {
            let ids: Vec<String> = ids.iter().map(u128::to_string).collect();
            assert_eq!(fields.text_list("M").unwrap(), Some(ids));
        }
    }
    assert_eq!(fields.boolean("Behind").unwrap(), Some(true));
}

proptest! {
    #[test]
    fn both_encodings_of_a_request_decode_to_the_same_values(
        members in vec(("[A-Za-z]{1,8}", any_value()), 0..6), dice: Vec<u8>,
    ) {
        let tree = as_map(members);
        let mut json = String::new();
        put_json(&tree, &mut json);
        let mut cbor = Vec::new();
        put_cbor(&tree, &mut dice.into_iter(), &mut cbor);
        prop_assert_eq!(&Encoding::Json.decode(json.as_bytes()).unwrap(), &tree);
        prop_assert_eq!(&Encoding::Cbor.decode(&cbor).unwrap(), &tree);
    }

    #[test]
    fn both_encodings_of_a_reply_carry_the_same_values(member in any_member()) {
        for encoding in [Encoding::Json, Encoding::Cbor] {
            let body = encoding.encode(&member);
            assert_carries(&mut encoding.decode(&body).unwrap().into_fields(encoding).unwrap(), &member);
        }
    }
}
