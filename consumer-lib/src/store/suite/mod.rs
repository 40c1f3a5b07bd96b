//! What every lease store must do: one set of cases, run on all of them. Unit tests run it on memory; the tests of the whole
//! run it on a real broker and on a DynamoDB (feature `testing`).
//!
//! A case gets a world of its own: an application without leases, on a stream with one shard. It speaks of what workers see,
//! never of how a store counts.

mod change_hands;
mod handoff;
mod keep;
mod shards;
mod world;

pub(crate) use world::{StubSource, World};

use std::future::Future;
use std::pin::Pin;
use tokio::task::JoinSet;

type Case = fn(World) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// A case by the name of its function.
macro_rules! cases {
    ($($module:ident: $($case:ident),+ ;)+) => {
        &[$($((stringify!($case), (|world| Box::pin($module::$case(world))) as Case)),+),+]
    };
}

/// Cases for stores that need no more than a stream of one shard.
const CASES: &[(&str, Case)] = cases! {
    change_hands:
        a_lease_that_nobody_took_is_there_and_is_taken,
        a_lease_that_is_held_is_not_taken_but_by_force,
        of_many_who_take_at_once_exactly_one_has_it,
        a_lease_that_is_not_renewed_runs_out_and_its_holder_can_do_nothing_more,
        a_lease_that_is_renewed_is_never_free,
        what_was_taken_by_force_is_lost_at_once,
        a_lease_given_back_is_free_at_once,
        a_worker_that_restarts_has_its_lease_back_and_its_earlier_life_has_not;
    keep:
        checkpoints_stay_whoever_holds_the_lease,
        checkpoints_do_not_move_back_and_may_be_repeated,
        what_was_prepared_is_found_by_the_next_holder_and_forgotten_with_a_checkpoint,
        throughput_is_told_to_others;
    handoff:
        a_lease_that_is_asked_for_is_kept_until_it_is_given_back_and_then_the_successors,
        a_holder_that_takes_too_long_loses_the_lease_by_force,
        a_holder_that_dies_during_a_handoff_is_succeeded_all_the_same,
        a_successor_that_is_gone_gives_way_when_its_time_is_up,
        only_what_another_holds_can_be_asked_for;
};

/// Cases for stores that keep rows for the shards that a source lists.
const CASES_OF_SHARDS: &[(&str, Case)] = cases! {
    shards:
        shards_that_are_gone_take_their_leases_with_them,
        shards_that_appear_have_leases_like_the_others,
        the_end_of_a_shard_is_a_checkpoint_and_the_last;
};

/// Runs all cases at once, each in a world of its own, and gives the names of those that failed.
pub(crate) async fn run(world: impl Fn(&str) -> World) -> Vec<&'static str> {
    let mut running = JoinSet::new();
    let with_source = world("probe").source().is_some();
    let of_shards = CASES_OF_SHARDS.iter().filter(|_| with_source);
    for (name, case) in CASES.iter().chain(of_shards) {
        let world = world(name);
        running.spawn(async move {
            // a task of its own, so that its panic is told with its name
            (*name, tokio::spawn(case(world)).await)
        });
    }
    let mut failed = Vec::new();
    while let Some(ended) = running.join_next().await {
        match ended {
            Ok((_, Ok(()))) => {}
            Ok((name, Err(_))) => failed.push(name),
            Err(_) => failed.push("a case was aborted"),
        }
    }
    failed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{MemoryLeases, MemoryStore};
    use std::sync::Arc;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn leases_in_memory_are_kept_as_all_stores_keep_them() {
        let failed = run(|_| {
            let (leases, source) = (MemoryLeases::new(), Arc::new(StubSource::new(1)));
            let stub = Arc::clone(&source);
            let make = move |holder: crate::service::Holder| {
                let crate::service::Holder { app, worker, lease } = holder;
                Arc::new(MemoryStore::new(leases.clone(), Arc::clone(&source) as _, app, worker, lease)) as _
            };
            World::new("app", "s", Duration::from_secs(10), make).with_source(stub)
        });
        assert_eq!(failed.await, [""; 0]);
    }
}
