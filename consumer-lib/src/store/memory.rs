//! Leases in the memory of this process: for tests of an application, and for the simulation of this crate. Workers that
//! share a [`MemoryLeases`] share the leases; nothing outlives it.
//!
//! Time is tokio's, so that a test with paused time decides when leases run out.

use super::{Answer, Ask, LeaseRow, LeaseStore, Renewed, Take};
use crate::fetch::Source;
use crate::hold::Hold;
use crate::place::{Checkpoint, PendingCheckpoint};
use crate::shard::{ShardInfo, ShardRef};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tidemill_proto::{Error, ErrorKind, Result};
use tidemill_types::{AppName, LeaseEpoch, StreamName, WorkerId};
use tokio::time::Instant;

/// Leases and checkpoints of applications, in memory. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct MemoryLeases {
    rows: Arc<Mutex<BTreeMap<(AppName, ShardRef), Row>>>,
}

impl MemoryLeases {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }
    /// The checkpoint of an application on a shard; nothing where no worker has taken its lease.
    pub fn checkpoint(&self, app: &AppName, shard: &ShardRef) -> Option<Checkpoint> {
        self.rows.lock().get(&(app.clone(), shard.clone())).map(|row| row.checkpoint)
    }
}

#[derive(Debug, Clone)]
struct Row {
    owner: Option<WorkerId>,
    successor: Option<(WorkerId, Instant)>,
    epoch: LeaseEpoch,
    counter: u64,
    checkpoint: Checkpoint,
    pending: Option<PendingCheckpoint>,
    expires: Instant,
    bytes_per_s: u64,
}

impl Row {
    fn is_live(&self) -> bool {
        self.owner.is_some() && Instant::now() < self.expires
    }
    fn shown(&self, shard: ShardInfo) -> LeaseRow {
        let left = self.expires.saturating_duration_since(Instant::now());
        let successor = self.successor.as_ref();
        LeaseRow {
            shard,
            owner: self.owner.clone(),
            successor: successor.map(|(worker, _)| worker.clone()),
            handoff_left: successor
                .map_or(Duration::ZERO, |(_, until)| until.saturating_duration_since(Instant::now())),
            epoch: self.epoch,
            counter: self.counter,
            checkpoint: Some(self.checkpoint),
            pending: self.pending.clone(),
            // what is left of a millisecond is not nothing
            expires_in_ms: if self.is_live() { (left.as_micros().div_ceil(1000)) as u64 } else { 0 },
            bytes_per_s: self.bytes_per_s,
        }
    }
}

/// The leases of one application, for one worker.
#[derive(Debug)]
pub(crate) struct MemoryStore {
    leases: MemoryLeases,
    source: Arc<dyn Source>,
    app: AppName,
    worker: WorkerId,
    lease: Duration,
}

impl MemoryStore {
    pub(crate) fn new(
        leases: MemoryLeases,
        source: Arc<dyn Source>,
        app: AppName,
        worker: WorkerId,
        lease: Duration,
    ) -> Self {
        Self { leases, source, app, worker, lease }
    }
    fn key(&self, at: &ShardRef) -> (AppName, ShardRef) {
        (self.app.clone(), at.clone())
    }
    /// Changes a lease that this worker holds.
    fn change<T>(&self, hold: &Hold, change: impl FnOnce(&mut Row) -> Result<T>) -> Result<T> {
        let mut rows = self.leases.rows.lock();
        let row = rows.get_mut(&self.key(hold.at()));
        let held = |row: &&mut Row| row.owner.as_ref() == Some(&self.worker) && row.epoch == hold.epoch();
        #[cfg(test)]
        let held =
            |row: &&mut Row| held(row) || crate::sim::bugs::is_planted(crate::sim::bugs::Bug::EpochIgnored);
        let row = row.filter(held).ok_or_else(|| conflict("the lease is lost"))?;
        change(row)
    }
}

fn conflict(told: &str) -> Error {
    Error::new(ErrorKind::Conflict, told)
}

fn not_back(row: &Row, at: Checkpoint) -> Result<()> {
    if at < row.checkpoint {
        let told = format!("checkpoints do not move back: at {:?}, asked for {at:?}", row.checkpoint);
        return Err(Error::new(ErrorKind::Invalid, told));
    }
    Ok(())
}

impl LeaseStore for MemoryStore {
    fn lease(&self) -> Duration {
        self.lease
    }

