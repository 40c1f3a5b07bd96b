//! What operators do with applications: see how far behind they are, move their checkpoints, list and forget them.

use crate::leases::{LEASE_MS, app, broker, held, kind, request, worker};
use crate::support::{Broker, START, first_shard_record, named, shard};
use tidemill_engine::{Effect, Error, ErrorKind, Holders, Lag, ResetCheckpoints, ResetRow};
use tidemill_types::{
    AccountId, AppName, Checkpoint, HashKey, Position, SequenceNumber, StreamKey, StreamName, TimestampMs,
};

fn to(to: Position, holders: Holders, effect: Effect) -> ResetCheckpoints {
    ResetCheckpoints { to, holders, effect }
}

impl Broker {
    async fn lags(&self) -> Vec<Option<(u64, u64)>> {
        let rows = self.engine.leases().list_with_lag(&app(), &named("s")).await.unwrap();
        rows.into_iter().map(|row| row.lag.map(|Lag { records, millis }| (records, millis))).collect()
    }
    async fn reset(&self, request: ResetCheckpoints) -> Result<Vec<ResetRow>, Error> {
        self.engine.leases().reset(&app(), &named("s"), request).await
    }
    /// Moves the checkpoints without force; what they are then.
    async fn after(&self, position: Position) -> Vec<Option<Checkpoint>> {
        let rows = self.reset(to(position, Holders::Respect, Effect::Apply)).await.unwrap();
        let listed = self.engine.leases().list(&app(), &named("s")).await.unwrap();
        let listed: Vec<_> = listed.into_iter().map(|row| row.checkpoint).collect();
        let told: Vec<_> = rows.into_iter().map(|row| row.after).collect();
        assert_eq!(told, listed, "what is told is what is stored");
        listed
    }
    /// One record in the lowest open shard, then a second passes.
    async fn put_one(&self) -> SequenceNumber {
        let stream = self.engine.stream(&named("s")).unwrap();
        let number = stream.put(vec![first_shard_record("x")]).await[0].as_ref().unwrap().number;
        self.clock.advance_ms(1_000);
        number
    }
}

fn at(number: SequenceNumber) -> Option<Checkpoint> {
    Some(Checkpoint::At { number, sub: Checkpoint::WHOLE })
}

const OLDEST: Option<Checkpoint> = Some(Checkpoint::TrimHorizon);
const NEWEST: Option<Checkpoint> = Some(Checkpoint::Latest);
const END: Option<Checkpoint> = Some(Checkpoint::ShardEnd);

#[tokio::test]
async fn the_lag_of_a_lease_is_the_records_behind_its_checkpoint_and_the_age_of_the_first() {
    let broker = broker().await;
    let numbers = [broker.put_one().await, broker.put_one().await, broker.put_one().await];
    assert_eq!(broker.lags().await, [None, None], "nobody ever took them");
    broker.take(request("a", 0, 0)).await.unwrap();
    broker.take(request("a", 1, 0)).await.unwrap();
    assert_eq!(broker.lags().await, [Some((3, 3_000)), Some((0, 0))]);
    assert_eq!(broker.lease(0).await.lag, None, "nobody asked");
    broker.mark("a", 1, Checkpoint::At { number: numbers[0], sub: 0 }).await.unwrap();
    assert_eq!(broker.lags().await[0], Some((2, 2_000)));

    // numbers that are skipped with an opening are no records
    let broker = broker.reopen().await;
    broker.put_one().await;
    let broker = broker.reopen().await;
    broker.put_one().await;
    assert_eq!(broker.lags().await[0], Some((4, 4_000)));
    let last = broker.put_one().await;
    broker.mark("a", 1, Checkpoint::At { number: last, sub: 0 }).await.unwrap();
    assert_eq!(broker.lags().await[0], Some((0, 0)));
    for id in [0, 1] {
        broker.release("a", &held(id, 1)).await.unwrap();
    }
    broker.after(Position::Latest).await;
    assert_eq!(broker.lags().await, [None, None], "the first read will tell what is newest");
}

/// Shard 0 has two records and was split; its lower child has two more, in two openings.
async fn family() -> (Broker, [SequenceNumber; 4]) {
    let broker = broker().await;
    let (first, second) = (broker.put_one().await, broker.put_one().await);
    let half = HashKey::new(u128::MAX / 4);
    broker.engine.split_shard(&named("s"), shard(0), half).await.unwrap();
    broker.clock.advance_ms(1_000);
    let third = broker.put_one().await;
    let broker = broker.reopen().await;
    let fourth = broker.put_one().await;
    (broker, [first, second, third, fourth])
}

