//! Hand-made histories: one that holds, and for each promise one in which it is broken.

use super::*;
use crate::chaos::history::{Ack, Batch, Ending, Kill, Pause, Sighting};
use crate::chaos::mark::{Mark, RecordId};

const LEASE: Duration = Duration::from_nanos(100);

/// The `counter`-th record of key 1, first run.
fn id(counter: u64) -> RecordId {
    RecordId::new(1, 1, counter)
}

fn session(worker: &str, shard: u32, epoch: u64, began: u64, from: Mark) -> Session {
    Session {
        worker: worker.to_owned(),
        shard,
        began,
        from,
        epoch: Some(epoch),
        batches: Vec::new(),
        stored: vec![(began, from)],
        end: None,
    }
}

/// The record at an index of shard 0 has the counter of the index, those of shard 1 go on from ten.
fn batch(at: u64, shard: u32, indexes: std::ops::RangeInclusive<u64>) -> Batch {
    Batch { at, records: indexes.map(|index| (index, id(index + 10 * u64::from(shard)))).collect() }
}

fn row(asked: u64, shard: u32, owner: &str, epoch: u64, mark: Mark) -> Sighting {
    let owner = (!owner.is_empty()).then(|| owner.to_owned());
    Sighting { asked, answered: asked + 1, shard, live: owner.is_some(), owner, epoch, mark: Some(mark) }
}

/// `a` works on shard 0 and is killed, `b` takes over behind its checkpoint and comes to the end; `b` begins the child and
/// stops in order, `c` goes on.
fn good() -> History {
    let mut a = session("a", 0, 1, 10, Mark::TrimHorizon);
    a.batches = vec![batch(11, 0, 1..=2), batch(20, 0, 3..=4)];
    a.stored.push((15, Mark::At(2, 0)));
    let mut b = session("b", 0, 2, 150, Mark::At(2, 0));
    b.batches = vec![batch(151, 0, 3..=6)];
    b.stored.extend([(160, Mark::At(6, 0)), (170, Mark::ShardEnd)]);
    b.end = Some((171, Ending::ShardEnded));
    let mut child = session("b", 1, 1, 180, Mark::TrimHorizon);
    child.batches = vec![batch(181, 1, 1..=3)];
    child.stored.push((190, Mark::At(3, 0)));
    child.end = Some((191, Ending::Stopped));
    let mut c = session("c", 1, 2, 200, Mark::At(3, 0));
    c.batches = vec![batch(201, 1, 4..=4)];
    let acks = (1..=6).map(|n| Ack { id: id(n), shard: 0, index: n });
    let of_child = (1..=4).map(|n| Ack { id: id(10 + n), shard: 1, index: n });
    History {
        acks: acks.chain(of_child).collect(),
        sessions: vec![a, b, child, c],
        sightings: vec![
            row(12, 0, "a", 1, Mark::TrimHorizon),
            row(16, 0, "a", 1, Mark::At(2, 0)),
            row(152, 0, "b", 2, Mark::At(2, 0)),
            row(172, 0, "b", 2, Mark::ShardEnd),
            row(182, 1, "b", 1, Mark::TrimHorizon),
            row(192, 1, "b", 1, Mark::At(3, 0)),
        ],
        pauses: vec![],
        failed: vec![],
        kills: vec![Kill { worker: "a".into(), at: 30 }],
    }
}

/// The promises that are told to be broken once `spoil` was done to the good history.
fn broken(spoil: impl FnOnce(&mut History)) -> String {
    let mut history = good();
    spoil(&mut history);
    check(&history, LEASE).expect_err("a broken promise is found").join("\n")
}

#[test]
fn a_history_that_holds_is_counted() {
    let verdict = check(&good(), LEASE).unwrap();
    let expected = Verdict {
        acknowledged: 10,
        processed: 10,
        deliveries: 12,
        duplicates: 2,
        duplicates_bound: 2,
        takeovers: 2,
        handovers: 1,
        paused_sessions: 0,
        failovers: vec![Duration::from_nanos(120)],
        slowest_gap: Duration::from_nanos(130),
    };
    assert_eq!(verdict, expected);
}

#[test]
fn an_acknowledged_record_that_was_never_processed_is_found() {
    let told = broken(|history| history.acks.push(Ack { id: id(20), shard: 1, index: 5 }));
    assert!(told.contains("never processed"), "{told}");
}

#[test]
fn a_record_with_two_places_and_a_place_with_two_records_are_found() {
    let told = broken(|history| history.sessions[3].batches[0].records.push((5, id(14))));
    assert!(told.contains("two places"), "{told}");
    let told = broken(|history| history.acks[0].index = 9);
    assert!(told.contains("two places"), "{told}");
    let told = broken(|history| history.sessions[3].batches[0].records[0].1 = id(99));
    assert!(told.contains("share the place"), "{told}");
}

