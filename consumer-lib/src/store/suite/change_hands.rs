//! Leases are taken, run out, are lost and given back.

use super::world::World;
use crate::place::Checkpoint;
use crate::store::Renewed;
use std::sync::Arc;
use tidemill_proto::ErrorKind;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

pub(super) async fn a_lease_that_nobody_took_is_there_and_is_taken(world: World) {
    let (one, two) = (world.worker("one"), world.worker("two"));
    let seen = one.see().await;
    assert_eq!((seen.checkpoint, seen.owner.clone(), seen.is_held()), (None, None, false));
    let (hold, row) = one.try_take(&seen, false).await.expect("it is free");
    assert_eq!(row.checkpoint, Some(Checkpoint::TrimHorizon), "where it was told to begin");
    assert_eq!(hold.epoch(), row.epoch);
    let other = two.see().await;
    assert_eq!((other.owner.as_ref(), other.is_held()), (Some(&one.id), true));
    assert_eq!(one.see().await.epoch, hold.epoch(), "the holder knows its own epoch");
}

pub(super) async fn a_lease_that_is_held_is_not_taken_but_by_force(world: World) {
    let (one, two) = (world.worker("one"), world.worker("two"));
    let free = two.see().await;
    one.take().await;
    let held = two.see().await;
    assert_eq!(two.try_take(&held, false).await.err(), Some(ErrorKind::Conflict), "somebody holds it");
    assert_eq!(two.try_take(&free, true).await.err(), Some(ErrorKind::Conflict), "it has changed since");
    let (hold, _) = two.try_take(&held, true).await.expect("force");
    assert_eq!(two.renew(&hold).await, Renewed::Held);
}

pub(super) async fn of_many_who_take_at_once_exactly_one_has_it(world: World) {
    for round in 0..5 {
        let mut taking = JoinSet::new();
        for number in 0..8 {
            let worker = world.worker(&format!("worker-{round}-{number}"));
            taking.spawn(async move {
                let seen = worker.see().await;
                let taken = worker.try_take(&seen, true).await;
                (worker, seen.epoch, taken)
            });
        }
        let mut taken = Vec::new();
        while let Some(ended) = taking.join_next().await {
            let (worker, expected, result) = ended.expect("takers end");
            match result {
                Ok((hold, _)) => taken.push((worker, expected, hold)),
                Err(kind) => assert_eq!(kind, ErrorKind::Conflict),
            }
        }
        // some may have looked after another had taken: of those that expected the same, one
        let mut expected: Vec<_> = taken.iter().map(|(_, expected, _)| *expected).collect();
        expected.sort();
        let all = expected.len();
        expected.dedup();
        assert_eq!(expected.len(), all, "two took the same lease");
        taken.sort_by_key(|(_, expected, _)| *expected);
        let (worker, _, hold) = taken.pop().expect("one of all has it");
        assert_eq!(worker.renew(&hold).await, Renewed::Held, "the last who took has it");
        for (worker, _, hold) in taken {
            assert_eq!(worker.renew(&hold).await, Renewed::Lost);
        }
    }
}

pub(super) async fn a_lease_that_is_not_renewed_runs_out_and_its_holder_can_do_nothing_more(world: World) {
    let (one, two) = (world.worker("one"), world.worker("two"));
    let hold = one.take().await;
    let seen = two.see().await;
    assert!(seen.is_held());
    let begun = Instant::now();
    let free = two.see_until("it runs out", |row| !row.is_held()).await;
    assert!(begun.elapsed() >= world.lease / 2, "after {:?}", begun.elapsed());
    let (taken, row) = two.try_take(&free, false).await.expect("it ran out");
    assert!(row.epoch > hold.epoch());
    one.assert_fenced(&hold).await;
    assert_eq!(two.renew(&taken).await, Renewed::Held);
}

pub(super) async fn a_lease_that_is_renewed_is_never_free(world: World) {
    let (one, two) = (world.worker("one"), world.worker("two"));
    let hold = one.take().await;
    let mut before = two.see().await;
    for _ in 0..8 {
        sleep(world.lease / 3).await;
        assert_eq!(one.renew(&hold).await, Renewed::Held);
        let now = two.see().await;
        assert!(now.is_held(), "{now:?}");
        assert!(now.counter > before.counter, "a renewal is to be seen: {now:?} after {before:?}");
        before = now;
        assert_eq!(one.see().await.epoch, hold.epoch(), "it is the same lease all the while");
    }
    assert_eq!(two.try_take(&before, false).await.err(), Some(ErrorKind::Conflict));
}

pub(super) async fn what_was_taken_by_force_is_lost_at_once(world: World) {
    let (one, two) = (world.worker("one"), world.worker("two"));
    let hold = one.take().await;
    one.checkpoint(&hold, one.place(3).await).await.expect("the holder checkpoints");
    let seen = two.see().await;
    let (_, row) = two.try_take(&seen, true).await.expect("force");
    assert_eq!(row.checkpoint, Some(one.place(3).await));
    assert!(one.see().await.epoch > hold.epoch(), "the old holder sees a higher epoch");
    one.assert_fenced(&hold).await;
}

pub(super) async fn a_lease_given_back_is_free_at_once(world: World) {
    let (one, two) = (world.worker("one"), world.worker("two"));
    let hold = one.take().await;
    one.checkpoint(&hold, one.place(3).await).await.expect("the holder checkpoints");
    one.store.release(&hold).await.expect("the holder gives back");
    one.assert_fenced(&hold).await;
    let free = two.see().await;
    assert!(!free.is_held() && free.checkpoint == Some(one.place(3).await), "{free:?}");
    two.try_take(&free, false).await.expect("it is free");
}

pub(super) async fn a_worker_that_restarts_has_its_lease_back_and_its_earlier_life_has_not(world: World) {
    let before = world.worker("one");
    let hold = before.take().await;
    let after = Arc::new(world.worker("one"));
    let seen = after.see().await;
    assert_eq!(seen.owner.as_ref(), Some(&after.id));
    let taken = after.take().await;
    assert_eq!(after.renew(&taken).await, Renewed::Held);
    assert_eq!(before.renew(&hold).await, Renewed::Lost);
    assert_eq!(before.checkpoint(&hold, before.place(1).await).await, Err(ErrorKind::Conflict));
}
