//! The open shards of a stream at one version: who takes a hash key. Used by the engine and by producers alike.

use crate::error::{Error, Result};
use crate::hash_key::HashKey;
use crate::shard::Shard;
use std::fmt;

/// Counts the changes of a stream's shards: a map of a lower version is stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ShardMapVersion(u64);

impl ShardMapVersion {
    /// From the number.
    pub const fn new(value: u64) -> Self {
        Self(value)
    }
    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
    /// The version after this one.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for ShardMapVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The open shards of a stream; their ranges tile the hash space, always. Immutable: a change makes a new map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardMap {
    version: ShardMapVersion,
    open: Vec<Shard>,
}

impl ShardMap {
    /// From the open shards among `shards`, in any order; an error unless their ranges tile the hash space.
    pub fn new(version: ShardMapVersion, shards: impl IntoIterator<Item = Shard>) -> Result<Self> {
        let mut open: Vec<Shard> = shards.into_iter().filter(Shard::is_open).collect();
        open.sort_by_key(|shard| shard.range.start());
        let tiles = open.first().is_some_and(|s| s.range.start() == HashKey::MIN)
            && open.last().is_some_and(|s| s.range.end() == HashKey::MAX)
            && open.windows(2).all(|pair| pair[0].range.touches(pair[1].range));
        if !tiles {
            return Err(Error::new(format!("the {} open shards do not tile the hash space", open.len())));
        }
        Ok(Self { version, open })
    }
    /// The version.
    pub const fn version(&self) -> ShardMapVersion {
        self.version
    }
    /// The open shards, by hash range.
    pub fn open(&self) -> &[Shard] {
        &self.open
    }
    /// The place within [`ShardMap::open`] of the shard that holds `key`.
    pub fn route_slot(&self, key: HashKey) -> usize {
        self.open.partition_point(|shard| shard.range.end() < key)
    }
    /// The shard that holds `key`.
    pub fn route(&self, key: HashKey) -> &Shard {
        &self.open[self.route_slot(key)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash_key::HashKeyRange;
    use crate::shard::{ShardId, ShardState};
    use crate::time::TimestampMs;
    use proptest::prelude::*;

    fn shards(count: u32) -> Vec<Shard> {
        let made = |(id, range)| Shard {
            id: ShardId::new(id).unwrap(),
            parent: None,
            adjacent_parent: None,
            range,
            created: TimestampMs::new(0),
            state: ShardState::Open,
        };
        (0..).zip(HashKeyRange::uniform(count)).map(made).collect()
    }

    #[test]
    fn a_map_with_a_hole_is_refused() {
        let mut all = shards(3);
        all.remove(1);
        assert!(ShardMap::new(ShardMapVersion::default(), all).is_err());
        assert!(ShardMap::new(ShardMapVersion::default(), []).is_err());
    }

    proptest! {
        #[test]
        fn a_key_goes_to_the_one_shard_that_holds_it(count in 1u32..200, key: u128) {
            let map = ShardMap::new(ShardMapVersion::default(), shards(count)).unwrap();
            let key = HashKey::new(key);
            let holders: Vec<_> = map.open().iter().filter(|s| s.range.contains(key)).collect();
            prop_assert_eq!(holders.len(), 1);
            prop_assert_eq!(map.route(key).id, holders[0].id);
        }
    }
}
