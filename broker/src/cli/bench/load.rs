//! Records to put: keys that reach every shard, data that nothing on the way can compress.

use super::args::STAMP_BYTES;
use crate::error::{Error, Result};
use bytes::Bytes;
use rand::Rng;
use tidemill_producer::{PartitionKey, Record};
use tidemill_types::{HashKey, ShardMap};
use tokio::time::Instant;

/// Keys in use at a time.
const KEYS: usize = 1024;
/// Data is cut from so many bytes, beside a record's own.
const NOISE_BYTES: usize = 256 << 10;
/// Characters of a key.
pub(super) const KEY_CHARS: usize = 16;

/// An endless supply of records, for one connection. Data is shared, not copied.
pub(super) struct Load {
    keys: Vec<PartitionKey>,
    noise: Bytes,
    record_bytes: usize,
    turn: usize,
}

impl Load {
    pub(super) fn new(record_bytes: u32) -> Result<Self> {
        let keys = (0..KEYS).map(|_| key(&random_key())).collect::<Result<Vec<_>>>()?;
        Ok(Self::of_keys(record_bytes, keys))
    }

    /// Records of these keys in turn.
    pub(super) fn of_keys(record_bytes: u32, keys: Vec<PartitionKey>) -> Self {
        let record_bytes = record_bytes as usize;
        Self { keys, noise: noise(NOISE_BYTES + record_bytes).into(), record_bytes, turn: 0 }
    }

    pub(super) fn next(&mut self) -> Result<Record> {
        let data = self.next_data();
        self.record(data)
    }

    /// A record that carries when it was due.
    pub(super) fn next_stamped(&mut self, stamp: Stamp) -> Result<Record> {
        let mut data = self.next_data().to_vec();
        stamp.write(&mut data);
        self.record(data.into())
    }

    fn next_data(&mut self) -> Bytes {
        self.turn = self.turn.wrapping_add(1);
        let at = self.turn.wrapping_mul(61) % NOISE_BYTES;
        self.noise.slice(at..at + self.record_bytes)
    }

    fn record(&self, data: Bytes) -> Result<Record> {
        let key = self.keys[self.turn % self.keys.len()].clone();
        Record::new(key, data).map_err(|e| Error::because("cannot make a record", e))
    }
}

/// When a record was due: nanoseconds since the run began, in the first bytes of its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp(u64);

impl Stamp {
    pub(super) fn new(run_began: Instant, due: Instant) -> Self {
        let ns = due.saturating_duration_since(run_began).as_nanos();
        Self(u64::try_from(ns).unwrap_or(u64::MAX))
    }
    pub(super) fn write(self, data: &mut [u8]) {
        data[..STAMP_BYTES as usize].copy_from_slice(&self.0.to_le_bytes());
    }
    /// None of data that is too short to carry one.
    pub(super) fn read(data: &[u8]) -> Option<Self> {
        data.first_chunk().map(|bytes| Self(u64::from_le_bytes(*bytes)))
    }
    pub(super) fn due(self, run_began: Instant) -> Instant {
        run_began + std::time::Duration::from_nanos(self.0)
    }
}

/// One key of each open shard, in the order of the map.
pub(super) fn keys_of_shards(map: &ShardMap) -> Result<Vec<PartitionKey>> {
    let mut keys: Vec<Option<PartitionKey>> = vec![None; map.open().len()];
    let mut missing = keys.len();
    while missing > 0 {
        let text = random_key();
        let slot = &mut keys[map.route_slot(HashKey::of(&text))];
        if slot.is_none() {
            *slot = Some(key(&text)?);
            missing -= 1;
        }
    }
    Ok(keys.into_iter().flatten().collect())
}

fn key(text: &str) -> Result<PartitionKey> {
    PartitionKey::new(text).map_err(|e| Error::because("cannot make a key", e))
}

pub(super) fn random_key() -> String {
    format!("{:0KEY_CHARS$x}", rand::random::<u64>())
}

pub(super) fn noise(bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    rand::rng().fill_bytes(&mut noise);
    noise
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tidemill_types::{HashKeyRange, Shard, ShardId, ShardMapVersion, ShardState, TimestampMs};

    #[test]
    fn records_have_the_size_asked_for() {
        let mut load = Load::new(1_000_000).unwrap();
        let (one, other) = (load.next().unwrap(), load.next().unwrap());
        assert_eq!(one.data().len(), 1_000_000);
        assert_ne!(one.key(), other.key());
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_says_when_it_was_due() {
        let began = Instant::now();
        let due = began + Duration::from_nanos(1_234_567_891);
        let record = Load::new(8).unwrap().next_stamped(Stamp::new(began, due)).unwrap();
        assert_eq!(Stamp::read(record.data()).unwrap().due(began), due);
        assert_eq!(Stamp::read(b"short"), None);
    }

    #[test]
    fn every_shard_has_its_key() {
        let shard = |(id, range)| Shard {
            id: ShardId::new(id).unwrap(),
            parent: None,
            adjacent_parent: None,
            range,
            created: TimestampMs::new(0),
            state: ShardState::Open,
        };
        let shards: Vec<Shard> = (0..).zip(HashKeyRange::uniform(100)).map(shard).collect();
        let map = ShardMap::new(ShardMapVersion::default(), shards).unwrap();
        let keys = keys_of_shards(&map).unwrap();
        assert_eq!(keys.len(), 100);
        for (slot, key) in keys.iter().enumerate() {
            assert_eq!(map.route_slot(HashKey::of(key.as_str())), slot);
        }
    }
}
