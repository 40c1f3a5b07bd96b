//! Plans against their laws, intents against crashes.

use super::expiry::passed;
use super::{Child, Reshard, plan, row as intent_row};
use crate::catalog::row;
use crate::catalog::settings::{StreamMode, StreamSettings};
use crate::catalog::state::{CatalogState, Change, Counters, StreamRow};
use crate::catalog::streams::plan_create;
use crate::error::{ErrorKind, Result};
use crate::store::memory::MemoryStore;
use crate::store::{Store, Verdict};
use crate::stream::StreamSpec;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use tidemill_types::{
    AccountId, HashKey, HashKeyRange, SequenceIndex, Shard, ShardId, ShardState, StreamKey, StreamName,
    TimestampMs,
};

const NOW: TimestampMs = TimestampMs::new(1_700_000_000_400);
const SHARDS_MAX: u32 = 100_000;

fn key() -> StreamKey {
    StreamKey::new(AccountId::new("000000000000").unwrap(), StreamName::new("s").unwrap())
}

fn id(id: u32) -> ShardId {
    ShardId::new(id).unwrap()
}

/// A catalog with one stream, written through to a store.
struct Model {
    store: MemoryStore,
    state: CatalogState,
    stored: Counters,
    now: TimestampMs,
    ids: BTreeSet<ShardId>,
    logs: HashSet<u64>,
    /// Shards of earlier times may have expired.
    complete_from: TimestampMs,
}

