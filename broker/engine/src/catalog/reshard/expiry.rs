//! Closed shards whose records have all passed the retention leave: first their rows, then leases and logs.
//!
//! Parents go before their children, so that whoever reads a closed shard to its end is told of children that are there.

use crate::catalog::owner::Owner;
use crate::catalog::state::{CatalogState, Change, StreamRow};
use crate::error::Result;
use std::collections::BTreeSet;
use tidemill_storage::LogId;
use tidemill_types::{Shard, ShardId, ShardState, TimestampMs};
use tracing::{info, warn};

/// Whether a shard was closed before `kept_since`, the time from which records are kept.
pub(crate) fn has_passed(shard: &Shard, kept_since: TimestampMs) -> bool {
    matches!(shard.state, ShardState::Closed { closed, .. } if closed < kept_since)
}

/// The shards of a stream that may go, by id, if records are kept from `kept_since` on; `is_empty` says whether a log holds no record any more.
pub(super) fn passed(
    state: &CatalogState,
    stream: &StreamRow,
    kept_since: TimestampMs,
    is_empty: impl Fn(LogId) -> bool,
) -> Vec<ShardId> {
    let mut going = BTreeSet::new();
    // ids of parents are below those of their children, so that one pass suffices
    for row in state.shards(stream.incarnation) {
        let stays = |id: &ShardId| state.shard(stream.incarnation, *id).is_some() && !going.contains(id);
        let parents_gone = !row.shard.parents().any(|id| stays(&id));
        if parents_gone && has_passed(&row.shard, kept_since) && is_empty(row.log) {
            going.insert(row.shard.id);
        }
    }
    going.into_iter().collect()
}

impl Owner {
    /// Lets go of all shards that have passed the retention.
    pub(in crate::catalog) async fn expire(&mut self) -> Result<()> {
        let now = self.shared.clock().now();
        let is_empty =
            |log| self.storage.log(log).is_none_or(|log| log.marks().horizon() >= log.marks().durable());
        let of_stream = |row: &StreamRow| {
            (row.key.clone(), passed(&self.state, row, self.shared.kept_since(row, now), is_empty))
        };
        let streams: Vec<_> =
            self.state.streams().map(of_stream).filter(|(_, going)| !going.is_empty()).collect();
        for (key, going) in streams {
            let row = self.state.stream(&key).expect("found above");
            let incarnation = row.incarnation;
            let log_of = |id: &ShardId| self.state.shard(incarnation, *id).map(|row| row.log);
            let logs: Vec<LogId> = going.iter().filter_map(log_of).collect();
            let changes: Vec<_> = going.iter().map(|id| Change::ShardGone(incarnation, *id)).collect();
            self.commit(&changes).await?;
            changes.into_iter().for_each(|change| self.state.apply(change));
            self.show_shards(&key)?;
            // rows that stay behind after a failure are removed when the directory is opened next
            if let Err(error) = self.leases.forget_shards(incarnation, &going).await {
                warn!(stream = %key, %error, "leases of shards that have expired could not be removed");
            }
            self.drop_logs(logs).await;
            info!(stream = %key, shards = going.len(), "closed shards have passed the retention and are gone");
        }
        Ok(())
    }
}
