//! The one task that changes the catalog: a verb that was sent runs to its end, whoever still waits for it.
//!
//! ```text
//!   create: plan ─► make logs ─► commit ─► apply ─► registry            (a failed commit removes the logs again)
//!   delete: plan ─► commit ─► apply ─► registry, wake readers ─► leases ─► delete logs
//!                        └─ not known whether it was stored ─► the stream takes no more records until the restart
//! ```
//!
//! A log that no committed shard knows is removed by the next recovery, so that a crash between two steps leaves
//! nothing behind; the numbers of a failed attempt are not used again.

use super::accounts::AccountInfo;
use super::consumers::{ConsumerInfo, ConsumerUpdate, ConsumersOnDelete};
use super::registry::Registry;
use super::row;
use super::settings::{StreamUpdate, Tags};
use super::state::{CatalogState, Change, Counters, StreamRow};
use super::streams::{plan_create, plan_delete};
use crate::error::{Error, ErrorKind, Result};
use crate::lease::table::LeaseTable;
use crate::seal::{KeyOwner, StreamKeys};
use crate::shard::handle::ShardHandle;
use crate::shared::Shared;
use crate::store::Verdict;
use crate::store::writer::Metadata;
use crate::stream::{Scaled, ShardSet, StreamCore, StreamInfo, StreamSpec, Updated};
use std::sync::Arc;
use std::time::Duration;
use tidemill_storage::{LogId, ShardLog, Storage};
use tidemill_types::{AccountId, ConsumerName, HashKey, ShardId, StreamKey};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::{info, warn};

/// A reshard that could not be completed is tried again this often, between the verbs.
const SETTLE_EVERY: Duration = Duration::from_millis(500);
/// Verbs that may wait for their turn.
const QUEUE_MAX: usize = 256;

type Done<T> = oneshot::Sender<Result<T>>;

enum Verb {
    Create(StreamKey, StreamSpec, Done<StreamInfo>),
    Delete(StreamKey, ConsumersOnDelete, Done<()>),
    Update(StreamKey, StreamUpdate, Done<Updated>),
    Split(StreamKey, ShardId, HashKey, Done<()>),
    Merge(StreamKey, ShardId, ShardId, Done<()>),
    Scale(StreamKey, u32, Done<Scaled>),
    RegisterConsumer(StreamKey, ConsumerName, Tags, Done<ConsumerInfo>),
    UpdateConsumer(StreamKey, ConsumerName, ConsumerUpdate, Done<()>),
    DeregisterConsumer(StreamKey, ConsumerName, Done<()>),
    SetCommitment(AccountId, bool, Done<AccountInfo>),
    SettleAtOpen(Done<()>),
    Settle,
    Expire(Done<()>),
}

/// Sends verbs to the owner; it ends when the last one is gone.
#[derive(Clone)]
pub(crate) struct Catalog {
    verbs: mpsc::Sender<Verb>,
}

fn stopped<T>(_: T) -> Error {
    Error::new(ErrorKind::Unavailable, "the broker is shutting down")
}

fn cut_short<T>(_: T) -> Error {
    Error::new(ErrorKind::UnknownOutcome, "the broker stopped before the change was confirmed")
}