impl Model {
    fn new(shard_count: u32) -> Self {
        Self::with(&StreamSpec { shard_count, ..StreamSpec::default() })
    }
    fn with(spec: &StreamSpec) -> Self {
        let state = CatalogState::default();
        let stored = state.counters();
        let (store, ids, logs) = (MemoryStore::default(), BTreeSet::new(), HashSet::new());
        let mut model = Self { store, state, stored, now: NOW, ids, logs, complete_from: NOW };
        let changes = plan_create(&model.state, &key(), spec, NOW, SHARDS_MAX).unwrap();
        model.commit(changes);
        for row in model.state.shards(model.stream().incarnation) {
            model.ids.insert(row.shard.id);
            model.logs.insert(row.log.get());
        }
        model
    }
    fn stream(&self) -> &StreamRow {
        self.state.stream(&key()).unwrap()
    }
    fn commit(&mut self, changes: Vec<Change>) {
        let verdicts = self.store.commit(&[row::batch(&self.state, &changes, self.stored)]).unwrap();
        assert_eq!(verdicts, [Verdict::Done]);
        changes.into_iter().for_each(|change| self.state.apply(change));
        self.stored = self.state.counters();
        assert_eq!(row::load(&self.store).unwrap(), self.state, "what is stored is what is known");
    }
    fn open(&self) -> Vec<Shard> {
        self.state.map(self.stream()).unwrap().open().to_vec()
    }
    fn shards(&self) -> Vec<Shard> {
        self.state.shards(self.stream().incarnation).map(|row| row.shard.clone()).collect()
    }
    /// Intent, then the end of it, as the owner does it; checks the laws.
    fn reshard(&mut self, planned: Result<Reshard>) -> Result<Reshard> {
        let reshard = planned?;
        let before = self.open();
        let changes = plan::intend(&self.state, &key(), reshard.clone(), SHARDS_MAX)?;
        self.commit(changes);
        assert_eq!(self.open(), before, "an intent changes nothing yet");
        let endings =
            (0..).zip(&reshard.parents).map(|(n, id)| (*id, SequenceIndex::new(n + 7).unwrap())).collect();
        let version = self.stream().map_version;
        let changes = reshard.finish(&self.state, self.stream(), &endings, self.now).unwrap();
        self.commit(changes);
        assert_eq!(self.stream().map_version, version.next());
        assert!(self.state.reshard(self.stream().incarnation).is_none());
        self.check(&reshard, &endings);
        Ok(reshard)
    }
    fn check(&mut self, reshard: &Reshard, endings: &BTreeMap<ShardId, SequenceIndex>) {
        self.state.check().unwrap();
        for child in &reshard.children {
            assert!(self.ids.iter().all(|used| child.id > *used), "{} came twice", child.id);
            self.ids.insert(child.id);
            assert!(self.logs.insert(child.log.get()), "a log came twice");
        }
        let shards = self.shards();
        let by_id: BTreeMap<ShardId, &Shard> = shards.iter().map(|shard| (shard.id, shard)).collect();
        for shard in &shards {
            assert!(shard.ending_number().is_none_or(|ending| ending >= shard.starting_number()));
            let parents: Vec<&&Shard> = shard.parents().filter_map(|id| by_id.get(&id)).collect();
            for parent in &parents {
                assert!(shard.id > parent.id);
                assert!(
                    shard.starting_number() > parent.ending_number().unwrap(),
                    "{parent:?} then {shard:?}"
                );
                let within = |key| parent.range.contains(key);
                assert!(within(shard.range.start()) || within(shard.range.end()));
            }
        }
        for (id, ending) in endings {
            assert!(matches!(by_id[id].state, ShardState::Closed { ending: told, .. } if told == *ending));
        }
        let times =
            shards.iter().flat_map(|shard| (0..3).map(|ms| TimestampMs::new(shard.created.get() - 1 + ms)));
        let times: BTreeSet<TimestampMs> = times.filter(|time| *time >= self.complete_from).collect();
        times.into_iter().for_each(|time| Self::check_tiles_at(&shards, time));
    }
    /// The shards that were there then tile the hash space.
    fn check_tiles_at(shards: &[Shard], time: TimestampMs) {
        let there = |shard: &&Shard| {
            let ended = matches!(shard.state, ShardState::Closed { closed, .. } if closed < time);
            shard.created <= time && !ended
        };
        let mut ranges: Vec<HashKeyRange> = shards.iter().filter(there).map(|shard| shard.range).collect();
        ranges.sort_by_key(|range| range.start());
        assert_eq!(ranges.first().map(|range| range.start()), Some(HashKey::MIN), "at {time}");
        assert_eq!(ranges.last().map(|range| range.end()), Some(HashKey::MAX), "at {time}");
        assert!(ranges.windows(2).all(|pair| pair[0].touches(pair[1])), "at {time}");
    }
    fn scale(&mut self, target: u32) -> Reshard {
        self.reshard(plan::scale(&self.state, &key(), target)).unwrap()
    }
    /// The longest line from a shard that was there before to one of the new ones.
    fn generations(reshard: &Reshard) -> u32 {
        let mut depth: BTreeMap<ShardId, u32> = BTreeMap::new();
        for child in &reshard.children {
            let of_parents = child.parents().map(|parent| depth.get(&parent).copied().unwrap_or(0)).max();
            depth.insert(child.id, of_parents.unwrap_or(0) + 1);
        }
        depth.into_values().max().unwrap_or(0)
    }
}

fn ranges(shards: &[Shard]) -> Vec<HashKeyRange> {
    shards.iter().map(|shard| shard.range).collect()
}

