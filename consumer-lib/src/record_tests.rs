//! Batches begin where they are asked to, and aggregated records are taken apart without losing any.

use super::*;
use crate::shard::ShardState;
use tidemill_types::{FrameHeader, FrameWriter, PartitionKey, ProducerId};

pub(crate) const CREATED: TimestampMs = TimestampMs::new(1_700_000_000_000);

pub(crate) fn shard(id: u32) -> ShardInfo {
    ShardInfo {
        id: ShardId::new(id).unwrap(),
        parent: None,
        adjacent_parent: None,
        range: HashKeyRange::uniform(1)[0],
        state: ShardState::Open,
        created: Some(CREATED),
    }
}

pub(crate) fn at(id: u32) -> ShardRef {
    ShardRef::new(StreamName::new("s").unwrap(), ShardId::new(id).unwrap())
}

fn lens() -> Lens {
    Lens::new(at(0), &shard(0), Misrouted::Deliver)
}

pub(crate) fn frame(first: u64, records: &[&[u8]]) -> Frame {
    let mut writer = FrameWriter::with_capacity(64);
    for record in records {
        writer.push("key", record);
    }
    let made = writer.finish(ProducerId::NONE, 0);
    let header = FrameHeader { first: SequenceIndex::new(first).unwrap(), ..*made.header() };
    let mut bytes = header.encode().to_vec();
    bytes.extend_from_slice(&made.body());
    Frame::decode(&bytes.into()).unwrap()
}

fn index(record: &Record) -> u64 {
    SequenceNumber::try_from(record.sequence_number()).unwrap().index().get()
}

fn shown(batch: &Batch) -> Vec<(u64, u64, Bytes)> {
    batch.records().map(|r| (index(&r), r.sub_sequence_number(), r.data_bytes())).collect()
}

fn number(index: u64) -> AnySequenceNumber {
    SequenceNumber::new(CREATED, at(0).shard(), SequenceIndex::new(index).unwrap(), TimestampMs::default())
        .into()
}

fn from(index: u64) -> SequenceIndex {
    SequenceIndex::new(index).unwrap()
}

/// `count` user records in one stored record, each under a key of its own.
fn aggregated(names: &[&str]) -> Bytes {
    let records: Vec<_> = names
        .iter()
        .map(|name| tidemill_types::Record::new(PartitionKey::new(name).unwrap(), name.to_string()).unwrap())
        .collect();
    aggregate::pack(&records).unwrap().data().clone()
}

#[test]
fn a_batch_begins_where_it_was_asked_to_in_the_middle_of_a_frame() {
    let frames = vec![frame(1, &[b"a", b"b"]), frame(3, &[b"c", b"d", b"e"]), frame(6, &[b"f"])];
    let batch = Batch::of_frames(lens(), CREATED, frames.clone(), from(4), None).unwrap();
    let expected = [(4, 0, Bytes::from("d")), (5, 0, Bytes::from("e")), (6, 0, Bytes::from("f"))];
    assert_eq!(shown(&batch), expected);
    assert_eq!(batch.len(), 3);
    assert_eq!(batch.last_sequence_number(), batch.records().last().unwrap().sequence_number());
    assert!(Batch::of_frames(lens(), CREATED, frames, from(7), None).is_none());
}

#[test]
fn a_record_of_a_frame_shows_its_own_key_and_data_and_equals_only_itself() {
    let frames = vec![frame(1, &[b"a", b""]), frame(3, &[b"bc"])];
    let records: Vec<_> =
        Batch::of_frames(lens(), CREATED, frames, from(1), None).unwrap().records().collect();
    for (record, data) in records.iter().zip([&b"a"[..], b"", b"bc"]) {
        assert_eq!((record.partition_key(), record.data(), &record.data_bytes()[..]), ("key", data, data));
        assert_eq!(records.iter().filter(|other| *other == record).count(), 1);
    }
    assert_eq!(records.len(), 3);
}