#[test]
fn a_key_out_of_order_within_an_owner_is_found() {
    let told = broken(|history| history.sessions[3].batches[0].records.push((5, id(1))));
    assert!(told.contains("of the same key"), "{told}");
    let told = broken(|history| history.sessions[0].batches.swap(0, 1));
    assert!(told.contains("processed 1 after 4"), "{told}");
    let told = broken(|history| history.sessions[0].batches[1].at = 10);
    assert!(told.contains("overlap"), "{told}");
}

#[test]
fn a_child_that_is_processed_before_its_parent_is_found() {
    let told = broken(|history| history.sessions[2].batches[0].at = 140);
    assert!(told.contains("for the first time after"), "{told}");
}

#[test]
fn a_later_run_of_a_producer_that_overtakes_what_was_acknowledged_is_found() {
    let late = |records: Vec<(u64, RecordId)>| {
        broken(move |history| {
            history.acks.extend([
                Ack { id: RecordId::new(1, 9, 1), shard: 1, index: 5 },
                Ack { id: RecordId::new(2, 9, 1), shard: 1, index: 6 },
            ]);
            let at = 210;
            history.sessions[3].batches.push(Batch { at, records });
        })
    };
    let told = late(vec![(6, RecordId::new(2, 9, 1))]);
    assert!(told.contains("was acknowledged before it was put"), "{told}");
}

#[test]
fn two_workers_in_one_epoch_are_found() {
    let told = broken(|history| history.sessions[1].epoch = Some(1));
    assert!(told.contains("two processors under one epoch"), "{told}");
    let told = broken(|history| history.sightings[1].owner = Some("x".into()));
    assert!(told.contains("two owners"), "{told}");
}

#[test]
fn work_after_a_pause_longer_than_the_lease_is_found_and_after_a_shorter_one_not() {
    let pause = |from, until| Pause { worker: "a".into(), from, until };
    let late = |pause: Pause| {
        let mut history = good();
        history.sessions[0].batches[1].at = 145;
        history.kills.clear();
        history.pauses.push(pause);
        check(&history, LEASE)
    };
    let told = late(pause(25, 140)).unwrap_err().join("\n");
    assert!(told.contains("after it woke from a pause"), "{told}");
    assert!(late(pause(60, 140)).is_ok());
}

#[test]
fn a_checkpoint_or_epoch_that_moves_back_between_looks_is_found() {
    let told = broken(|history| history.sightings[2].mark = Some(Mark::At(1, 0)));
    assert!(told.contains("a checkpoint moved back"), "{told}");
    let told = broken(|history| history.sightings[3] = row(172, 0, "a", 1, Mark::ShardEnd));
    assert!(told.contains("an epoch went back"), "{told}");
}

#[test]
fn an_owner_that_starts_before_what_was_stored_is_found() {
    let told = broken(|history| {
        history.sessions[1].from = Mark::At(1, 0);
        history.sessions[1].stored[0].1 = Mark::At(1, 0);
    });
    assert!(told.contains("started at 1.0"), "{told}");
    let told = broken(|history| history.sessions[1].stored.swap(1, 2));
    assert!(told.contains("the checkpoint of"), "{told}");
}

#[test]
fn a_row_that_forgot_a_stored_checkpoint_is_found() {
    let told = broken(|history| {
        history.sightings[1].mark = Some(Mark::TrimHorizon);
    });
    assert!(told.contains("2.0 was stored at 15"), "{told}");
}

#[test]
fn more_duplicates_than_were_in_flight_are_found() {
    let told = broken(|history| {
        let b = &mut history.sessions[1];
        b.batches[0] = batch(151, 0, 2..=6);
        (b.from, b.stored[0].1) = (Mark::At(1, 0), Mark::At(1, 0));
    });
    assert!(told.contains("though only 2 were in flight"), "{told}");
}

#[test]
fn a_record_that_is_delivered_again_after_a_stop_in_order_is_found() {
    let told = broken(|history| {
        let (stopped, next) = (2, 3);
        history.sessions[stopped].stored.pop();
        history.sessions[next].from = Mark::TrimHorizon;
        history.sessions[next].stored[0].1 = Mark::TrimHorizon;
        history.sessions[next].batches[0] = batch(201, 1, 3..=4);
    });
    assert!(told.contains("ended in order"), "{told}");
}

#[test]
fn a_failover_that_takes_too_long_or_never_comes_is_found() {
    let told = broken(|history| {
        for session in &mut history.sessions[1..] {
            session.began += 100;
            session.batches.iter_mut().for_each(|batch| batch.at += 100);
        }
    });
    assert!(told.contains("elsewhere only after Some(220ns)"), "{told}");
    let told = broken(|history| {
        history.sessions.truncate(1);
        history.acks.truncate(4);
    });
    assert!(told.contains("elsewhere only after None"), "{told}");
}
