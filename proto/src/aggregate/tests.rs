//! The format against its published bytes, and against everything else.

use super::*;
use proptest::prelude::*;

fn record(key: &str, hash: Option<u128>, data: &[u8]) -> Record {
    let record = Record::new(PartitionKey::new(key).unwrap(), Bytes::copy_from_slice(data)).unwrap();
    match hash {
        Some(hash) => record.with_explicit_hash(HashKey::new(hash)),
        None => record,
    }
}

fn bytes(hex: &str) -> Bytes {
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(digit).collect::<Vec<_>>().into()
}

/// A container around any body, its MD5 right.
fn sealed(body: &[u8]) -> Bytes {
    [MAGIC.as_slice(), body, Md5::digest(body).as_slice()].concat().into()
}

fn message(parts: &[(u64, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    parts.iter().for_each(|(number, value)| put_bytes(&mut body, *number, value));
    body
}

fn inner(key: Option<u64>, hash: Option<u64>, data: Option<&[u8]>) -> Vec<u8> {
    let mut bytes = Vec::new();
    key.into_iter().for_each(|index| put_varint(&mut bytes, RECORD_KEY, index));
    hash.into_iter().for_each(|index| put_varint(&mut bytes, RECORD_HASH, index));
    data.into_iter().for_each(|data| put_bytes(&mut bytes, RECORD_DATA, data));
    bytes
}

/// Made by the KPL's own code.
const VECTOR: &str = "f3899ac20a03706b310a03706b3212033132331a0908001a0568656c6c6f1a0b080110001a05776f726c64cb48b8211afb3c05f4c31852c9aff58e";

#[test]
fn records_pack_to_the_bytes_of_the_kpl() {
    let records = [record("pk1", None, b"hello"), record("pk2", Some(123), b"world")];
    let packed = pack(&records).unwrap();
    assert_eq!(*packed.data(), bytes(VECTOR));
    assert_eq!(packed.key().as_str(), "a");
    assert_eq!(packed.explicit_hash(), Some(HashKey::of("pk1")), "it goes where the first record goes");
    let unpacked = unpack(&bytes(VECTOR)).unwrap();
    assert_eq!(unpacked.len(), 2);
    assert_eq!(unpacked.collect::<Vec<_>>(), records);
}

#[test]
fn a_single_record_travels_as_it_is_unless_it_would_be_taken_for_an_aggregate() {
    let alone = record("pk", None, b"hello");
    let packed = pack(std::slice::from_ref(&alone)).unwrap();
    assert_eq!((packed.key(), packed.data()), (alone.key(), alone.data()));
    assert_eq!(packed.explicit_hash(), Some(HashKey::of("pk")));
    // the data of somebody who aggregates by himself, to be given back to him as he gave it
    let nested = record("pk", None, &bytes(VECTOR));
    let packed = pack(std::slice::from_ref(&nested)).unwrap();
    assert_eq!(unpack(packed.data()).unwrap().collect::<Vec<_>>(), [nested]);
}

#[test]
fn nothing_and_too_much_are_not_packed() {
    assert!(pack(&[]).is_err());
    let half = vec![7; 5 * 1024 * 1024];
    let error = pack(&[record("a", None, &half), record("a", None, &half)]).unwrap_err();
    assert!(error.to_string().contains("10485760"), "{error}");
}

#[test]
fn what_does_not_follow_the_format_is_a_plain_record() {
    let good = bytes(VECTOR);
    let mut cases: Vec<(String, Bytes)> = vec![
        ("no bytes".into(), Bytes::new()),
        ("the magic alone".into(), MAGIC.to_vec().into()),
        ("no body".into(), sealed(b"")),
        ("cut at the end".into(), good.slice(..good.len() - 1)),
        ("no protobuf".into(), sealed(b"\xff\xff\xff")),
        ("a field numbered 0".into(), sealed(&[0x02, 0x00])),
        ("a length past the end".into(), sealed(&[0x1a, 0x7f, 0x08])),
    ];
    let single = inner(Some(0), None, Some(b"x"));
    let wrong: [(&str, Vec<u8>); 8] = [
        ("a record without a key index", inner(None, None, Some(b"x"))),
        ("a record without data", inner(Some(0), None, None)),
        ("an index past the keys", inner(Some(1), None, Some(b"x"))),
        ("an index past every table", inner(Some(u64::MAX), None, Some(b"x"))),
        ("a hash index without hashes", inner(Some(0), Some(0), Some(b"x"))),
        ("a record that is no message", vec![0x08]),
        ("a key index of another type", message(&[(RECORD_KEY, b"0"), (RECORD_DATA, b"x")])),
        ("an index of eleven bytes", [vec![0x08], vec![0xff; 10], vec![0x01]].concat()),
    ];
    for (what, bad) in wrong {
        // one intact record beside it: the container is one or is not one, as a whole
        let body = message(&[(BODY_KEYS, b"k"), (BODY_RECORDS, &single), (BODY_RECORDS, &bad)]);
        cases.push((what.into(), sealed(&body)));
    }
    for (what, number, value) in [
        ("an empty key", BODY_KEYS, b"".as_slice()),
        ("a key that is no text", BODY_KEYS, b"\xff"),
        ("a key of 257 characters", BODY_KEYS, &[b'k'; 257]),
        ("a hash key that is no number", BODY_HASHES, b"12x"),
        ("a hash key with a sign", BODY_HASHES, b"+12"),
        ("an empty hash key", BODY_HASHES, b""),
        ("a hash key past the hash space", BODY_HASHES, b"340282366920938463463374607431768211456"),
    ] {
        let body = message(&[(BODY_KEYS, b"k"), (number, value), (BODY_RECORDS, &single)]);
        cases.push((what.into(), sealed(&body)));
    }
    for (what, data) in cases {
        assert!(unpack(&data).is_none(), "{what}");
    }
}

#[test]
fn what_other_writers_may_do_is_read() {
    let with_hash = inner(Some(1), Some(0), Some(b"two"));
    let with_tag = [inner(Some(0), None, Some(b"one")), message(&[(4, b"\x0a\x01t")])].concat();
    // tables behind records, members in any order, unknown members, the last of a repeated member wins, zeros in front
    let repeated = [inner(Some(7), None, Some(b"gone")), inner(Some(0), None, Some(b"three"))].concat();
    let mut body =
        message(&[(BODY_RECORDS, &with_tag), (BODY_RECORDS, &with_hash), (BODY_RECORDS, &repeated)]);
    put_varint(&mut body, 9, 300);
    body.extend_from_slice(&[0x55, 1, 2, 3, 4, 0x51, 1, 2, 3, 4, 5, 6, 7, 8]);
    body.extend(message(&[(BODY_HASHES, b"007"), (BODY_KEYS, b"k"), (BODY_KEYS, b"l")]));
    let expected = [record("k", None, b"one"), record("l", Some(7), b"two"), record("k", None, b"three")];
    assert_eq!(unpack(&sealed(&body)).unwrap().collect::<Vec<_>>(), expected);
    let empty = unpack(&sealed(&message(&[(BODY_KEYS, b"k")]))).unwrap();
    assert_eq!(empty.count(), 0, "a container of no records is one");
}

#[test]
fn every_changed_byte_makes_it_a_plain_record() {
    let good = bytes(VECTOR);
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut changed = good.to_vec();
            changed[at] ^= 1 << bit;
            assert!(unpack(&changed.into()).is_none(), "byte {at}, bit {bit}");
        }
    }
}

