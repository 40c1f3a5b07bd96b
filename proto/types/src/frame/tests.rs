use super::*;
use crate::limits::{FRAME_BYTES_MAX, RECORD_DATA_BYTES_MAX};
use proptest::prelude::*;

fn written(records: &[(String, Vec<u8>)]) -> Frame {
    let mut writer = FrameWriter::with_capacity(64);
    for (key, data) in records {
        writer.push(key, data);
    }
    writer.finish(ProducerId::new(7), 9)
}

fn records() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
    proptest::collection::vec(("\\PC{1,20}", proptest::collection::vec(any::<u8>(), 0..200)), 1..20)
}

proptest! {
    #[test]
    fn a_frame_gives_back_what_was_written(given in records()) {
        let frame = written(&given);
        let read = Frame::decode_untrusted(frame.bytes()).unwrap();
        prop_assert_eq!(&read, &frame);
        let got: Vec<_> = read.records().map(|r| (r.key.to_owned(), r.data.to_vec())).collect();
        prop_assert_eq!(got, given);
    }

    #[test]
    fn any_changed_byte_is_noticed(given in records(), at: proptest::sample::Index, flip in 1u8..) {
        let frame = written(&given);
        let mut bytes = frame.bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        prop_assert!(Frame::decode(&Bytes::from(bytes)).is_err());
    }

    #[test]
    fn any_cut_is_noticed(given in records(), at: proptest::sample::Index) {
        let frame = written(&given);
        let cut = at.index(frame.bytes().len());
        prop_assert!(Frame::decode(&frame.bytes().slice(..cut)).is_err());
    }

    #[test]
    fn garbage_is_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Frame::decode_untrusted(&Bytes::from(bytes));
    }

    #[test]
    fn headers_print_as_they_parse(
        kind in prop_oneof![Just(FrameKind::Records), Just(FrameKind::Close)], body in 0u32..1000, crc: u32, log: u64,
        first in 0u64..(1 << 63), count in 1u32..1000, before: u32, time: u64, producer: u64, number: u64,
    ) {
        let close = kind == FrameKind::Close;
        let header = FrameHeader {
            frame_bytes: 64 + if close { 0 } else { body },
            kind, attributes: 0, body_crc: crc, log,
            first: SequenceIndex::new(first).unwrap(),
            count: if close { 0 } else { count },
            group_before: before,
            arrival: TimestampMs::new(time),
            producer: ProducerId::new(producer),
            batch_number: number,
        };
        prop_assert_eq!(FrameHeader::decode(&header.encode()).unwrap(), header);
    }
}

#[test]
fn frames_are_walked_one_behind_the_other() {
    let one = written(&[("a".into(), vec![1])]);
    let two = written(&[("b".into(), vec![]), ("c".into(), vec![2, 3])]);
    let both = Bytes::from([one.bytes().as_ref(), two.bytes().as_ref()].concat());
    let read: Vec<_> = Frames::new(both.clone()).collect::<Result<_, _>>().unwrap();
    assert_eq!(read, [one, two]);
    let cut: Vec<_> = Frames::new(both.slice(..both.len() - 1)).collect();
    assert_eq!(cut.len(), 2);
    assert!(cut[1].is_err());
}

#[test]
fn a_record_of_the_maximum_size_and_an_empty_one_fit() {
    let frame = written(&[("k".into(), vec![7; RECORD_DATA_BYTES_MAX]), ("k".into(), vec![])]);
    let read = Frame::decode_untrusted(frame.bytes()).unwrap();
    assert_eq!(read.records().map(|r| r.data.len()).collect::<Vec<_>>(), [RECORD_DATA_BYTES_MAX, 0]);
}

#[test]
fn a_frame_whose_records_lie_is_refused_even_with_right_checksums() {
    let frame = written(&[("k".into(), vec![1, 2, 3])]);
    let mut bytes = frame.bytes().to_vec();
    bytes[64] = 200; // the record claims 200 bytes
    let header = FrameHeader { body_crc: crc32fast::hash(&bytes[64..]), ..*frame.header() };
    bytes[..64].copy_from_slice(&header.encode());
    let bytes = Bytes::from(bytes);
    assert!(Frame::decode(&bytes).is_ok());
    assert!(matches!(Frame::decode_untrusted(&bytes), Err(FrameError::Short { .. })));
}

