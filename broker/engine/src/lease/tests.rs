//! What is written down of a lease, and what is read back; and what is confirmed over a store that fails.

use super::ending::load;
use super::row::{Claim, Row};
use super::{HeldLease, LeaseRow, LeaseTable, RequestHandoff, Steal, TakeLease, stored};
use crate::error::{ErrorKind, Result};
use crate::one_stream::OneStream;
use crate::settings::Settings;
use crate::store::memory::MemoryStore;
use crate::store::writer::Metadata;
use crate::store::{Batch, Store};
use bytes::Bytes;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tidemill_types::limits::LEASE_STATE_BYTES_MAX;
use tidemill_types::{
    AppName, Checkpoint, LeaseEpoch, MonotonicMs, PendingCheckpoint, SequenceIndex, SequenceNumber, ShardId,
    StreamIncarnation, TimestampMs, WorkerId,
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
        let state = Bytes::from(vec![9; LEASE_STATE_BYTES_MAX]);
        written.pending = Some(PendingCheckpoint::new(checkpoint, state).unwrap());
        assert_eq!(Row::decode(&written.encode(), MonotonicMs::new(100)).unwrap(), written);
    }
}

/// What stores held before checkpoints could be prepared.
#[test]
fn a_row_of_version_1_reads_as_one_without_a_prepared_checkpoint() {
    let written = row(Checkpoint::ShardEnd);
    let bytes = written.encode();
    let mut version_1 = bytes[..bytes.len() - 1].to_vec();
    version_1[0] = 1;
    let read = Row::decode(&version_1, MonotonicMs::new(5)).unwrap();
    assert_eq!(read, Row { counter: 0, ..written });
    assert_eq!(read.encode(), bytes);
}

#[test]
fn damaged_leases_are_told_and_never_a_panic() {
    let mut prepared = row(Checkpoint::TrimHorizon);
    prepared.pending = Some(PendingCheckpoint::new(Checkpoint::Latest, Bytes::from_static(b"x")).unwrap());
    for bytes in [row(Checkpoint::ShardEnd).encode(), prepared.encode()] {
        for cut in 0..bytes.len() {
            let error = Row::decode(&bytes[..cut], MonotonicMs::default()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged);
        }
    }
    for key in [&b"lease/"[..], b"lease/12345678/1234", b"lease/12345678a1234", b"x"] {
        assert_eq!(stored::decode_key(key).unwrap_err().kind(), ErrorKind::Damaged);
    }
}

#[test]
fn leases_of_streams_and_shards_that_are_no_more_are_left_out_and_named() {
    let mut store = MemoryStore::default();
    let app = AppName::new("app").unwrap();
    let (live, gone) = (StreamIncarnation::new(1), StreamIncarnation::new(0x2f_00_00));
    let (shard, expired) = (ShardId::new(47).unwrap(), ShardId::new(46).unwrap());
    for (incarnation, shard) in [(live, shard), (live, expired), (gone, shard)] {
        let batch = Batch::put(stored::key(incarnation, &app, shard), row(Checkpoint::Latest).encode());
        store.commit(&[batch]).unwrap();
    }
    let (rows, orphans) = load(&store, &HashSet::from([(live, shard)]), MonotonicMs::default()).unwrap();
    assert_eq!(rows[&(live, app.clone())].keys().copied().collect::<Vec<_>>(), [shard]);
    assert_eq!(orphans, [stored::key(live, &app, expired), stored::key(gone, &app, shard)]);
}

/// A lease of one shard, taken by worker `w` under epoch 1, over a store that can be made to fail.
struct Taken {
    leases: LeaseTable,
    store: MemoryStore,
    app: AppName,
    worker: WorkerId,
    held: HeldLease,
    incarnation: StreamIncarnation,
    _one: OneStream,
}

