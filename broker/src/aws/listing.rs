//! Which shards a listing shows: pure selection over the shards of a stream.
//!
//! A shard covers its hash range from the millisecond in which it was made to the last before its children were. So at
//! every instant the covering shards tile the hash space exactly once, which is what the KCL demands of the `AT_…`
//! filters. Shards that ended before the time from which records are kept have expired: no filter shows them, whether
//! the engine has let go of them yet or not.

use std::collections::HashSet;
use tidemill_types::{Shard, ShardId, ShardState, TimestampMs};

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

/// Of `shards`, those that `filter` shows, in the order given. `kept_since` is the time from which records are kept.
pub(crate) fn select(shards: Vec<Shard>, filter: ShardFilter, kept_since: TimestampMs) -> Vec<Shard> {
    let first = shards.iter().map(|shard| shard.created).min().unwrap_or(kept_since);
    // before its children were made a shard covered their range that has left, by a clock that was believed then
    let ids: HashSet<ShardId> = shards.iter().map(|shard| shard.id).collect();
    let is_orphan = |shard: &&Shard| !shard.parents().all(|parent| ids.contains(&parent));
    let whole_from = shards.iter().filter(is_orphan).map(|shard| shard.created).max().unwrap_or(first);
    let horizon = kept_since.max(first).max(whole_from);
    let ended_before = |shard: &Shard, time: TimestampMs| matches!(shard.state, ShardState::Closed { closed, .. } if closed < time);
    let covers = |shard: &Shard, time: TimestampMs| shard.created <= time && !ended_before(shard, time);
    let shown = |shard: &Shard| match filter {
        ShardFilter::FromTrimHorizon => true,
        ShardFilter::AtTrimHorizon => covers(shard, horizon),
        ShardFilter::AtLatest => shard.is_open(),
        ShardFilter::AtTimestamp(time) => covers(shard, time.max(horizon)),
        ShardFilter::FromTimestamp(time) => !ended_before(shard, time),
        ShardFilter::AfterShardId(after) => shard.id > after,
    };
    shards.into_iter().filter(|shard| !ended_before(shard, kept_since) && shown(shard)).collect()
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
    use tidemill_types::{HashKey, HashKeyRange, SequenceIndex};

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
            shard(0, &[], range(0, HALF - 1), 1_000, Some(10_999)),
            shard(1, &[], range(HALF, u128::MAX), 1_000, None),
            shard(2, &[0], range(0, 99), 11_000, Some(20_999)),
            shard(3, &[0], range(100, HALF - 1), 11_000, Some(20_999)),
            shard(4, &[2, 3], range(0, HALF - 1), 21_000, None),
        ]
    }

    fn ids(filter: ShardFilter, kept_since: u64) -> Vec<u32> {
        let shown = select(history(), filter, TimestampMs::new(kept_since));
        shown.iter().map(|shard| shard.id.get()).collect()
    }

    #[test]
    fn filters_show_the_shards_of_their_time() {
        let at = |ms| ShardFilter::AtTimestamp(TimestampMs::new(ms));
        let from = |ms| ShardFilter::FromTimestamp(TimestampMs::new(ms));
        assert_eq!(ids(ShardFilter::FromTrimHorizon, 0), [0, 1, 2, 3, 4]);
        assert_eq!(ids(ShardFilter::AtTrimHorizon, 0), [0, 1]);
        assert_eq!(ids(ShardFilter::AtLatest, 0), [1, 4]);
        assert_eq!(ids(at(0), 0), [0, 1]);
        assert_eq!(ids(at(10_500), 0), [0, 1]);
        assert_eq!(ids(at(11_000), 0), [1, 2, 3]);
        assert_eq!(ids(at(29_000), 0), [1, 4]);
        assert_eq!(ids(from(11_000), 0), [1, 2, 3, 4]);
        assert_eq!(ids(from(0), 0), [0, 1, 2, 3, 4]);
        assert_eq!(ids(ShardFilter::AfterShardId(ShardId::new(2).unwrap()), 0), [3, 4]);
    }

    #[test]
    fn expired_shards_are_shown_by_no_filter() {
        let kept_since = 12_000;
        assert_eq!(ids(ShardFilter::FromTrimHorizon, 10_999), [0, 1, 2, 3, 4]);
        assert_eq!(ids(ShardFilter::FromTrimHorizon, 11_000), [1, 2, 3, 4]);
        assert_eq!(ids(ShardFilter::AtTrimHorizon, kept_since), [1, 2, 3]);
        assert_eq!(ids(ShardFilter::FromTimestamp(TimestampMs::new(0)), kept_since), [1, 2, 3, 4]);
        assert_eq!(ids(ShardFilter::FromTrimHorizon, 30_000), [1, 4]);
    }

    #[test]
    fn at_every_instant_the_shards_shown_tile_the_hash_space() {
        for ms in (0..40_000).step_by(50).flat_map(|ms| [ms, ms + 1, ms + 49]) {
            for kept_since in [0, ms] {
                for filter in [ShardFilter::AtTimestamp(TimestampMs::new(ms)), ShardFilter::AtTrimHorizon] {
                    // also when the engine has let go of what expired, and when the clock has come into doubt since
                    let mut shards = history();
                    shards.retain(|shard| ids(ShardFilter::FromTrimHorizon, ms).contains(&shard.id.get()));
                    let mut shown = select(shards, filter, TimestampMs::new(kept_since));
                    shown.sort_by_key(|shard| shard.range.start());
                    assert_eq!(shown[0].range.start(), HashKey::MIN, "{filter:?} at {ms}");
                    assert_eq!(shown[shown.len() - 1].range.end(), HashKey::MAX, "{filter:?} at {ms}");
                    let tiled = shown.windows(2).all(|two| two[0].range.touches(two[1].range));
                    assert!(tiled, "{filter:?} at {ms}");
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
