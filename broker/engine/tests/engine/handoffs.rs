//! Leases that change hands in order, and checkpoints in two phases.

use crate::leases::{LEASE_MS, app, broker, held, kind, request, worker};
use crate::support::{Broker, named, shard};
use bytes::Bytes;
use tidemill_engine::{Error, ErrorKind, LeaseRow, RequestHandoff, Steal, TakeLease};
use tidemill_types::{Checkpoint, LeaseEpoch, PendingCheckpoint};

const DEADLINE_MS: u64 = 3_000;

fn wish(name: &str, epoch: u64) -> RequestHandoff {
    RequestHandoff {
        shard: shard(0),
        worker: worker(name),
        expected_epoch: LeaseEpoch::new(epoch),
        deadline_ms: DEADLINE_MS,
    }
}

fn prepared(at: Checkpoint, state: &'static str) -> PendingCheckpoint {
    PendingCheckpoint::new(at, Bytes::from_static(state.as_bytes())).unwrap()
}

/// Who waits for a lease, and for how long.
fn waits(row: &LeaseRow) -> Option<(&str, u64)> {
    row.successor.as_ref().map(|next| (next.worker.as_str(), next.in_ms))
}

impl Broker {
    async fn ask(&self, wish: RequestHandoff) -> Result<LeaseRow, Error> {
        self.engine.leases().request_handoff(&app(), &named("s"), wish).await
    }
    async fn prepare(&self, name: &str, epoch: u64, pending: PendingCheckpoint) -> Result<(), Error> {
        self.engine.leases().prepare(&app(), &worker(name), &held(0, epoch), pending).await
    }
    fn steal(&self, name: &str, epoch: u64) -> impl Future<Output = Result<LeaseRow, Error>> {
        self.take(TakeLease { steal: Steal::Allowed, ..request(name, 0, epoch) })
    }
}

#[tokio::test]
async fn a_lease_that_is_asked_for_goes_to_its_successor_when_the_holder_gives_it_back() {
    let broker = broker().await;
    let number = broker.numbers(1).await[0];
    broker.take(request("a", 0, 0)).await.unwrap();
    let asked = broker.ask(wish("b", 1)).await.unwrap();
    assert_eq!((asked.owner.as_ref(), asked.epoch.get()), (Some(&worker("a")), 1));
    assert_eq!(waits(&asked), Some(("b", DEADLINE_MS)));
    assert_eq!(broker.lease(0).await, asked);

    // the holder learns of it when it renews, and its right is as before
    let renewed = broker.renewed("a", &[held(0, 1), held(1, 1)]).await;
    assert_eq!((renewed.asked, renewed.lost), (vec![held(0, 1)], vec![held(1, 1)]));
    broker.mark("a", 1, Checkpoint::At { number, sub: 0 }).await.unwrap();
    assert_eq!(kind(broker.mark("b", 1, Checkpoint::At { number, sub: 1 }).await), ErrorKind::Conflict);

    broker.clock.advance_ms(2_000);
    broker.release("a", &held(0, 1)).await.unwrap();
    let row = broker.lease(0).await;
    assert_eq!((row.owner.as_ref(), row.epoch.get(), row.counter), (Some(&worker("b")), 2, 0));
    assert_eq!((row.expires_in_ms, waits(&row)), (LEASE_MS, None));
    assert_eq!(row.checkpoint, Some(Checkpoint::At { number, sub: 0 }));
    assert_eq!(kind(broker.mark("a", 1, Checkpoint::At { number, sub: 1 }).await), ErrorKind::Conflict);

    // nobody else may have it, its owner takes it, under an epoch of its own
    assert_eq!(kind(broker.take(request("c", 0, 2)).await), ErrorKind::Conflict);
    assert_eq!(broker.take(request("b", 0, 2)).await.unwrap().epoch.get(), 3);
}

#[tokio::test]
async fn a_lease_that_was_handed_over_is_the_successors_after_a_restart_too() {
    let broker = broker().await;
    broker.take(request("a", 0, 0)).await.unwrap();
    broker.ask(wish("b", 1)).await.unwrap();
    broker.release("a", &held(0, 1)).await.unwrap();
    let broker = broker.crash().await;
    let row = broker.lease(0).await;
    assert_eq!((row.owner, row.epoch.get()), (Some(worker("b")), 2));
    assert_eq!(broker.renew("b", &[held(0, 2)]).await, []);
}

