//! One lease and its rules, as a pure value.
//!
//! ```text
//!            take                     runs out (monotonic clock)
//!   free ──────────► held by a worker ──────────────────────────► expired: still the worker's until someone takes it
//!    ▲   epoch + 1    │ renew, checkpoint, prepare: worker and epoch must match │
//!    ├──── release ───┤◄─────────────────── take, epoch + 1 ──────────────────┘
//!                     │ ask for a handover: a successor waits, the holder's right is as before
//!                     └─ release while one waits: held by the successor, epoch + 1
//! ```
//!
//! An operator may move its checkpoint anywhere: then nobody holds it, and who did is fenced off. How it is written down: [`super::stored`].

use crate::error::{Error, ErrorKind, Result};
use tidemill_types::limits::LEASE_MS_MIN;
use tidemill_types::{Checkpoint, LeaseEpoch, MonotonicMs, PendingCheckpoint, WorkerId};

/// A lease that was taken at least once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) owner: Option<WorkerId>,
    pub(crate) epoch: LeaseEpoch,
    pub(crate) checkpoint: Checkpoint,
    /// Never behind the checkpoint.
    pub(crate) pending: Option<PendingCheckpoint>,
    pub(crate) lease_ms: u64,
    /// Not written down: how often it was taken or renewed under this epoch.
    pub(crate) counter: u64,
    /// Not written down: after a restart every holder gets one full lease time.
    pub(crate) expires: MonotonicMs,
    /// Not written down: whoever still wants it after a restart asks again.
    pub(crate) handoff: Option<Handoff>,
    /// Not written down: the throughput that a holder told last.
    pub(crate) bytes_per_s: u64,
}

/// Who waits to have a lease, and how long in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Handoff {
    pub(crate) successor: WorkerId,
    pub(crate) until: MonotonicMs,
}

/// What giving a lease back came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Released {
    /// Nobody holds it.
    Free,
    /// The successor that waited has it.
    HandedOver,
}

/// Whether a successor had asked before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    Newly,
    Before,
}

/// Why a lease cannot be handed over that nobody holds.
pub(crate) const NOBODY_HOLDS: &str = "nobody holds the lease, so that nobody can hand it over: take it";

/// Who asks to take a lease, and on what terms.
pub(crate) struct Claim<'a> {
    pub(crate) worker: &'a WorkerId,
    pub(crate) expected: LeaseEpoch,
    pub(crate) lease_ms: u64,
    pub(crate) may_steal: bool,
    pub(crate) initial: Checkpoint,
}

impl Row {
    /// The lease after `claim`, on a lease that is now `row` (none: never taken).
    pub(crate) fn take(row: Option<&Self>, claim: &Claim<'_>, now: MonotonicMs) -> Result<Self> {
        let epoch = row.map_or(LeaseEpoch::default(), |row| row.epoch);
        check_epoch(epoch, claim.expected)?;
        let holder = row.and_then(|row| row.holder(now));
        if let Some(holder) = holder.filter(|holder| *holder != claim.worker && !claim.may_steal) {
            return Err(Error::new(ErrorKind::Conflict, format!("worker {holder} holds the lease")));
        }
        Ok(Self {
            owner: Some(claim.worker.clone()),
            epoch: epoch.next(),
            checkpoint: row.map_or(claim.initial, |row| row.checkpoint),
            pending: row.and_then(|row| row.pending.clone()),
            lease_ms: claim.lease_ms,
            counter: 1,
            expires: now.plus_ms(claim.lease_ms),
            handoff: None,
            bytes_per_s: row.map_or(0, |row| row.bytes_per_s),
        })
    }

    /// The lease after its checkpoint was put to another place; `row` is none where nobody ever took it. Nobody holds it any
    /// more; who did is fenced off.
    pub(crate) fn moved(row: Option<&Self>, checkpoint: Checkpoint, now: MonotonicMs) -> Self {
        let epoch = row.map_or(LeaseEpoch::default(), |row| row.epoch);
        let rises = row.is_none_or(|row| row.owner.is_some());
        Self {
            owner: None,
            epoch: if rises { epoch.next() } else { epoch },
            checkpoint,
            pending: None,
            lease_ms: row.map_or(LEASE_MS_MIN, |row| row.lease_ms),
            counter: 0,
            expires: now,
            handoff: None,
            bytes_per_s: row.map_or(0, |row| row.bytes_per_s),
        }
    }

    /// Who holds it and has not let it run out.
    pub(crate) fn holder(&self, now: MonotonicMs) -> Option<&WorkerId> {
        self.owner.as_ref().filter(|_| now < self.expires)
    }