impl Catalog {
    /// Verbs run one after the other, so this takes as long as those before it; there is no deadline, as what was sent
    /// happens anyway. Who must not wait for a long one (scaling thousands of shards) does not wait for this.
    async fn ask<T>(&self, verb: impl FnOnce(Done<T>) -> Verb) -> Result<T> {
        let (done, outcome) = oneshot::channel();
        self.verbs.send(verb(done)).await.map_err(stopped)?;
        outcome.await.map_err(cut_short)?
    }
    pub(crate) async fn create(&self, key: StreamKey, spec: StreamSpec) -> Result<StreamInfo> {
        self.ask(|done| Verb::Create(key, spec, done)).await
    }
    pub(crate) async fn delete(&self, key: StreamKey, consumers: ConsumersOnDelete) -> Result<()> {
        self.ask(|done| Verb::Delete(key, consumers, done)).await
    }
    pub(crate) async fn update(&self, key: StreamKey, update: StreamUpdate) -> Result<Updated> {
        self.ask(|done| Verb::Update(key, update, done)).await
    }
    pub(crate) async fn split(&self, key: StreamKey, shard: ShardId, at: HashKey) -> Result<()> {
        self.ask(|done| Verb::Split(key, shard, at, done)).await
    }
    pub(crate) async fn merge(&self, key: StreamKey, shard: ShardId, adjacent: ShardId) -> Result<()> {
        self.ask(|done| Verb::Merge(key, shard, adjacent, done)).await
    }
    pub(crate) async fn scale(&self, key: StreamKey, target: u32) -> Result<Scaled> {
        self.ask(|done| Verb::Scale(key, target, done)).await
    }
    pub(crate) async fn register_consumer(
        &self,
        key: StreamKey,
        name: ConsumerName,
        tags: Tags,
    ) -> Result<ConsumerInfo> {
        self.ask(|done| Verb::RegisterConsumer(key, name, tags, done)).await
    }
    pub(crate) async fn update_consumer(
        &self,
        key: StreamKey,
        name: ConsumerName,
        update: ConsumerUpdate,
    ) -> Result<()> {
        self.ask(|done| Verb::UpdateConsumer(key, name, update, done)).await
    }
    pub(crate) async fn deregister_consumer(&self, key: StreamKey, name: ConsumerName) -> Result<()> {
        self.ask(|done| Verb::DeregisterConsumer(key, name, done)).await
    }
    pub(crate) async fn set_commitment(&self, account: AccountId, enabled: bool) -> Result<AccountInfo> {
        self.ask(|done| Verb::SetCommitment(account, enabled, done)).await
    }
    /// Completes what a crash has left half done, as far as that is possible now. Before anybody is served.
    pub(crate) async fn settle_at_open(&self) -> Result<()> {
        self.ask(Verb::SettleAtOpen).await
    }
    /// Lets go of closed shards whose records have all passed the retention.
    pub(crate) async fn expire(&self) -> Result<()> {
        self.ask(Verb::Expire).await
    }
}

/// The state and all that a verb touches.
pub(crate) struct Owner {
    verbs: mpsc::Receiver<Verb>,
    pub(super) state: CatalogState,
    /// The counters as the store has them; the state may have skipped some.
    stored: Counters,
    pub(super) shared: Arc<Shared>,
    pub(super) storage: Arc<Storage>,
    metadata: Metadata,
    pub(super) registry: Arc<Registry>,
    pub(super) leases: Arc<LeaseTable>,
    /// Closed shards whose logs have lost their ends and could not be sealed again yet.
    pub(super) unsealed: Vec<Arc<ShardHandle>>,
}

impl Owner {
    /// The owner of a catalog as it was loaded, and the way to reach it. Somebody must [`Owner::run`] it.
    pub(crate) fn new(
        state: CatalogState,
        shared: Arc<Shared>,
        storage: Arc<Storage>,
        metadata: Metadata,
        registry: Arc<Registry>,
        leases: Arc<LeaseTable>,
    ) -> (Catalog, Self) {
        let (sender, verbs) = mpsc::channel(QUEUE_MAX);
        let stored = state.counters();
        (
            Catalog { verbs: sender },
            Self { verbs, state, stored, shared, storage, metadata, registry, leases, unsealed: Vec::new() },
        )
    }

    /// Runs verb after verb until nobody can send any more, or the engine closes.
    pub(crate) async fn run(mut self) {
        let mut closing = self.shared.closing();
        let mut next_settle = Instant::now() + SETTLE_EVERY;
        loop {
            let unsettled = self.state.has_reshards() || !self.unsealed.is_empty();
            let verb = tokio::select! {
                biased;
                _ = closing.wait_for(|closing| *closing) => None,
                () = tokio::time::sleep_until(next_settle), if unsettled => Some(Verb::Settle),
                verb = self.verbs.recv() => verb,
            };
            let Some(verb) = verb else { return };
            let settles = matches!(verb, Verb::Settle);
            self.act(verb).await;
            // however many verbs come meanwhile
            if settles || !unsettled {
                next_settle = Instant::now() + SETTLE_EVERY;
            }
        }
    }

