//! The leases of all applications: in memory, written through to the metadata store.
//!
//! Each change is judged and made in memory and its batch sent to the writer under one lock, so that the store sees the
//! changes in the same order; the answer waits until the batch is durable. A change is thus visible a moment before it
//! is durable, which harms nobody: every batch carries the whole row, every call that changes a lease waits for a batch
//! of its own, even if it repeats what memory says already, and an epoch that a crash takes back was never confirmed to
//! its holder. Renewals stay in memory.

use super::row::{self, Claim, Row};
use crate::catalog::registry::Registry;
use crate::error::{Error, ErrorKind, Result};
use crate::shared::Shared;
use crate::store::writer::{Commit, Metadata};
use crate::store::{Batch, Store, Verdict};
use crate::stream::{Stream, StreamCore};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use tidemill_types::limits::{LEASE_MS_MAX, LEASE_MS_MIN};
use tidemill_types::{
    AppName, Checkpoint, LeaseEpoch, MonotonicMs, Shard, ShardId, StreamIncarnation, StreamKey, WorkerId,
};

/// Leases of all applications and streams together.
const LEASES_MAX: usize = 500_000;

/// Whether a lease may be taken from a worker that still holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steal {
    /// Only a lease that is free, has run out, or is the worker's own.
    Never,
    /// Any.
    Allowed,
}

/// What a worker asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakeLease {
    /// The shard.
    pub shard: ShardId,
    /// Who asks.
    pub worker: WorkerId,
    /// The epoch the worker saw; 0 where nobody ever took the lease.
    pub expected_epoch: LeaseEpoch,
    /// It runs out when not renewed for so many milliseconds: 500 to 600,000.
    pub lease_ms: u64,
    /// Whether a live owner loses it.
    pub steal: Steal,
    /// The checkpoint to begin with if there is none yet.
    pub initial: Checkpoint,
}

/// A lease as its holder knows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HeldLease {
    /// The stream.
    pub stream: StreamKey,
    /// The shard.
    pub shard: ShardId,
    /// The epoch it was taken under.
    pub epoch: LeaseEpoch,
}

/// A lease as the table has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRow {
    /// The shard.
    pub shard: Shard,
    /// Who holds it, or held it last without giving it back.
    pub owner: Option<WorkerId>,
    /// The fencing counter; 0 if nobody ever took it.
    pub epoch: LeaseEpoch,
    /// How often it was taken or renewed under this epoch.
    pub counter: u64,
    /// How far the application has come; none if nobody ever took it.
    pub checkpoint: Option<Checkpoint>,
    /// Milliseconds until it runs out; 0: it has, or nobody holds it.
    pub expires_in_ms: u64,
}

/// Leases by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LeaseCount {
    pub(crate) held: usize,
    pub(crate) expired: usize,
    pub(crate) free: usize,
}

type Rows = HashMap<(StreamIncarnation, AppName), BTreeMap<ShardId, Row>>;

/// The leases of all applications. Every change is conditional on the lease's epoch.
pub struct LeaseTable {
    rows: Mutex<Rows>,
    shared: Arc<Shared>,
    registry: Arc<Registry>,
    metadata: Metadata,
}

/// Reads all leases; those of shards that are no more are left out and their keys returned.
pub(crate) fn load(
    store: &dyn Store,
    live: &HashSet<(StreamIncarnation, ShardId)>,
    now: MonotonicMs,
) -> Result<(Rows, Vec<Bytes>)> {
    let (mut rows, mut orphans) = (Rows::new(), Vec::new());
    for (key, value) in store.scan(row::PREFIX)? {
        let (incarnation, app, shard) = row::decode_key(&key)?;
        if live.contains(&(incarnation, shard)) {
            rows.entry((incarnation, app)).or_default().insert(shard, Row::decode(&value, now)?);
        } else {
            orphans.push(key);
        }
    }
    Ok((rows, orphans))
}

impl LeaseTable {
    pub(crate) fn new(rows: Rows, shared: Arc<Shared>, registry: Arc<Registry>, metadata: Metadata) -> Self {
        Self { rows: Mutex::new(rows), shared, registry, metadata }
    }

    fn now(&self) -> MonotonicMs {
        self.shared.clock().monotonic()
    }

    /// One row for each shard of the stream, by shard, made up where nobody has taken the lease yet.
    ///
    /// Errors: `NotFound`, `Unavailable`.
    pub async fn list(&self, app: &AppName, stream: &StreamKey) -> Result<Vec<LeaseRow>> {
        self.shared.metrics().note(self.list_now(app, stream))
    }