#[test]
fn a_split_and_a_merge_answer_in_the_words_of_kinesis() {
    let mut model = Model::new(2);
    let [first, second] = model.open().try_into().unwrap();
    let told = |planned: Result<Reshard>, kind| {
        let error = planned.unwrap_err();
        assert_eq!(error.kind(), kind);
        error.to_string()
    };
    let split = |model: &Model, shard, at| plan::split(&model.state, &key(), shard, HashKey::new(at));
    let end = first.range.end().get();
    for at in [0, 1, end, end + 1] {
        let message = told(split(&model, first.id, at), ErrorKind::Invalid);
        let expected = format!(
            "NewStartingHashKey {at} used in SplitShard() on shard shardId-000000000000 in stream s under account \
             000000000000 is not both greater than one plus the shard's StartingHashKey 0 and less than the shard's \
             EndingHashKey {end}."
        );
        assert_eq!(message, expected);
    }
    split(&model, first.id, 2).unwrap();
    split(&model, first.id, end - 1).unwrap();
    let reversed = told(plan::merge(&model.state, &key(), second.id, first.id), ErrorKind::Invalid);
    assert_eq!(
        reversed,
        "Shards shardId-000000000001 and shardId-000000000000 in stream s under account 000000000000 are not an \
         adjacent pair of shards eligible for merging"
    );
    assert_eq!(
        told(split(&model, id(9), 2), ErrorKind::NotFound),
        "Could not find shard shardId-000000000009 in stream s under account 000000000000."
    );

    model.reshard(split(&model, first.id, 1 << 100)).unwrap();
    let closed = "Shard shardId-000000000000 in stream s under account 000000000000 has already been merged or split, and \
                  thus is not eligible for merging or splitting.";
    assert_eq!(told(split(&model, first.id, 2), ErrorKind::Invalid), closed);
    assert_eq!(told(plan::merge(&model.state, &key(), first.id, second.id), ErrorKind::Invalid), closed);
    let [lower, upper, _] = model.open().try_into().unwrap();
    assert_eq!((lower.id, upper.id), (id(2), id(3)));
    assert_eq!(lower.range.end().get() + 1, 1 << 100);
    assert_eq!((lower.parent, upper.adjacent_parent), (Some(id(0)), None));
    model.reshard(plan::merge(&model.state, &key(), upper.id, second.id)).unwrap();
    let merged = model.open().pop().unwrap();
    assert_eq!((merged.parent, merged.adjacent_parent), (Some(id(3)), Some(id(1))));
}

#[test]
fn an_on_demand_stream_is_not_resharded_by_hand_and_limits_hold() {
    let settings = StreamSettings { mode: StreamMode::OnDemand, ..StreamSettings::default() };
    let model = Model::with(&StreamSpec { shard_count: 2, settings });
    let plans = [
        plan::split(&model.state, &key(), id(0), HashKey::new(9)),
        plan::merge(&model.state, &key(), id(0), id(1)),
        plan::scale(&model.state, &key(), 3),
    ];
    for planned in plans {
        let error = planned.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Precondition);
        assert_eq!(
            error.to_string(),
            "Request is invalid. Stream s under account 000000000000 is in On-Demand mode."
        );
    }
    let model = Model::new(2);
    for target in [0, 2, 10_001] {
        assert_eq!(plan::scale(&model.state, &key(), target).unwrap_err().kind(), ErrorKind::Invalid);
    }
    let reshard = plan::split(&model.state, &key(), id(0), HashKey::new(9)).unwrap();
    let error = plan::intend(&model.state, &key(), reshard.clone(), 2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Throttled);
    assert!(error.to_string().starts_with(
        "This request would exceed the shard limit of this broker. Current shard count of all accounts: 2. Limit: 2. Number of additional shards that would have resulted from this request: 1."
    ));
    plan::intend(&model.state, &key(), reshard, 3).unwrap();

    let mut model = Model::new(2);
    for target in [8, 1, 8, 1] {
        model.scale(target);
    }
    let merged = plan::scale(&model.state, &key(), 3).unwrap();
    let error = plan::intend(&model.state, &key(), merged.clone(), 9).unwrap_err();
    assert!(error.to_string().contains("are kept until their records have passed the retention"), "{error}");
    plan::intend(&model.state, &key(), merged, 20).unwrap();
    let other = StreamKey { name: StreamName::new("other").unwrap(), ..key() };
    let error = plan_create(&model.state, &other, &StreamSpec::default(), NOW, 9).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Throttled, "closed shards count for new streams too");
}

