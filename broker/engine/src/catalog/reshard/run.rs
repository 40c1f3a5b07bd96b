//! Resharding as the owner runs it, step by step; see the module above for the order and why.

use super::{Reshard, plan};
use crate::catalog::owner::{Owner, open_shards};
use crate::catalog::state::Change;
use crate::catalog::streams::not_found;
use crate::error::{Error, ErrorKind, Result};
use crate::shard::handle::ShardHandle;
use crate::stream::Scaled;
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tidemill_types::{HashKey, SequenceIndex, ShardId, StreamKey, TimestampMs};
use tracing::{debug, info, warn};

/// Logs that are sealed at once, at most: the others wait, so that the commit rounds of all other streams stay short.
const SEALED_AT_ONCE_MAX: usize = 256;
/// What a sealed parent has refused waits so long, at most, for the new map.
const SWITCH_WAIT_MAX: Duration = Duration::from_secs(10);

impl Owner {
    pub(in crate::catalog) async fn split(
        &mut self,
        key: &StreamKey,
        shard: ShardId,
        at: HashKey,
    ) -> Result<()> {
        self.settle_stream(key).await?;
        let reshard = plan::split(&self.state, key, shard, at)?;
        self.reshard(key, reshard).await?;
        info!(stream = %key, %shard, "shard split");
        Ok(())
    }

    pub(in crate::catalog) async fn merge(
        &mut self,
        key: &StreamKey,
        shard: ShardId,
        adjacent: ShardId,
    ) -> Result<()> {
        self.settle_stream(key).await?;
        let reshard = plan::merge(&self.state, key, shard, adjacent)?;
        self.reshard(key, reshard).await?;
        info!(stream = %key, lower = %shard, upper = %adjacent, "shards merged");
        Ok(())
    }

    pub(in crate::catalog) async fn scale(&mut self, key: &StreamKey, target: u32) -> Result<Scaled> {
        self.settle_stream(key).await?;
        let reshard = plan::scale(&self.state, key, target)?;
        let before = self.registry.get(key)?.info().open_shards;
        self.reshard(key, reshard).await?;
        info!(stream = %key, before, after = target, "stream scaled");
        Ok(Scaled { before, after: target })
    }

    async fn reshard(&mut self, key: &StreamKey, reshard: Reshard) -> Result<()> {
        let changes = plan::intend(&self.state, key, reshard, self.shared.settings().shards_max)?;
        if let Err(error) = self.commit(&changes).await {
            self.spend(changes);
            return Err(error);
        }
        changes.into_iter().for_each(|change| self.state.apply(change));
        self.complete(key).await.map_err(|error| {
            warn!(stream = %key, %error, "a split or merge was begun and could not be completed yet");
            let message = format!("stream {key} is being resharded, which goes on by itself; look again");
            Error::caused(ErrorKind::UnknownOutcome, message, error)
        })
    }

