//! Leases: taken, renewed, lost, given back; checkpoints that only their holder moves, and only forward.

use crate::support::{Broker, named, record, shard};
use tidemill_engine::{
    ConsumersOnDelete, Error, ErrorKind, HeldLease, LeaseRow, Renewal, Renewed, Steal, TakeLease,
};
use tidemill_types::{AppName, Checkpoint, LeaseEpoch, SequenceNumber, WorkerId};

pub(crate) const LEASE_MS: u64 = 10_000;

pub(crate) fn app() -> AppName {
    AppName::new("app").unwrap()
}

pub(crate) fn worker(name: &str) -> WorkerId {
    WorkerId::new(name).unwrap()
}

pub(crate) fn request(name: &str, id: u32, epoch: u64) -> TakeLease {
    TakeLease {
        shard: shard(id),
        worker: worker(name),
        expected_epoch: LeaseEpoch::new(epoch),
        lease_ms: LEASE_MS,
        steal: Steal::Never,
        initial: Checkpoint::TrimHorizon,
    }
}

pub(crate) fn held(id: u32, epoch: u64) -> HeldLease {
    HeldLease { stream: named("s"), shard: shard(id), epoch: LeaseEpoch::new(epoch) }
}

pub(crate) fn kind<T: std::fmt::Debug>(outcome: Result<T, Error>) -> ErrorKind {
    outcome.unwrap_err().kind()
}

impl Broker {
    pub(crate) async fn take(&self, request: TakeLease) -> Result<LeaseRow, Error> {
        self.engine.leases().take(&app(), &named("s"), request).await
    }
    pub(crate) async fn lease(&self, id: usize) -> LeaseRow {
        self.engine.leases().list(&app(), &named("s")).await.unwrap().swap_remove(id)
    }
    pub(crate) async fn mark(&self, name: &str, epoch: u64, checkpoint: Checkpoint) -> Result<(), Error> {
        self.engine.leases().checkpoint(&app(), &worker(name), &held(0, epoch), checkpoint).await
    }
    pub(crate) async fn renewed(&self, name: &str, leases: &[HeldLease]) -> Renewed {
        let renewal = |held: &HeldLease| Renewal { held: held.clone(), bytes_per_s: 70 };
        let renewals: Vec<_> = leases.iter().map(renewal).collect();
        self.engine.leases().renew(&app(), &worker(name), &renewals).await.unwrap()
    }
    /// The leases that are lost.
    pub(crate) async fn renew(&self, name: &str, leases: &[HeldLease]) -> Vec<HeldLease> {
        self.renewed(name, leases).await.lost
    }
    pub(crate) async fn release(&self, name: &str, held: &HeldLease) -> Result<(), Error> {
        self.engine.leases().release(&app(), &worker(name), held).await
    }
    pub(crate) async fn numbers(&self, count: usize) -> Vec<SequenceNumber> {
        let stream = self.engine.stream(&named("s")).unwrap();
        let mut numbers = Vec::new();
        for _ in 0..count {
            let record = record("k", "x").with_explicit_hash(tidemill_types::HashKey::MIN);
            numbers.push(stream.put(vec![record]).await[0].as_ref().unwrap().number);
        }
        numbers
    }
}

pub(crate) async fn broker() -> Broker {
    let broker = Broker::new().await;
    broker.stream("s", 2).await;
    broker
}

#[tokio::test]
async fn a_lease_that_nobody_took_is_listed_as_free() {
    let broker = broker().await;
    let rows = broker.engine.leases().list(&app(), &named("s")).await.unwrap();
    assert_eq!(rows.len(), 2);
    for row in rows {
        assert_eq!((row.owner, row.epoch.get(), row.checkpoint, row.expires_in_ms), (None, 0, None, 0));
    }
    let unknown = broker.engine.leases().list(&app(), &named("t")).await;
    assert_eq!(kind(unknown), ErrorKind::NotFound);
}

