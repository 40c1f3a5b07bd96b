use super::*;
use proptest::prelude::*;
use tidemill_types::{ShardId, StreamName};

fn shards(count: u32) -> Vec<ShardRef> {
    let stream = StreamName::new("s").unwrap();
    (0..count).map(|id| ShardRef::new(stream.clone(), ShardId::new(id).unwrap())).collect()
}

fn workers(count: usize) -> Vec<WorkerId> {
    (0..count).map(|n| WorkerId::new(&format!("w{n}")).unwrap()).collect()
}

/// What everybody sees: who holds each shard.
struct World {
    shards: Vec<ShardRef>,
    workers: Vec<WorkerId>,
    owners: Vec<Option<usize>>,
    waited: Vec<bool>,
}

impl World {
    fn new(shard_count: usize, worker_count: usize, owners: Vec<Option<usize>>) -> Self {
        let shards = shards(u32::try_from(shard_count).unwrap());
        Self { shards, workers: workers(worker_count), waited: vec![false; owners.len()], owners }
    }
    /// One round of one worker; returns how many leases it took or stole.
    fn round(&mut self, worker: usize, capacity: usize) -> usize {
        let me = &self.workers[worker];
        let candidates: Vec<_> = (0..self.shards.len())
            .map(|n| Candidate {
                shard: &self.shards[n],
                holder: match self.owners[n] {
                    None => Holder::Nobody { waited: self.waited[n] },
                    Some(owner) => Holder::Worker(&self.workers[owner]),
                },
            })
            .collect();
        let plan = plan(&candidates, me, capacity);
        for shard in &plan.take {
            assert!(self.owners[shard.shard().get() as usize].is_none(), "took what is held");
        }
        let moved: Vec<_> = plan.take.iter().chain(&plan.steal).map(|s| s.shard().get() as usize).collect();
        for n in &moved {
            self.owners[*n] = Some(worker);
        }
        for n in 0..self.owners.len() {
            self.waited[n] = self.owners[n].is_none();
        }
        moved.len()
    }
    fn count(&self, worker: usize) -> usize {
        self.owners.iter().filter(|owner| **owner == Some(worker)).count()
    }
}

#[test]
fn a_lone_worker_takes_everything_at_once() {
    let mut world = World::new(8, 1, vec![None; 8]);
    assert_eq!(world.round(0, usize::MAX), 8);
}

#[test]
fn a_joining_worker_steals_its_whole_share_in_one_round_and_no_more() {
    let mut world = World::new(8, 2, vec![Some(0); 8]);
    assert_eq!(world.round(1, usize::MAX), 4);
    assert_eq!(world.round(0, usize::MAX), 0);
    assert_eq!(world.round(1, usize::MAX), 0);
}

#[test]
fn the_leases_of_a_dead_worker_are_shared_without_conflict_by_those_who_see_the_same() {
    let owners = vec![Some(0), Some(0), Some(1), Some(1), None, None];
    let world = World::new(6, 2, owners);
    let candidates: Vec<_> = (0..6)
        .map(|n| Candidate {
            shard: &world.shards[n],
            holder: world.owners[n]
                .map_or(Holder::Nobody { waited: false }, |o| Holder::Worker(&world.workers[o])),
        })
        .collect();
    let (one, two) = (plan(&candidates, &world.workers[0], 99), plan(&candidates, &world.workers[1], 99));
    assert_eq!((one.take.len(), two.take.len()), (1, 1));
    assert_ne!(one.take, two.take);
    assert!(one.steal.is_empty() && two.steal.is_empty());
}

#[test]
fn a_spare_worker_waits_without_disturbing_the_others() {
    let mut world = World::new(2, 3, vec![Some(0), Some(1)]);
    assert_eq!(world.round(2, usize::MAX), 0);
}

#[test]
fn what_a_full_worker_leaves_is_taken_by_another() {
    let mut world = World::new(4, 2, vec![None; 4]);
    world.round(0, 1);
    assert_eq!(world.count(0), 1);
    // the second one leaves the first its share, sees that it is not taken, and takes it
    world.round(1, usize::MAX);
    world.round(0, 1);
    world.round(1, usize::MAX);
    assert_eq!((world.count(0), world.count(1)), (1, 3));
}

proptest! {
    #[test]
    fn any_start_converges_to_even_counts_with_no_lease_unowned_and_then_rests(
        shard_count in 0usize..40,
        worker_count in 1usize..7,
        seed in proptest::collection::vec(proptest::option::of(0usize..7), 40),
        order in proptest::collection::vec(0usize..7, 40),
    ) {
        let owners = seed[..shard_count].iter().map(|owner| owner.map(|o| o % worker_count)).collect();
        let mut world = World::new(shard_count, worker_count, owners);
        for worker in order {
            world.round(worker % worker_count, usize::MAX);
        }
        // every worker has two more rounds, in any order before
        for _ in 0..2 {
            for worker in 0..worker_count {
                world.round(worker, usize::MAX);
            }
        }
        let counts: Vec<_> = (0..worker_count).map(|worker| world.count(worker)).collect();
        prop_assert_eq!(counts.iter().sum::<usize>(), shard_count, "a lease is unowned");
        prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{counts:?}");
        for worker in 0..worker_count {
            prop_assert_eq!(world.round(worker, usize::MAX), 0, "a balanced state is disturbed");
        }
    }

    #[test]
    fn nobody_takes_more_than_it_may_hold(
        owners in proptest::collection::vec(proptest::option::of(0usize..4), 20),
        capacity in 0usize..8,
    ) {
        let mut world = World::new(20, 4, owners);
        let before = world.count(1);
        for _ in 0..3 {
            world.round(1, capacity);
        }
        prop_assert!(world.count(1) <= capacity.max(before));
    }

    #[test]
    fn among_workers_that_see_each_other_no_more_leases_move_than_evenness_needs(
        mut owners in proptest::collection::vec(0usize..4, 1..30),
    ) {
        owners.extend(0..4);
        let count = owners.len();
        let mut world = World::new(count, 4, owners.into_iter().map(Some).collect());
        let surplus: usize = (0..4).map(|worker| world.count(worker).saturating_sub(count / 4)).sum();
        let moved: usize = (0..4).map(|worker| world.round(worker, usize::MAX)).sum();
        prop_assert!(moved <= surplus, "{moved} moved, {surplus} above the even share");
    }
}