impl Taken {
    async fn new() -> Self {
        let (one, store) = (OneStream::new(Settings::default()), MemoryStore::default());
        let (metadata, writer) = Metadata::new(Box::new(store.clone()));
        std::thread::spawn(move || writer.run());
        let registry = Arc::clone(&one.registry);
        let leases = LeaseTable::new(HashMap::new(), Arc::clone(&one.shared), registry, metadata);
        let (app, worker) = (AppName::new("app").unwrap(), WorkerId::new("w").unwrap());
        let (shard, epoch) = (ShardId::new(0).unwrap(), LeaseEpoch::new(1));
        let held = HeldLease { stream: one.name.clone(), shard, epoch };
        let incarnation = one.stream.info().incarnation;
        let taken = Self { leases, store, app, worker, held, incarnation, _one: one };
        taken.take(0).await.unwrap();
        taken
    }
    async fn take(&self, expected: u64) -> Result<LeaseRow> {
        let request = TakeLease {
            shard: self.held.shard,
            worker: self.worker.clone(),
            expected_epoch: LeaseEpoch::new(expected),
            lease_ms: 10_000,
            steal: Steal::Never,
            initial: Checkpoint::TrimHorizon,
        };
        self.leases.take(&self.app, &self.held.stream, request).await
    }
    async fn release(&self) -> Result<()> {
        self.leases.release(&self.app, &self.worker, &self.held).await
    }
    fn stored(&self) -> Row {
        let live = HashSet::from([(self.incarnation, self.held.shard)]);
        let (mut rows, _) = load(&self.store, &live, MonotonicMs::default()).unwrap();
        rows.get_mut(&(self.incarnation, self.app.clone())).unwrap().remove(&self.held.shard).unwrap()
    }
}

/// A checkpoint moved memory, its commit failed, and the same checkpoint told again was confirmed from memory: a restart
/// then gave the records before it out again, to an application that had been told they were done.
#[tokio::test]
async fn a_checkpoint_told_again_after_a_failed_commit_is_confirmed_only_when_durable() {
    let taken = Taken::new().await;
    let mark = || taken.leases.checkpoint(&taken.app, &taken.worker, &taken.held, Checkpoint::Latest);
    taken.store.set_failing(true);
    for _ in 0..2 {
        assert_eq!(mark().await.unwrap_err().kind(), ErrorKind::Unavailable);
    }
    assert_eq!(taken.stored().checkpoint, Checkpoint::TrimHorizon);
    taken.store.set_failing(false);
    mark().await.unwrap();
    assert_eq!(taken.stored().checkpoint, Checkpoint::Latest);
}

#[tokio::test]
async fn a_lease_taken_or_given_back_over_a_failing_store_is_not_confirmed_on_repetition_either() {
    let taken = Taken::new().await;
    taken.store.set_failing(true);
    assert!(taken.release().await.is_err());
    taken.store.set_failing(false);
    assert!(taken.release().await.is_err());
    assert_eq!(taken.stored().owner, Some(taken.worker.clone()));
    taken.store.set_failing(true);
    assert!(taken.take(1).await.is_err());
    taken.store.set_failing(false);
    assert!(taken.take(1).await.is_err());
    taken.take(2).await.unwrap();
    assert_eq!(taken.stored().epoch, LeaseEpoch::new(3));
}

#[tokio::test]
async fn what_is_prepared_is_confirmed_only_when_durable() {
    let taken = Taken::new().await;
    let pending = PendingCheckpoint::new(Checkpoint::Latest, Bytes::from_static(b"half")).unwrap();
    let prepare = || taken.leases.prepare(&taken.app, &taken.worker, &taken.held, pending.clone());
    taken.store.set_failing(true);
    for _ in 0..2 {
        assert_eq!(prepare().await.unwrap_err().kind(), ErrorKind::Unavailable);
    }
    assert_eq!(taken.stored().pending, None);
    taken.store.set_failing(false);
    prepare().await.unwrap();
    assert_eq!(taken.stored().pending, Some(pending));
}

/// The holder has lost it at once, its successor takes it as soon as the store works again: nobody holds it meanwhile.
#[tokio::test]
async fn a_lease_handed_over_while_the_store_fails_is_nobodys_until_its_successor_takes_it() {
    let taken = Taken::new().await;
    let successor = WorkerId::new("next").unwrap();
    let wish = RequestHandoff {
        shard: taken.held.shard,
        worker: successor.clone(),
        expected_epoch: taken.held.epoch,
        deadline_ms: 1_000,
    };
    taken.leases.request_handoff(&taken.app, &taken.held.stream, wish).await.unwrap();
    taken.store.set_failing(true);
    assert_eq!(taken.release().await.unwrap_err().kind(), ErrorKind::Unavailable);
    taken.store.set_failing(false);
    assert_eq!(taken.release().await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!((taken.stored().owner, taken.stored().epoch.get()), (Some(taken.worker.clone()), 1));
    let taken = Taken { worker: successor.clone(), ..taken };
    taken.take(2).await.unwrap();
    assert_eq!((taken.stored().owner, taken.stored().epoch.get()), (Some(successor), 3));
}
