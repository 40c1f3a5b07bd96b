//! What a worker does about leases after a look at them: which it takes, and which it asks for. Pure: time comes in.
//!
//! ```text
//!  held by another, wanted ──ask──► handed over: mine, not worked on ──take──► worked on
//!                             └──deadline passed──► take by force
//!  free, run out, wanted ───────────────────────────take──► worked on
//!  of an earlier life under the same id ────────────take──► worked on
//! ```
//!
//! Not here: who wants what (assign).

use crate::assign::{self, Balance, Candidate, Holder, Move};
use crate::look::Rows;
use crate::place::Checkpoint;
use crate::shard::ShardRef;
use crate::store::{Ask, LeaseRow, Take};
use std::collections::BTreeMap;
use std::time::Duration;
use tidemill_types::WorkerId;
use tokio::time::Instant;

/// How a worker claims leases.
#[derive(Debug)]
pub(crate) struct Terms<'a> {
    pub(crate) me: &'a WorkerId,
    pub(crate) leases_max: usize,
    pub(crate) balance: Balance,
    /// How long holders may take to hand over; zero: they are not asked.
    pub(crate) handoff: Duration,
    /// How long a lease that another worker should take is left to it.
    pub(crate) patience: Duration,
}

/// What to do.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    pub(crate) take: Vec<Take>,
    pub(crate) ask: Vec<Ask>,
    /// Leases are asked for and not yet handed over: look again soon.
    pub(crate) waits_for_handoff: bool,
}

/// Who a lease is counted for.
fn holder_of<'a>(row: &'a LeaseRow, me: &WorkerId) -> Option<&'a WorkerId> {
    let owner = row.owner.as_ref().filter(|_| row.is_held())?;
    // a successor that let its time pass has gone, unless that is this worker
    let lives = |successor: &&WorkerId| !row.handoff_left.is_zero() || *successor == me;
    Some(row.successor.as_ref().filter(lives).unwrap_or(owner))
}

/// The leases as `me` counts them. `free_since` tells of each free one since when it was seen so.
fn candidates<'a>(
    rows: &'a Rows,
    terms: &Terms<'_>,
    free_since: &mut BTreeMap<ShardRef, Instant>,
    now: Instant,
) -> Vec<Candidate<'a>> {
    let mut candidates = Vec::with_capacity(rows.len());
    for (shard, (row, _)) in rows {
        let holder = match holder_of(row, terms.me) {
            Some(worker) => Holder::Worker(worker),
            None => {
                let since = *free_since.entry(shard.clone()).or_insert(now);
                Holder::Nobody { waited: now - since >= terms.patience }
            }
        };
        candidates.push(Candidate { shard, holder, bytes_per_s: row.bytes_per_s });
    }
    candidates
}

/// Decides. `works_on` tells whether this worker works on a shard under the row's epoch, or must not take it now.
pub(crate) fn claims(
    rows: &Rows,
    terms: &Terms<'_>,
    free_since: &mut BTreeMap<ShardRef, Instant>,
    now: Instant,
    works_on: impl Fn(&ShardRef, &LeaseRow) -> bool,
) -> Claims {
    let candidates = candidates(rows, terms, free_since, now);
    let plan = assign::plan(&candidates, terms.me, terms.leases_max, terms.balance);
    let mut claims = Claims::default();
    for (shard, (row, initial)) in rows.iter().filter(|(_, (row, _))| row.is_held()) {
        let mine = row.owner.as_ref() == Some(terms.me);
        let next = row.successor.as_ref() == Some(terms.me);
        if mine && !works_on(shard, row) || next && row.handoff_left.is_zero() {
            claims.take.push(take_of(shard, row, *initial));
        } else if next {
            claims.waits_for_handoff = true;
        }
    }
    for shard in plan.take {
        let (row, initial) = &rows[shard];
        claims.take.push(take_of(shard, row, *initial));
    }
    for shard in plan.steal {
        let (row, initial) = &rows[shard];
        if terms.handoff.is_zero() {
            claims.take.push(take_of(shard, row, *initial));
        } else {
            claims.ask.push(Ask { at: shard.clone(), expected: row.epoch, deadline: terms.handoff });
        }
    }
    claims.waits_for_handoff |= !claims.ask.is_empty();
    claims
}

