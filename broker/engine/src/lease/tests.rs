//! What is written down of a lease, and what is read back; and what is confirmed over a store that fails.

use super::row::{self, Claim, Row};
use super::table::{HeldLease, LeaseTable, Steal, TakeLease, load};
use crate::error::ErrorKind;
use crate::one_stream::OneStream;
use crate::settings::Settings;
use crate::store::memory::MemoryStore;
use crate::store::writer::Metadata;
use crate::store::{Batch, Store};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tidemill_types::{
    AppName, Checkpoint, LeaseEpoch, MonotonicMs, SequenceIndex, SequenceNumber, ShardId, StreamIncarnation,
    TimestampMs, WorkerId,
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
fn leases_of_streams_and_shards_that_are_no_more_are_left_out_and_named() {
    let mut store = MemoryStore::default();
    let app = AppName::new("app").unwrap();
    let (live, gone) = (StreamIncarnation::new(1), StreamIncarnation::new(0x2f_00_00));
    let (shard, expired) = (ShardId::new(47).unwrap(), ShardId::new(46).unwrap());
    for (incarnation, shard) in [(live, shard), (live, expired), (gone, shard)] {
        let batch = Batch::put(row::key(incarnation, &app, shard), row(Checkpoint::Latest).encode());
        store.commit(&[batch]).unwrap();
    }
    let (rows, orphans) = load(&store, &HashSet::from([(live, shard)]), MonotonicMs::default()).unwrap();
    assert_eq!(rows[&(live, app.clone())].keys().copied().collect::<Vec<_>>(), [shard]);
    assert_eq!(orphans, [row::key(live, &app, expired), row::key(gone, &app, shard)]);
}

/// A checkpoint moved memory, its commit failed, and the same checkpoint told again was confirmed from memory: a restart
/// then gave the records before it out again, to an application that had been told they were done.
#[tokio::test]
async fn a_checkpoint_told_again_after_a_failed_commit_is_confirmed_only_when_durable() {
    let (one, store) = (OneStream::new(Settings::default()), MemoryStore::default());
    let (metadata, writer) = Metadata::new(Box::new(store.clone()));
    std::thread::spawn(move || writer.run());
    let registry = Arc::clone(&one.registry);
    let leases = LeaseTable::new(HashMap::new(), Arc::clone(&one.shared), registry, metadata);
    let (stream, incarnation) = (one.name, one.stream.info().incarnation);
    let (app, worker) = (AppName::new("app").unwrap(), WorkerId::new("w").unwrap());
    let shard = ShardId::new(0).unwrap();
    let request = |expected| TakeLease {
        shard,
        worker: worker.clone(),
        expected_epoch: LeaseEpoch::new(expected),
        lease_ms: 10_000,
        steal: Steal::Never,
        initial: Checkpoint::TrimHorizon,
    };
    let stored = || {
        let (rows, _) = load(&store, &HashSet::from([(incarnation, shard)]), MonotonicMs::default()).unwrap();
        rows.get(&(incarnation, app.clone())).map(|taken| taken[&shard].clone())
    };
    leases.take(&app, &stream, request(0)).await.unwrap();
    let held = HeldLease { stream: stream.clone(), shard, epoch: LeaseEpoch::new(1) };
    store.set_failing(true);
    for _ in 0..2 {
        let failed = leases.checkpoint(&app, &worker, &held, Checkpoint::Latest).await;
        assert_eq!(failed.unwrap_err().kind(), ErrorKind::Unavailable);
    }
    assert_eq!(stored().unwrap().checkpoint, Checkpoint::TrimHorizon);
    store.set_failing(false);
    leases.checkpoint(&app, &worker, &held, Checkpoint::Latest).await.unwrap();
    assert_eq!(stored().unwrap().checkpoint, Checkpoint::Latest);

    // a lease that was taken or given back over a failing store is not confirmed on repetition either
    store.set_failing(true);
    assert!(leases.release(&app, &worker, &held).await.is_err());
    store.set_failing(false);
    assert!(leases.release(&app, &worker, &held).await.is_err());
    assert_eq!(stored().unwrap().owner, Some(worker.clone()));
    store.set_failing(true);
    assert!(leases.take(&app, &stream, request(1)).await.is_err());
    store.set_failing(false);
    assert!(leases.take(&app, &stream, request(1)).await.is_err());
    leases.take(&app, &stream, request(2)).await.unwrap();
    assert_eq!(stored().unwrap().epoch, LeaseEpoch::new(3));
}