    /// Whether `worker`, if it takes it now, had waited for it in vain.
    pub(crate) fn is_forced_by(&self, worker: &WorkerId, now: MonotonicMs) -> bool {
        self.holder(now).is_some() && self.handoff.as_ref().is_some_and(|waits| waits.successor == *worker)
    }
    /// Whether `worker` holds it under `epoch`; one that ran out and was not taken since is still held.
    pub(crate) fn is_held_by(&self, worker: &WorkerId, epoch: LeaseEpoch) -> bool {
        self.owner.as_ref() == Some(worker) && self.epoch == epoch
    }
    /// An error unless `worker` holds it under `epoch`.
    pub(crate) fn check_held_by(&self, worker: &WorkerId, epoch: LeaseEpoch) -> Result<()> {
        if self.is_held_by(worker, epoch) {
            return Ok(());
        }
        let holder =
            self.owner.as_ref().map_or_else(|| "nobody".to_owned(), |owner| format!("worker {owner}"));
        let message = format!(
            "worker {worker} has lost the lease of epoch {epoch}: {holder} holds it, under epoch {}",
            self.epoch
        );
        Err(Error::new(ErrorKind::Conflict, message))
    }
    /// Another full lease time from now.
    pub(crate) fn renew(&mut self, bytes_per_s: u64, now: MonotonicMs) {
        self.counter += 1;
        self.expires = now.plus_ms(self.lease_ms);
        self.bytes_per_s = bytes_per_s;
    }
    /// Gives it back: to the successor that waits, with a full lease time from now, or to nobody.
    pub(crate) fn release(&mut self, now: MonotonicMs) -> Released {
        let Some(handoff) = self.handoff.take() else {
            self.owner = None;
            return Released::Free;
        };
        self.owner = Some(handoff.successor);
        self.epoch = self.epoch.next();
        self.counter = 0;
        self.expires = now.plus_ms(self.lease_ms);
        Released::HandedOver
    }
    /// Moves the checkpoint, or leaves it where it is; either way what was prepared is done with. An error if it would go
    /// back.
    pub(crate) fn advance(&mut self, checkpoint: Checkpoint) -> Result<()> {
        self.check_forward(checkpoint)?;
        self.checkpoint = checkpoint;
        self.pending = None;
        Ok(())
    }
    /// Notes a checkpoint that is to follow. An error if it lies behind the one there is.
    pub(crate) fn prepare(&mut self, pending: PendingCheckpoint) -> Result<()> {
        self.check_forward(pending.at())?;
        self.pending = Some(pending);
        Ok(())
    }
    fn check_forward(&self, checkpoint: Checkpoint) -> Result<()> {
        if checkpoint >= self.checkpoint {
            return Ok(());
        }
        let message =
            format!("a checkpoint only moves forward: at {:?}, asked for {checkpoint:?}", self.checkpoint);
        Err(Error::new(ErrorKind::Invalid, message))
    }
    /// Notes that `worker` waits for it, `deadline_ms` in order. Returns whether that is new.
    pub(crate) fn ask(
        &mut self,
        worker: &WorkerId,
        expected: LeaseEpoch,
        deadline_ms: u64,
        now: MonotonicMs,
    ) -> Result<Asked> {
        check_epoch(self.epoch, expected)?;
        let conflict = |message: String| Err(Error::new(ErrorKind::Conflict, message));
        match self.holder(now) {
            None => return conflict(NOBODY_HOLDS.to_owned()),
            Some(holder) if holder == worker => {
                return conflict(format!("worker {worker} holds the lease itself"));
            }
            Some(_) => {}
        }
        match &self.handoff {
            Some(handoff) if handoff.successor == *worker => return Ok(Asked::Before),
            Some(handoff) if now < handoff.until => {
                let message = format!(
                    "worker {} waits for the lease, for another {} ms",
                    handoff.successor,
                    handoff.until.since(now)
                );
                return conflict(message);
            }
            _ => {}
        }
        self.handoff = Some(Handoff { successor: worker.clone(), until: now.plus_ms(deadline_ms) });
        Ok(Asked::Newly)
    }
    /// Milliseconds until it runs out; 0 if it has, or nobody holds it.
    pub(crate) fn expires_in_ms(&self, now: MonotonicMs) -> u64 {
        if self.owner.is_some() { self.expires.since(now) } else { 0 }
    }
}

/// An error unless a lease at `epoch` is as somebody expects it.
fn check_epoch(epoch: LeaseEpoch, expected: LeaseEpoch) -> Result<()> {
    if epoch == expected {
        return Ok(());
    }
    let message = format!("the lease is at epoch {epoch}, not {expected}: another worker was faster");
    Err(Error::new(ErrorKind::Conflict, message))
}
