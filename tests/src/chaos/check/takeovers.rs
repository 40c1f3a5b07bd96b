//! What a change of owner costs: what is delivered again, and the time until the next one works.

use super::{Lines, Verdict};
use crate::chaos::history::{Ending, History, Kill, Session, Sighting};
use crate::chaos::mark::Mark;
use anyhow::{Result, bail, ensure};
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

/// Delivered again is at most what earlier owners had processed behind their last checkpoint; nothing of what an owner
/// processed that stopped in order; and nothing at all of a shard that was processed to its end.
pub(super) fn duplicates_are_bounded(lines: &Lines<'_>, verdict: &mut Verdict) -> Result<()> {
    for line in lines.0.values() {
        let mut earlier = Earlier::default();
        for session in line {
            if let Some(last) = earlier.last {
                verdict.takeovers += 1;
                verdict.handovers += usize::from(last.end.is_some_and(|(_, how)| how == Ending::Stopped));
                let gap = session.began.saturating_sub(last_sign(last));
                verdict.slowest_gap = verdict.slowest_gap.max(Duration::from_nanos(gap));
            }
            let bound = earlier.in_flight();
            let again: Vec<u64> =
                session.records().map(|(index, _)| index).filter(|i| earlier.processed.contains(i)).collect();
            ensure!(
                again.len() <= bound,
                "{session} was given {} records again, though only {bound} were in flight",
                again.len()
            );
            if let Some(index) =
                again.iter().find(|index| earlier.settled.is_some_and(|mark| mark.covers(**index)))
            {
                bail!("{session} was given {index} again, though an owner that had it ended in order");
            }
            verdict.duplicates += again.len();
            verdict.duplicates_bound += bound;
            earlier.add(session);
        }
    }
    Ok(())
}

/// What the owners of a shard before a certain one did.
#[derive(Default)]
struct Earlier<'a> {
    last: Option<&'a Session>,
    processed: BTreeSet<u64>,
    stored: Option<Mark>,
    /// Up to here owners ended in order.
    settled: Option<Mark>,
}

impl<'a> Earlier<'a> {
    /// Processed, but not known to be checkpointed.
    fn in_flight(&self) -> usize {
        match self.stored {
            Some(Mark::ShardEnd) => 0,
            Some(Mark::At(index, _)) => self.processed.range(index + 1..).count(),
            _ => self.processed.len(),
        }
    }

    fn add(&mut self, session: &'a Session) {
        self.last = Some(session);
        self.processed.extend(session.records().map(|(index, _)| index));
        self.stored = self.stored.max(session.stored.iter().map(|(_, mark)| *mark).max());
        let last = session.records().map(|(index, _)| Mark::At(index, 0)).max();
        let settled = match session.end {
            Some((_, Ending::Stopped)) => last,
            Some((_, Ending::ShardEnded)) if self.stored == Some(Mark::ShardEnd) => self.stored,
            _ => None,
        };
        self.settled = self.settled.max(settled);
    }
}

fn last_sign(session: &Session) -> u64 {
    let end = session.end.map(|(at, _)| at);
    let batch = session.batches.last().map(|batch| batch.at);
    let stored = session.stored.last().map(|(at, _)| *at);
    end.max(batch).max(stored).unwrap_or(session.began)
}

/// Two lease times after a worker was killed, others work on all that it worked on.
pub(super) fn failovers_are_soon(history: &History, lease: Duration, verdict: &mut Verdict) -> Result<()> {
    for kill in &history.kills {
        for session in cut_off(history, kill) {
            let elsewhere =
                |s: &&Session| s.shard == session.shard && s.worker != kill.worker && s.began > kill.at;
            let next = history.sessions.iter().filter(elsewhere).map(|session| session.began).min();
            let took = next.map(|at| Duration::from_nanos(at - kill.at));
            ensure!(
                took.is_some_and(|took| took <= lease * 2),
                "{session} was killed at {}, and its shard ran elsewhere only after {took:?}",
                kill.at
            );
            verdict.failovers.extend(took);
        }
    }
    verdict.failovers.sort();
    Ok(())
}

/// What the killed worker was at work on: the last to begin on its shard, holding the lease as last seen, without an end.
fn cut_off<'a>(history: &'a History, kill: &Kill) -> Vec<&'a Session> {
    let mut rows: HashMap<u32, &Sighting> = HashMap::new();
    for row in history.sightings.iter().filter(|row| row.answered < kill.at) {
        rows.insert(row.shard, row);
    }
    let mut newest: HashMap<u32, &Session> = HashMap::new();
    for session in history.sessions.iter().filter(|session| session.began < kill.at) {
        let newest = newest.entry(session.shard).or_insert(session);
        if session.began > newest.began {
            *newest = session;
        }
    }
    let held = |session: &&Session| {
        let ended = session.end.is_some() || session.stored.iter().any(|(_, mark)| *mark == Mark::ShardEnd);
        let row = rows.get(&session.shard);
        !ended
            && session.worker == kill.worker
            && row.is_some_and(|row| row.live && row.owner.as_ref() == Some(&kill.worker))
    };
    newest.into_values().filter(held).collect()
}