#[tokio::test]
async fn a_reset_leads_to_the_place_it_names_in_every_shard() {
    let (broker, [first, second, third, fourth]) = family().await;
    let arrival = |seconds: u64| Position::AtTime(TimestampMs::new(START.get() + seconds * 1000));
    assert_eq!(broker.after(Position::TrimHorizon).await, [OLDEST; 4]);
    assert_eq!(broker.lags().await[..3], [Some((2, 5_000)), Some((0, 0)), Some((2, 2_000))]);
    assert_eq!(broker.after(Position::Latest).await, [END, NEWEST, NEWEST, NEWEST]);
    // records arrived at 0, 1, 3 and 4 s
    assert_eq!(broker.after(arrival(0)).await, [OLDEST; 4]);
    assert_eq!(broker.after(arrival(1)).await, [at(first), OLDEST, OLDEST, OLDEST]);
    assert_eq!(broker.after(arrival(2)).await, [END, OLDEST, OLDEST, OLDEST]);
    assert_eq!(broker.after(arrival(4)).await, [END, OLDEST, at(third), OLDEST], "over an opening");
    assert_eq!(broker.lags().await[2], Some((1, 1_000)));
    assert_eq!(broker.after(arrival(9_999)).await, [END, OLDEST, at(fourth), OLDEST]);
    assert_eq!(broker.lags().await[2], Some((0, 0)));

    // a number concerns its shard and what came from it; the rest stays as it is
    assert_eq!(broker.after(Position::At(second)).await, [at(first), OLDEST, OLDEST, OLDEST]);
    assert_eq!(broker.after(Position::At(fourth)).await, [at(first), OLDEST, at(third), OLDEST]);
    assert_eq!(broker.after(Position::After(fourth)).await[2], at(fourth));
    assert_eq!(broker.after(Position::After(first)).await, [at(first), OLDEST, OLDEST, OLDEST]);
    assert_eq!(broker.after(Position::After(second)).await[0], END, "it was the last one");
    assert_eq!(broker.after(Position::At(first)).await, [OLDEST; 4]);
    let foreign = Position::At(fourth.plus(7));
    let refused = broker.reset(to(foreign, Holders::Fence, Effect::Apply)).await;
    assert_eq!(kind(refused), ErrorKind::Invalid, "no record has had that number");
}

#[tokio::test]
async fn a_reset_holds_after_a_crash_and_for_shards_that_nobody_had_taken() {
    let (broker, _) = family().await;
    let before = broker.reset(to(Position::Latest, Holders::Respect, Effect::Apply)).await.unwrap();
    assert!(before.iter().all(|row| row.before.is_none() && row.owner.is_none()), "{before:?}");
    let broker = broker.crash().await;
    let rows = broker.engine.leases().list(&app(), &named("s")).await.unwrap();
    let found: Vec<_> = rows.iter().map(|row| (row.epoch.get(), row.checkpoint)).collect();
    assert_eq!(found, [(1, END), (1, NEWEST), (1, NEWEST), (1, NEWEST)]);
    // whoever takes one begins there, whatever it would begin with itself
    let taken = broker.take(request("a", 1, 1)).await.unwrap();
    assert_eq!((taken.epoch.get(), taken.checkpoint), (2, NEWEST));
}

#[tokio::test]
async fn a_dry_run_tells_what_a_reset_would_do_and_changes_nothing() {
    let (broker, [first, ..]) = family().await;
    broker.take(request("a", 0, 0)).await.unwrap();
    broker.mark("a", 1, Checkpoint::At { number: first, sub: 0 }).await.unwrap();
    let before = broker.engine.leases().list(&app(), &named("s")).await.unwrap();
    for holders in [Holders::Respect, Holders::Fence] {
        let told = broker.reset(to(Position::TrimHorizon, holders, Effect::Rehearse)).await.unwrap();
        assert_eq!(told.len(), 4);
        assert_eq!(told[0].before, Some(Checkpoint::At { number: first, sub: 0 }));
        assert_eq!((told[0].after, &told[0].owner), (OLDEST, &Some(worker("a"))));
        assert_eq!((told[1].before, told[1].after, &told[1].owner), (None, OLDEST, &None));
    }
    assert_eq!(broker.engine.leases().list(&app(), &named("s")).await.unwrap(), before);
    broker.mark("a", 1, Checkpoint::At { number: first, sub: 0 }).await.unwrap();
}

#[tokio::test]
async fn a_reset_waits_for_no_worker_it_is_refused_or_takes_the_lease_by_force() {
    let (broker, [first, second, ..]) = family().await;
    broker.take(request("a", 0, 0)).await.unwrap();
    broker.mark("a", 1, Checkpoint::At { number: second, sub: 0 }).await.unwrap();
    let refused = broker.reset(to(Position::TrimHorizon, Holders::Respect, Effect::Apply)).await;
    assert_eq!(kind(refused), ErrorKind::Conflict);
    assert_eq!(broker.lease(1).await.epoch.get(), 0, "none of it was done");

    let told = broker.reset(to(Position::At(second), Holders::Fence, Effect::Apply)).await.unwrap();
    assert_eq!((told[0].after, &told[0].owner), (at(first), &Some(worker("a"))));
    let row = broker.lease(0).await;
    assert_eq!((row.owner, row.epoch.get(), row.checkpoint), (None, 2, at(first)));
    let late = broker.mark("a", 1, Checkpoint::At { number: second, sub: 0 }).await;
    assert_eq!(kind(late), ErrorKind::Conflict, "its holder is fenced off");
    assert_eq!(broker.renew("a", &[held(0, 1)]).await, [held(0, 1)]);

    // one that ran out holds nobody up, and does not come back
    broker.take(request("a", 0, 2)).await.unwrap();
    broker.clock.advance_ms(LEASE_MS);
    broker.reset(to(Position::TrimHorizon, Holders::Respect, Effect::Apply)).await.unwrap();
    assert_eq!(broker.renew("a", &[held(0, 3)]).await, [held(0, 3)]);
    assert_eq!(broker.lease(0).await.checkpoint, OLDEST);
}