fn sealing() -> Sealing {
    Sealing { data_key: 3, salt: [9; 16], number: 77 }
}

/// Stands for a cipher: what matters here is where the parts lie.
fn flip(bytes: &mut [u8]) -> Result<[u8; 16], ()> {
    bytes.iter_mut().for_each(|byte| *byte = !*byte);
    Ok([0xAA; 16])
}

proptest! {
    #[test]
    fn a_sealed_frame_is_a_frame_and_opens_to_what_it_was(given in records(), at: proptest::sample::Index) {
        let plain = written(&given);
        let sealed = plain.seal(sealing(), flip).unwrap();
        prop_assert_eq!(&Frame::decode(sealed.bytes()).unwrap(), &sealed);
        prop_assert!(sealed.header().is_sealed());
        prop_assert_eq!((sealed.header().producer, sealed.header().batch_number), (ProducerId::new(7), 9));
        prop_assert_eq!(sealed.records().count(), 0, "ciphertext is not taken for records");
        let parts = sealed.sealed().unwrap();
        prop_assert_eq!((parts.sealing, parts.tag), (sealing(), &[0xAA; 16]));
        let opened = sealed.open(&parts, |body| {
            body.copy_from_slice(parts.ciphertext);
            flip(body).map(drop)
        });
        prop_assert_eq!(opened.unwrap(), plain);
        let cut = at.index(sealed.bytes().len());
        prop_assert!(Frame::decode(&sealed.bytes().slice(..cut)).is_err());
    }
}

#[test]
fn the_largest_frame_still_fits_when_it_is_sealed_and_no_client_may_send_a_sealed_one() {
    let mut writer = FrameWriter::with_capacity(FRAME_BYTES_MAX);
    writer.push("k", &vec![1; RECORD_DATA_BYTES_MAX]);
    let rest = FRAME_BYTES_MAX - writer.frame_bytes() - FrameWriter::record_bytes(1, 0);
    writer.push("k", &vec![2; rest]);
    let plain = writer.finish(ProducerId::NONE, 0);
    assert_eq!(plain.bytes().len(), FRAME_BYTES_MAX);
    let sealed = plain.seal(sealing(), flip).unwrap();
    assert_eq!(sealed.bytes().len(), crate::limits::FRAME_STORED_BYTES_MAX);
    assert_eq!(Frame::decode(sealed.bytes()).unwrap(), sealed);
    assert!(Frame::decode_untrusted(sealed.bytes()).is_err());
    assert!(plain.sealed().is_none());
}

#[test]
fn a_header_with_attributes_of_the_future_or_too_short_to_be_sealed_is_refused() {
    let frame = written(&[("k".into(), vec![1; 100])]);
    let with = |attributes, frame_bytes| {
        FrameHeader::decode(&FrameHeader { attributes, frame_bytes, ..*frame.header() }.encode()).is_ok()
    };
    assert!(with(0, 200) && with(1, 200));
    assert!(!with(2, 200) && !with(0x8001, 200));
    assert!(with(1, 64 + 44) && !with(1, 64 + 43));
    let largest = u32::try_from(FRAME_BYTES_MAX).unwrap();
    assert!(with(0, largest) && !with(0, largest + 1));
    assert!(with(1, largest + 44) && !with(1, largest + 45));
}

#[test]
fn a_record_without_a_key_is_taken_only_where_the_stream_allows_it() {
    let frame = written(&[("k".into(), vec![1]), (String::new(), vec![2])]);
    assert!(matches!(Frame::decode_untrusted(frame.bytes()), Err(FrameError::Malformed(_))));
    assert_eq!(Frame::decode_untrusted_keyless(frame.bytes()).unwrap(), frame);
    let stored = Frame::decode(frame.bytes()).unwrap();
    assert_eq!(stored.records().map(|r| r.key).collect::<Vec<_>>(), ["k", ""]);
    let long = written(&[("x".repeat(257), vec![])]);
    assert!(Frame::decode_untrusted_keyless(long.bytes()).is_err());
}
