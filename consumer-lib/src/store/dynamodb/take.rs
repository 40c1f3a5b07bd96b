//! How leases change hands: taken when free or by force, or asked for in order.

use super::held::{Held, State};
use super::keys::Scope;
use super::row::{self, Row};
use super::table::Written;
use super::{Inner, change, conflict};
use crate::place::Checkpoint;
use crate::shard::ShardInfo;
use crate::store::{Ask, LeaseRow, Take};
use tidemill_proto::{Error, ErrorKind, Result};
use tokio::time::Instant;

impl Inner {
    pub(super) async fn take(&self, take: &Take) -> Result<LeaseRow> {
        self.table.ensure().await?;
        let scope = self.keys.scope(take.at.stream()).await?;
        let key = scope.key(take.at.shard());
        let shards = self.source.shards(take.at.stream()).await?;
        let shard = shards.into_iter().find(|shard| shard.id == take.at.shard());
        let shard = shard.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("there is no shard {} any more", take.at))
        })?;
        // what this worker held before is done with: none of its writes may come behind this one
        let before = self.held.of_shard(&take.at);
        let mut before_state = match &before {
            Some(held) => Some(held.state.lock().await),
            None => None,
        };
        let expected = match (&before, before_state.as_deref()) {
            (Some(held), Some(State::Held { counter, .. })) if held.epoch == take.expected => *counter,
            _ => take.expected.get(),
        };
        let taken = self.take_row(&key, &scope, &shard, take, expected).await;
        let row = match taken {
            Ok(row) => row,
            Err(error) => {
                if let Some(held) = before.as_ref().filter(|_| error.kind() == ErrorKind::Conflict) {
                    self.held.remove(&take.at, held.epoch);
                }
                return Err(error);
            }
        };
        if let Some(state) = &mut before_state {
            **state = State::Lost;
        }
        self.held.insert(take.at.clone(), Held::new(&row));
        self.sights.taken(&key);
        Ok(self.lease(&take.at, shard, &row, Instant::now()))
    }

    /// The row after it was taken.
    async fn take_row(
        &self,
        key: &str,
        scope: &Scope,
        shard: &ShardInfo,
        take: &Take,
        expected: u64,
    ) -> Result<Row> {
        let row = match self.row(key).await? {
            Some(row) => row,
            None if expected == 0 => self.new_row(key, scope, shard, take.initial).await?,
            None => return Err(conflict(format!("the row of {} is gone", take.at))),
        };
        let now = Instant::now();
        let left = self.sights.note(&row, now);
        let of_another = row.holder().is_some_and(|holder| holder != self.me);
        if row.counter != expected || (of_another && !left.lease.is_zero() && !take.steal) {
            return Err(conflict(format!("somebody else has the lease of {}", take.at)));
        }
        let after = Row {
            owner: Some(self.me.clone()),
            checkpoint_owner: None,
            counter: expected + 1,
            ..row.clone()
        };
        if let Written::Refused(item) = self.table.update(key, change::take(&row, &self.me)).await? {
            let found = self.refused(key, item).await?;
            let through = found.is_some_and(|found| {
                found.counter == after.counter
                    && found.owner == after.owner
                    && found.checkpoint_owner.is_none()
            });
            if !through {
                return Err(conflict(format!("somebody else took the lease of {}", take.at)));
            }
        }
        self.sights.moved(key, after.counter, now);
        Ok(after)
    }

    async fn new_row(&self, key: &str, scope: &Scope, shard: &ShardInfo, from: Checkpoint) -> Result<Row> {
        let item = row::new_row(key, scope.stream.as_deref(), shard, from);
        self.table.put_new(item).await?;
        // another may have made it in the meantime, and begun elsewhere
        self.row(key).await?.ok_or_else(|| conflict(format!("the row {key} is gone")))
    }

    pub(super) async fn ask(&self, ask: &Ask) -> Result<()> {
        let key = self.keys.key(&ask.at).await?;
        let seen = self.sights.last_holder(&key);
        let no = |why: &str| conflict(format!("the lease of {} cannot be asked for: {why}", ask.at));
        let now = Instant::now();
        let row = self.row(&key).await?.ok_or_else(|| no("it has no row"))?;
        let left = self.sights.note(&row, now);
        let Some(holder) = row.holder().filter(|_| !left.lease.is_zero()) else {
            return Err(no("nobody holds it"));
        };
        if holder == self.me || seen.as_deref() != Some(holder) || row.counter < ask.expected.get() {
            return Err(no("it has changed hands"));
        }
        let asked = match row.successor() {
            None => change::ask(holder, &self.me),
            // the first deadline stays
            Some(successor) if successor == self.me => return Ok(()),
            Some(successor) if left.handoff.is_zero() => change::ask_instead(holder, successor, &self.me),
            Some(_) => return Err(no("another waits for it")),
        };
        if let Written::Refused(item) = self.table.update(&key, asked).await? {
            let found = self.refused(&key, item).await?;
            let through = |row: &Row| row.successor() == Some(&self.me) && row.holder() == Some(holder);
            if !found.as_ref().is_some_and(through) {
                return Err(no("somebody else was faster"));
            }
        }
        self.sights.asked(&key, holder, &self.me, now + ask.deadline);
        Ok(())
    }
}
