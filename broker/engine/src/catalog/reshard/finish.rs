//! The end of a reshard: the rows of its shards, now that the parents' last records are known.

use super::Reshard;
use crate::catalog::state::{CatalogState, Change, ShardRow, StreamRow};
use crate::error::{Error, ErrorKind, Result};
use std::collections::BTreeMap;
use tidemill_types::{SequenceIndex, Shard, ShardId, ShardState, TimestampMs};

impl Reshard {
    /// All that changes in one batch: the parents are closed, the children there, the map is the next one, the intent gone.
    ///
    /// No record of a parent is above its index in `endings`, none arrived at or after `now`. A child's second is above
    /// its parents', as sequence numbers order by it; so its time may be some seconds ahead of the clock. A parent ends the
    /// millisecond before its children begin: at each moment exactly one of a line is there.
    pub(super) fn finish(
        &self,
        state: &CatalogState,
        stream: &StreamRow,
        endings: &BTreeMap<ShardId, SequenceIndex>,
        now: TimestampMs,
    ) -> Result<Vec<Change>> {
        let mut rows: BTreeMap<ShardId, ShardRow> = BTreeMap::new();
        for id in &self.parents {
            let row = state.shard(stream.incarnation, *id).filter(|row| row.shard.is_open());
            rows.insert(*id, row.ok_or_else(|| broken(stream, *id))?.clone());
        }
        for child in &self.children {
            let mut created = now;
            for parent in child.parents() {
                let parent = rows.get(&parent).ok_or_else(|| broken(stream, parent))?;
                created =
                    created.max(TimestampMs::new((parent.shard.created.seconds() + 1).saturating_mul(1000)));
            }
            let closed = TimestampMs::new(created.get() - 1);
            for parent in child.parents() {
                let shard = &mut rows.get_mut(&parent).expect("found above").shard;
                // one that is only passed through never had a record
                let ending = endings.get(&parent).copied().unwrap_or(SequenceIndex::ZERO);
                shard.state = ShardState::Closed { ending, closed };
            }
            let shard = Shard {
                id: child.id,
                parent: Some(child.parent),
                adjacent_parent: child.adjacent_parent,
                range: child.range,
                created,
                state: ShardState::Open,
            };
            rows.insert(child.id, ShardRow { shard, log: child.log });
        }
        let next = StreamRow { map_version: stream.map_version.next(), ..stream.clone() };
        let shards = rows.into_values().map(|row| Change::Shard(stream.incarnation, row));
        let ends = [Change::Stream(next), Change::ReshardDone(stream.incarnation)];
        Ok(shards.chain(ends).collect())
    }
}

fn broken(stream: &StreamRow, id: ShardId) -> Error {
    let message = format!("a noted split or merge of stream {} names {id}, which is not open", stream.key);
    Error::new(ErrorKind::Internal, message)
}