#[test]
fn scaling_leaves_alone_what_fits_and_its_generations_are_logarithmic() {
    let mut model = Model::new(4);
    let before = model.open();
    model.reshard(plan::split(&model.state, &key(), id(1), HashKey::new(1 << 126))).unwrap_err();
    model.reshard(plan::split(&model.state, &key(), id(1), HashKey::new((1 << 126) + (1 << 125)))).unwrap();
    let reshard = model.scale(4);
    assert_eq!(reshard.children.len(), 1, "the halves are merged again");
    assert_eq!(ranges(&model.open()), ranges(&before));
    assert_eq!(model.open()[0], before[0], "a shard that fits is not touched");

    let reshard = model.scale(1024);
    assert_eq!(Model::generations(&reshard), 8);
    assert_eq!(model.open().len(), 1024);
    let reshard = model.scale(1);
    assert_eq!(Model::generations(&reshard), 10);
    let reshard = model.scale(10_000);
    assert_eq!(Model::generations(&reshard), 14);
    let reshard = model.scale(9_999);
    assert!(Model::generations(&reshard) <= 2 + 1, "neighbours are cut once or twice and joined");
    assert_eq!(ranges(&model.open()), HashKeyRange::uniform(9_999));
}

#[test]
fn two_shards_become_three_over_their_least_common_cuts() {
    let mut model = Model::new(2);
    let reshard = model.scale(3);
    assert_eq!((reshard.parents.len(), reshard.children.len()), (2, 5), "two splits and a merge");
    assert_eq!(ranges(&model.open()), HashKeyRange::uniform(3));
    let merged = &model.open()[1];
    assert_eq!((merged.parent, merged.adjacent_parent), (Some(id(3)), Some(id(4))));
    let passed_through = model.shards().into_iter().find(|shard| shard.id == id(3)).unwrap();
    assert!(matches!(passed_through.state, ShardState::Closed { ending: SequenceIndex::ZERO, .. }));
}

#[test]
fn times_run_ahead_of_the_clock_rather_than_let_numbers_fall() {
    let mut model = Model::new(1);
    for round in 1..=5 {
        let open = model.open();
        let at = HashKey::new(open[0].range.end().get() / 2);
        model.reshard(plan::split(&model.state, &key(), open[0].id, at)).unwrap();
        assert_eq!(model.open()[0].created.seconds(), NOW.seconds() + round);
    }
    model.now = TimestampMs::new(NOW.get() + 3_600_000);
    let open = model.open();
    model.reshard(plan::merge(&model.state, &key(), open[0].id, open[1].id)).unwrap();
    assert_eq!(model.open()[0].created, model.now);
}

#[test]
fn an_expired_shard_goes_with_its_parents_or_after_them_and_only_when_empty() {
    let mut model = Model::new(1);
    model.reshard(plan::split(&model.state, &key(), id(0), HashKey::new(1 << 127))).unwrap();
    model.reshard(plan::merge(&model.state, &key(), id(1), id(2))).unwrap();
    let day = 24 * 3_600_000;
    let late = TimestampMs::new(NOW.get() + day + 60_000);
    let logs: BTreeMap<ShardId, _> =
        model.state.shards(model.stream().incarnation).map(|row| (row.shard.id, row.log)).collect();
    let going = |now, holding: &[u32]| {
        passed(&model.state, model.stream(), model.stream().kept_since(now), |log| {
            !holding.iter().any(|held| logs[&id(*held)] == log)
        })
    };
    assert_eq!(going(NOW, &[]), []);
    assert_eq!(going(TimestampMs::new(NOW.get() + day), &[]), []);
    assert_eq!(going(late, &[]), [id(0), id(1), id(2)]);
    assert_eq!(going(late, &[0]), [], "children stay as long as their parents");
    assert_eq!(going(late, &[1]), [id(0), id(2)]);
}