#[tokio::test]
async fn only_a_lease_that_somebody_else_holds_under_the_epoch_seen_can_be_asked_for() {
    let broker = broker().await;
    assert_eq!(kind(broker.ask(wish("b", 0)).await), ErrorKind::Conflict, "nobody ever took it");
    broker.take(request("a", 0, 0)).await.unwrap();
    for epoch in [0, 2] {
        assert_eq!(kind(broker.ask(wish("b", epoch)).await), ErrorKind::Conflict);
    }
    assert_eq!(kind(broker.ask(wish("a", 1)).await), ErrorKind::Conflict, "it holds it itself");
    let late = RequestHandoff { deadline_ms: 600_001, ..wish("b", 1) };
    assert_eq!(kind(broker.ask(late).await), ErrorKind::Invalid);
    assert_eq!(
        kind(broker.ask(RequestHandoff { shard: shard(9), ..wish("b", 1) }).await),
        ErrorKind::NotFound
    );
    assert_eq!(waits(&broker.lease(0).await), None);

    broker.clock.advance_ms(LEASE_MS);
    assert_eq!(kind(broker.ask(wish("b", 1)).await), ErrorKind::Conflict, "it has run out");
    broker.renew("a", &[held(0, 1)]).await;
    broker.release("a", &held(0, 1)).await.unwrap();
    assert_eq!(kind(broker.ask(wish("b", 1)).await), ErrorKind::Conflict, "it was given back");
}

#[tokio::test]
async fn asking_again_keeps_the_first_deadline_and_others_wait_until_it_has_passed() {
    let broker = broker().await;
    broker.take(request("a", 0, 0)).await.unwrap();
    broker.ask(wish("b", 1)).await.unwrap();
    broker.clock.advance_ms(1_000);
    let again = RequestHandoff { deadline_ms: 600_000, ..wish("b", 1) };
    assert_eq!(waits(&broker.ask(again).await.unwrap()), Some(("b", DEADLINE_MS - 1_000)));
    broker.clock.advance_ms(DEADLINE_MS - 1_001);
    assert_eq!(kind(broker.ask(wish("c", 1)).await), ErrorKind::Conflict);
    broker.clock.advance_ms(1);
    assert_eq!(waits(&broker.ask(wish("b", 1)).await.unwrap()), Some(("b", 0)));
    assert_eq!(waits(&broker.ask(wish("c", 1)).await.unwrap()), Some(("c", DEADLINE_MS)));
    broker.release("a", &held(0, 1)).await.unwrap();
    assert_eq!(broker.lease(0).await.owner, Some(worker("c")));
}

#[tokio::test]
async fn whoever_takes_a_lease_ends_the_waiting_for_it() {
    let broker = broker().await;
    broker.take(request("a", 0, 0)).await.unwrap();
    broker.ask(wish("b", 1)).await.unwrap();
    // waiting is no right to it: also the successor must say that it takes it by force
    assert_eq!(kind(broker.take(request("b", 0, 1)).await), ErrorKind::Conflict);
    broker.clock.advance_ms(DEADLINE_MS);
    let stolen = broker.steal("b", 1).await.unwrap();
    assert_eq!((stolen.owner.as_ref(), stolen.epoch.get(), waits(&stolen)), (Some(&worker("b")), 2, None));
    assert_eq!(broker.renew("a", &[held(0, 1)]).await, [held(0, 1)]);

    broker.ask(wish("a", 2)).await.unwrap();
    let again = broker.take(request("b", 0, 2)).await.unwrap();
    assert_eq!((again.epoch.get(), waits(&again)), (3, None));
    broker.ask(wish("a", 3)).await.unwrap();
    assert_eq!(waits(&broker.steal("c", 3).await.unwrap()), None);
    broker.release("c", &held(0, 4)).await.unwrap();
    assert_eq!(broker.lease(0).await.owner, None);
}

