//! Which shards a listing shows: pure selection over the shards of a stream.
//!
//! A shard covers its hash range from the moment it was made to the moment its first child was made. So at every
//! instant the covering shards tile the hash space exactly once, which is what the KCL demands of the `AT_…` filters.

use std::collections::HashMap;
use tidemill_engine::StreamInfo;
use tidemill_types::{Shard, ShardId, ShardState, TimestampMs};

const HOUR_MS: u64 = 60 * 60 * 1000;

/// Which shards ListShards shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ShardFilter {
    /// Every shard that still may hold records.
    FromTrimHorizon,
    /// Those that were open at the oldest record kept.
    AtTrimHorizon,
    /// Those that are open.
    AtLatest,
    /// Those that were open at this time.
    AtTimestamp(TimestampMs),
    /// Those that were open at this time, and all later ones.
    FromTimestamp(TimestampMs),
    /// Those with a higher number than this one.
    AfterShardId(ShardId),
}

impl ShardFilter {
    /// Its number in page tokens, never used again for another meaning, and its argument.
    pub(crate) fn to_stored(self) -> (u8, u64) {
        match self {
            Self::FromTrimHorizon => (0, 0),
            Self::AtTrimHorizon => (1, 0),
            Self::AtLatest => (2, 0),
            Self::AtTimestamp(time) => (3, time.get()),
            Self::FromTimestamp(time) => (4, time.get()),
            Self::AfterShardId(shard) => (5, shard.get().into()),
        }
    }
    /// The filter of that number.
    pub(crate) fn from_stored(stored: u8, argument: u64) -> Option<Self> {
        Some(match stored {
            0 => Self::FromTrimHorizon,
            1 => Self::AtTrimHorizon,
            2 => Self::AtLatest,
            3 => Self::AtTimestamp(TimestampMs::new(argument)),
            4 => Self::FromTimestamp(TimestampMs::new(argument)),
            5 => Self::AfterShardId(ShardId::new(u32::try_from(argument).ok()?).ok()?),
            _ => return None,
        })
    }
}

/// The shards of `stream` that `filter` shows at the time `now`, in the order given.
pub(crate) fn select(
    stream: &StreamInfo,
    shards: Vec<Shard>,
    filter: ShardFilter,
    now: TimestampMs,
) -> Vec<Shard> {
    let horizon = now.saturating_sub_ms(u64::from(stream.settings.retention_hours) * HOUR_MS).max(stream.created);
    let first = shards.iter().map(|shard| shard.created).min().unwrap_or(stream.created);
    let mut ends: HashMap<ShardId, TimestampMs> = HashMap::new();
    for child in &shards {
        for parent in child.parents() {
            ends.entry(parent).and_modify(|end| *end = child.created.min(*end)).or_insert(child.created);
        }
    }
    // whether a shard covers any moment from `time` on; open ones always do
    let lasts_past = |shard: &Shard, time: TimestampMs| match shard.state {
        ShardState::Open => true,
        ShardState::Closed { closed, .. } => ends.get(&shard.id).copied().unwrap_or(closed) > time,
    };
    let covers = |shard: &Shard, time: TimestampMs| shard.created <= time && lasts_past(shard, time);
    let shown = |shard: &Shard| match filter {
        ShardFilter::FromTrimHorizon => true,
        ShardFilter::AtTrimHorizon => covers(shard, horizon.max(first)),
        ShardFilter::AtLatest => shard.is_open(),
        ShardFilter::AtTimestamp(time) => covers(shard, time.max(horizon).max(first)),
        ShardFilter::FromTimestamp(time) => lasts_past(shard, time.max(horizon)),
        ShardFilter::AfterShardId(after) => shard.id > after,
    };
    let keep = |shard: &Shard| lasts_past(shard, horizon) && shown(shard);
    let keep: Vec<bool> = shards.iter().map(keep).collect();
    shards.into_iter().zip(keep).filter_map(|(shard, keep)| keep.then_some(shard)).collect()
}

/// At most `limit` of `items`, and whether there were more.
pub(crate) fn cut<T>(mut items: Vec<T>, limit: usize) -> (Vec<T>, bool) {
    let more = items.len() > limit;
    items.truncate(limit);
    (items, more)
}