#[test]
fn an_intent_that_does_not_fit_the_catalog_is_told_as_damage_when_it_is_loaded() {
    let with = |change: fn(&mut Reshard)| {
        let mut model = Model::new(3);
        model.reshard(plan::split(&model.state, &key(), id(2), HashKey::new(u128::MAX / 6 * 5))).unwrap();
        let mut reshard = plan::merge(&model.state, &key(), id(0), id(1)).unwrap();
        let changes = plan::intend(&model.state, &key(), reshard.clone(), SHARDS_MAX).unwrap();
        model.commit(changes);
        change(&mut reshard);
        let changes = [Change::Reshard(model.stream().incarnation, reshard)];
        model.store.commit(&[row::batch(&model.state, &changes, model.stored)]).unwrap();
        row::load(&model.store)
    };
    with(|_| ()).unwrap();
    let wrong: [fn(&mut Reshard); 7] = [
        |reshard| reshard.parents[0] = id(77),
        |reshard| reshard.parents[0] = id(2),
        |reshard| reshard.children[0].id = id(4),
        |reshard| reshard.children[0].parent = id(77),
        |reshard| reshard.children[0].log = tidemill_storage::LogId::new(1),
        |reshard| reshard.children[0].log = tidemill_storage::LogId::new(1 << 40),
        |reshard| reshard.children[0].range = HashKeyRange::ALL,
    ];
    for (nth, wrong) in wrong.into_iter().enumerate() {
        assert_eq!(with(wrong).map(drop).unwrap_err().kind(), ErrorKind::Damaged, "the {nth}th");
    }
}

#[test]
fn an_intent_reads_as_it_was_written_and_a_cut_one_is_told() {
    let range = HashKeyRange::ALL;
    let log = tidemill_storage::LogId::new(77);
    let child = |n, adjacent_parent| Child { id: id(n), log, parent: id(1), adjacent_parent, range };
    let reshard =
        Reshard { parents: vec![id(0), id(1)], children: vec![child(2, None), child(3, Some(id(0)))] };
    let bytes = intent_row::encode(&reshard);
    assert_eq!(intent_row::decode(&bytes).unwrap(), reshard);
    for cut in 0..bytes.len() {
        assert_eq!(intent_row::decode(&bytes[..cut]).unwrap_err().kind(), ErrorKind::Damaged, "cut at {cut}");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Split { shard: usize, at: u128 },
    Merge { shard: usize },
    Scale { target: u32 },
    Wait { ms: u64 },
    Expire,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (any::<usize>(), any::<u128>()).prop_map(|(shard, at)| Step::Split { shard, at }),
        4 => any::<usize>().prop_map(|shard| Step::Merge { shard }),
        2 => (1u32..40).prop_map(|target| Step::Scale { target }),
        1 => (0u64..5_000).prop_map(|ms| Step::Wait { ms }),
        1 => Just(Step::Expire),
    ];
    prop::collection::vec(step, 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn whatever_is_split_merged_and_scaled_the_laws_hold(count in 1u32..12, steps in steps()) {
        let mut model = Model::new(count);
        for step in steps {
            let open = model.open();
            let planned = match step {
                Step::Split { shard, at } => {
                    let shard = &open[shard % open.len()];
                    let width = shard.range.end().get() - shard.range.start().get();
                    let at = shard.range.start().get() + if width == u128::MAX { at } else { at % (width + 1) };
                    plan::split(&model.state, &key(), shard.id, HashKey::new(at))
                }
                Step::Merge { shard } if open.len() > 1 => {
                    let shard = shard % (open.len() - 1);
                    plan::merge(&model.state, &key(), open[shard].id, open[shard + 1].id)
                }
                Step::Merge { .. } => continue,
                Step::Scale { target } => plan::scale(&model.state, &key(), target),
                Step::Wait { ms } => {
                    model.now = TimestampMs::new(model.now.get() + ms);
                    continue;
                }
                Step::Expire => {
                    let late = TimestampMs::new(model.now.get() + 25 * 3_600_000);
                    let going = passed(&model.state, model.stream(), model.stream().kept_since(late), |_| true);
                    let incarnation = model.stream().incarnation;
                    model.complete_from = model.shards().iter().map(|shard| shard.created).max().unwrap();
                    model.commit(going.into_iter().map(|id| Change::ShardGone(incarnation, id)).collect());
                    continue;
                }
            };
            let scaled = matches!(step, Step::Scale { .. });
            let done = model.reshard(planned);
            if let (true, Ok(_)) = (scaled, &done) {
                let open = ranges(&model.open());
                prop_assert_eq!(&open, &HashKeyRange::uniform(open.len() as u32));
            }
            if let Err(error) = done {
                prop_assert_eq!(error.kind(), ErrorKind::Invalid);
            }
        }
    }
}