    /// Completes what an earlier failure left of a stream; an error if that is still not possible.
    async fn settle_stream(&mut self, key: &StreamKey) -> Result<()> {
        if self.complete(key).await.is_err() {
            let message = format!(
                "Stream {} under account {} not ACTIVE, instead in state UPDATING",
                key.name, key.account
            );
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        Ok(())
    }

    /// Completes every intent there is, as far as possible now.
    pub(in crate::catalog) async fn settle(&mut self) {
        for key in self.state.resharded() {
            match self.complete(&key).await {
                Ok(()) => info!(stream = %key, "a split or merge that was begun earlier is completed"),
                Err(error) => debug!(stream = %key, %error, "a split or merge cannot be completed yet"),
            }
        }
        self.seal_again().await;
    }

    /// Seals closed shards that have lost their ends, as far as possible now.
    async fn seal_again(&mut self) {
        self.unsealed.retain(|handle| handle.has_lost_its_end() && handle.check_readable().is_ok());
        if let Err(error) = seal(&self.unsealed).await {
            debug!(%error, "closed shards could not be sealed again yet");
        }
        self.unsealed.retain(|handle| handle.has_lost_its_end());
    }

    /// What must hold before anybody is served: intents are completed, and closed shards have sealed logs, unless they are
    /// empty. The end of one can only be missing if the disk lost what it had synced.
    pub(in crate::catalog) async fn settle_at_open(&mut self) {
        let shards = self.registry.all_shards().into_iter().map(|(_, handle)| handle);
        self.unsealed = shards.filter(|handle| handle.has_lost_its_end()).collect();
        self.settle().await;
        for key in self.state.resharded() {
            warn!(stream = %key, "a split or merge that was begun earlier cannot be completed yet; it is tried again");
        }
        if !self.unsealed.is_empty() {
            let shards = self.unsealed.len();
            warn!(shards, "closed shards have lost their ends and cannot be sealed yet; it is tried again");
        }
    }

    /// Seals the parents and makes the children, if the stream has an intent. What waits at a parent meanwhile is answered
    /// when the new map is there, or when it is clear that it will not be there soon.
    async fn complete(&mut self, key: &StreamKey) -> Result<()> {
        let Some(stream) = self.state.stream(key) else { return Ok(()) };
        let Some(reshard) = self.state.reshard(stream.incarnation) else { return Ok(()) };
        let core = self.registry.get(key)?;
        let set = core.shard_set();
        let parents: Vec<_> = reshard.parents.iter().filter_map(|id| set.get(*id).cloned()).collect();
        let switching = Switching::begin(parents);
        let mut switch = pin!(self.switch(key, &switching.parents));
        if let Ok(outcome) = tokio::time::timeout(SWITCH_WAIT_MAX, &mut switch).await {
            return outcome;
        }
        warn!(stream = %key, "a split or merge takes long; records for its shards are refused until it is done");
        switching.parents.iter().for_each(|parent| parent.cancel_switch());
        switch.await
    }

    async fn switch(&mut self, key: &StreamKey, parents: &[Arc<ShardHandle>]) -> Result<()> {
        let endings = seal(parents).await?;
        // nothing arrives at the parents any more; what did must lie before the children
        let newest = parents.iter().filter_map(|parent| parent.log().newest()).max();
        let behind = newest.map_or(0, |newest| newest.get() + 1);
        let now = self.shared.clock().now().max(TimestampMs::new(behind));
        let stream = self.state.stream(key).ok_or_else(|| not_found(key))?;
        let reshard = self.state.reshard(stream.incarnation).expect("the caller found it");
        let changes = reshard.finish(&self.state, stream, &endings, now)?;
        for child in &reshard.children {
            self.storage.create_log(child.log); // takes no room on disk before its first frame
        }
        // what the catalog closes must not lose its last records: those of the children that follow could survive them
        let storage = Arc::clone(&self.storage);
        let told = |e| Error::from_storage("could not sync shards that are being closed", e);
        self.shared.blocking("a sync", move || storage.sync().map_err(told)).await?;
        self.commit(&changes).await?;
        changes.into_iter().for_each(|change| self.state.apply(change));
        self.show_shards(key)
    }

    /// Shows the shards of a stream as they were committed, in one step; then tells those that were closed or have gone.
    pub(super) fn show_shards(&mut self, key: &StreamKey) -> Result<()> {
        let core = self.registry.get(key)?;
        let row = self.state.stream(key).ok_or_else(|| not_found(key))?;
        let before = core.shard_set();
        let after = open_shards(&self.state, row, &self.shared, &self.storage, Some(&*before))?;
        core.set_row(row.clone());
        core.show(after);
        Ok(())
    }

    /// Counts the numbers of changes that failed as used, whatever became of them.
    pub(in crate::catalog) fn spend(&mut self, changes: Vec<Change>) {
        let counters = changes.into_iter().filter(|change| matches!(change, Change::Counters(_)));
        counters.for_each(|change| self.state.apply(change));
    }
}

/// Parents that are about to be closed. Dropped, those that were not are as before.
struct Switching {
    parents: Vec<Arc<ShardHandle>>,
}

impl Switching {
    fn begin(parents: Vec<Arc<ShardHandle>>) -> Self {
        parents.iter().for_each(|parent| parent.begin_switch());
        Self { parents }
    }
}

impl Drop for Switching {
    fn drop(&mut self) {
        self.parents.iter().for_each(|parent| parent.cancel_switch());
    }
}

/// Seals all logs, each behind what is queued for it; returns their last indexes.
async fn seal(shards: &[Arc<ShardHandle>]) -> Result<BTreeMap<ShardId, SequenceIndex>> {
    let mut endings = BTreeMap::new();
    for some in shards.chunks(SEALED_AT_ONCE_MAX) {
        let sealing: Vec<_> = some.iter().map(|shard| (shard.shard().id, shard.seal())).collect();
        for (id, sealing) in sealing {
            endings.insert(id, sealing.await?);
        }
    }
    Ok(endings)
}
