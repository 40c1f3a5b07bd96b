//! Where a case runs: an application whose workers each have a store of their own over the same leases.

use crate::fetch::{Reader, Reading, Source};
use crate::hold::Hold;
use crate::place::{Checkpoint, PendingCheckpoint};
use crate::service::Holder;
use crate::shard::{ShardInfo, ShardRef, ShardState};
use crate::store::{Answer, Ask, LeaseRow, LeaseStore, Renewed, Take};
use bytes::Bytes;
use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tidemill_proto::{Error, ErrorKind};
use tidemill_types::{
    AppName, HashKeyRange, SequenceIndex, SequenceNumber, ShardId, StreamName, TimestampMs, WorkerId,
};
use tokio::time::{Instant, sleep};

type Make = dyn Fn(Holder) -> Arc<dyn LeaseStore> + Send + Sync;

/// An application, and the stream of one shard that it works on.
#[derive(Clone)]
pub(crate) struct World {
    app: AppName,
    stream: StreamName,
    pub(super) lease: Duration,
    make: Arc<Make>,
    source: Option<Arc<StubSource>>,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("app", &self.app).finish_non_exhaustive()
    }
}

impl World {
    pub(crate) fn new(
        app: &str,
        stream: &str,
        lease: Duration,
        make: impl Fn(Holder) -> Arc<dyn LeaseStore> + Send + Sync + 'static,
    ) -> Self {
        let app = AppName::new(app).expect("a name of a test fits");
        let stream = StreamName::new(stream).expect("a name of a test fits");
        Self { app, stream, lease, make: Arc::new(make), source: None }
    }
    /// The shards are those of this source.
    pub(crate) fn with_source(self, source: Arc<StubSource>) -> Self {
        Self { source: Some(source), ..self }
    }
    pub(super) fn source(&self) -> Option<&Arc<StubSource>> {
        self.source.as_ref()
    }
    /// A worker that begins.
    pub(super) fn worker(&self, id: &str) -> Worker {
        let worker = WorkerId::new(id).expect("a name of a test fits");
        let holder = Holder { app: self.app.clone(), worker: worker.clone(), lease: self.lease };
        Worker { id: worker, store: (self.make)(holder), stream: self.stream.clone(), lease: self.lease }
    }
}

/// A worker: its store, and what it does with it.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) id: WorkerId,
    pub(super) store: Arc<dyn LeaseStore>,
    stream: StreamName,
    lease: Duration,
}

