//! Sealing below the engine: what is sealed opens to what it was, nothing else opens, no nonce comes twice.

use super::*;
use crate::keys::{KeyMaterial, WrappingKey};
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::HashSet;
use tidemill_types::limits::{FRAME_STORED_BYTES_MAX, RECORD_DATA_BYTES_MAX};
use tidemill_types::{AccountId, FrameWriter, ProducerId, StreamName};

fn key(id: &str, byte: u8) -> WrappingKey {
    let material = KeyMaterial::secret([byte; 32]);
    WrappingKey { id: id.to_owned(), aliases: Vec::new(), material }
}

fn owner() -> KeyOwner {
    let stream = StreamKey::new(AccountId::new("000000000000").unwrap(), StreamName::new("s").unwrap());
    KeyOwner { stream, incarnation: StreamIncarnation::new(4) }
}

/// A stream with so many data keys, wrapped by `alias/a`.
fn keys(ring: &KeyRing, count: u32) -> Arc<StreamKeys> {
    let wrap = |number| ring.now().wrap_new("alias/a", |id| owner().binding(number, id)).unwrap();
    StreamKeys::new(ring.clone(), owner(), (1..=count).map(|number| (number, wrap(number))).collect())
}

fn frame(records: &[(String, Vec<u8>)]) -> Frame {
    let mut writer = FrameWriter::with_capacity(100);
    records.iter().for_each(|(key, data)| writer.push(key, data));
    writer.finish(ProducerId::new(7), 9)
}

/// As storage would: with its log's number in the header.
fn stored(frame: &Frame, change: impl FnOnce(&mut FrameHeader)) -> Frame {
    let mut header = FrameHeader { log: 5, ..*frame.header() };
    change(&mut header);
    Frame::decode(&Bytes::from([&header.encode()[..], &frame.body()].concat())).unwrap()
}

const LOG: LogId = LogId::new(5);

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn what_is_sealed_opens_to_what_it_was_and_no_changed_byte_opens(
        given in proptest::collection::vec(("\\PC{1,20}", proptest::collection::vec(any::<u8>(), 0..200)), 1..20),
        at: proptest::sample::Index, flip in 1u8..,
    ) {
        let ring = KeyRing::new(vec![key("alias/a", 1)]).unwrap();
        let keys = keys(&ring, 2);
        let plain = frame(&given);
        let sealed = keys.seal_now(2, LOG, &plain).unwrap();
        let stored_frame = stored(&sealed, |_| ());
        let opened = keys.open(stored_frame.clone()).unwrap();
        prop_assert_eq!(opened.body(), plain.body());
        prop_assert!(!opened.header().is_sealed());
        prop_assert_eq!(&Frame::decode_untrusted(opened.bytes()).unwrap(), &opened);

        let mut body = sealed.body().to_vec();
        let at = at.index(body.len());
        body[at] ^= flip;
        let header = FrameHeader { body_crc: crc(&body), ..*stored_frame.header() };
        let changed = Frame::decode(&Bytes::from([&header.encode()[..], &body].concat())).unwrap();
        prop_assert_eq!(keys.open(changed).unwrap_err().kind(), ErrorKind::Damaged);
    }
}

/// CRC-32 of a body: what a frame with that body says of it.
fn crc(body: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in body {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xEDB8_8320 & (0u32.wrapping_sub(crc & 1)));
        }
    }
    !crc
}

#[test]
fn a_sealed_body_does_not_open_in_another_place() {
    let ring = KeyRing::new(vec![key("alias/a", 1)]).unwrap();
    let keys = keys(&ring, 1);
    let sealed = keys.seal_now(1, LOG, &frame(&[("k".into(), vec![1, 2, 3])])).unwrap();
    let opens = |change: fn(&mut FrameHeader)| keys.open(stored(&sealed, change)).is_ok();
    assert!(opens(|_| ()));
    assert!(!opens(|header| header.log = 6));
    assert!(!opens(|header| header.count = 2));
    assert!(!opens(|header| header.producer = ProducerId::NONE));
    assert!(!opens(|header| header.batch_number = 10));
}