#[test]
fn a_record_of_millions_of_tiny_records_is_walked_one_by_one() {
    let tiny = inner(Some(0), None, Some(b""));
    let one = message(&[(BODY_RECORDS, &tiny)]);
    let count = RECORD_DATA_BYTES_MAX / one.len() - 10;
    let body = [message(&[(BODY_KEYS, b"k")]), one.repeat(count)].concat();
    let mut records = unpack(&sealed(&body)).unwrap();
    assert_eq!(records.len(), count);
    assert_eq!(records.next().unwrap(), record("k", None, b""));
    assert_eq!(records.count(), count - 1);
}

fn records() -> impl Strategy<Value = Vec<Record>> {
    let data = prop::collection::vec(any::<u8>(), 0..300);
    let hash = prop::option::of(prop_oneof![0..4u128, any::<u128>()]);
    // few keys, so that the tables are shared
    let key = prop_oneof!["[ab]", "\\PC{1,40}"];
    let one = (key, hash, data).prop_map(|(key, hash, data)| record(&key, hash, &data));
    prop::collection::vec(one, 1..60)
}

proptest! {
    #[test]
    fn what_was_packed_is_unpacked(records in records()) {
        let packed = pack(&records).unwrap();
        prop_assert_eq!(packed.hash_key(), records[0].hash_key());
        match unpack(packed.data()) {
            Some(unpacked) => prop_assert_eq!(unpacked.collect::<Vec<_>>(), records),
            None => {
                prop_assert_eq!(records.len(), 1);
                prop_assert_eq!((packed.key(), packed.data()), (records[0].key(), records[0].data()));
            }
        }
    }

    #[test]
    fn any_bytes_are_records_or_a_plain_record(body in prop::collection::vec(any::<u8>(), 0..400)) {
        let raw = Bytes::from(body.clone());
        prop_assert!(unpack(&raw).is_none() || raw.starts_with(&MAGIC));
        if let Some(records) = unpack(&sealed(&body)) {
            let expected = records.len();
            prop_assert_eq!(records.count(), expected);
        }
    }

    /// Bodies that are nearly right reach further than arbitrary bytes do.
    #[test]
    fn damaged_bodies_never_panic(
        records in records(), at in any::<prop::sample::Index>(), byte: u8, cut in any::<prop::sample::Index>()
    ) {
        let mut body = body_of(&records);
        let place = at.index(body.len());
        body[place] = byte;
        body.truncate(cut.index(body.len()) + 1);
        if let Some(unpacked) = unpack(&sealed(&body)) {
            let expected = unpacked.len();
            prop_assert_eq!(unpacked.count(), expected);
        }
    }
}