impl Worker {
    pub(super) fn at(&self, id: u32) -> ShardRef {
        ShardRef::new(self.stream.clone(), ShardId::new(id).expect("a small number"))
    }
    pub(super) async fn rows(&self) -> Vec<LeaseRow> {
        self.store.list(&self.stream).await.expect("leases are listed")
    }
    /// What it sees of the lease of the only shard, or of the first.
    pub(super) async fn see(&self) -> LeaseRow {
        let rows = self.rows().await;
        rows.into_iter().min_by_key(|row| row.shard.id).expect("there is a shard")
    }
    /// A place in the first shard: one that a broker would have given, if it is of a broker.
    pub(super) async fn place(&self, index: u64) -> Checkpoint {
        let shard = self.see().await.shard;
        let created = shard.created.unwrap_or(TimestampMs::new(1_700_000_000_000));
        let index = SequenceIndex::new(index).expect("a small number");
        Checkpoint::At { number: SequenceNumber::new(created, shard.id, index, created).into(), sub: 0 }
    }
    /// Takes the lease as it saw it, by force or not.
    pub(super) async fn try_take(
        &self,
        seen: &LeaseRow,
        steal: bool,
    ) -> Result<(Arc<Hold>, LeaseRow), ErrorKind> {
        let at = ShardRef::new(self.stream.clone(), seen.shard.id);
        let take = Take { at: at.clone(), expected: seen.epoch, steal, initial: Checkpoint::TrimHorizon };
        let sent = Instant::now();
        let row = self.store.take(&take).await.map_err(|error| error.kind())?;
        Ok((Arc::new(Hold::new(at, row.epoch, sent + self.lease)), row))
    }
    /// Looks, and takes what is free or its own.
    pub(super) async fn take(&self) -> Arc<Hold> {
        let seen = self.see().await;
        let mine = seen.owner.as_ref() == Some(&self.id);
        let (hold, row) = self.try_take(&seen, mine).await.expect("a lease to be had");
        assert!(row.is_held() && row.owner.as_ref() == Some(&self.id), "what was taken is held: {row:?}");
        assert!(row.epoch > seen.epoch, "epochs rise: {} after {}", row.epoch, seen.epoch);
        hold
    }
    /// What became of one lease that it renews.
    pub(super) async fn renew(&self, hold: &Arc<Hold>) -> Renewed {
        let renewed = self.store.renew(std::slice::from_ref(hold)).await.expect("leases are renewed");
        assert_eq!(renewed.len(), 1, "what became of a lease is told");
        renewed[0].1
    }
    pub(super) async fn ask(&self, seen: &LeaseRow, deadline: Duration) -> Result<(), ErrorKind> {
        let at = ShardRef::new(self.stream.clone(), seen.shard.id);
        let ask = Ask { at, expected: seen.epoch, deadline };
        self.store.ask(&ask).await.map_err(|error| error.kind())
    }
    pub(super) async fn checkpoint(&self, hold: &Hold, checkpoint: Checkpoint) -> Result<(), ErrorKind> {
        self.store.checkpoint(hold, checkpoint).await.map_err(|error| error.kind())
    }
    /// Looks until it sees what it looks for, for a while.
    pub(super) async fn see_until(&self, what: &str, holds: impl Fn(&LeaseRow) -> bool) -> LeaseRow {
        let begun = Instant::now();
        loop {
            let row = self.see().await;
            if holds(&row) {
                return row;
            }
            assert!(begun.elapsed() < 3 * self.lease, "not within three lease times: {what}, but {row:?}");
            sleep(self.lease / 20).await;
        }
    }
    /// Nothing that only the holder may do is done by who is not.
    pub(super) async fn assert_fenced(&self, hold: &Arc<Hold>) {
        let conflict = Err(ErrorKind::Conflict);
        let at = self.place(9).await;
        let pending = PendingCheckpoint { at, state: Bytes::new() };
        assert_eq!(self.checkpoint(hold, at).await, conflict, "a checkpoint");
        let prepared = self.store.prepare(hold, &pending).await;
        assert_eq!(prepared.map_err(|error| error.kind()), conflict, "a prepared checkpoint");
        assert_eq!(self.renew(hold).await, Renewed::Lost);
        let released = self.store.release(hold).await;
        assert_eq!(released.map_err(|error| error.kind()), conflict, "giving back");
    }
}

/// A source with shards and no records.
#[derive(Debug)]
pub(crate) struct StubSource {
    shards: Mutex<Vec<ShardInfo>>,
}

impl StubSource {
    /// Shards from 0 on, all open.
    pub(crate) fn new(shards: u32) -> Self {
        let shards = HashKeyRange::uniform(shards).into_iter().zip(0..).map(|(range, id)| shard(id, range));
        Self { shards: Mutex::new(shards.collect()) }
    }
    pub(super) fn set(&self, ids: &[u32]) {
        *self.shards.lock() = ids.iter().map(|id| shard(*id, HashKeyRange::ALL)).collect();
    }
}

fn shard(id: u32, range: HashKeyRange) -> ShardInfo {
    ShardInfo {
        id: ShardId::new(id).expect("a small number"),
        parent: None,
        adjacent_parent: None,
        range,
        state: ShardState::Open,
        created: None,
    }
}

impl Source for StubSource {
    fn shards<'a>(&'a self, _: &'a StreamName) -> Answer<'a, Vec<ShardInfo>> {
        Box::pin(async { Ok(self.shards.lock().clone()) })
    }
    fn read(&self, _: Reading) -> Reader {
        Reader::start(1, |outlet| async move {
            let gone = Error::new(ErrorKind::NotFound, "there are no records");
            let _ = outlet.put(crate::fetch::Fetched::Gone(gone)).await; // a case reads nothing
        })
    }
}
