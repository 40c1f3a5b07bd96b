//! The judge of a simulation: is told of everything that happens, and says at once when it must not have happened.
//!
//! What it holds every run to:
//! - leases: epochs rise, one worker processes per epoch, a lease is taken by force only after the hand-over deadline, and
//!   given back only when nobody works under it; checkpoints are the holder's, never move back, and reach over processed
//!   records only;
//! - sessions (a processor under one lease, `sessions`): paired calls, in order, without a gap from the checkpoint on, none
//!   after the own clock says that the lease ran out, children after parents;
//! - in calm runs: nothing is processed by two sessions, no lease is lost.
//!
//! What must hold at the end is asked by whoever runs the simulation (`run`).

use super::facts::{Fate, ShardFacts, Taken, short};
use super::sessions::Session;
use crate::hold::Hold;
use crate::place::{Checkpoint, PendingCheckpoint};
use crate::store::{LeaseRow, Renewed};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tidemill_proto::Result;
use tidemill_types::{AnySequenceNumber, WorkerId};

/// Who asks the store.
#[derive(Debug, Clone)]
pub(super) struct Asker {
    pub(super) instance: usize,
    pub(super) worker: WorkerId,
}

/// What a run promises.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// Nothing goes wrong but what processors do: nothing may come twice.
    pub(super) calm: bool,
    pub(super) lease: Duration,
    /// Whether leases may be taken by force at once.
    pub(super) no_handoff: bool,
    /// Failures after which a record is given up without a word.
    pub(super) skipped_after: Option<u32>,
}

#[derive(Debug)]
pub(super) struct Judge {
    pub(super) rules: Rules,
    pub(super) shards: Vec<ShardFacts>,
    pub(super) sessions: Vec<Session>,
    /// Instances that were killed or cut off: they end without a word.
    pub(super) killed: Vec<usize>,
    pub(super) trace: Vec<String>,
    pub(super) hash: u64,
    pub(super) verdict: Option<String>,
    pub(super) redelivered: u64,
    /// When a lease was last asked for, taken, given back or handed over.
    pub(super) last_move: Duration,
    /// The same, how often.
    pub(super) moves: u64,
}

