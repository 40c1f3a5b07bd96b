//! Resharding as the owner runs it, step by step; see the module above for the order and why.

use super::{Reshard, plan};
use crate::catalog::owner::{Owner, open_shards};
use crate::catalog::state::Change;
use crate::catalog::streams::not_found;
use crate::error::{Error, ErrorKind, Result};
use crate::shard::handle::ShardHandle;
use crate::stream::Scaled;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemill_types::{HashKey, SequenceIndex, ShardId, StreamKey, TimestampMs};
use tracing::{debug, info, warn};

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
    }

    /// What must hold before anybody is served: intents are completed, and closed shards have sealed logs, which a power
    /// loss may have undone in the modes that do not wait for the device.
    pub(in crate::catalog) async fn settle_at_open(&mut self) {
        self.settle().await;
        for key in self.state.resharded() {
            warn!(stream = %key, "a split or merge that was begun earlier cannot be completed yet; its parents take no records");
        }
        let shards = self.registry.all_shards().into_iter().map(|(_, handle)| handle);
        let unsealed: Vec<_> = shards.filter(|handle| handle.has_lost_its_end()).collect();
        if let Err(error) = seal(&unsealed).await {
            warn!(%error, "closed shards could not be sealed again; they take no records all the same");
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
        self.switch(key, &switching.parents).await
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
    let sealing: Vec<_> = shards.iter().map(|shard| (shard.shard().id, shard.seal())).collect();
    let mut endings = BTreeMap::new();
    for (id, sealing) in sealing {
        endings.insert(id, sealing.await?);
    }
    Ok(endings)
}
