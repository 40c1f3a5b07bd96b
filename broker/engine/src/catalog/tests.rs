//! The catalog as a value: whatever is created and deleted, it fits together, and its rows say the same as it does.

use super::accounts::plan_commitment;
use super::consumers::{self, ConsumerUpdate, ConsumersOnDelete};
use super::row;
use super::settings::{Distribution, MetricSet, StreamMode, StreamSettings, StreamUpdate, Tags};
use super::state::{CatalogState, Change, Counters, ShardRow, StreamRow};
use super::streams::{plan_create, plan_delete};
use super::update::plan_update;
use crate::error::ErrorKind;
use crate::keys::KeyRing;
use crate::store::memory::MemoryStore;
use crate::store::{Store, Verdict};
use crate::stream::StreamSpec;
use proptest::prelude::*;
use std::collections::HashSet;
use tidemill_types::limits::{POLICY_BYTES_MAX, TAGS_MAX};
use tidemill_types::{
    AccountId, ConsumerName, SequenceIndex, ShardId, ShardState, StreamIncarnation, StreamKey, StreamName,
    TimestampMs,
};

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
    assert_eq!(
        plan_delete(&state, &name(9), ConsumersOnDelete::Remove).unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[test]
fn while_the_clock_is_in_doubt_a_change_of_the_retention_lets_go_of_nothing_more() {
    let mut state = CatalogState::default();
    create(&mut state, 0, 1);
    let mut change = |update, believed: bool| {
        let kept_since = |row: &StreamRow| believed.then(|| row.kept_since(NOW));
        let changes = plan_update(&state, &name(0), update, NOW, &kept_since, &KeyRing::default().now());
        changes.unwrap().into_iter().for_each(|change| state.apply(change));
        let row = state.stream(&name(0)).unwrap();
        (row.settings.retention_hours, row.kept_from)
    };
    let day_before = NOW.saturating_sub_ms(24 * 3_600_000);
    assert_eq!(change(StreamUpdate::IncreaseRetention(48), false), (48, TimestampMs::default()));
    assert_eq!(change(StreamUpdate::DecreaseRetention(24), false), (24, TimestampMs::default()));
    assert_eq!(change(StreamUpdate::IncreaseRetention(48), true), (48, day_before));
    assert_eq!(change(StreamUpdate::IncreaseRetention(72), false), (72, day_before));
    assert_eq!(change(StreamUpdate::DecreaseRetention(24), false), (24, day_before));
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

/// The consumers of a stream go in the batch that removes it, so one without a stream is no leftover of a crash.
#[test]
fn a_consumer_without_a_stream_is_told_as_damage() {
    let mut store = MemoryStore::default();
    let mut state = CatalogState::default();
    create(&mut state, 0, 1);
    let changes = consumers::plan_register(&state, &name(0), consumer(1), Tags::new(), NOW).unwrap();
    let empty = CatalogState::default();
    store.commit(&[row::batch(&empty, &changes, empty.counters())]).unwrap();
    let error = row::load(&store).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(error.to_string().contains("consumers"), "{error}");
}

#[test]
fn a_catalog_with_a_hole_is_told_as_damaged() {
    let mut store = MemoryStore::default();
    let changes = plan_create(&CatalogState::default(), &name(0), &spec(3), NOW, 10).unwrap();
    let batch = row::batch(&CatalogState::default(), &changes[..4], CatalogState::default().counters());
    store.commit(&[batch]).unwrap();
    assert_eq!(row::load(&store).unwrap_err().kind(), ErrorKind::Damaged);
}

/// One verb of a random run.
#[derive(Debug, Clone)]
enum Verb {
    Create(u8, StreamSpec),
    Delete(u8, ConsumersOnDelete),
    Update(u8, StreamUpdate),
    Register(u8, u8, Tags),
    UpdateConsumer(u8, u8, ConsumerUpdate),
    Deregister(u8, u8),
    Commit(bool),
    /// Time goes on.
    Wait(u64),
    /// The state is thrown away and loaded.
    Reopen,
}

fn consumer(n: u8) -> ConsumerName {
    ConsumerName::new(&format!("consumer-{n}")).unwrap()
}

fn tags() -> impl Strategy<Value = Tags> {
    let text = prop_oneof![9 => "[a-z]{1,3}", 1 => Just("é:日 本".to_owned()), 1 => Just("<".to_owned())];
    prop::collection::btree_map(text, "[a-z ]{0,3}", 0..30)
}

fn policy() -> impl Strategy<Value = Option<String>> {
    prop::option::of(prop_oneof![Just("{}".to_owned()), Just("x".repeat(POLICY_BYTES_MAX + 1))])
}

fn settings() -> impl Strategy<Value = StreamSettings> {
    let modes = prop_oneof![Just(StreamMode::Provisioned), Just(StreamMode::OnDemand)];
    let distributions = prop_oneof![3 => Just(Distribution::PartitionKey), 1 => Just(Distribution::Auto)];
    let warm = prop_oneof![3 => Just(None), 1 => (0u32..12_000).prop_map(Some)];
    (modes, distributions, warm, 20u32..100, tags(), policy()).prop_map(
        |(mode, distribution, warm_mibps, retention_hours, tags, policy)| StreamSettings {
            retention_hours,
            mode,
            distribution,
            warm_mibps,
            tags,
            policy,
            ..StreamSettings::default()
        },
    )
}

fn update() -> impl Strategy<Value = StreamUpdate> {
    prop_oneof![
        (20u32..100).prop_map(StreamUpdate::IncreaseRetention),
        (20u32..100).prop_map(StreamUpdate::DecreaseRetention),
        (settings(), any::<bool>()).prop_map(|(settings, warm)| {
            StreamUpdate::Mode { mode: settings.mode, warm_mibps: settings.warm_mibps.filter(|_| warm) }
        }),
        (1000u32..11_000).prop_map(StreamUpdate::RecordLimit),
        settings().prop_map(|settings| StreamUpdate::Distribution(settings.distribution)),
        (0u32..12_000).prop_map(StreamUpdate::WarmThroughput),
        (0u8..0x80).prop_map(|bits| StreamUpdate::EnableMonitoring(MetricSet::from_bits(bits).unwrap())),
        (0u8..0x80).prop_map(|bits| StreamUpdate::DisableMonitoring(MetricSet::from_bits(bits).unwrap())),
        tags().prop_map(StreamUpdate::Tag),
        tags().prop_map(|tags| StreamUpdate::Untag(tags.into_keys().collect())),
        policy().prop_map(StreamUpdate::Policy),
    ]
}

fn verb() -> impl Strategy<Value = Verb> {
    let on_delete = prop_oneof![Just(ConsumersOnDelete::Refuse), Just(ConsumersOnDelete::Remove)];
    let consumer_update = prop_oneof![
        tags().prop_map(ConsumerUpdate::Tag),
        tags().prop_map(|tags| ConsumerUpdate::Untag(tags.into_keys().collect())),
        policy().prop_map(ConsumerUpdate::Policy),
    ];
    prop_oneof![
        3 => (0u8..4, 1u32..5).prop_map(|(stream, shards)| Verb::Create(stream, spec(shards))),
        1 => (0u8..4, settings())
            .prop_map(|(stream, settings)| Verb::Create(stream, StreamSpec { shard_count: 1, settings })),
        2 => (0u8..4, on_delete).prop_map(|(stream, on_delete)| Verb::Delete(stream, on_delete)),
        6 => (0u8..4, update()).prop_map(|(stream, update)| Verb::Update(stream, update)),
        4 => (0u8..4, 0u8..30, tags()).prop_map(|(stream, name, tags)| Verb::Register(stream, name, tags)),
        2 => (0u8..4, 0u8..30, consumer_update).prop_map(|(s, name, update)| Verb::UpdateConsumer(s, name, update)),
        2 => (0u8..4, 0u8..30).prop_map(|(stream, name)| Verb::Deregister(stream, name)),
        1 => any::<bool>().prop_map(Verb::Commit),
        2 => (0u64..100 * 3_600_000).prop_map(Verb::Wait),
        1 => Just(Verb::Reopen),
    ]
}

/// A catalog over a store in memory, moved by plans alone.
struct Run {
    store: MemoryStore,
    state: CatalogState,
    stored: Counters,
    now: TimestampMs,
    incarnations: HashSet<StreamIncarnation>,
    logs: HashSet<tidemill_storage::LogId>,
    /// Stream, consumer and second of every consumer there ever was: what its ARN says.
    arns: HashSet<(StreamKey, ConsumerName, u64)>,
}

impl Run {
    fn new() -> Self {
        let state = CatalogState::default();
        let stored = state.counters();
        let (incarnations, logs, arns) = Default::default();
        Self { store: MemoryStore::default(), state, stored, now: NOW, incarnations, logs, arns }
    }

    fn plan(&self, verb: &Verb) -> crate::error::Result<Vec<Change>> {
        let (state, now) = (&self.state, self.now);
        match verb.clone() {
            Verb::Create(stream, spec) => plan_create(state, &name(stream), &spec, now, 1000),
            Verb::Delete(stream, on_delete) => plan_delete(state, &name(stream), on_delete),
            Verb::Update(stream, update) => {
                let kept_since = |row: &StreamRow| Some(row.kept_since(now));
                plan_update(state, &name(stream), update, now, &kept_since, &KeyRing::default().now())
            }
            Verb::Register(stream, n, tags) => {
                consumers::plan_register(state, &name(stream), consumer(n), tags, now)
            }
            Verb::UpdateConsumer(stream, n, update) => {
                consumers::plan_update(state, &name(stream), &consumer(n), update)
            }
            Verb::Deregister(stream, n) => consumers::plan_deregister(state, &name(stream), &consumer(n)),
            Verb::Commit(enabled) => Ok(plan_commitment(state, &name(0).account, enabled, now)),
            Verb::Wait(_) | Verb::Reopen => Ok(Vec::new()),
        }
    }

    fn note_new(&mut self, verb: &Verb, changes: &[Change]) -> Result<(), TestCaseError> {
        for change in changes {
            match (verb, change) {
                (Verb::Create(..), Change::Stream(row)) => {
                    prop_assert!(self.incarnations.insert(row.incarnation), "an incarnation came twice");
                }
                (_, Change::Shard(_, row)) => prop_assert!(self.logs.insert(row.log), "a log came twice"),
                (Verb::Register(stream, ..), Change::Consumer(_, made)) => {
                    let arn = (name(*stream), made.name.clone(), made.created.seconds());
                    prop_assert!(self.arns.insert(arn), "an ARN came twice");
                }
                (Verb::Update(stream, _), Change::Stream(row)) => {
                    let before = self.state.stream(&name(*stream)).unwrap();
                    prop_assert!(
                        row.kept_since(self.now) >= before.kept_since(self.now),
                        "records come back"
                    );
                    prop_assert!(row.settings.tags.len() <= TAGS_MAX);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn step(&mut self, verb: &Verb) -> Result<(), TestCaseError> {
        match verb {
            Verb::Wait(ms) => self.now = TimestampMs::new(self.now.get() + ms),
            Verb::Reopen => {
                let loaded = row::load(&self.store).unwrap();
                prop_assert_eq!(&loaded, &self.state);
                self.state = loaded;
            }
            _ => {}
        }
        let Ok(changes) = self.plan(verb) else { return Ok(()) };
        if changes.is_empty() {
            return Ok(());
        }
        self.note_new(verb, &changes)?;
        let verdicts = self.store.commit(&[row::batch(&self.state, &changes, self.stored)]).unwrap();
        prop_assert_eq!(verdicts, [Verdict::Done]);
        changes.into_iter().for_each(|change| self.state.apply(change));
        self.stored = self.state.counters();
        prop_assert!(self.state.check().is_ok());
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn whatever_verbs_come_the_rows_say_what_the_state_says_and_nothing_is_given_out_twice(
        verbs in prop::collection::vec(verb(), 1..60),
    ) {
        let mut run = Run::new();
        for verb in &verbs {
            run.step(verb)?;
        }
        run.step(&Verb::Reopen)?;
        // without streams nothing is left but what the accounts keep
        for stream in 0..4 {
            run.step(&Verb::Delete(stream, ConsumersOnDelete::Remove))?;
        }
        prop_assert!(run.store.scan(b"consumer/").unwrap().is_empty());
        prop_assert!(run.store.scan(b"catalog/stream/").unwrap().is_empty());
        prop_assert!(run.store.scan(b"catalog/shard/").unwrap().is_empty());
        run.step(&Verb::Reopen)?;
    }
}