#[tokio::test]
async fn of_all_who_take_a_lease_at_once_one_gets_it() {
    let broker = broker().await;
    let mut claims = Vec::new();
    for n in 0..20 {
        let engine = broker.engine.clone();
        let request = request(&format!("w{n}"), 0, 0);
        claims.push(tokio::spawn(async move { engine.leases().take(&app(), &named("s"), request).await }));
    }
    let mut winners = Vec::new();
    for claim in claims {
        match claim.await.unwrap() {
            Ok(row) => winners.push(row.owner),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict),
        }
    }
    assert_eq!(winners.len(), 1);
    assert_eq!(broker.lease(0).await.owner, winners[0]);
}

#[tokio::test]
async fn a_live_lease_is_lost_only_to_a_thief_and_an_expired_one_to_anybody() {
    let broker = broker().await;
    let first = broker.take(request("a", 0, 0)).await.unwrap();
    assert_eq!((first.epoch.get(), first.expires_in_ms), (1, LEASE_MS));
    assert_eq!(kind(broker.take(request("b", 0, 1)).await), ErrorKind::Conflict);
    assert_eq!(
        kind(broker.take(TakeLease { steal: Steal::Allowed, ..request("b", 0, 0) }).await),
        ErrorKind::Conflict
    );
    let stolen = broker.take(TakeLease { steal: Steal::Allowed, ..request("b", 0, 1) }).await.unwrap();
    assert_eq!((stolen.owner, stolen.epoch.get()), (Some(worker("b")), 2));

    broker.clock.advance_ms(LEASE_MS - 1);
    assert_eq!(kind(broker.take(request("c", 0, 2)).await), ErrorKind::Conflict);
    broker.clock.advance_ms(1);
    assert_eq!(broker.lease(0).await.expires_in_ms, 0);
    let taken = broker.take(request("c", 0, 2)).await.unwrap();
    assert_eq!((taken.owner, taken.epoch.get()), (Some(worker("c")), 3));
}

#[tokio::test]
async fn the_holder_may_take_its_lease_again_under_a_new_epoch() {
    let broker = broker().await;
    broker.take(request("a", 0, 0)).await.unwrap();
    assert_eq!(broker.take(request("a", 0, 1)).await.unwrap().epoch.get(), 2);
    assert_eq!(kind(broker.mark("a", 1, Checkpoint::Latest).await), ErrorKind::Conflict);
    broker.mark("a", 2, Checkpoint::Latest).await.unwrap();
}

#[tokio::test]
async fn renewed_leases_live_on_and_lost_ones_are_named() {
    let broker = broker().await;
    broker.take(request("a", 0, 0)).await.unwrap();
    broker.take(request("b", 1, 0)).await.unwrap();
    for _ in 0..5 {
        broker.clock.advance_ms(LEASE_MS - 1);
        assert_eq!(broker.renew("a", &[held(0, 1), held(1, 1), held(0, 7)]).await, [held(1, 1), held(0, 7)]);
    }
    let row = broker.lease(0).await;
    assert_eq!((row.expires_in_ms, row.counter), (LEASE_MS, 6));
    // one that ran out and that nobody took is still the holder's
    assert_eq!(broker.lease(1).await.expires_in_ms, 0);
    assert_eq!(broker.renew("b", &[held(1, 1)]).await, []);
    assert_eq!(broker.lease(1).await.expires_in_ms, LEASE_MS);
    let other = HeldLease { stream: named("t"), ..held(0, 1) };
    assert_eq!(broker.renew("a", std::slice::from_ref(&other)).await, [other]);
}

#[tokio::test]
async fn a_released_lease_is_free_keeps_its_checkpoint_and_ends_the_right_to_move_it() {
    let broker = broker().await;
    broker.take(request("a", 0, 0)).await.unwrap();
    broker.mark("a", 1, Checkpoint::Latest).await.unwrap();
    let leases = broker.engine.leases();
    assert_eq!(kind(leases.release(&app(), &worker("b"), &held(0, 1)).await), ErrorKind::Conflict);
    leases.release(&app(), &worker("a"), &held(0, 1)).await.unwrap();
    let row = broker.lease(0).await;
    assert_eq!((row.owner, row.epoch.get(), row.checkpoint), (None, 1, Some(Checkpoint::Latest)));
    let number = broker.numbers(1).await[0];
    let checkpoint = Checkpoint::At { number, sub: 0 };
    assert_eq!(kind(broker.mark("a", 1, checkpoint).await), ErrorKind::Conflict);
    let next = broker.take(request("b", 0, 1)).await.unwrap();
    assert_eq!((next.epoch.get(), next.checkpoint), (2, Some(Checkpoint::Latest)));
}

