//! Leases in a DynamoDB table, in the layout and with the conditions of the KCL for Java (its versions 2 and 3), so that
//! workers of either library share one application.
//!
//! ```text
//!  nouns of a lease store ─► what the holder must know (held) ─► conditional change (change) ─► call (table)
//!  rows (row) + shards of the source (join) + when counters last moved (sight) ─► leases
//! ```
//!
//! The counter of a row is its fence: whoever takes it or renews it moves it, and every write by a holder is on condition
//! that nobody else has. Nothing here reads a wall clock. What it does not do: lead an application as one worker of the KCL
//! 3 does for the others (its workers do that among themselves, this one takes its share as those of version 2 do), or
//! clean up behind streams that were removed.

mod change;
mod held;
mod join;
mod keys;
mod list;
mod row;
mod sight;
mod table;
mod take;

pub(crate) use keys::Keys;
pub(crate) use table::{Creation, TableReads};

use self::change::{Asked, Change};
use self::held::{HeldLeases, State, lost, standing};
use self::keys::Scope;
use self::row::{Found, Item, Row};
use self::sight::Sights;
use self::table::{Table, Written};
use super::{Answer, Ask, LeaseRow, LeaseStore, Renewed, Take};
use crate::fetch::Source;
use crate::hold::Hold;
use crate::place::{Checkpoint, PendingCheckpoint};
use crate::shard::ShardInfo;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tidemill_proto::{Error, ErrorKind, Result};
use tidemill_types::{ShardId, StreamName, WorkerId};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::warn;

/// Renewals under way at a time.
const RENEWALS_MAX: usize = 20;
/// A write of the holder is made anew when a request of its own was found to have moved the counter; and the condition
/// that nobody asks for the lease is dropped once.
const TRIES_MAX: usize = 4;

/// Leases of one application, for one worker. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct DynamoDbStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    table: Table,
    keys: Keys,
    source: Arc<dyn Source>,
    me: String,
    lease: Duration,
    held: HeldLeases,
    sights: Sights,
}

/// What is needed beside the source of records.
#[derive(Debug)]
pub(crate) struct DynamoDbSettings {
    pub(crate) client: aws_sdk_dynamodb::Client,
    pub(crate) table: String,
    pub(crate) keys: Keys,
    pub(crate) reads: TableReads,
    pub(crate) creation: Creation,
}

impl DynamoDbStore {
    pub(crate) fn new(
        settings: DynamoDbSettings,
        source: Arc<dyn Source>,
        worker: &WorkerId,
        lease: Duration,
    ) -> Self {
        let DynamoDbSettings { client, table, keys, reads, creation } = settings;
        let table = Table::new(client, &table, reads, creation);
        let me = worker.as_str().to_owned();
        let sights = Sights::new(lease);
        let held = HeldLeases::default();
        Self { inner: Arc::new(Inner { table, keys, source, me, lease, held, sights }) }
    }
}

impl LeaseStore for DynamoDbStore {
    fn lease(&self) -> Duration {
        self.inner.lease
    }

    fn list<'a>(&'a self, stream: &'a StreamName) -> Answer<'a, Vec<LeaseRow>> {
        Box::pin(self.inner.list(stream))
    }

    fn take<'a>(&'a self, take: &'a Take) -> Answer<'a, LeaseRow> {
        Box::pin(self.inner.take(take))
    }

    fn ask<'a>(&'a self, ask: &'a Ask) -> Answer<'a, ()> {
        Box::pin(self.inner.ask(ask))
    }

    fn renew<'a>(&'a self, held: &'a [Arc<Hold>]) -> Answer<'a, Vec<(Arc<Hold>, Renewed)>> {
        Box::pin(async move {
            let turns = Arc::new(Semaphore::new(RENEWALS_MAX));
            let mut renewing = JoinSet::new();
            for (place, hold) in held.iter().enumerate() {
                let (inner, hold, turns) = (Arc::clone(&self.inner), Arc::clone(hold), Arc::clone(&turns));
                renewing.spawn(async move {
                    let _turn = turns.acquire_owned().await.expect("the semaphore is never closed");
                    let renewed = inner.renew(&hold).await;
                    (place, hold, renewed)
                });
            }
            let (mut known, mut failed) = (BTreeMap::new(), None);
            while let Some(renewed) = renewing.join_next().await {
                let Ok((place, hold, renewed)) = renewed else { continue };
                match renewed {
                    Ok(renewed) => drop(known.insert(place, (hold, renewed))),
                    Err(error) => failed = Some(error),
                }
            }
            match failed {
                Some(error) if known.is_empty() => Err(error),
                Some(error) => {
                    warn!(%error, renewed = known.len(), of = held.len(), "not all leases could be renewed");
                    Ok(known.into_values().collect())
                }
                None => Ok(known.into_values().collect()),
            }
        })
    }

    fn release<'a>(&'a self, hold: &'a Hold) -> Answer<'a, ()> {
        Box::pin(self.inner.release(hold))
    }

    fn checkpoint<'a>(&'a self, hold: &'a Hold, checkpoint: Checkpoint) -> Answer<'a, ()> {
        Box::pin(async move {
            let held = self.inner.held.of_hold(hold)?;
            held.not_back(checkpoint)?;
            let change = |counter, _| change::checkpoint(counter, checkpoint);
            let done = |row: &Row| row.checkpoint == checkpoint && row.pending.is_none();
            self.inner.fenced(hold, &change, &done).await?;
            held.reached(checkpoint);
            Ok(())
        })
    }

