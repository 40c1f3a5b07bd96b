use super::*;
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
