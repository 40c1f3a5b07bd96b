//! The leases of all applications: in memory, written through to the metadata store.
//!
//! Each change is judged and made in memory and its batch sent to the writer under one lock, so that the store sees the
//! changes in the same order; the answer waits until the batch is durable. A change is thus visible a moment before it
//! is durable, which harms nobody: every batch carries the whole row, every call that changes a lease waits for a batch
//! of its own, even if it repeats what memory says already, and an epoch that a crash takes back was never confirmed to
//! its holder. Renewals and who waits for a lease stay in memory.

use super::lag::Lag;
use super::nouns::{HeldLease, LeaseRow, Renewal, Renewed, RequestHandoff, Steal, TakeLease};
use super::row::{Asked, Claim, NOBODY_HOLDS, Released, Row};
use super::stored;
use crate::catalog::registry::Registry;
use crate::error::{Error, ErrorKind, Result};
use crate::shared::Shared;
use crate::store::writer::{Commit, Metadata};
use crate::store::{Batch, Verdict};
use crate::stream::{Stream, StreamCore};
use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tidemill_types::limits::{HANDOFF_MS_MAX, LEASE_MS_MAX, LEASE_MS_MIN};
use tidemill_types::{
    AppName, Checkpoint, MonotonicMs, PendingCheckpoint, Shard, ShardId, StreamIncarnation, StreamKey,
    WorkerId,
};
use tracing::warn;

/// Leases of all applications and streams together.
const LEASES_MAX: usize = 500_000;

/// Leases by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LeaseCount {
    pub(crate) held: usize,
    pub(crate) expired: usize,
    pub(crate) free: usize,
}

pub(crate) type Rows = HashMap<(StreamIncarnation, AppName), BTreeMap<ShardId, Row>>;

/// The leases of all applications. Every change is conditional on the lease's epoch.
pub struct LeaseTable {
    pub(super) rows: Mutex<Rows>,
    pub(super) shared: Arc<Shared>,
    pub(super) registry: Arc<Registry>,
    pub(super) metadata: Metadata,
}

impl LeaseTable {
    pub(crate) fn new(rows: Rows, shared: Arc<Shared>, registry: Arc<Registry>, metadata: Metadata) -> Self {
        Self { rows: Mutex::new(rows), shared, registry, metadata }
    }

    pub(super) fn now(&self) -> MonotonicMs {
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
        let row_of =
            |shard: &Shard| LeaseRow::of(shard.clone(), taken.and_then(|taken| taken.get(&shard.id)), now);
        Ok(set.shards().map(row_of).collect())
    }

    /// The same, and how far the application is behind in each shard. Dearer: it reads a page or so of each shard in which the
    /// application is behind.
    ///
    /// Errors: `NotFound`, `Unavailable`.
    pub async fn list_with_lag(&self, app: &AppName, stream: &StreamKey) -> Result<Vec<LeaseRow>> {
        self.shared.metrics().note(self.list_with_lag_now(app, stream).await)
    }