#[tokio::test]
async fn checkpoints_only_move_forward_and_only_for_the_holder() {
    let broker = broker().await;
    let numbers = broker.numbers(3).await;
    let at = |n: usize, sub| Checkpoint::At { number: numbers[n], sub };
    broker.take(request("a", 0, 0)).await.unwrap();
    broker.mark("a", 1, at(1, 4)).await.unwrap();
    broker.mark("a", 1, at(1, 4)).await.unwrap();
    for back in [at(1, 3), at(0, 9), Checkpoint::TrimHorizon, Checkpoint::Latest] {
        assert_eq!(kind(broker.mark("a", 1, back).await), ErrorKind::Invalid);
    }
    let ahead = Checkpoint::At { number: numbers[2].plus(1), sub: 0 };
    for ahead in [Checkpoint::ShardEnd, ahead] {
        assert_eq!(kind(broker.mark("a", 1, ahead).await), ErrorKind::Invalid);
    }
    broker.take(TakeLease { steal: Steal::Allowed, ..request("b", 0, 1) }).await.unwrap();
    assert_eq!(kind(broker.mark("a", 1, at(2, 0)).await), ErrorKind::Conflict);
    assert_eq!(broker.lease(0).await.checkpoint, Some(at(1, 4)));
    broker.mark("b", 2, at(2, 0)).await.unwrap();

    // a number of shard 0 is none of shard 1
    broker.take(request("b", 1, 0)).await.unwrap();
    let foreign = broker.engine.leases().checkpoint(&app(), &worker("b"), &held(1, 1), at(2, 0)).await;
    assert_eq!(kind(foreign), ErrorKind::Invalid);
}

#[tokio::test]
async fn a_request_outside_the_limits_is_refused() {
    let broker = broker().await;
    for lease_ms in [0, 499, 600_001] {
        assert_eq!(kind(broker.take(TakeLease { lease_ms, ..request("a", 0, 0) }).await), ErrorKind::Invalid);
    }
    assert_eq!(kind(broker.take(request("a", 9, 0)).await), ErrorKind::NotFound);
    assert_eq!(kind(broker.mark("a", 1, Checkpoint::Latest).await), ErrorKind::Conflict);
}

#[tokio::test]
async fn after_a_restart_leases_and_checkpoints_are_there_and_holders_have_a_full_lease_time() {
    let broker = broker().await;
    let number = broker.numbers(1).await[0];
    broker.take(request("a", 0, 0)).await.unwrap();
    broker.mark("a", 1, Checkpoint::At { number, sub: 2 }).await.unwrap();
    broker.clock.advance_ms(LEASE_MS - 1);
    let broker = broker.reopen().await;
    let row = broker.lease(0).await;
    assert_eq!((row.owner, row.epoch.get(), row.expires_in_ms), (Some(worker("a")), 1, LEASE_MS));
    assert_eq!(row.checkpoint, Some(Checkpoint::At { number, sub: 2 }));
    assert_eq!(kind(broker.take(request("b", 0, 1)).await), ErrorKind::Conflict);
    assert_eq!(broker.renew("a", &[held(0, 1)]).await, []);
}

#[tokio::test]
async fn the_leases_of_a_deleted_stream_go_with_it() {
    let broker = broker().await;
    broker.take(request("a", 0, 0)).await.unwrap();
    broker.engine.delete_stream(&named("s"), ConsumersOnDelete::Refuse).await.unwrap();
    assert_eq!(broker.renew("a", &[held(0, 1)]).await, [held(0, 1)]);
    broker.stream("s", 2).await;
    assert_eq!(broker.lease(0).await.owner, None);
    assert_eq!(broker.renew("a", &[held(0, 1)]).await, [held(0, 1)]);
    let broker = broker.reopen().await;
    assert_eq!(broker.lease(0).await.owner, None);
}
