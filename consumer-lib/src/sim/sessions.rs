//! What the judge holds processors to: a session is one processor, from when it is made until it is dropped.
//!
//! ```text
//!  made ─► initialize … ─► Working ◄─► Busy ─► one last call ─► Over ─► dropped
//!                 └──────────────────────────────── never Ok ───────────► dropped
//! ```

use super::facts::{Fate, short};
use super::judge::Judge;
use crate::place::Checkpoint;
use crate::processor::Start;
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Made,
    Initializing,
    Working,
    Busy,
    Over,
    Dropped,
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) instance: usize,
    shard: u32,
    epoch: u64,
    stage: Stage,
    /// The record that is to come next; nothing while it begins at the newest.
    next: Option<usize>,
    /// Failed calls with a record among them.
    failures: BTreeMap<usize, u32>,
}

impl Session {
    /// Whether it was initialized and got no last call.
    pub(super) fn is_at_work(&self) -> bool {
        matches!(self.stage, Stage::Working | Stage::Busy)
    }
    pub(super) fn is_dropped(&self) -> bool {
        self.stage == Stage::Dropped
    }
}

impl Judge {
    pub(super) fn made(&mut self, now: Duration, instance: usize, shard: u32) -> usize {
        let session = self.sessions.len();
        self.note(now, format_args!("shard {shard}: session {session} made on #{instance}"));
        self.sessions.push(Session {
            instance,
            shard,
            epoch: 0,
            stage: Stage::Made,
            next: None,
            failures: BTreeMap::new(),
        });
        session
    }

    /// A call begins: the lease must be held, by the clock of the worker and by that of the store.
    fn may_call(&mut self, now: Duration, session: usize, call: &str) {
        let Session { instance, shard, epoch, .. } = self.sessions[session];
        let facts = self.shard(shard);
        let grant = facts.grants.get(&(instance, epoch)).copied();
        // who is robbed may not know it yet; who let a lease run out, or gave it back, knows
        let next = facts.taken.range(epoch + 1..).next();
        let passed_on = next.filter(|(_, taken)| !taken.by_force && taken.at <= now).map(|(at, _)| *at);
        if grant.is_none_or(|until| until <= now) {
            self.wrong(format!(
                "shard {shard}: {call} by session {session} after its lease ran out by its own clock"
            ));
        }
        if let Some(other) = passed_on {
            self.wrong(format!(
                "shard {shard}: {call} by session {session} of epoch {epoch} while {other} has begun"
            ));
        }
    }
    fn step(&mut self, session: usize, call: &str, from: &[Stage], to: Stage) {
        let stage = self.sessions[session].stage;
        if !from.contains(&stage) {
            self.wrong(format!("session {session}: {call} while it is {stage:?}"));
        }
        self.sessions[session].stage = to;
    }

    pub(super) fn initialize(&mut self, now: Duration, session: usize, start: &Start) {
        let epoch = start.epoch.get();
        let again = self.sessions[session].stage == Stage::Initializing;
        self.sessions[session].epoch = epoch;
        let Session { instance, shard, .. } = self.sessions[session];
        self.note(
            now,
            format_args!("shard {shard}: session {session} initialize, epoch {epoch}, {}", short(start.from)),
        );
        self.step(session, "initialize", &[Stage::Made, Stage::Initializing], Stage::Initializing);
        self.may_call(now, session, "initialize");
        let facts = self.shard(shard);
        let other = facts.sessions.insert(epoch, session).filter(|other| *other != session);
        let taken = facts.taken.get(&epoch).cloned();
        let next = (start.from != Checkpoint::Latest).then(|| facts.covered(start.from));
        self.sessions[session].next = next;
        if let Some(other) = other {
            self.wrong(format!("shard {shard}: sessions {other} and {session} both run under epoch {epoch}"));
        }
        match taken {
            Some(taken) if taken.instance != instance => {
                self.wrong(format!(
                    "shard {shard}: #{instance} runs under epoch {epoch} of #{}",
                    taken.instance
                ));
            }
            Some(taken) if taken.from != start.from => {
                self.wrong(format!(
                    "shard {shard}: begun at {:?}, checkpointed at {:?}",
                    start.from, taken.from
                ));
            }
            Some(taken) if taken.pending != start.pending => {
                self.wrong(format!("shard {shard}: session {session} is not told what was prepared"));
            }
            Some(_) => {}
            None => {
                self.wrong(format!("shard {shard}: session {session} runs under epoch {epoch} of nobody"))
            }
        }
        if !again {
            self.must_follow_parents(shard);
        }
    }

    fn must_follow_parents(&mut self, shard: u32) {
        for parent in self.shard(shard).parents.clone() {
            let facts = self.shard(parent);
            // who begins at the newest record passes over a shard that was closed before: there is none in it
            let passed_over = facts.checkpoint.is_none()
                || facts.begun_closed && facts.checkpoint == Some(Checkpoint::Latest);
            if !facts.is_ended() && !facts.deleted && !passed_over {
                self.wrong(format!("shard {shard}: begun before its parent {parent} was processed"));
            }
        }
    }

    pub(super) fn initialized(&mut self, now: Duration, session: usize, ok: bool) {
        self.note(now, format_args!("session {session} initialized: {ok}"));
        if ok {
            self.step(session, "initialized", &[Stage::Initializing], Stage::Working);
        }
    }