    fn list<'a>(&'a self, stream: &'a StreamName) -> Answer<'a, Vec<LeaseRow>> {
        Box::pin(async move {
            let shards = self.source.shards(stream).await?;
            let mut rows = self.leases.rows.lock();
            let is_there = |at: &ShardRef| shards.iter().any(|shard| shard.id == at.shard());
            rows.retain(|(app, at), _| *app != self.app || at.stream() != stream || is_there(at));
            let shown = |shard: &ShardInfo| {
                let at = ShardRef::new(stream.clone(), shard.id);
                let row = rows.get(&self.key(&at));
                row.map_or_else(|| LeaseRow::untaken(shard.clone()), |row| row.shown(shard.clone()))
            };
            Ok(shards.iter().map(shown).collect())
        })
    }

    fn take<'a>(&'a self, take: &'a Take) -> Answer<'a, LeaseRow> {
        Box::pin(async move {
            let shards = self.source.shards(take.at.stream()).await?;
            let shard = shards.into_iter().find(|shard| shard.id == take.at.shard());
            let shard = shard.ok_or_else(|| Error::new(ErrorKind::NotFound, "there is no such shard"))?;
            let mut rows = self.leases.rows.lock();
            let known = rows.get(&self.key(&take.at));
            if known.map_or(LeaseEpoch::default(), |row| row.epoch) != take.expected {
                return Err(conflict("another worker was faster"));
            }
            let other = |row: &&Row| row.is_live() && row.owner.as_ref() != Some(&self.worker);
            if known.filter(other).is_some() && !take.steal {
                return Err(conflict("another worker holds the lease"));
            }
            let row = Row {
                owner: Some(self.worker.clone()),
                successor: None,
                epoch: take.expected.next(),
                counter: known.map_or(0, |row| row.counter) + 1,
                checkpoint: known.map_or(take.initial, |row| row.checkpoint),
                pending: known.and_then(|row| row.pending.clone()),
                expires: Instant::now() + self.lease,
                bytes_per_s: known.map_or(0, |row| row.bytes_per_s),
            };
            let shown = row.shown(shard);
            rows.insert(self.key(&take.at), row);
            Ok(shown)
        })
    }

    fn ask<'a>(&'a self, ask: &'a Ask) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut rows = self.leases.rows.lock();
            let row = rows.get_mut(&self.key(&ask.at));
            let other = |row: &&mut Row| {
                row.epoch == ask.expected && row.is_live() && row.owner.as_ref() != Some(&self.worker)
            };
            let row = row.filter(other).ok_or_else(|| conflict("nobody to ask for the lease"))?;
            match &row.successor {
                Some((worker, _)) if *worker == self.worker => return Ok(()),
                Some((_, until)) if Instant::now() < *until => {
                    return Err(conflict("another successor waits for the lease"));
                }
                _ => {}
            }
            row.successor = Some((self.worker.clone(), Instant::now() + ask.deadline));
            Ok(())
        })
    }

    fn renew<'a>(&'a self, held: &'a [Arc<Hold>]) -> Answer<'a, Vec<(Arc<Hold>, Renewed)>> {
        Box::pin(async move {
            let fate = |hold: &Arc<Hold>| {
                let renewed = self.change(hold, |row| {
                    row.counter += 1;
                    row.expires = Instant::now() + self.lease;
                    row.bytes_per_s = hold.bytes_per_s();
                    Ok(if row.successor.is_some() { Renewed::Asked } else { Renewed::Held })
                });
                (Arc::clone(hold), renewed.unwrap_or(Renewed::Lost))
            };
            Ok(held.iter().map(fate).collect())
        })
    }

    fn release<'a>(&'a self, hold: &'a Hold) -> Answer<'a, ()> {
        Box::pin(async move {
            self.change(hold, |row| {
                row.owner = row.successor.take().map(|(worker, _)| worker);
                if row.owner.is_some() {
                    row.epoch = row.epoch.next();
                    row.expires = Instant::now() + self.lease;
                }
                Ok(())
            })
        })
    }

    fn checkpoint<'a>(&'a self, hold: &'a Hold, checkpoint: Checkpoint) -> Answer<'a, ()> {
        Box::pin(async move {
            self.change(hold, |row| {
                not_back(row, checkpoint)?;
                row.checkpoint = checkpoint;
                row.pending = None;
                Ok(())
            })
        })
    }

    fn prepare<'a>(&'a self, hold: &'a Hold, pending: &'a PendingCheckpoint) -> Answer<'a, ()> {
        Box::pin(async move {
            self.change(hold, |row| {
                not_back(row, pending.at)?;
                row.pending = Some(pending.clone());
                Ok(())
            })
        })
    }
}
