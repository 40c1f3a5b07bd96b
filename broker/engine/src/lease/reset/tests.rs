//! Which shards a reset concerns, and what becomes of their leases.

use super::*;
use crate::lease::row::Claim;
use tidemill_types::{HashKeyRange, LeaseEpoch, ShardState};

fn id(id: u32) -> ShardId {
    ShardId::new(id).unwrap()
}

fn shard(number: u32, parents: &[u32]) -> Shard {
    let mut parents = parents.iter().copied().map(id);
    Shard {
        id: id(number),
        parent: parents.next(),
        adjacent_parent: parents.next(),
        range: HashKeyRange::ALL,
        created: TimestampMs::new(1_000 * u64::from(number)),
        state: ShardState::Open,
    }
}

/// 0 was split into 2 and 3; 3 and 1 were merged into 4; 5 came from 4.
fn family() -> Vec<Shard> {
    vec![shard(5, &[4]), shard(4, &[3, 1]), shard(0, &[]), shard(1, &[]), shard(2, &[0]), shard(3, &[0])]
}

#[test]
fn a_place_without_a_number_concerns_every_shard() {
    for (to, goal) in [
        (Position::TrimHorizon, Goal::Oldest),
        (Position::Latest, Goal::Newest),
        (Position::AtTime(TimestampMs::new(7)), Goal::Since(TimestampMs::new(7))),
    ] {
        let goals = goals(&family(), to);
        assert_eq!(goals.len(), 6);
        assert!(goals.values().all(|of| *of == goal), "{goals:?}");
    }
}

#[test]
fn a_number_concerns_its_shard_and_all_that_came_from_it() {
    let number = shard(3, &[]).number(SequenceIndex::new(9).unwrap(), TimestampMs::new(9_000));
    let others = [(id(4), Goal::Oldest), (id(5), Goal::Oldest)];
    let at = BTreeMap::from_iter([(id(3), Goal::Before(number.index()))].into_iter().chain(others));
    assert_eq!(goals(&family(), Position::At(number)), at);
    let after = BTreeMap::from_iter([(id(3), Goal::After(number))].into_iter().chain(others));
    assert_eq!(goals(&family(), Position::After(number)), after);
    let leaf = shard(5, &[]).number(SequenceIndex::new(9).unwrap(), TimestampMs::new(9_000));
    assert_eq!(goals(&family(), Position::At(leaf)).len(), 1);
}

const NOW: MonotonicMs = MonotonicMs::new(1_000);

fn held_by(name: &str, from: MonotonicMs) -> Row {
    let worker = WorkerId::new(name).unwrap();
    let expected = LeaseEpoch::default();
    let initial = Checkpoint::Latest;
    Row::take(None, &Claim { worker: &worker, expected, lease_ms: 500, may_steal: false, initial }, from)
        .unwrap()
}

#[test]
fn leases_that_workers_hold_are_moved_only_by_force_and_their_holders_are_fenced_off() {
    let known = BTreeMap::from([(id(0), held_by("a", NOW)), (id(1), held_by("b", NOW))]);
    let to = |shards: &[u32]| shards.iter().map(|shard| (id(*shard), Checkpoint::TrimHorizon)).collect();
    let refused = plan(Some(&known), &to(&[0, 1]), Holders::Respect, NOW).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    let told = refused.to_string();
    assert!(told.contains("worker a") && told.contains("another lease") && told.contains("force"), "{told}");
    // a lease that the reset does not concern is nobody's business
    assert_eq!(plan(Some(&known), &to(&[2]), Holders::Respect, NOW).unwrap().len(), 1);

    let moved = plan(Some(&known), &to(&[0, 1]), Holders::Fence, NOW).unwrap();
    for row in moved.values() {
        assert_eq!((&row.owner, row.epoch.get(), row.checkpoint), (&None, 2, Checkpoint::TrimHorizon));
        assert_eq!(row.expires_in_ms(NOW), 0);
    }
}

#[test]
fn a_holder_that_let_its_lease_run_out_is_fenced_off_without_force() {
    let late = NOW.plus_ms(500);
    let known = BTreeMap::from([(id(0), held_by("a", NOW))]);
    let to = BTreeMap::from([(id(0), Checkpoint::TrimHorizon)]);
    let moved = plan(Some(&known), &to, Holders::Respect, late).unwrap();
    let a = WorkerId::new("a").unwrap();
    assert!(!moved[&id(0)].is_held_by(&a, LeaseEpoch::new(1)));
    assert_eq!(moved[&id(0)].epoch.get(), 2);
}

#[test]
fn a_lease_that_nobody_took_is_made_and_a_free_one_keeps_its_epoch() {
    let mut free = held_by("a", NOW);
    free.release(NOW);
    let known = BTreeMap::from([(id(0), free)]);
    let to = BTreeMap::from([(id(0), Checkpoint::ShardEnd), (id(1), Checkpoint::Latest)]);
    let moved = plan(Some(&known), &to, Holders::Respect, NOW).unwrap();
    assert_eq!((moved[&id(0)].epoch.get(), moved[&id(0)].checkpoint), (1, Checkpoint::ShardEnd));
    assert_eq!((moved[&id(1)].epoch.get(), moved[&id(1)].checkpoint), (1, Checkpoint::Latest));
    assert_eq!(plan(None, &to, Holders::Respect, NOW).unwrap()[&id(1)].owner, None);
}
