//! Leases come and go with the shards of the stream.

use super::world::World;
use crate::place::Checkpoint;
use tidemill_proto::ErrorKind;

fn ids(rows: &[crate::store::LeaseRow]) -> Vec<u32> {
    let mut ids: Vec<u32> = rows.iter().map(|row| row.shard.id.get()).collect();
    ids.sort_unstable();
    ids
}

pub(super) async fn shards_that_are_gone_take_their_leases_with_them(world: World) {
    let source = world.source().expect("a case of such stores").clone();
    let one = world.worker("one");
    source.set(&[0, 1, 2]);
    let hold = one.take().await;
    assert_eq!(hold.at(), &one.at(0));
    one.store.release(&hold).await.expect("the holder gives back");
    source.set(&[1, 2]);
    assert_eq!(ids(&one.rows().await), [1, 2]);
    // were it there again, nothing would be known of it
    source.set(&[0, 1, 2]);
    let again = one.see().await;
    assert_eq!((again.shard.id.get(), again.checkpoint, again.owner), (0, None, None));
}

pub(super) async fn shards_that_appear_have_leases_like_the_others(world: World) {
    let source = world.source().expect("a case of such stores").clone();
    let (one, two) = (world.worker("one"), world.worker("two"));
    source.set(&[0]);
    one.take().await;
    source.set(&[0, 1, 2]);
    let rows = two.rows().await;
    assert_eq!(ids(&rows), [0, 1, 2]);
    let new = rows.into_iter().find(|row| row.shard.id.get() == 2).expect("it is listed");
    assert_eq!((new.checkpoint, new.is_held()), (None, false));
    two.try_take(&new, false).await.expect("it is free");
    let held = one.rows().await.into_iter().filter(|row| row.is_held()).count();
    assert_eq!(held, 2);
}

pub(super) async fn the_end_of_a_shard_is_a_checkpoint_and_the_last(world: World) {
    let (one, two) = (world.worker("one"), world.worker("two"));
    let hold = one.take().await;
    one.checkpoint(&hold, Checkpoint::ShardEnd).await.expect("the end is a checkpoint");
    assert_eq!(two.see().await.checkpoint, Some(Checkpoint::ShardEnd));
    assert_eq!(one.checkpoint(&hold, one.place(1).await).await, Err(ErrorKind::Invalid));
}
