//! Whether an intent that was found in the store fits the catalog: it is carried out before anybody is served.

use super::Reshard;
use crate::catalog::state::{CatalogState, Change, StreamRow};
use crate::error::{Error, ErrorKind, Result};
use std::collections::BTreeMap;
use tidemill_types::{Shard, ShardId, ShardMap, TimestampMs};

impl Reshard {
    /// Whether its parents are there and open, its children's ids are new, and what comes of it tiles the hash space.
    ///
    /// Errors: `Damaged`.
    pub(in crate::catalog) fn check(&self, state: &CatalogState, stream: &StreamRow) -> Result<()> {
        let what = || format!("the catalog is damaged: a noted split or merge of stream {}", stream.key);
        let mut last = state.shards(stream.incarnation).last().map(|row| row.shard.id);
        for child in &self.children {
            if last.is_some_and(|last| child.id <= last) {
                let message = format!("{} gives the number of {} again", what(), child.id);
                return Err(Error::new(ErrorKind::Damaged, message));
            }
            last = Some(child.id);
        }
        let changes = self.finish(state, stream, &BTreeMap::new(), TimestampMs::default());
        let changes = changes.map_err(|error| Error::caused(ErrorKind::Damaged, what(), error))?;
        let rows = state.shards(stream.incarnation).map(|row| (row.shard.id, row.shard.clone()));
        let mut shards: BTreeMap<ShardId, Shard> = rows.collect();
        shards.extend(changes.into_iter().filter_map(|change| match change {
            Change::Shard(_, row) => Some((row.shard.id, row.shard)),
            _ => None,
        }));
        let map = ShardMap::new(stream.map_version.next(), shards.into_values());
        map.map_err(|error| Error::caused(ErrorKind::Damaged, what(), error))?;
        Ok(())
    }
}
