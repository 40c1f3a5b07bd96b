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
                bytes_per_s: 0,
            })
            .collect();
        let plan = plan(&candidates, me, capacity, Balance::Count);
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
            bytes_per_s: 0,
        })
        .collect();
    let share = |worker: usize| plan(&candidates, &world.workers[worker], 99, Balance::Count);
    let (one, two) = (share(0), share(1));
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

/// Leases with their throughput and owner, of so many workers.
struct Busy {
    shards: Vec<ShardRef>,
    workers: Vec<WorkerId>,
    leases: Vec<(u64, Option<usize>)>,
}

impl Busy {
    fn new(worker_count: usize, leases: Vec<(u64, Option<usize>)>) -> Self {
        Self { shards: shards(leases.len() as u32), workers: workers(worker_count), leases }
    }
    fn candidates(&self) -> Vec<Candidate<'_>> {
        let holder = |owner: Option<usize>| match owner {
            None => Holder::Nobody { waited: false },
            Some(owner) => Holder::Worker(&self.workers[owner]),
        };
        let leases = self.shards.iter().zip(&self.leases);
        leases
            .map(|(shard, (bytes_per_s, owner))| Candidate {
                shard,
                holder: holder(*owner),
                bytes_per_s: *bytes_per_s,
            })
            .collect()
    }
    fn apply(&mut self, moves: &[Move]) {
        for step in moves {
            let to = self.workers.iter().position(|worker| *worker == step.to);
            self.leases[step.shard.shard().get() as usize].1 = to;
        }
    }
    fn load(&self, worker: usize) -> u64 {
        self.leases.iter().filter(|(_, owner)| *owner == Some(worker)).map(|(bytes, _)| bytes).sum()
    }
    fn dry_run(&self, me: usize) -> Vec<Move> {
        dry_run(&self.candidates(), &self.workers[me], usize::MAX, Balance::Throughput)
    }
}

#[test]
fn by_throughput_a_worker_with_a_busy_shard_holds_fewer() {
    let leases = [8000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000].map(|bytes| (bytes, None));
    let mut busy = Busy::new(2, leases.to_vec());
    busy.leases[0].1 = Some(0);
    let moves = busy.dry_run(1);
    busy.apply(&moves);
    assert_eq!((busy.load(0), busy.load(1)), (8000, 8000));
    assert!(busy.dry_run(0).is_empty() && busy.dry_run(1).is_empty());
}

#[test]
fn by_throughput_the_fewest_leases_move() {
    let mut busy = Busy::new(2, [6000, 3000, 100, 100, 100].map(|bytes| (bytes, Some(0))).to_vec());
    let moves = busy.dry_run(1);
    assert_eq!(moves.len(), 1, "{moves:?}");
    busy.apply(&moves);
    assert_eq!((busy.load(0), busy.load(1)), (3300, 6000));
}

#[test]
fn leases_of_which_nothing_is_told_are_shared_out_by_count() {
    let busy = Busy::new(2, vec![(0, Some(0)); 8]);
    assert_eq!(busy.dry_run(1).len(), 4);
}

#[test]
fn a_dry_run_is_what_all_workers_together_would_do() {
    let busy =
        Busy::new(3, vec![(0, Some(0)), (0, Some(0)), (0, Some(0)), (0, None), (0, Some(1)), (0, None)]);
    let all = dry_run(&busy.candidates(), &busy.workers[2], usize::MAX, Balance::Count);
    let candidates = busy.candidates();
    let mut parts = 0;
    for worker in &busy.workers {
        // all of them see the third one, as if it held something
        let part = all.iter().filter(|step| step.to == *worker).count();
        parts += part;
        if *worker == busy.workers[2] {
            let plan = plan(&candidates, worker, usize::MAX, Balance::Count);
            assert_eq!(plan.take.len() + plan.steal.len(), part);
        }
    }
    assert_eq!(parts, all.len());
}

proptest! {
    #[test]
    fn by_throughput_no_move_makes_it_worse_and_a_balanced_state_rests(
        leases in proptest::collection::vec((0u64..10_000, 0usize..5), 1..40),
    ) {
        let leases: Vec<_> = leases.into_iter().map(|(bytes, owner)| (bytes, Some(owner))).collect();
        let mut busy = Busy::new(5, leases);
        let most = |busy: &Busy| (0..5).map(|worker| busy.load(worker)).max();
        let before = most(&busy);
        let moves = busy.dry_run(0);
        busy.apply(&moves);
        // idle shards weigh a tenth of the usual, so a little slack
        let slack = busy.leases.iter().map(|(bytes, _)| bytes).sum::<u64>() / 10 + 1;
        prop_assert!(most(&busy) <= before.map(|most| most + slack));
        let shards: std::collections::BTreeSet<_> = moves.iter().map(|step| &step.shard).collect();
        prop_assert_eq!(shards.len(), moves.len(), "a lease moves twice");
    }

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