    /// Runs one verb and answers it; a caller that went away does not mind.
    async fn act(&mut self, verb: Verb) {
        fn answer<T>(done: Done<T>, outcome: Result<T>) {
            let _ = done.send(outcome);
        }
        match verb {
            Verb::Create(key, spec, done) => answer(done, self.create(&key, spec).await),
            Verb::Delete(key, consumers, done) => answer(done, self.delete(&key, consumers).await),
            Verb::Update(key, update, done) => answer(done, self.update(&key, update).await),
            Verb::Split(key, shard, at, done) => answer(done, self.split(&key, shard, at).await),
            Verb::Merge(key, shard, adjacent, done) => answer(done, self.merge(&key, shard, adjacent).await),
            Verb::Scale(key, target, done) => answer(done, self.scale(&key, target).await),
            Verb::RegisterConsumer(key, name, tags, done) => {
                answer(done, self.register_consumer(&key, name, tags).await);
            }
            Verb::UpdateConsumer(key, name, update, done) => {
                answer(done, self.update_consumer(&key, &name, update).await);
            }
            Verb::DeregisterConsumer(key, name, done) => {
                answer(done, self.deregister_consumer(&key, &name).await);
            }
            Verb::SetCommitment(account, enabled, done) => {
                answer(done, self.set_commitment(&account, enabled).await);
            }
            Verb::Settle => self.settle().await,
            Verb::SettleAtOpen(done) => {
                self.settle_at_open().await;
                answer(done, Ok(()));
            }
            Verb::Expire(done) => answer(done, self.expire().await),
        }
    }

    async fn create(&mut self, name: &StreamKey, spec: StreamSpec) -> Result<StreamInfo> {
        let now = self.shared.clock().now();
        let changes = plan_create(&self.state, name, &spec, now, self.shared.settings().shards_max)?;
        let ids: Vec<LogId> = changes
            .iter()
            .filter_map(|change| match change {
                Change::Shard(_, row) => Some(row.log),
                _ => None,
            })
            .collect();
        for id in &ids {
            self.storage.create_log(*id); // takes no room on disk before its first frame
        }
        if let Err(error) = self.commit(&changes).await {
            self.spend(changes);
            self.drop_logs(ids).await;
            return Err(error);
        }
        changes.into_iter().for_each(|change| self.state.apply(change));
        let stream = open_stream(&self.state, name, &self.shared, &self.storage)?;
        let info = stream.info();
        self.registry.insert(stream);
        info!(stream = %name, shards = spec.shard_count, "stream created");
        Ok(info)
    }

    async fn delete(&mut self, name: &StreamKey, consumers: ConsumersOnDelete) -> Result<()> {
        let changes = plan_delete(&self.state, name, consumers)?;
        let incarnation = self.state.stream(name).map(|row| row.incarnation);
        let incarnation = incarnation.expect("the plan found the stream");
        let coming = self.state.reshard(incarnation).into_iter().flat_map(|reshard| &reshard.children);
        let logs = self.state.shards(incarnation).map(|row| row.log).chain(coming.map(|child| child.log));
        let logs: Vec<LogId> = logs.collect();
        if let Err(error) = self.commit(&changes).await {
            if error.kind() == ErrorKind::UnknownOutcome {
                self.registry.get(name)?.halt();
            }
            return Err(error);
        }
        changes.into_iter().for_each(|change| self.state.apply(change));
        self.registry.remove(name);
        // rows that stay behind after a failure are removed when the directory is opened next
        if let Err(error) = self.leases.forget_stream(incarnation).await {
            warn!(stream = %name, %error, "leases of a deleted stream could not be removed");
        }
        self.drop_logs(logs).await;
        info!(stream = %name, "stream deleted");
        Ok(())
    }

