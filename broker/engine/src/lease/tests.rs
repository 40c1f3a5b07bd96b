//! What is written down of a lease, and what is read back.

use super::row::{self, Claim, Row};
use super::table::load;
use crate::error::ErrorKind;
use crate::store::memory::MemoryStore;
use crate::store::{Batch, Store};
use crate::stream::StreamIncarnation;
use std::collections::HashSet;
use tidemill_types::{
    AppName, Checkpoint, LeaseEpoch, MonotonicMs, SequenceIndex, SequenceNumber, ShardId, TimestampMs,
    WorkerId,
};

fn row(checkpoint: Checkpoint) -> Row {
    let worker = WorkerId::new("host-1 ü").unwrap();
    let expected = LeaseEpoch::default();
    let claim = Claim { worker: &worker, expected, lease_ms: 700, may_steal: false, initial: checkpoint };
    Row::take(None, &claim, MonotonicMs::new(5)).unwrap()
}

#[test]
fn a_lease_reads_as_it_was_written_with_a_new_lease_time() {
    let shard = ShardId::new(3).unwrap();
    let (created, index) = (TimestampMs::new(1_700_000_000_000), SequenceIndex::new(12).unwrap());
    let number = SequenceNumber::new(created, shard, index, created);
    let at = Checkpoint::At { number, sub: 9 };
    for checkpoint in [Checkpoint::TrimHorizon, Checkpoint::Latest, at, Checkpoint::ShardEnd] {
        let mut written = row(checkpoint);
        let read = Row::decode(&written.encode(), MonotonicMs::new(100)).unwrap();
        written.expires = MonotonicMs::new(800);
        written.counter = 0;
        assert_eq!(read, written);
        written.owner = None;
        assert_eq!(Row::decode(&written.encode(), MonotonicMs::new(100)).unwrap(), written);
    }
}

#[test]
fn damaged_leases_are_told_and_never_a_panic() {
    let bytes = row(Checkpoint::ShardEnd).encode();
    for cut in 0..bytes.len() {
        let error = Row::decode(&bytes[..cut], MonotonicMs::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged);
    }
    for key in [&b"lease/"[..], b"lease/12345678/1234", b"lease/12345678a1234", b"x"] {
        assert_eq!(row::decode_key(key).unwrap_err().kind(), ErrorKind::Damaged);
    }
}

#[test]
fn leases_of_streams_that_are_no_more_are_left_out_and_named() {
    let mut store = MemoryStore::default();
    let app = AppName::new("app").unwrap();
    let (live, gone) = (StreamIncarnation::new(1), StreamIncarnation::new(0x2f_00_00));
    let shard = ShardId::new(47).unwrap();
    for incarnation in [live, gone] {
        let batch = Batch::put(row::key(incarnation, &app, shard), row(Checkpoint::Latest).encode());
        store.commit(&[batch]).unwrap();
    }
    let (rows, orphans) = load(&store, &HashSet::from([live]), MonotonicMs::default()).unwrap();
    assert_eq!(rows[&(live, app.clone())].keys().copied().collect::<Vec<_>>(), [shard]);
    assert_eq!(orphans, [row::key(gone, &app, shard)]);
}