impl Judge {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            shards: Vec::new(),
            sessions: Vec::new(),
            killed: Vec::new(),
            trace: Vec::new(),
            hash: 0xcbf2_9ce4_8422_2325,
            verdict: None,
            redelivered: 0,
            last_move: Duration::ZERO,
            moves: 0,
        }
    }
    /// Writes down what happened.
    pub(super) fn note(&mut self, now: Duration, what: fmt::Arguments<'_>) {
        let line = format!("{:>7} {what}", now.as_millis());
        for byte in line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
        self.trace.push(line);
    }
    /// It must not have happened. The first of these stands.
    pub(super) fn wrong(&mut self, what: String) {
        self.verdict.get_or_insert(what);
    }
    pub(super) fn shard(&mut self, shard: u32) -> &mut ShardFacts {
        &mut self.shards[shard as usize]
    }
    fn moved(&mut self, now: Duration) {
        self.last_move = now;
        self.moves += 1;
    }

    // what the service does

    pub(super) fn shard_made(&mut self, now: Duration, shard: u32, parents: &[u32]) {
        self.note(now, format_args!("shard {shard} made, of {parents:?}"));
        self.shards.push(ShardFacts::new(parents));
        parents.iter().for_each(|parent| self.shard(*parent).closed = true);
    }
    pub(super) fn appended(&mut self, now: Duration, shard: u32, number: AnySequenceNumber, records: usize) {
        self.note(now, format_args!("shard {shard}: {records} records appended as {number}"));
        let facts = self.shard(shard);
        facts.places.extend((0..records as u64).map(|sub| (number, sub)));
        facts.fates.resize(facts.places.len(), Fate::Pending);
    }
    /// A session that begins at the newest record was told which that is.
    pub(super) fn begun_at_newest(&mut self, shard: u32, anchor: AnySequenceNumber) {
        let facts = self.shard(shard);
        let before = facts.places.partition_point(|(number, _)| *number <= anchor);
        facts.fates[..before]
            .iter_mut()
            .filter(|fate| **fate == Fate::Pending)
            .for_each(|fate| *fate = Fate::Before);
    }

    // what the store does, in the order in which it does it

    pub(super) fn taken(&mut self, now: Duration, asker: &Asker, shard: u32, done: &Result<LeaseRow>) {
        let Asker { instance, worker } = asker;
        let row = match done {
            Ok(row) => row,
            Err(error) => {
                let kind = error.kind();
                return self.note(
                    now,
                    format_args!("shard {shard}: {worker}#{instance} refused the lease: {kind:?}"),
                );
            }
        };
        let (epoch, checkpoint) = (row.epoch.get(), row.checkpoint.unwrap());
        self.moved(now);
        let no_handoff = self.rules.no_handoff;
        let facts = self.shard(shard);
        let by_force = facts.is_held_by_another(worker, now);
        let may_force = no_handoff || facts.asks.get(worker).is_some_and(|until| *until <= now);
        let rises = epoch > facts.epoch;
        facts.begun_closed |= facts.checkpoint.is_none() && facts.closed;
        let kept = facts.checkpoint.is_none_or(|before| before == checkpoint) && facts.pending == row.pending;
        facts.taken.insert(
            epoch,
            Taken { at: now, instance: *instance, by_force, from: checkpoint, pending: row.pending.clone() },
        );
        let lease = self.rules.lease;
        let facts = self.shard(shard);
        (facts.owner, facts.successor, facts.epoch) = (Some(worker.clone()), None, epoch);
        facts.asks.clear();
        (facts.expires, facts.checkpoint) = (now + lease, Some(checkpoint));
        let how = if by_force { "takes by force" } else { "takes" };
        self.note(
            now,
            format_args!("shard {shard}: {worker}#{instance} {how} epoch {epoch} at {}", short(checkpoint)),
        );
        if !rises {
            self.wrong(format!("shard {shard}: taken under epoch {epoch}, which is not above the last"));
        }
        if !kept {
            self.wrong(format!(
                "shard {shard}: the checkpoint, or what was prepared, changed while nobody set it"
            ));
        }
        if by_force && !may_force {
            self.wrong(format!(
                "shard {shard}: {worker}#{instance} took the lease before the holder's time was up"
            ));
        }
    }

    pub(super) fn asked(
        &mut self,
        now: Duration,
        asker: &Asker,
        shard: u32,
        deadline: Duration,
        done: &Result<()>,
    ) {
        let Asker { instance, worker } = asker;
        self.note(now, format_args!("shard {shard}: {worker}#{instance} asks for it: {}", told(done)));
        if done.is_ok() {
            self.last_move = now;
            let facts = self.shard(shard);
            if facts.successor.as_ref() != Some(worker) {
                facts.successor = Some(worker.clone());
                facts.asks.insert(worker.clone(), now + deadline);
            }
        }
    }

    pub(super) fn renewed(&mut self, now: Duration, asker: &Asker, done: &Result<Vec<(Arc<Hold>, Renewed)>>) {
        let Ok(fates) = done else { return };
        let until = now + self.rules.lease;
        for (hold, renewed) in fates {
            let (shard, epoch) = (hold.at().shard().get(), hold.epoch().get());
            if *renewed != Renewed::Held {
                let Asker { instance, worker } = asker;
                self.note(
                    now,
                    format_args!("shard {shard}: {worker}#{instance} renews epoch {epoch}: {renewed:?}"),
                );
            }
            if *renewed != Renewed::Lost {
                self.shard(shard).expires = until;
                if self.shard(shard).epoch != epoch {
                    self.wrong(format!("shard {shard}: renewed under epoch {epoch}, which is superseded"));
                }
            }
        }
    }

    pub(super) fn released(
        &mut self,
        now: Duration,
        asker: &Asker,
        shard: u32,
        epoch: u64,
        done: &Result<()>,
    ) {
        let Asker { instance, worker } = asker;
        self.note(
            now,
            format_args!("shard {shard}: {worker}#{instance} gives back epoch {epoch}: {}", told(done)),
        );
        if done.is_err() {
            return;
        }
        self.moved(now);
        let lease = self.rules.lease;
        let facts = self.shard(shard);
        facts.owner = facts.successor.take();
        facts.asks.clear();
        if facts.owner.is_some() {
            facts.epoch += 1;
            facts.expires = now + lease;
        }
        let session = self.shard(shard).sessions.get(&epoch).copied();
        if session.is_some_and(|session| self.sessions[session].is_at_work())
            && !self.killed.contains(instance)
        {
            self.wrong(format!(
                "shard {shard}: given back under epoch {epoch} while its processor is at work"
            ));
        }
    }

    pub(super) fn checkpointed(
        &mut self,
        now: Duration,
        asker: &Asker,
        shard: u32,
        epoch: u64,
        checkpoint: Checkpoint,
        done: &Result<()>,
    ) {
        let Asker { instance, worker } = asker;
        self.note(
            now,
            format_args!(
                "shard {shard}: {worker}#{instance} checkpoints {} under {epoch}: {}",
                short(checkpoint),
                told(done)
            ),
        );
        if done.is_err() {
            return;
        }
        let facts = self.shard(shard);
        let (current, before) = (facts.epoch, facts.checkpoint);
        let mine = facts.owner.as_ref() == Some(worker);
        let (covered, settled) = (facts.covered(checkpoint), facts.settled());
        let early = checkpoint == Checkpoint::ShardEnd && !facts.closed;
        (facts.checkpoint, facts.pending) = (Some(checkpoint), None);
        if epoch != current || !mine {
            self.wrong(format!(
                "shard {shard}: checkpoint taken under epoch {epoch}, which is superseded by {current}"
            ));
        }
        if before.is_some_and(|before| checkpoint < before) {
            self.wrong(format!("shard {shard}: the checkpoint moved back from {before:?} to {checkpoint:?}"));
        }
        if covered > settled {
            self.wrong(format!(
                "shard {shard}: the checkpoint covers record {settled}, which nobody has processed"
            ));
        }
        if early {
            self.wrong(format!("shard {shard}: checkpointed as ended while it is open"));
        }
    }

    pub(super) fn prepared(&mut self, shard: u32, pending: &PendingCheckpoint, done: &Result<()>) {
        if done.is_ok() {
            self.shard(shard).pending = Some(pending.clone());
        }
    }

    /// A worker got an answer that lets it hold a lease until a moment on its own clock.
    pub(super) fn granted(&mut self, asker: &Asker, shard: u32, epoch: u64, now: Duration, until: Duration) {
        let grants = &mut self.shard(shard).grants;
        let grant = grants.entry((asker.instance, epoch)).or_insert(until);
        // a renewal that comes in too late renews nothing
        if now < *grant {
            *grant = until.max(*grant);
        }
    }
}

fn told(done: &Result<()>) -> String {
    done.as_ref().map_or_else(|error| format!("{:?}", error.kind()), |()| "done".to_owned())
}