/// The page size asked for, or `most` when none or a larger one was.
pub(crate) fn page_size(asked: Option<i32>, most: usize) -> usize {
    asked.and_then(|n| usize::try_from(n).ok()).map_or(most, |n| n.min(most))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_engine::StreamSettings;
    use tidemill_types::{AccountId, HashKey, HashKeyRange, SequenceIndex, StreamIncarnation, StreamKey, StreamName};

    const DAY_MS: u64 = 24 * HOUR_MS;

    fn range(from: u128, to: u128) -> HashKeyRange {
        HashKeyRange::new(HashKey::new(from), HashKey::new(to)).unwrap()
    }

    fn shard(id: u32, parents: &[u32], range: HashKeyRange, created: u64, closed: Option<u64>) -> Shard {
        let mut parents = parents.iter().map(|id| ShardId::new(*id).unwrap());
        let closed =
            closed.map(|at| ShardState::Closed { ending: SequenceIndex::MAX, closed: TimestampMs::new(at) });
        Shard {
            id: ShardId::new(id).unwrap(),
            parent: parents.next(),
            adjacent_parent: parents.next(),
            range,
            created: TimestampMs::new(created),
            state: closed.unwrap_or(ShardState::Open),
        }
    }

    /// Two shards; the first split at 10,000 ms, its halves merged at 20,000 ms.
    fn history() -> Vec<Shard> {
        const HALF: u128 = 1 << 127;
        vec![
            shard(0, &[], range(0, HALF - 1), 1_000, Some(10_000)),
            shard(1, &[], range(HALF, u128::MAX), 1_000, None),
            shard(2, &[0], range(0, 99), 11_000, Some(20_500)),
            shard(3, &[0], range(100, HALF - 1), 11_000, Some(20_500)),
            shard(4, &[2, 3], range(0, HALF - 1), 21_000, None),
        ]
    }

    fn stream() -> StreamInfo {
        StreamInfo {
            key: StreamKey::new(AccountId::new("000000000000").unwrap(), StreamName::new("s").unwrap()),
            incarnation: StreamIncarnation::new(1),
            created: TimestampMs::new(900),
            open_shards: 2,
            consumers: 0,
            settings: StreamSettings::default(),
        }
    }

    fn ids(filter: ShardFilter, now: u64) -> Vec<u32> {
        select(&stream(), history(), filter, TimestampMs::new(now))
            .iter()
            .map(|shard| shard.id.get())
            .collect()
    }

    #[test]
    fn filters_show_the_shards_of_their_time() {
        let at = |ms| ShardFilter::AtTimestamp(TimestampMs::new(ms));
        let from = |ms| ShardFilter::FromTimestamp(TimestampMs::new(ms));
        assert_eq!(ids(ShardFilter::FromTrimHorizon, 30_000), [0, 1, 2, 3, 4]);
        assert_eq!(ids(ShardFilter::AtTrimHorizon, 30_000), [0, 1]);
        assert_eq!(ids(ShardFilter::AtLatest, 30_000), [1, 4]);
        assert_eq!(ids(at(0), 30_000), [0, 1]);
        assert_eq!(ids(at(10_500), 30_000), [0, 1]);
        assert_eq!(ids(at(11_000), 30_000), [1, 2, 3]);
        assert_eq!(ids(at(29_000), 30_000), [1, 4]);
        assert_eq!(ids(from(11_000), 30_000), [1, 2, 3, 4]);
        assert_eq!(ids(from(0), 30_000), [0, 1, 2, 3, 4]);
        assert_eq!(ids(ShardFilter::AfterShardId(ShardId::new(2).unwrap()), 30_000), [3, 4]);
    }

    #[test]
    fn expired_shards_are_shown_by_no_filter() {
        let later = DAY_MS + 12_000;
        assert_eq!(ids(ShardFilter::FromTrimHorizon, later), [1, 2, 3, 4]);
        assert_eq!(ids(ShardFilter::AtTrimHorizon, later), [1, 2, 3]);
        assert_eq!(ids(ShardFilter::FromTimestamp(TimestampMs::new(0)), later), [1, 2, 3, 4]);
        assert_eq!(ids(ShardFilter::FromTrimHorizon, 2 * DAY_MS), [1, 4]);
    }

    #[test]
    fn at_every_instant_the_shards_shown_tile_the_hash_space() {
        for ms in (0..40_000).step_by(250) {
            for now in [40_000, DAY_MS + ms] {
                for filter in [ShardFilter::AtTimestamp(TimestampMs::new(ms)), ShardFilter::AtTrimHorizon] {
                    let mut shown = select(&stream(), history(), filter, TimestampMs::new(now));
                    shown.sort_by_key(|shard| shard.range.start());
                    assert_eq!(shown[0].range.start(), HashKey::MIN, "{filter:?} at {now}");
                    assert_eq!(shown[shown.len() - 1].range.end(), HashKey::MAX, "{filter:?} at {now}");
                    assert!(
                        shown.windows(2).all(|two| two[0].range.touches(two[1].range)),
                        "{filter:?} at {now}"
                    );
                }
            }
        }
    }

    #[test]
    fn pages_are_capped() {
        assert_eq!(cut(vec![1, 2, 3], 2), (vec![1, 2], true));
        assert_eq!(cut(vec![1, 2], 2), (vec![1, 2], false));
        assert_eq!(
            (page_size(None, 100), page_size(Some(7), 100), page_size(Some(10_000), 100)),
            (100, 7, 100)
        );
    }
}