    fn list_now(&self, app: &AppName, stream: &StreamKey) -> Result<Vec<LeaseRow>> {
        self.shared.check_open()?;
        let core = self.registry.get(stream)?;
        let (now, set) = (self.now(), core.shard_set());
        let rows = self.rows.lock();
        let taken = rows.get(&(core.incarnation(), app.clone()));
        let row_of = |shard: &Shard| shown(shard.clone(), taken.and_then(|taken| taken.get(&shard.id)), now);
        Ok(set.shards().map(row_of).collect())
    }

    /// Takes a lease that is free, has run out, is the worker's own or may be stolen. The epoch rises by one. Once
    /// called it may happen even if the caller stops waiting.
    ///
    /// Errors: `NotFound`; `Conflict` if the epoch is not the expected one or another worker holds the lease; `Invalid`;
    /// `Throttled` at the limit of all leases; `Unavailable`, `UnknownOutcome`.
    pub async fn take(&self, app: &AppName, stream: &StreamKey, request: TakeLease) -> Result<LeaseRow> {
        self.shared.metrics().note(self.take_now(app, stream, &request).await)
    }

    async fn take_now(&self, app: &AppName, stream: &StreamKey, request: &TakeLease) -> Result<LeaseRow> {
        self.shared.check_open()?;
        if !(LEASE_MS_MIN..=LEASE_MS_MAX).contains(&request.lease_ms) {
            let message = format!(
                "a lease lasts {LEASE_MS_MIN} to {LEASE_MS_MAX} milliseconds, asked for {}",
                request.lease_ms
            );
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        let core = self.registry.get(stream)?;
        let shard = core.handle(request.shard)?.shard().clone();
        check_checkpoint(&core, &shard, request.initial)?;
        let slot = self.metadata.reserve().await?;
        let (row, commit) = {
            let mut rows = self.rows.lock();
            core.handle(request.shard)?; // a stream deleted meanwhile gets no new lease
            let now = self.now();
            let known = rows.get(&(core.incarnation(), app.clone())).and_then(|taken| taken.get(&shard.id));
            if known.is_none() && rows.values().map(BTreeMap::len).sum::<usize>() >= LEASES_MAX {
                let message = format!("this broker keeps at most {LEASES_MAX} leases");
                return Err(Error::new(ErrorKind::Throttled, message));
            }
            let claim = Claim {
                worker: &request.worker,
                expected: request.expected_epoch,
                lease_ms: request.lease_ms,
                may_steal: request.steal == Steal::Allowed,
                initial: request.initial,
            };
            let row = Row::take(known, &claim, now)?;
            rows.entry((core.incarnation(), app.clone())).or_default().insert(shard.id, row.clone());
            let key = row::key(core.incarnation(), app, shard.id);
            (shown(shard, Some(&row), now), slot.send(Batch::put(key, row.encode())))
        };
        durable(commit).await?;
        Ok(row)
    }

    /// Keeps leases alive for another lease time; returns those that the worker does not hold (any more).
    ///
    /// Errors: `Unavailable`.
    pub async fn renew(
        &self,
        app: &AppName,
        worker: &WorkerId,
        held: &[HeldLease],
    ) -> Result<Vec<HeldLease>> {
        self.shared.metrics().note(self.shared.check_open())?;
        let mut lost = Vec::new();
        for lease in held {
            let incarnation = self.registry.get(&lease.stream).map(|core| core.incarnation());
            let mut rows = self.rows.lock();
            let row = incarnation.ok().and_then(|incarnation| rows.get_mut(&(incarnation, app.clone())));
            let row = row.and_then(|taken| taken.get_mut(&lease.shard));
            match row.filter(|row| row.is_held_by(worker, lease.epoch)) {
                Some(row) => row.renew(self.now()),
                None => lost.push(lease.clone()),
            }
        }
        Ok(lost)
    }

    /// Gives a lease back; its checkpoint stays. Errors: `NotFound`; `Conflict` unless worker and epoch hold it;
    /// `Unavailable`, `UnknownOutcome`.
    pub async fn release(&self, app: &AppName, worker: &WorkerId, held: &HeldLease) -> Result<()> {
        let released = self.change(app, worker, held, |_, _, row| {
            row.owner = None;
            Ok(())
        });
        self.shared.metrics().note(released.await)
    }

    /// Notes how far the holder has come; durable when this returns, also when it is told again. Errors: `NotFound`;
    /// `Conflict` unless worker and epoch hold the lease; `Invalid` if the checkpoint would go back, is not of this shard,
    /// or is ahead of its records; `Unavailable`, `UnknownOutcome`.
    pub async fn checkpoint(
        &self,
        app: &AppName,
        worker: &WorkerId,
        held: &HeldLease,
        checkpoint: Checkpoint,
    ) -> Result<()> {
        let noted = self.change(app, worker, held, |core, shard, row| {
            check_checkpoint(core, shard, checkpoint)?;
            row.advance(checkpoint)
        });
        self.shared.metrics().note(noted.await)
    }

    /// Changes a lease that `worker` holds. The row is written even if it stays as it was: memory may be ahead of the
    /// store, after a commit that is under way or has failed, and what is confirmed here must be durable.
    async fn change(
        &self,
        app: &AppName,
        worker: &WorkerId,
        held: &HeldLease,
        change: impl FnOnce(&Arc<StreamCore>, &Shard, &mut Row) -> Result<()>,
    ) -> Result<()> {
        self.shared.check_open()?;
        let core = self.registry.get(&held.stream)?;
        let shard = core.handle(held.shard)?.shard().clone();
        let slot = self.metadata.reserve().await?;
        let commit = {
            let mut rows = self.rows.lock();
            let row =
                rows.get_mut(&(core.incarnation(), app.clone())).and_then(|taken| taken.get_mut(&shard.id));
            let row = row.ok_or_else(|| {
                let message =
                    format!("application {app} holds no lease of {} of stream {}", shard.id, held.stream);
                Error::new(ErrorKind::Conflict, message)
            })?;
            row.check_held_by(worker, held.epoch)?;
            change(&core, &shard, row)?;
            slot.send(Batch::put(row::key(core.incarnation(), app, shard.id), row.encode()))
        };
        durable(commit).await
    }

    /// Removes all leases of a stream that was deleted.
    pub(crate) async fn forget_stream(&self, incarnation: StreamIncarnation) -> Result<()> {
        let slot = self.metadata.reserve().await?;
        let commit = {
            let mut rows = self.rows.lock();
            let gone = rows.extract_if(|(stream, _), _| *stream == incarnation);
            let keys = gone.flat_map(|((_, app), taken)| {
                taken
                    .into_keys()
                    .map(move |shard| (row::key(incarnation, &app, shard), None))
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
                changes.extend(gone.map(|shard| (row::key(incarnation, app, *shard), None)));
            }
            rows.retain(|_, taken| !taken.is_empty());
            if changes.is_empty() {
                return Ok(());
            }
            slot.send(Batch { conditions: Vec::new(), changes })
        };
        durable(commit).await
    }

    /// How many leases there are in each state.
    pub(crate) fn count(&self) -> LeaseCount {
        let now = self.now();
        let mut count = LeaseCount::default();
        for row in self.rows.lock().values().flat_map(BTreeMap::values) {
            match (&row.owner, row.expires_in_ms(now)) {
                (None, _) => count.free += 1,
                (Some(_), 0) => count.expired += 1,
                (Some(_), _) => count.held += 1,
            }
        }
        count
    }
}

async fn durable(commit: Commit) -> Result<()> {
    match commit.wait().await? {
        Verdict::Done => Ok(()),
        Verdict::Refused => Err(Error::new(ErrorKind::Internal, "a lease was refused without a condition")),
    }
}

/// Whether an application can have come this far in this shard.
fn check_checkpoint(core: &Arc<StreamCore>, shard: &Shard, checkpoint: Checkpoint) -> Result<()> {
    let invalid = |message: String| Err(Error::new(ErrorKind::Invalid, message));
    match checkpoint {
        Checkpoint::TrimHorizon | Checkpoint::Latest => Ok(()),
        Checkpoint::At { number, .. } => {
            match (Stream { core: Arc::clone(core) }).check_number(shard.id, &number) {
                Ok(()) => Ok(()),
                Err(problem) => invalid(format!("{number} is no checkpoint of {}: {problem}", shard.id)),
            }
        }
        Checkpoint::ShardEnd if shard.is_open() => {
            invalid(format!("{} is open: nobody can have come to its end", shard.id))
        }
        Checkpoint::ShardEnd => Ok(()),
    }
}

fn shown(shard: Shard, row: Option<&Row>, now: MonotonicMs) -> LeaseRow {
    match row {
        None => {
            let epoch = LeaseEpoch::default();
            LeaseRow { shard, owner: None, epoch, counter: 0, checkpoint: None, expires_in_ms: 0 }
        }
        Some(row) => LeaseRow {
            shard,
            owner: row.owner.clone(),
            epoch: row.epoch,
            counter: row.counter,
            checkpoint: Some(row.checkpoint),
            expires_in_ms: row.expires_in_ms(now),
        },
    }
}
