//! The checker: every promise held against a history, each by a function of its own. Pure.
//!
//! ```text
//!  records      what was acknowledged is processed, where it was said to be; one place per record; first deliveries of a
//!               key in the order in which they were put, over workers, shards and runs of the producer
//!  sessions     within an owner in order, behind its checkpoint; one owner per epoch; nothing after too long a pause
//!  checkpoints  none moves back, in no view: rows, logs, and between the two
//!  takeovers    how often, what was delivered again, and that this is no more than was under way; none after a stop
//!               in order; how long until a killed worker's shards run elsewhere
//! ```
//!
//! Not here: whether every process did what it was told (the test).

mod checkpoints;
mod records;
mod sessions;
mod takeovers;
#[cfg(test)]
mod tests;

use super::history::{History, Session};
use std::collections::BTreeMap;
use std::time::Duration;

/// The figures of a history that held.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Records whose producers were told that they are stored.
    pub acknowledged: usize,
    /// Records processed, each counted once.
    pub processed: usize,
    /// Records processed, counted each time.
    pub deliveries: usize,
    /// Deliveries of what had been delivered under an earlier epoch.
    pub duplicates: usize,
    /// What earlier owners had processed behind their last checkpoint, over all takeovers: `duplicates` is no more.
    pub duplicates_bound: usize,
    /// Changes of a shard's owner.
    pub takeovers: usize,
    /// Of these, after an owner that stopped in order.
    pub handovers: usize,
    /// Pauses, and how many leases were held by a worker when it was paused.
    pub paused_sessions: usize,
    /// From the kill of a worker until a shard of it ran elsewhere.
    pub failovers: Vec<Duration>,
    /// Longest time between the last sign of a shard's owner and the beginning of the next.
    pub slowest_gap: Duration,
}

/// Holds a history against every promise; `lease` is how long leases last. Tells all that are broken.
pub fn check(history: &History, lease: Duration) -> Result<Verdict, Vec<String>> {
    let lines = Lines::of(history);
    let mut verdict = Verdict::default();
    let found = [
        records::all_processed(history, &mut verdict),
        records::one_place_each(history),
        records::first_deliveries_in_order(history),
        sessions::in_order(history),
        sessions::one_owner_per_epoch(history),
        sessions::nothing_after_a_pause(history, lease, &mut verdict),
        checkpoints::rows_never_move_back(history),
        checkpoints::owners_never_move_back(&lines),
        checkpoints::rows_know_what_owners_stored(history),
        takeovers::duplicates_are_bounded(&lines, &mut verdict),
        takeovers::failovers_are_soon(history, lease, &mut verdict),
    ];
    let broken: Vec<String> =
        found.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect();
    if broken.is_empty() { Ok(verdict) } else { Err(broken) }
}

/// The owners of each shard that processed something, by epoch.
struct Lines<'a>(BTreeMap<u32, Vec<&'a Session>>);

impl<'a> Lines<'a> {
    fn of(history: &'a History) -> Self {
        let mut all: BTreeMap<u32, Vec<&Session>> = BTreeMap::new();
        for session in history.sessions.iter().filter(|session| session.epoch.is_some()) {
            all.entry(session.shard).or_default().push(session);
        }
        all.values_mut().for_each(|line| line.sort_by_key(|session| (session.epoch, session.began)));
        Self(all)
    }
}