    pub(super) fn process(&mut self, now: Duration, session: usize, ordinals: &[usize]) {
        let shard = self.sessions[session].shard;
        let (first, last) = (ordinals[0], ordinals[ordinals.len() - 1]);
        self.note(now, format_args!("shard {shard}: session {session} process {first}..={last}"));
        self.step(session, "process", &[Stage::Working], Stage::Busy);
        self.may_call(now, session, "process");
        if ordinals.len() != last + 1 - first {
            self.wrong(format!("shard {shard}: session {session} was given a batch with gaps: {ordinals:?}"));
        }
        match self.sessions[session].next {
            None => self.sessions[session].next = Some(first),
            Some(next) if first < next => {
                self.wrong(format!(
                    "shard {shard}: session {session} was given {first} again, {next} is next"
                ));
            }
            Some(next) => {
                self.pass_over(session, next, first);
                self.sessions[session].next = Some(first);
            }
        }
    }

    /// The session goes on at `to`: what is before it must have been given up.
    fn pass_over(&mut self, session: usize, from: usize, to: usize) {
        let (shard, skipped_after) = (self.sessions[session].shard, self.rules.skipped_after);
        for ordinal in from..to {
            let failures = self.sessions[session].failures.get(&ordinal).copied().unwrap_or(0);
            let skipped = skipped_after.is_some_and(|attempts| failures >= attempts);
            let fate = &mut self.shard(shard).fates[ordinal];
            if skipped && *fate == Fate::Pending {
                *fate = Fate::GivenUp;
            }
            let given_up = *fate == Fate::GivenUp || self.shard(shard).dead_letters.contains(&ordinal);
            if !skipped && !given_up {
                self.wrong(format!("shard {shard}: session {session} was not given record {ordinal}"));
            }
        }
    }

    /// Records are processed.
    pub(super) fn processed(&mut self, session: usize, first: usize, last: usize) {
        let (shard, calm) = (self.sessions[session].shard, self.rules.calm);
        for ordinal in first..=last {
            let fate = &mut self.shard(shard).fates[ordinal];
            let before = std::mem::replace(fate, Fate::Processed { session });
            if let Fate::Processed { session: earlier } = before
                && earlier != session
            {
                self.redelivered += 1;
                if calm {
                    self.wrong(format!(
                        "shard {shard}: record {ordinal} came to session {earlier} and to {session}"
                    ));
                }
            }
        }
    }

    /// `failed_at`: nothing if all went well; else the record that the processor named.
    pub(super) fn process_ended(
        &mut self,
        now: Duration,
        session: usize,
        ordinals: &[usize],
        failed_at: Option<Option<usize>>,
    ) {
        let (first, last) = (ordinals[0], ordinals[ordinals.len() - 1]);
        self.note(now, format_args!("session {session} processed {first}..={last}, failed at {failed_at:?}"));
        self.step(session, "end of process", &[Stage::Busy], Stage::Working);
        let next = match failed_at {
            None => last + 1,
            Some(None) => first,
            Some(Some(named)) => named,
        };
        if next > first && failed_at.is_some() {
            self.processed(session, first, next - 1);
        }
        let skipped_after = self.rules.skipped_after;
        self.sessions[session].next = Some(next);
        if let Some(named) = failed_at {
            let failed = named.map_or(first..=last, |named| named..=named);
            for ordinal in failed {
                let failures = self.sessions[session].failures.entry(ordinal).or_insert(0);
                *failures += 1;
                let given_up = skipped_after.is_some_and(|attempts| *failures >= attempts);
                let shard = self.sessions[session].shard;
                let fate = &mut self.shard(shard).fates[ordinal];
                // from here on it may be skipped, and a checkpoint may reach over it
                if given_up && (named.is_some() || first == last) && *fate == Fate::Pending {
                    *fate = Fate::GivenUp;
                }
            }
        }
    }

    /// A record was put among the dead letters, after so many attempts of those it has.
    pub(super) fn dead_letter(&mut self, shard: u32, ordinal: usize, attempts: u32, due: u32) {
        self.shard(shard).dead_letters.insert(ordinal);
        let fate = &mut self.shard(shard).fates[ordinal];
        if *fate == Fate::Pending {
            *fate = Fate::GivenUp;
        }
        if attempts < due {
            self.wrong(format!("shard {shard}: record {ordinal} is a dead letter after {attempts} attempts"));
        }
    }

    pub(super) fn ending(&mut self, now: Duration, session: usize) {
        let shard = self.sessions[session].shard;
        self.note(now, format_args!("shard {shard}: session {session} shard_ended"));
        self.step(session, "shard_ended", &[Stage::Working], Stage::Working);
        self.may_call(now, session, "shard_ended");
        let (all, closed) = (self.shard(shard).places.len(), self.shard(shard).closed);
        if let Some(next) = self.sessions[session].next {
            self.pass_over(session, next, all);
        }
        if !closed {
            self.wrong(format!("shard {shard}: told to have ended while it is open"));
        }
    }

    pub(super) fn last_call(&mut self, now: Duration, session: usize, call: &str) {
        self.note(now, format_args!("session {session} {call}"));
        self.step(session, call, &[Stage::Working], Stage::Over);
        if call == "lease_lost" && self.rules.calm {
            self.wrong(format!("session {session}: lost its lease though nothing went wrong"));
        }
    }

    pub(super) fn dropped(&mut self, session: usize, panics: bool) {
        let Session { instance, stage, .. } = self.sessions[session];
        self.sessions[session].stage = Stage::Dropped;
        let paired = matches!(stage, Stage::Made | Stage::Initializing | Stage::Over);
        if !paired && !panics && !self.killed.contains(&instance) {
            self.wrong(format!("session {session}: dropped while it is {stage:?}, without a last call"));
        }
    }
}