#[test]
fn what_was_processed_is_left_out_and_a_batch_without_a_rest_is_none() {
    let frames = || vec![frame(1, &[b"a", b"b", b"c"])];
    let batch = Batch::of_frames(lens(), CREATED, frames(), from(1), Some((number(1), 0))).unwrap();
    assert_eq!(shown(&batch).iter().map(|(at, ..)| *at).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(batch.len(), 2);
    let rest = batch.clone().behind(Some((number(2), 0))).unwrap();
    assert_eq!((rest.len(), shown(&rest)[0].0), (1, 3));
    assert!(batch.behind(Some((number(3), 0))).is_none());
    assert!(Batch::of_frames(lens(), CREATED, frames(), from(1), Some((number(3), 0))).is_none());
}

#[test]
fn aggregated_records_are_taken_apart_and_resumed_in_their_middle() {
    let whole = aggregated(&["x", "y", "z"]);
    let frames = || vec![frame(1, &[b"a", &whole, b"b"])];
    let batch = Batch::of_frames(lens(), CREATED, frames(), from(1), None).unwrap();
    let places: Vec<_> = shown(&batch).into_iter().map(|(index, sub, _)| (index, sub)).collect();
    assert_eq!(places, [(1, 0), (2, 0), (2, 1), (2, 2), (3, 0)]);
    assert_eq!(batch.len(), 5);
    let keys: Vec<_> = batch.records().map(|r| r.partition_key().to_owned()).collect();
    assert_eq!(keys, ["key", "x", "y", "z", "key"]);

    let rest = Batch::of_frames(lens(), CREATED, frames(), from(2), Some((number(2), 1))).unwrap();
    let places: Vec<_> = shown(&rest).into_iter().map(|(index, sub, _)| (index, sub)).collect();
    assert_eq!(places, [(2, 2), (3, 0)], "a checkpoint within an aggregate resumes within it");
    let last = Batch::of_frames(lens(), CREATED, vec![frame(2, &[&whole])], from(2), None).unwrap();
    assert_eq!(
        last.last_place(),
        (number(2), 2),
        "the end of a batch is the last record in its last aggregate"
    );
}

#[test]
fn data_that_only_looks_aggregated_is_a_plain_record() {
    let mut broken = aggregated(&["x", "y"]).to_vec();
    *broken.last_mut().unwrap() ^= 1;
    let within = [&b"some text "[..], &aggregate::MAGIC, b" more"].concat();
    let batch =
        Batch::of_frames(lens(), CREATED, vec![frame(1, &[&broken, &within])], from(1), None).unwrap();
    assert_eq!(shown(&batch), [(1, 0, broken.into()), (2, 0, within.into())]);
}

#[test]
fn a_record_of_another_shard_is_delivered_unless_only_it_is_to_be_skipped() {
    let halves = HashKeyRange::uniform(2);
    let names = ["k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7"];
    let lower = |name: &&str| halves[0].contains(HashKey::of(name));
    let mine: Vec<_> = names.into_iter().filter(lower).collect();
    assert!(!mine.is_empty() && mine.len() < names.len());
    let stored =
        StoredRecord { number: number(1), arrival: CREATED, key: Bytes::from("a"), data: aggregated(&names) };
    let half = ShardInfo { range: halves[0], ..shard(0) };
    for (misrouted, expected) in [(Misrouted::Deliver, names.to_vec()), (Misrouted::Skip, mine)] {
        let lens = Lens::new(at(0), &half, misrouted);
        let batch = Batch::of_stored(lens, vec![stored.clone()], None).unwrap();
        let keys: Vec<_> = batch.records().map(|record| record.partition_key().to_owned()).collect();
        assert_eq!(keys, expected);
        assert_eq!(batch.len(), expected.len());
        assert_eq!(batch.last_place(), (number(1), 7), "skipped ones count as done");
    }
}

#[test]
fn a_batch_can_be_delivered_one_record_at_a_time() {
    let whole = aggregated(&["x", "y"]);
    let batch = Batch::of_frames(lens(), CREATED, vec![frame(1, &[b"a", &whole])], from(1), None);
    let (mut left, mut found) = (batch, Vec::new());
    while let Some(batch) = left {
        let one = batch.first_alone().unwrap();
        assert_eq!(one.len(), 1);
        assert_eq!(one.records().count(), 1);
        found.push(one.last_place());
        left = batch.behind(Some(one.last_place()));
    }
    assert_eq!(found, [(number(1), 0), (number(2), 0), (number(2), 1)]);
}