    async fn list_with_lag_now(&self, app: &AppName, stream: &StreamKey) -> Result<Vec<LeaseRow>> {
        let mut rows = self.list_now(app, stream)?;
        let (set, now) = (self.registry.get(stream)?.shard_set(), self.shared.clock().now());
        let add_lag = move || {
            for row in &mut rows {
                let handle = set.get(row.shard.id);
                let known = handle.zip(row.checkpoint).map(|(handle, at)| Lag::behind(handle, at, now));
                match known.transpose() {
                    Ok(lag) => row.lag = lag.flatten(),
                    // of one shard; the others are told
                    Err(error) => warn!(shard = %row.shard.id, %error, "the lag of a lease is not known"),
                }
            }
            Ok(rows)
        };
        self.shared.blocking("a look at the lag", add_lag).await
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
            check_room(&rows, usize::from(known.is_none()))?;
            let claim = Claim {
                worker: &request.worker,
                expected: request.expected_epoch,
                lease_ms: request.lease_ms,
                may_steal: request.steal == Steal::Allowed,
                initial: request.initial,
            };
            let row = Row::take(known, &claim, now)?;
            if known.is_some_and(|known| known.is_forced_by(&request.worker, now)) {
                self.shared.metrics().handoffs_forced.increment(1);
            }
            rows.entry((core.incarnation(), app.clone())).or_default().insert(shard.id, row.clone());
            let key = stored::key(core.incarnation(), app, shard.id);
            (LeaseRow::of(shard, Some(&row), now), slot.send(Batch::put(key, row.encode())))
        };
        durable(commit).await?;
        Ok(row)
    }

    /// Keeps leases alive for another lease time; names those that the worker does not hold (any more), and those that a
    /// successor waits for.
    ///
    /// Errors: `Unavailable`.
    pub async fn renew(&self, app: &AppName, worker: &WorkerId, renewals: &[Renewal]) -> Result<Renewed> {
        self.shared.metrics().note(self.shared.check_open())?;
        let mut renewed = Renewed::default();
        for Renewal { held, bytes_per_s } in renewals {
            let incarnation = self.registry.get(&held.stream).map(|core| core.incarnation());
            let mut rows = self.rows.lock();
            let row = incarnation.ok().and_then(|incarnation| rows.get_mut(&(incarnation, app.clone())));
            let row = row.and_then(|taken| taken.get_mut(&held.shard));
            let Some(row) = row.filter(|row| row.is_held_by(worker, held.epoch)) else {
                renewed.lost.push(held.clone());
                continue;
            };
            row.renew(*bytes_per_s, self.now());
            if row.handoff.is_some() {
                renewed.asked.push(held.clone());
            }
        }
        Ok(renewed)
    }

    /// Gives a lease back; its checkpoint stays. Where a successor waits, the lease is the successor's from here on, under
    /// the next epoch. Errors: `NotFound`; `Conflict` unless worker and epoch hold it; `Unavailable`, `UnknownOutcome`.
    pub async fn release(&self, app: &AppName, worker: &WorkerId, held: &HeldLease) -> Result<()> {
        let (now, metrics) = (self.now(), self.shared.metrics());
        let released = self.change(app, worker, held, |_, _, row| {
            if row.release(now) == Released::HandedOver {
                metrics.handoffs_given.increment(1);
            }
            Ok(())
        });
        metrics.note(released.await)
    }

    /// Notes how far the holder has come; durable when this returns, also when it is told again. What was prepared is done
    /// with. Errors: `NotFound`; `Conflict` unless worker and epoch hold the lease; `Invalid` if the checkpoint would go
    /// back, is not of this shard, or is ahead of its records; `Unavailable`, `UnknownOutcome`.
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

    /// Notes a checkpoint that is to follow, beside the one there is, until one is made: whoever takes the lease meanwhile
    /// finds it. Durable when this returns. Errors: as [`LeaseTable::checkpoint`].
    pub async fn prepare(
        &self,
        app: &AppName,
        worker: &WorkerId,
        held: &HeldLease,
        pending: PendingCheckpoint,
    ) -> Result<()> {
        let noted = self.change(app, worker, held, |core, shard, row| {
            check_checkpoint(core, shard, pending.at())?;
            row.prepare(pending)
        });
        self.shared.metrics().note(noted.await)
    }

    /// Asks the holder of a lease to hand it over in order; it learns of it when it renews. Kept in memory only: whoever
    /// still wants it after a restart asks again. Asking again changes nothing.
    ///
    /// Errors: `NotFound`; `Conflict` if the epoch is not the expected one, nobody holds the lease, the worker itself holds
    /// it, or another successor's time is not up; `Invalid` for a deadline out of bounds; `Unavailable`.
    pub async fn request_handoff(
        &self,
        app: &AppName,
        stream: &StreamKey,
        request: RequestHandoff,
    ) -> Result<LeaseRow> {
        self.shared.metrics().note(self.request_handoff_now(app, stream, &request))
    }

    fn request_handoff_now(
        &self,
        app: &AppName,
        stream: &StreamKey,
        request: &RequestHandoff,
    ) -> Result<LeaseRow> {
        self.shared.check_open()?;
        let RequestHandoff { worker, expected_epoch, deadline_ms, .. } = request;
        if *deadline_ms > HANDOFF_MS_MAX {
            let message = format!(
                "a holder is given 0 to {HANDOFF_MS_MAX} milliseconds to hand over, asked for {deadline_ms}"
            );
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        let core = self.registry.get(stream)?;
        let shard = core.handle(request.shard)?.shard().clone();
        let now = self.now();
        let Some(mut row) = self.row(&core, app, shard.id) else {
            return Err(Error::new(ErrorKind::Conflict, NOBODY_HOLDS));
        };
        if row.ask(worker, *expected_epoch, *deadline_ms, now)? == Asked::Newly {
            self.shared.metrics().handoffs_asked.increment(1);
        }
        Ok(LeaseRow::of(shard, Some(&row), now))
    }

    /// The lease, locked with all others; none if nobody ever took it.
    fn row(&self, core: &StreamCore, app: &AppName, shard: ShardId) -> Option<MappedMutexGuard<'_, Row>> {
        let of_app = (core.incarnation(), app.clone());
        MutexGuard::try_map(self.rows.lock(), |rows| rows.get_mut(&of_app)?.get_mut(&shard)).ok()
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
            let mut row = self.row(&core, app, shard.id).ok_or_else(|| {
                let message =
                    format!("application {app} holds no lease of {} of stream {}", shard.id, held.stream);
                Error::new(ErrorKind::Conflict, message)
            })?;
            row.check_held_by(worker, held.epoch)?;
            change(&core, &shard, &mut row)?;
            slot.send(Batch::put(stored::key(core.incarnation(), app, shard.id), row.encode()))
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

/// An error unless so many more leases can be kept.
pub(super) fn check_room(rows: &Rows, more: usize) -> Result<()> {
    if more == 0 || rows.values().map(BTreeMap::len).sum::<usize>() + more <= LEASES_MAX {
        return Ok(());
    }
    let message = format!("this broker keeps at most {LEASES_MAX} leases");
    Err(Error::new(ErrorKind::Throttled, message))
}

/// Waits until a change is durable.
pub(crate) async fn durable(commit: Commit) -> Result<()> {
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