    fn prepare<'a>(&'a self, hold: &'a Hold, pending: &'a PendingCheckpoint) -> Answer<'a, ()> {
        Box::pin(async move {
            self.inner.held.of_hold(hold)?.not_back(pending.at)?;
            let change = |counter, _| change::prepare(counter, pending);
            let done = |row: &Row| row.pending.as_ref() == Some(pending);
            self.inner.fenced(hold, &change, &done).await.map(drop)
        })
    }

    fn note_children<'a>(&'a self, hold: &'a Hold, children: &'a [ShardInfo]) -> Answer<'a, ()> {
        Box::pin(self.inner.note_children(hold, children))
    }
}

impl Inner {
    async fn row(&self, key: &str) -> Result<Option<Row>> {
        self.table.get(key).await?.as_ref().map_or(Ok(None), lease_row)
    }

    /// The row with which a write was refused.
    async fn refused(&self, key: &str, item: Option<Item>) -> Result<Option<Row>> {
        match item {
            Some(item) => lease_row(&item),
            None => self.row(key).await,
        }
    }

    async fn renew(&self, hold: &Hold) -> Result<Renewed> {
        let change = |counter, asked| change::renew(counter, asked, hold.bytes_per_s());
        match self.fenced(hold, &change, &|_| true).await {
            Ok(Asked::NotYet) => Ok(Renewed::Held),
            Ok(Asked::Already) => Ok(Renewed::Asked),
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(Renewed::Lost),
            Err(error) => Err(error),
        }
    }

    /// Makes a change that only the holder may make and that moves the counter by one. When it is refused though the lease
    /// is held, and the row is not as it should be after it (`done`), it is made again from where the row stands.
    async fn fenced(
        &self,
        hold: &Hold,
        change: &(dyn Fn(u64, Asked) -> Change + Send + Sync),
        done: &(dyn Fn(&Row) -> bool + Send + Sync),
    ) -> Result<Asked> {
        let held = self.held.of_hold(hold)?;
        let mut state = held.state.lock().await;
        for _ in 0..TRIES_MAX {
            let State::Held { counter, asked } = *state else { return Err(lost(hold.at())) };
            let sent = Instant::now();
            let refused = match self.table.update(&held.key, change(counter, asked)).await? {
                Written::Done => {
                    *state = State::Held { counter: counter + 1, asked };
                    self.sights.moved(&held.key, counter + 1, sent);
                    return Ok(asked);
                }
                Written::Refused(item) => self.refused(&held.key, item).await?,
            };
            *state = standing(refused.as_ref(), &self.me, counter);
            match *state {
                State::Lost => {
                    self.held.remove(hold.at(), held.epoch);
                    return Err(lost(hold.at()));
                }
                State::Held { counter: now, asked }
                    if now > counter && refused.as_ref().is_some_and(done) =>
                {
                    return Ok(asked);
                }
                State::Held { .. } => {}
            }
        }
        let told = format!("the row of {} is changed again and again", hold.at());
        Err(Error::new(ErrorKind::Unavailable, told))
    }

    async fn release(&self, hold: &Hold) -> Result<()> {
        let given_back = |counter, asked| match asked {
            Asked::NotYet => change::evict(counter, &self.me),
            Asked::Already => change::hand_over(counter, &self.me),
        };
        let released = self.fenced(hold, &given_back, &|_| false).await;
        self.held.remove(hold.at(), hold.epoch());
        released.map(drop)
    }

    async fn note_children(&self, hold: &Hold, children: &[ShardInfo]) -> Result<()> {
        let scope = self.keys.scope(hold.at().stream()).await?;
        for child in children {
            if self.may_begin(&scope, hold.at().shard(), child).await? {
                let key = scope.key(child.id);
                let item = row::new_row(&key, scope.stream.as_deref(), child, Checkpoint::TrimHorizon);
                self.table.put_new(item).await?;
            }
        }
        let ids: Vec<ShardId> = children.iter().map(|child| child.id).collect();
        let change = |counter, _| change::children(counter, ids.iter().copied());
        self.fenced(hold, &change, &|_| false).await.map(drop)
    }

    /// Whether the row of a child may be made: a row says that parents without a row are done, so of a merge the other
    /// parent must have its row. Otherwise that one's end, or the worker that takes the child, makes it.
    async fn may_begin(&self, scope: &Scope, parent: ShardId, child: &ShardInfo) -> Result<bool> {
        for other in child.parents().filter(|other| *other != parent) {
            if self.table.get(&scope.key(other)).await?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn conflict(told: String) -> Error {
    Error::new(ErrorKind::Conflict, told)
}

/// A row that must be that of a lease.
fn lease_row(item: &Item) -> Result<Option<Row>> {
    match row::read(item) {
        Found::Lease(row) => Ok(Some(row)),
        Found::Garbled { key, why } => Err(Error::new(
            ErrorKind::Damaged,
            format!("the row {key} makes no sense: {why}; correct it by hand"),
        )),
        Found::Other => Err(Error::new(ErrorKind::Damaged, "a row with the key of a lease is none")),
    }
}
