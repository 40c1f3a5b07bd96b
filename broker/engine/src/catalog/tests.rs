//! The catalog as a value: whatever is created and deleted, it fits together, and its rows say the same as it does.

use super::row;
use super::settings::StreamSettings;
use super::state::{CatalogState, Change, ShardRow};
use super::streams::{plan_create, plan_delete};
use crate::error::ErrorKind;
use crate::store::memory::MemoryStore;
use crate::store::{Store, Verdict};
use crate::stream::StreamSpec;
use proptest::prelude::*;
use std::collections::HashSet;
use tidemill_types::{AccountId, SequenceIndex, ShardId, ShardState, StreamKey, StreamName, TimestampMs};

const NOW: TimestampMs = TimestampMs::new(1_700_000_000_000);

fn name(n: u8) -> StreamKey {
    StreamKey::new(AccountId::new("000000000000").unwrap(), StreamName::new(&format!("stream-{n}")).unwrap())
}

fn spec(shard_count: u32) -> StreamSpec {
    StreamSpec { shard_count, ..StreamSpec::default() }
}

fn create(state: &mut CatalogState, stream: u8, shards: u32) {
    let changes = plan_create(state, &name(stream), &spec(shards), NOW, 1000).unwrap();
    changes.into_iter().for_each(|change| state.apply(change));
}

#[test]
fn a_plan_refuses_what_breaks_a_limit() {
    let mut state = CatalogState::default();
    create(&mut state, 0, 3);
    let kind = |n, spec| plan_create(&state, &name(n), &spec, NOW, 10).unwrap_err().kind();
    assert_eq!(kind(0, spec(1)), ErrorKind::AlreadyExists);
    assert_eq!(kind(1, spec(0)), ErrorKind::Invalid);
    assert_eq!(kind(1, spec(10_001)), ErrorKind::Invalid);
    assert_eq!(kind(1, spec(8)), ErrorKind::Throttled);
    for retention_hours in [23, 8_761] {
        let settings = StreamSettings { retention_hours, ..StreamSettings::default() };
        assert_eq!(kind(1, StreamSpec { shard_count: 1, settings }), ErrorKind::Invalid);
    }
    assert!(plan_create(&state, &name(1), &spec(7), NOW, 10).is_ok());
    assert_eq!(plan_delete(&state, &name(9)).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_closed_shard_and_its_children_survive_being_written_down() {
    let mut state = CatalogState::default();
    create(&mut state, 0, 1);
    let stored = CatalogState::default().counters();
    let incarnation = state.stream(&name(0)).unwrap().incarnation;
    let mut parent = state.shards(incarnation).next().unwrap().clone();
    parent.shard.state =
        ShardState::Closed { ending: SequenceIndex::new(77).unwrap(), closed: TimestampMs::new(99) };
    let mut child = parent.shard.clone();
    child.id = ShardId::new(1).unwrap();
    child.parent = Some(parent.shard.id);
    child.state = ShardState::Open;
    let mut changes = plan_create(&CatalogState::default(), &name(0), &spec(1), NOW, 10).unwrap();
    let mut counters = state.counters();
    counters.next_log += 1;
    changes[0] = Change::Counters(counters);
    let log = tidemill_storage::LogId::new(counters.next_log - 1);
    changes.push(Change::Shard(incarnation, parent.clone()));
    changes.push(Change::Shard(incarnation, ShardRow { shard: child, log }));
    changes.iter().for_each(|change| state.apply(change.clone()));

    let mut store = MemoryStore::default();
    assert_eq!(store.commit(&[row::batch(&state, &changes, stored)]).unwrap(), [Verdict::Done]);
    let loaded = row::load(&store).unwrap();
    assert_eq!(loaded, state);
    let stream = loaded.stream(&name(0)).unwrap();
    assert_eq!(loaded.map(stream).unwrap().open().len(), 1);
}

#[test]
fn a_catalog_with_a_hole_is_told_as_damaged() {
    let mut store = MemoryStore::default();
    let changes = plan_create(&CatalogState::default(), &name(0), &spec(3), NOW, 10).unwrap();
    let batch = row::batch(&CatalogState::default(), &changes[..4], CatalogState::default().counters());
    store.commit(&[batch]).unwrap();
    assert_eq!(row::load(&store).unwrap_err().kind(), ErrorKind::Damaged);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn whatever_is_created_and_deleted_the_maps_tile_and_no_id_comes_twice(
        verbs in prop::collection::vec((0u8..5, prop::option::of(1u32..20), any::<bool>()), 1..40),
    ) {
        let mut store = MemoryStore::default();
        let mut state = CatalogState::default();
        let mut stored = state.counters();
        let (mut incarnations, mut logs) = (HashSet::new(), HashSet::new());
        for (stream, shards, reopen) in verbs {
            let plan = match shards {
                Some(count) => plan_create(&state, &name(stream), &spec(count), NOW, 1000),
                None => plan_delete(&state, &name(stream)),
            };
            let Ok(changes) = plan else { continue };
            for change in &changes {
                match change {
                    Change::Stream(row) => prop_assert!(incarnations.insert(row.incarnation), "an incarnation came twice"),
                    Change::Shard(_, row) => prop_assert!(logs.insert(row.log), "a log came twice"),
                    _ => {}
                }
            }
            let verdicts = store.commit(&[row::batch(&state, &changes, stored)]).unwrap();
            prop_assert_eq!(verdicts, [Verdict::Done]);
            changes.into_iter().for_each(|change| state.apply(change));
            stored = state.counters();
            prop_assert!(state.check().is_ok());
            if reopen {
                let loaded = row::load(&store).unwrap();
                prop_assert_eq!(&loaded, &state);
                state = loaded;
            }
        }
    }
}