#[tokio::test]
async fn a_lease_that_ran_out_is_anybodys_though_a_successor_waits() {
    let broker = broker().await;
    broker.take(request("a", 0, 0)).await.unwrap();
    broker.ask(RequestHandoff { deadline_ms: 600_000, ..wish("b", 1) }).await.unwrap();
    broker.clock.advance_ms(LEASE_MS);
    let taken = broker.take(request("c", 0, 1)).await.unwrap();
    assert_eq!((taken.owner.as_ref(), waits(&taken)), (Some(&worker("c")), None));
}

#[tokio::test]
async fn a_restart_forgets_who_waits_and_they_ask_again() {
    let broker = broker().await;
    broker.take(request("a", 0, 0)).await.unwrap();
    broker.ask(wish("b", 1)).await.unwrap();
    let broker = broker.reopen().await;
    let row = broker.lease(0).await;
    assert_eq!((row.owner.as_ref(), waits(&row), row.bytes_per_s), (Some(&worker("a")), None, 0));
    assert_eq!(broker.renewed("a", &[held(0, 1)]).await.asked, []);
    broker.ask(wish("b", 1)).await.unwrap();
    assert_eq!(broker.renewed("a", &[held(0, 1)]).await.asked, [held(0, 1)]);
}

#[tokio::test]
async fn the_throughput_that_a_holder_tells_is_shown_and_stays_when_the_lease_changes_hands() {
    let broker = broker().await;
    assert_eq!(broker.take(request("a", 0, 0)).await.unwrap().bytes_per_s, 0);
    broker.renew("a", &[held(0, 1)]).await;
    assert_eq!(broker.lease(0).await.bytes_per_s, 70);
    assert_eq!(broker.steal("b", 1).await.unwrap().bytes_per_s, 70);
}

#[tokio::test]
async fn a_prepared_checkpoint_is_found_by_the_next_holder_until_one_is_made() {
    let broker = broker().await;
    let numbers = broker.numbers(3).await;
    let at = |n: usize| Checkpoint::At { number: numbers[n], sub: 0 };
    broker.take(request("a", 0, 0)).await.unwrap();
    broker.mark("a", 1, at(0)).await.unwrap();
    let (first, second) = (prepared(at(1), "half"), prepared(at(2), ""));
    broker.prepare("a", 1, first).await.unwrap();
    broker.prepare("a", 1, second.clone()).await.unwrap();
    let broker = broker.crash().await;
    let row = broker.lease(0).await;
    assert_eq!((row.checkpoint, row.pending.as_ref()), (Some(at(0)), Some(&second)));
    let taken = broker.steal("b", 1).await.unwrap();
    assert_eq!((taken.checkpoint, taken.pending.as_ref()), (Some(at(0)), Some(&second)));

    // its new holder decides: here, that what was prepared did not happen
    broker.mark("b", 2, at(0)).await.unwrap();
    assert_eq!(broker.lease(0).await.pending, None);
    let broker = broker.reopen().await;
    assert_eq!((broker.lease(0).await.pending, broker.lease(0).await.checkpoint), (None, Some(at(0))));
}

#[tokio::test]
async fn only_the_holder_prepares_a_checkpoint_and_never_behind_the_one_there_is() {
    let broker = broker().await;
    let numbers = broker.numbers(2).await;
    let at = |n: usize| Checkpoint::At { number: numbers[n], sub: 0 };
    assert_eq!(kind(broker.prepare("a", 1, prepared(at(1), "")).await), ErrorKind::Conflict);
    broker.take(request("a", 0, 0)).await.unwrap();
    broker.mark("a", 1, at(1)).await.unwrap();
    let ahead = Checkpoint::At { number: numbers[1].plus(1), sub: 0 };
    for wrong in [at(0), Checkpoint::TrimHorizon, Checkpoint::ShardEnd, ahead] {
        assert_eq!(kind(broker.prepare("a", 1, prepared(wrong, "")).await), ErrorKind::Invalid, "{wrong:?}");
    }
    broker.prepare("a", 1, prepared(at(1), "same place")).await.unwrap();
    broker.steal("b", 1).await.unwrap();
    assert_eq!(kind(broker.prepare("a", 1, prepared(at(1), "late")).await), ErrorKind::Conflict);
    assert_eq!(broker.lease(0).await.pending, Some(prepared(at(1), "same place")));
}