/// Everything that would move, whoever has to do it.
pub(crate) fn dry_run(rows: &Rows, terms: &Terms<'_>) -> Vec<Move> {
    let candidates = candidates(rows, terms, &mut BTreeMap::new(), Instant::now());
    assign::dry_run(&candidates, terms.me, terms.leases_max, terms.balance)
}

fn take_of(shard: &ShardRef, row: &LeaseRow, initial: Checkpoint) -> Take {
    Take { at: shard.clone(), expected: row.epoch, steal: row.is_held(), initial }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::{at, shard};
    use tidemill_types::LeaseEpoch;

    fn worker(name: &str) -> WorkerId {
        WorkerId::new(name).unwrap()
    }
    fn row(
        id: u32,
        owner: Option<&str>,
        successor: Option<(&str, u64)>,
    ) -> (ShardRef, (LeaseRow, Checkpoint)) {
        let row = LeaseRow {
            owner: owner.map(worker),
            successor: successor.map(|(name, _)| worker(name)),
            handoff_left: Duration::from_secs(successor.map_or(0, |(_, left)| left)),
            epoch: LeaseEpoch::new(7),
            expires_in_ms: if owner.is_some() { 5000 } else { 0 },
            ..LeaseRow::untaken(shard(id))
        };
        (at(id), (row, Checkpoint::TrimHorizon))
    }
    fn decide(rows: &Rows, handoff: u64, works_on: &[u32]) -> (Vec<(u32, bool)>, Vec<u32>, bool) {
        let terms = Terms {
            me: &worker("me"),
            leases_max: 99,
            balance: Balance::Count,
            handoff: Duration::from_secs(handoff),
            patience: Duration::from_secs(1),
        };
        let works_on = |at: &ShardRef, _: &LeaseRow| works_on.contains(&at.shard().get());
        let claims = claims(rows, &terms, &mut BTreeMap::new(), Instant::now(), works_on);
        let take = claims.take.iter().map(|take| (take.at.shard().get(), take.steal)).collect();
        let ask = claims.ask.iter().map(|ask| ask.at.shard().get()).collect();
        (take, ask, claims.waits_for_handoff)
    }

    #[test]
    fn a_joining_worker_asks_for_its_share_or_takes_it_when_nobody_is_to_be_asked() {
        let rows = Rows::from((0..4).map(|id| row(id, Some("other"), None)).collect::<BTreeMap<_, _>>());
        assert_eq!(decide(&rows, 30, &[]), (vec![], vec![3, 2], true));
        assert_eq!(decide(&rows, 0, &[]), (vec![(3, true), (2, true)], vec![], false));
    }

    #[test]
    fn what_is_asked_for_is_not_asked_for_again_and_taken_by_force_when_its_time_is_up() {
        let asked = |left| {
            Rows::from([
                row(0, Some("other"), None),
                row(1, Some("other"), None),
                row(2, Some("other"), Some(("me", left))),
                row(3, Some("other"), Some(("me", left))),
            ])
        };
        assert_eq!(decide(&asked(5), 30, &[]), (vec![], vec![], true));
        assert_eq!(decide(&asked(0), 30, &[]), (vec![(2, true), (3, true)], vec![], false));
    }

    #[test]
    fn what_was_handed_over_is_taken_and_what_is_worked_on_is_left() {
        let rows =
            Rows::from([row(0, Some("me"), None), row(1, Some("me"), None), row(2, Some("other"), None)]);
        assert_eq!(decide(&rows, 30, &[0]), (vec![(1, true)], vec![], false));
        assert_eq!(decide(&rows, 30, &[0, 1]), (vec![], vec![], false));
    }

    #[test]
    fn a_lease_on_its_way_to_a_third_worker_counts_as_its_and_one_whose_successor_is_gone_as_its_owners() {
        let rows = |left| {
            Rows::from([
                row(0, Some("other"), Some(("third", left))),
                row(1, Some("other"), Some(("third", left))),
                row(2, Some("other"), None),
                row(3, Some("me"), None),
            ])
        };
        // other 1, third 2, me 1: even enough
        assert_eq!(decide(&rows(5), 30, &[3]).1, Vec::<u32>::new());
        // other 3, me 1
        assert_eq!(decide(&rows(0), 30, &[3]).1, [2]);
    }
}