#[test]
fn no_nonce_comes_twice_neither_by_many_threads_nor_after_a_restart() {
    let ring = KeyRing::new(vec![key("alias/a", 1)]).unwrap();
    let first = keys(&ring, 1);
    let wrapped = BTreeMap::clone(&first.wrapped.load());
    let again = StreamKeys::new(ring.clone(), owner(), wrapped);
    let plain = frame(&[("k".into(), vec![0; 10])]);
    let seal = |keys: &StreamKeys| keys.seal_now(1, LOG, &plain).unwrap();
    let mut seen = HashSet::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = [&first, &first, &again]
            .map(|keys| scope.spawn(move || (0..500).map(|_| seal(keys)).collect::<Vec<_>>()))
            .into_iter()
            .collect();
        for sealed in threads.into_iter().flat_map(|thread| thread.join().unwrap()) {
            assert!(seen.insert(sealed.sealed().unwrap().sealing), "a nonce came twice");
            assert_eq!(again.open(stored(&sealed, |_| ())).unwrap().body(), plain.body());
        }
    });
    assert_eq!(seen.len(), 1500);
    assert_eq!(seen.iter().map(|sealing| sealing.salt).collect::<HashSet<_>>().len(), 2);
}

#[test]
fn keys_that_go_are_missed_at_once_and_work_again_when_they_are_back() {
    let ring = KeyRing::new(vec![key("alias/a", 1)]).unwrap();
    let keys = keys(&ring, 1);
    let plain = frame(&[("k".into(), vec![1, 2, 3])]);
    let sealed = stored(&keys.seal_now(1, LOG, &plain).unwrap(), |_| ());
    keys.open(sealed.clone()).unwrap();
    let kinds = |with| {
        ring.replace(with).unwrap();
        let put = keys.seal_now(1, LOG, &plain).unwrap_err().kind();
        assert_eq!(keys.open(sealed.clone()).unwrap_err().kind(), put);
        put
    };
    assert_eq!(kinds(Vec::new()), ErrorKind::KeyNotFound);
    assert_eq!(kinds(vec![key("alias/a", 2)]), ErrorKind::KeyUnusable);
    let disabled = WrappingKey { material: KeyMaterial::Disabled, ..key("alias/a", 1) };
    assert_eq!(kinds(vec![disabled]), ErrorKind::KeyDisabled);
    let unreadable = WrappingKey { material: KeyMaterial::Unreadable("mode".into()), ..key("alias/a", 1) };
    assert_eq!(kinds(vec![unreadable]), ErrorKind::KeyDenied);
    assert_eq!(keys.open(plain.clone()).unwrap(), plain, "clear frames need no key");
    ring.replace(vec![key("alias/b", 7), key("alias/a", 1)]).unwrap();
    assert_eq!(keys.open(sealed.clone()).unwrap().body(), plain.body());
    let more = keys.seal_now(1, LOG, &plain).unwrap();
    assert_ne!(more.sealed().unwrap().sealing.salt, sealed.sealed().unwrap().sealing.salt);
}

#[test]
fn a_row_put_in_place_of_another_does_not_open() {
    let ring = KeyRing::new(vec![key("alias/a", 1)]).unwrap();
    let keys = keys(&ring, 2);
    let rows = BTreeMap::clone(&keys.wrapped.load());
    keys.set_wrapped(BTreeMap::from([(1, rows[&2].clone()), (2, rows[&1].clone())]));
    let plain = frame(&[("k".into(), vec![1])]);
    assert_eq!(keys.seal_now(1, LOG, &plain).unwrap_err().kind(), ErrorKind::KeyUnusable);
    let mut other = owner();
    other.incarnation = StreamIncarnation::new(5);
    let other = StreamKeys::new(ring, other, rows);
    assert_eq!(other.seal_now(1, LOG, &plain).unwrap_err().kind(), ErrorKind::KeyUnusable);
}

#[tokio::test]
async fn a_record_of_ten_mebibytes_is_sealed_on_another_thread_and_opens() {
    let ring = KeyRing::new(vec![key("alias/a", 1)]).unwrap();
    let keys = keys(&ring, 1);
    let plain = frame(&[("k".into(), vec![7; RECORD_DATA_BYTES_MAX])]);
    let sealed = keys.seal(1, LOG, plain.clone()).await.unwrap();
    assert!(sealed.bytes().len() <= FRAME_STORED_BYTES_MAX);
    assert_eq!(keys.open(stored(&sealed, |_| ())).unwrap().body(), plain.body());
}
