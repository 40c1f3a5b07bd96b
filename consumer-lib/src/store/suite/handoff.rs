//! Leases are handed over in order: asked for, finished, given back, taken.

use super::world::World;
use crate::store::Renewed;
use std::time::Duration;
use tidemill_proto::ErrorKind;
use tokio::time::sleep;

pub(super) async fn a_lease_that_is_asked_for_is_kept_until_it_is_given_back_and_then_the_successors(
    world: World,
) {
    let (one, two, three) = (world.worker("one"), world.worker("two"), world.worker("three"));
    let hold = one.take().await;
    let seen = two.see().await;
    let deadline = 20 * world.lease;
    two.ask(&seen, deadline).await.expect("a holder can be asked");
    two.ask(&two.see().await, deadline).await.expect("and asked again");
    let other = three.see().await;
    assert_eq!(other.successor.as_ref(), Some(&two.id));
    assert_eq!(three.ask(&other, deadline).await, Err(ErrorKind::Conflict), "somebody waits for it");
    for _ in 0..4 {
        sleep(world.lease / 2).await;
        assert_eq!(one.renew(&hold).await, Renewed::Asked, "held, and asked for");
    }
    one.checkpoint(&hold, one.place(4).await).await.expect("the holder finishes in peace");
    let waiting = two.see().await;
    assert_eq!((waiting.owner.as_ref(), waiting.successor.as_ref()), (Some(&one.id), Some(&two.id)));
    assert!(waiting.is_held() && waiting.handoff_left > 10 * world.lease, "{waiting:?}");
    assert!(waiting.handoff_left <= deadline, "{waiting:?}");
    one.store.release(&hold).await.expect("the holder hands over");
    let given = two.see().await;
    assert_eq!((given.owner.as_ref(), given.successor.as_ref()), (Some(&two.id), None));
    assert!(given.is_held() && given.epoch > hold.epoch(), "{given:?}");
    assert_eq!(given.checkpoint, Some(one.place(4).await));
    one.assert_fenced(&hold).await;
    let next = two.take().await;
    assert_eq!(two.renew(&next).await, Renewed::Held, "nobody asks the successor");
}

pub(super) async fn a_holder_that_takes_too_long_loses_the_lease_by_force(world: World) {
    let (one, two) = (world.worker("one"), world.worker("two"));
    let hold = one.take().await;
    let seen = two.see().await;
    two.ask(&seen, world.lease).await.expect("a holder can be asked");
    let begun = tokio::time::Instant::now();
    loop {
        assert_eq!(one.renew(&hold).await, Renewed::Asked);
        let row = two.see().await;
        assert!(row.is_held());
        if row.handoff_left.is_zero() {
            let (next, _) = two.try_take(&row, true).await.expect("its time is up");
            one.assert_fenced(&hold).await;
            assert_eq!(two.renew(&next).await, Renewed::Held);
            break;
        }
        assert!(begun.elapsed() < 3 * world.lease, "its time is never up: {row:?}");
        sleep(world.lease / 10).await;
    }
    assert!(begun.elapsed() >= world.lease.mul_f64(0.9), "after {:?}", begun.elapsed());
}

pub(super) async fn a_holder_that_dies_during_a_handoff_is_succeeded_all_the_same(world: World) {
    let (one, two, three) = (world.worker("one"), world.worker("two"), world.worker("three"));
    let hold = one.take().await;
    three.see().await;
    let seen = two.see().await;
    two.ask(&seen, 20 * world.lease).await.expect("a holder can be asked");
    let free = three.see_until("it runs out", |row| !row.is_held()).await;
    let (next, row) = three.try_take(&free, false).await.expect("it ran out");
    assert_eq!(row.successor, None);
    assert_eq!(three.renew(&next).await, Renewed::Held, "whoever waited must ask again");
    one.assert_fenced(&hold).await;
}

pub(super) async fn a_successor_that_is_gone_gives_way_when_its_time_is_up(world: World) {
    let (one, two) = (world.worker("one"), world.worker("two"));
    let hold = one.take().await;
    let seen = two.see().await;
    two.ask(&seen, Duration::from_millis(1)).await.expect("a holder can be asked");
    sleep(Duration::from_millis(20)).await;
    let row = two.see().await;
    assert_eq!((row.successor.as_ref(), row.handoff_left), (Some(&two.id), Duration::ZERO));
    // a worker of the same name that knows nothing of it may wait longer; the holder need not
    assert_eq!(one.renew(&hold).await, Renewed::Asked);
    one.store.release(&hold).await.expect("the holder hands over");
    let free = one.see_until("the successor's lease runs out", |row| !row.is_held()).await;
    one.try_take(&free, false).await.expect("it ran out");
}

pub(super) async fn only_what_another_holds_can_be_asked_for(world: World) {
    let (one, two, three) = (world.worker("one"), world.worker("two"), world.worker("three"));
    let deadline = 2 * world.lease;
    let free = two.see().await;
    assert_eq!(two.ask(&free, deadline).await, Err(ErrorKind::Conflict), "nobody holds it");
    let hold = one.take().await;
    assert_eq!(one.ask(&one.see().await, deadline).await, Err(ErrorKind::Conflict), "it is its own");
    let seen = two.see().await;
    let by_three = three.see().await;
    three.try_take(&by_three, true).await.expect("force");
    assert_eq!(two.ask(&seen, deadline).await, Err(ErrorKind::Conflict), "it is another's by now");
    one.assert_fenced(&hold).await;
}