    /// Makes changes durable and takes their steps; nothing to do is done at once.
    pub(super) async fn commit_and_apply(&mut self, changes: Vec<Change>) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        self.commit(&changes).await?;
        changes.into_iter().for_each(|change| self.state.apply(change));
        Ok(())
    }

    pub(super) async fn commit(&mut self, changes: &[Change]) -> Result<()> {
        let batch = row::batch(&self.state, changes, self.stored);
        match self.metadata.commit(batch).await? {
            Verdict::Done => {
                for change in changes {
                    if let Change::Counters(counters) = change {
                        self.stored = *counters;
                    }
                }
                Ok(())
            }
            Verdict::Refused => {
                let message =
                    "the catalog in the metadata store is not the one this broker knows; restart it";
                Err(Error::new(ErrorKind::Unavailable, message))
            }
        }
    }

    /// Unlinks files, so it works on a thread that may block.
    pub(super) async fn drop_logs(&self, ids: Vec<LogId>) {
        let storage = Arc::clone(&self.storage);
        let drop_all = move || {
            ids.into_iter().for_each(|id| storage.delete_log(id));
            Ok(())
        };
        if let Err(error) = self.shared.blocking("deleting logs", drop_all).await {
            warn!(%error, "the next start removes the logs that are left");
        }
    }
}

/// The stream as the data verbs see it, over logs that storage has.
pub(crate) fn open_stream(
    state: &CatalogState,
    name: &StreamKey,
    shared: &Arc<Shared>,
    storage: &Storage,
) -> Result<Arc<StreamCore>> {
    let row = state.stream(name).ok_or_else(|| super::streams::not_found(name))?;
    let shards = open_shards(state, row, shared, storage, None)?;
    let consumers = state.consumers(row.incarnation).cloned().unwrap_or_default();
    let owner = KeyOwner { stream: name.clone(), incarnation: row.incarnation };
    let data_keys = state.data_keys(row.incarnation).cloned().unwrap_or_default();
    let keys = StreamKeys::new(shared.settings().keys.clone(), owner, data_keys);
    Ok(Arc::new(StreamCore::new(row.clone(), shards, consumers, keys, Arc::clone(shared))))
}

/// The shards of a stream over their logs; those that were there `before` keep their handles.
pub(super) fn open_shards(
    state: &CatalogState,
    row: &StreamRow,
    shared: &Arc<Shared>,
    storage: &Storage,
    before: Option<&ShardSet>,
) -> Result<ShardSet> {
    let name = &row.key;
    let map = Arc::new(state.map(row)?);
    let mut shards = Vec::new();
    for entry in state.shards(row.incarnation) {
        if let Some(known) = before.and_then(|before| before.get(entry.shard.id)) {
            shards.push((entry.shard.clone(), Arc::clone(known)));
            continue;
        }
        let log: ShardLog = storage.log(entry.log).ok_or_else(|| {
            let message = format!("storage has no log {} for {} of {name}", entry.log.get(), entry.shard.id);
            Error::new(ErrorKind::Internal, message)
        })?;
        let handle = ShardHandle::new(name, entry.shard.clone(), log, Arc::clone(shared));
        shards.push((entry.shard.clone(), Arc::new(handle)));
    }
    Ok(ShardSet::new(map, shards))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::one_stream::OneStream;
    use crate::settings::Settings;
    use tidemill_types::{PartitionKey, Position, Record};

    #[tokio::test]
    async fn a_stream_of_which_it_is_not_known_whether_it_was_deleted_is_read_and_takes_nothing() {
        let one = OneStream::new(Settings::default());
        one.storage.start().unwrap();
        let (catalog, store) = one.run_owner();
        let put = async || {
            let record = Record::new(PartitionKey::new("k").unwrap(), vec![1]).unwrap();
            one.stream.put(vec![record]).await.remove(0)
        };
        let delete = || catalog.delete(one.name.clone(), ConsumersOnDelete::Refuse);
        store.set_failing(true);
        assert_eq!(delete().await.unwrap_err().kind(), ErrorKind::Unavailable);
        let placed = put().await.expect("it is known that it was not deleted");
        store.lose();
        assert_eq!(delete().await.unwrap_err().kind(), ErrorKind::UnknownOutcome);
        let refused = put().await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unavailable);
        assert!(refused.to_string().contains("until the broker is restarted"), "{refused}");
        let from = one.stream.resolve(placed.shard, Position::TrimHorizon).await.unwrap();
        let page = one.stream.read_records(placed.shard, from, 10, 1000).await.unwrap();
        assert_eq!(page.records.len(), 1);
        one.storage.close().unwrap();
    }
}
