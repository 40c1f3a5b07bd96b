//! What is kept with a lease: how far its holders have come, what they prepared, how much there is to do.

use super::world::World;
use crate::place::{Checkpoint, PendingCheckpoint};
use crate::store::Renewed;
use bytes::Bytes;
use std::time::Duration;
use tidemill_proto::ErrorKind;

pub(super) async fn checkpoints_stay_whoever_holds_the_lease(world: World) {
    let (one, two) = (world.worker("one"), world.worker("two"));
    let hold = one.take().await;
    for index in [1, 5, 6] {
        one.checkpoint(&hold, one.place(index).await).await.expect("the holder checkpoints");
        assert_eq!(one.renew(&hold).await, Renewed::Held, "a checkpoint costs no lease");
        assert_eq!(two.see().await.checkpoint, Some(one.place(index).await));
    }
    one.store.release(&hold).await.expect("the holder gives back");
    two.take().await;
    assert_eq!(two.see().await.checkpoint, Some(one.place(6).await));
}

pub(super) async fn checkpoints_do_not_move_back_and_may_be_repeated(world: World) {
    let one = world.worker("one");
    let hold = one.take().await;
    one.checkpoint(&hold, one.place(5).await).await.expect("the holder checkpoints");
    one.checkpoint(&hold, one.place(5).await).await.expect("again");
    assert_eq!(one.checkpoint(&hold, one.place(4).await).await, Err(ErrorKind::Invalid));
    assert_eq!(one.see().await.checkpoint, Some(one.place(5).await));
    let Checkpoint::At { number, .. } = one.place(5).await else { unreachable!("it is a place") };
    let within = Checkpoint::At { number, sub: 2 };
    one.checkpoint(&hold, within).await.expect("within an aggregated record");
    assert_eq!(one.see().await.checkpoint, Some(within));
}

pub(super) async fn what_was_prepared_is_found_by_the_next_holder_and_forgotten_with_a_checkpoint(
    world: World,
) {
    let (one, two) = (world.worker("one"), world.worker("two"));
    let hold = one.take().await;
    one.checkpoint(&hold, one.place(2).await).await.expect("the holder checkpoints");
    let seven = one.place(7).await;
    let pending = |state: &'static [u8]| PendingCheckpoint { at: seven, state: Bytes::from_static(state) };
    for state in [&b"some"[..], b"", b"\0\xff"] {
        one.store.prepare(&hold, &pending(state)).await.expect("the holder prepares");
        assert_eq!(two.see().await.pending, Some(pending(state)));
    }
    assert_eq!(two.see().await.checkpoint, Some(one.place(2).await), "nothing is processed yet");
    let seen = two.see().await;
    let (hold, row) = two.try_take(&seen, true).await.expect("force");
    assert_eq!(row.pending, Some(pending(b"\0\xff")));
    two.checkpoint(&hold, one.place(7).await).await.expect("the holder checkpoints");
    assert_eq!(one.see().await.pending, None);
}

pub(super) async fn throughput_is_told_to_others(world: World) {
    let (one, two) = (world.worker("one"), world.worker("two"));
    let hold = one.take().await;
    hold.processed(4096);
    hold.measure(Duration::from_secs(1));
    assert_eq!(one.renew(&hold).await, Renewed::Held);
    assert_eq!(two.see().await.bytes_per_s, 4096);
}