#[tokio::test]
async fn applications_are_listed_by_name_with_what_their_workers_hold() {
    let broker = broker().await;
    broker.stream("t", 1).await;
    let leases = broker.engine.leases();
    let other = AppName::new("other").unwrap();
    broker.take(request("a", 0, 0)).await.unwrap();
    broker.take(request("b", 1, 0)).await.unwrap();
    leases.take(&other, &named("t"), request("a", 0, 0)).await.unwrap();
    leases.take(&other, &named("s"), request("a", 0, 0)).await.unwrap();
    broker.release("a", &held(0, 1)).await.unwrap();
    let page = |after: Option<&AppName>, limit, hidden: &'static str| {
        let account = crate::support::account();
        let page = leases.apps(&account, after, limit, |stream| stream.name.as_str() != hidden).unwrap();
        let shown = page.apps.into_iter().map(|of| {
            let streams = of.streams.iter().map(|on| (on.stream.to_string(), on.leases, on.held, on.workers));
            (of.app.to_string(), streams.collect::<Vec<_>>())
        });
        (shown.collect::<Vec<_>>(), page.more)
    };
    let of_app = ("app".to_owned(), vec![("s".to_owned(), 2, 1, 1)]);
    let of_other = ("other".to_owned(), vec![("s".to_owned(), 1, 1, 1), ("t".to_owned(), 1, 1, 1)]);
    assert_eq!(page(None, 10, ""), (vec![of_app.clone(), of_other.clone()], false));
    assert_eq!(page(None, 1, ""), (vec![of_app], true));
    assert_eq!(page(Some(&app()), 1, ""), (vec![of_other], false));
    assert_eq!(page(Some(&other), 1, ""), (vec![], false));
    // what one may not see is not there
    assert_eq!(page(None, 10, "s"), (vec![("other".to_owned(), vec![("t".to_owned(), 1, 1, 1)])], false));
    let stranger = AccountId::new("111111111111").unwrap();
    assert_eq!(leases.apps(&stranger, None, 10, |_| true).unwrap().apps, []);
    assert_eq!(leases.streams_of(&stranger, &other), []);
    assert_eq!(leases.streams_of(&crate::support::account(), &other), [named("s"), named("t")]);
}

#[tokio::test]
async fn a_forgotten_application_begins_anew_and_is_not_forgotten_while_workers_hold_leases() {
    let broker = broker().await;
    broker.stream("t", 1).await;
    let leases = broker.engine.leases();
    broker.take(request("a", 0, 0)).await.unwrap();
    leases.take(&app(), &named("t"), request("a", 0, 0)).await.unwrap();
    let forget = |streams: &'static [&'static str], holders, effect| {
        let streams: Vec<_> = streams.iter().map(|name| named(name)).collect();
        async move { leases.delete_app(&app(), &streams, holders, effect).await }
    };
    let both: &[&str] = &["s", "t"];
    assert_eq!(forget(both, Holders::Respect, Effect::Rehearse).await.unwrap(), 2);
    assert_eq!(kind(forget(both, Holders::Respect, Effect::Apply).await), ErrorKind::Conflict);
    assert_eq!(kind(forget(&["nowhere"], Holders::Fence, Effect::Apply).await), ErrorKind::NotFound);
    assert_eq!(broker.lease(0).await.epoch.get(), 1, "nothing was done");
    broker.release("a", &held(0, 1)).await.unwrap();
    assert_eq!(forget(&["s"], Holders::Respect, Effect::Apply).await.unwrap(), 1);
    assert_eq!((broker.lease(0).await.epoch.get(), broker.lease(0).await.checkpoint), (0, None));
    assert_eq!(kind(forget(&["s"], Holders::Respect, Effect::Apply).await), ErrorKind::NotFound);
    assert_eq!(forget(both, Holders::Fence, Effect::Apply).await.unwrap(), 1);
    let on_t = tidemill_engine::HeldLease { stream: named("t"), ..held(0, 1) };
    assert_eq!(broker.renew("a", std::slice::from_ref(&on_t)).await, [on_t], "its holder has lost it");
    let late = leases.checkpoint(&app(), &worker("a"), &held(0, 1), Checkpoint::Latest).await;
    assert_eq!(kind(late), ErrorKind::Conflict);
    let broker = broker.crash().await;
    assert_eq!(broker.lease(0).await.epoch.get(), 0, "also after a crash");
    let stranger = StreamKey::new(AccountId::new("111111111111").unwrap(), StreamName::new("s").unwrap());
    let foreign = broker.engine.leases();
    let foreign = foreign.delete_app(&app(), &[stranger], Holders::Fence, Effect::Apply).await;
    assert_eq!(kind(foreign), ErrorKind::NotFound);
}
