//! What a look at the table finds: the leases of one stream, one for each shard that there is.

use super::keys::Scope;
use super::row::{self, Found, Item, Row};
use super::{Inner, join};
use crate::place::Checkpoint;
use crate::shard::{ShardInfo, ShardRef};
use crate::store::LeaseRow;
use std::collections::{BTreeMap, BTreeSet};
use tidemill_proto::Result;
use tidemill_types::{LeaseEpoch, ShardId, StreamName, WorkerId};
use tokio::time::Instant;
use tracing::{debug, warn};

impl Inner {
    pub(super) async fn list(&self, stream: &StreamName) -> Result<Vec<LeaseRow>> {
        self.table.ensure().await?;
        let scope = self.keys.scope(stream).await?;
        // shards first: of one that appears in between, no row is taken for one of a shard that is gone
        let shards = self.source.shards(stream).await?;
        let items = self.table.scan(scope.stream.as_deref()).await?;
        let now = Instant::now();
        let (rows, garbled) = leases_of(&scope, &items);
        let with_row: BTreeSet<ShardId> = rows.keys().chain(&garbled).copied().collect();
        self.sights.keep(|key| scope.shard(key).is_none_or(|id| with_row.contains(&id)));
        let done = join::done_without_row(&shards, &with_row);
        for (id, row) in rows.iter().filter(|(id, _)| join::is_gone(&shards, **id)) {
            self.forget(stream, *id, row, now).await?;
        }
        let leases = shards.into_iter().map(|shard| {
            let at = ShardRef::new(stream.clone(), shard.id);
            match rows.get(&shard.id) {
                Some(row) => self.lease(&at, shard, row, now),
                None if done.contains(&shard.id) => {
                    LeaseRow { checkpoint: Some(Checkpoint::ShardEnd), ..LeaseRow::untaken(shard) }
                }
                None => LeaseRow::untaken(shard),
            }
        });
        Ok(leases.collect())
    }

    /// Deletes the row of a shard that is gone, unless somebody still works on what he read of it.
    async fn forget(&self, stream: &StreamName, id: ShardId, row: &Row, now: Instant) -> Result<()> {
        let alive = !self.sights.note(row, now).lease.is_zero();
        if alive && row.checkpoint != Checkpoint::ShardEnd {
            return Ok(());
        }
        debug!(%stream, shard = %id, "the shard is gone, and its lease with it");
        self.table.delete(&row.key, row.counter).await
    }

    pub(super) fn lease(&self, at: &ShardRef, shard: ShardInfo, row: &Row, now: Instant) -> LeaseRow {
        let left = self.sights.note(row, now);
        let mine = self.held.of_shard(at).filter(|_| row.holder() == Some(&self.me));
        LeaseRow {
            shard,
            owner: row.holder().map(worker),
            successor: row.successor().map(worker),
            handoff_left: left.handoff,
            // the counter of what is held here moves all the time, by this worker's own doing
            epoch: mine.map_or(LeaseEpoch::new(row.counter), |held| held.epoch),
            counter: row.counter,
            checkpoint: Some(row.checkpoint),
            pending: row.pending.clone(),
            expires_in_ms: left.lease.as_nanos().div_ceil(1_000_000).try_into().unwrap_or(u64::MAX),
            bytes_per_s: row.bytes_per_s,
        }
    }
}

/// The leases of one stream among the rows of a table, and the shards whose rows make no sense.
fn leases_of(scope: &Scope, items: &[Item]) -> (BTreeMap<ShardId, Row>, BTreeSet<ShardId>) {
    let (mut rows, mut garbled) = (BTreeMap::new(), BTreeSet::new());
    for item in items {
        match row::read(item) {
            Found::Lease(row) => {
                if let Some(id) = scope.shard(&row.key) {
                    rows.insert(id, row);
                }
            }
            Found::Garbled { key, why } => {
                warn!(key, why, "a row of the lease table makes no sense; correct it by hand");
                garbled.extend(scope.shard(&key));
            }
            Found::Other => {}
        }
    }
    (rows, garbled)
}

/// The id of a worker, which may be one of another library and follow other rules: what does not fit is cut. Only shown and
/// told apart by it; conditions use what is written.
fn worker(text: &str) -> WorkerId {
    WorkerId::new(text).unwrap_or_else(|_| {
        let mut fit: String = text.chars().filter(|c| !c.is_control()).take(64).collect();
        if fit.is_empty() {
            fit.push('?');
        }
        WorkerId::new(&fit).expect("64 characters have at most 256 bytes, and none is a control character")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::shard;

    #[test]
    fn workers_of_another_library_have_ids_too() {
        assert_eq!(worker("host:8a7b").as_str(), "host:8a7b");
        assert_eq!(worker("a\nb").as_str(), "ab");
        assert_eq!(worker("").as_str(), "?");
        assert_eq!(worker(&"ü".repeat(300)).as_str().chars().count(), 64);
    }

    #[test]
    fn one_table_holds_rows_of_many_streams_and_kinds_and_each_list_finds_its_own() {
        let id = shard(0).id;
        let scopes = ["1:a:5", "1:b:5"].map(|stream| Scope { stream: Some(stream.to_owned()) });
        let made = |scope: &Scope| {
            row::new_row(&scope.key(id), scope.stream.as_deref(), &shard(0), Checkpoint::Latest)
        };
        let mut garbled =
            row::new_row("1:a:5:shardId-000000000009", Some("1:a:5"), &shard(9), Checkpoint::Latest);
        garbled.insert(row::CHECKPOINT.into(), row::text("nowhere"));
        let lock = Item::from([(row::LEASE_KEY.to_owned(), row::text("Leader"))]);
        let items = [made(&scopes[0]), made(&scopes[1]), garbled, lock];
        let (rows, garbled) = leases_of(&scopes[0], &items);
        assert_eq!(rows.keys().copied().collect::<Vec<_>>(), [id]);
        assert_eq!(rows[&id].key, "1:a:5:shardId-000000000000");
        assert_eq!(garbled.into_iter().map(ShardId::get).collect::<Vec<_>>(), [9]);
    }
}
