//! How leases come back at an opening, and how they go with their stream or shard.

use super::row::Row;
use super::stored;
use super::table::{LeaseTable, Rows, durable};
use crate::error::Result;
use crate::store::{Batch, Store};
use bytes::Bytes;
use std::collections::HashSet;
use tidemill_types::{MonotonicMs, ShardId, StreamIncarnation};

/// Reads all leases; those of shards that are no more are left out and their keys returned.
pub(crate) fn load(
    store: &dyn Store,
    live: &HashSet<(StreamIncarnation, ShardId)>,
    now: MonotonicMs,
) -> Result<(Rows, Vec<Bytes>)> {
    let (mut rows, mut orphans) = (Rows::new(), Vec::new());
    for (key, value) in store.scan(stored::PREFIX)? {
        let (incarnation, app, shard) = stored::decode_key(&key)?;
        if live.contains(&(incarnation, shard)) {
            rows.entry((incarnation, app)).or_default().insert(shard, Row::decode(&value, now)?);
        } else {
            orphans.push(key);
        }
    }
    Ok((rows, orphans))
}

impl LeaseTable {
    /// Removes all leases of a stream that was deleted.
    pub(crate) async fn forget_stream(&self, incarnation: StreamIncarnation) -> Result<()> {
        let slot = self.metadata.reserve().await?;
        let commit = {
            let mut rows = self.rows.lock();
            let gone = rows.extract_if(|(stream, _), _| *stream == incarnation);
            let keys = gone.flat_map(|((_, app), taken)| {
                taken
                    .into_keys()
                    .map(move |shard| (stored::key(incarnation, &app, shard), None))
                    .collect::<Vec<_>>()
            });
            let changes: Vec<_> = keys.collect();
            if changes.is_empty() {
                return Ok(());
            }
            slot.send(Batch { conditions: Vec::new(), changes })
        };
        durable(commit).await
    }

    /// Removes all leases of shards that have expired.
    pub(crate) async fn forget_shards(
        &self,
        incarnation: StreamIncarnation,
        shards: &[ShardId],
    ) -> Result<()> {
        let slot = self.metadata.reserve().await?;
        let commit = {
            let mut rows = self.rows.lock();
            let mut changes = Vec::new();
            for ((_, app), taken) in rows.iter_mut().filter(|((stream, _), _)| *stream == incarnation) {
                let gone = shards.iter().filter(|shard| taken.remove(shard).is_some());
                changes.extend(gone.map(|shard| (stored::key(incarnation, app, *shard), None)));
            }
            rows.retain(|_, taken| !taken.is_empty());
            if changes.is_empty() {
                return Ok(());
            }
            slot.send(Batch { conditions: Vec::new(), changes })
        };
        durable(commit).await
    }
}
