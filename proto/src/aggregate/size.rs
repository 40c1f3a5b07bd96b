//! How large an aggregated record becomes, told before it is packed: whoever fills one to a limit asks before each record.

use super::{BODY_HASHES, BODY_KEYS, BODY_RECORDS, DIGEST_BYTES, MAGIC, Table, wire};
use super::{RECORD_DATA, RECORD_HASH, RECORD_KEY};
use tidemill_types::HashKey;

/// The exact size of the data that [`pack`](super::pack) makes of the records added so far, if they are several.
#[derive(Debug)]
pub struct PackedSize {
    keys: Table,
    hashes: Table,
    bytes: usize,
}

impl PackedSize {
    /// Of no record yet.
    pub fn new() -> Self {
        Self { keys: Table::default(), hashes: Table::default(), bytes: MAGIC.len() + DIGEST_BYTES }
    }
    /// Bytes so far.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
    /// What [`PackedSize::bytes`] would be with one more record.
    pub fn with(&self, key: &str, hash: Option<HashKey>, data_bytes: usize) -> usize {
        let hash = hash.map(|hash| hash.to_string());
        let (key_index, key_bytes) = self.keys.would_take(key, BODY_KEYS);
        let (hash_bytes, hash_field) = match &hash {
            Some(hash) => {
                let (index, bytes) = self.hashes.would_take(hash, BODY_HASHES);
                (bytes, wire::varint_field_bytes(RECORD_HASH, index))
            }
            None => (0, 0),
        };
        let inner = wire::varint_field_bytes(RECORD_KEY, key_index)
            + hash_field
            + wire::bytes_field_bytes(RECORD_DATA, data_bytes);
        self.bytes + key_bytes + hash_bytes + wire::bytes_field_bytes(BODY_RECORDS, inner)
    }
    /// Adds a record.
    pub fn add(&mut self, key: &str, hash: Option<HashKey>, data_bytes: usize) {
        self.bytes = self.with(key, hash, data_bytes);
        self.keys.index_of(key);
        if let Some(hash) = hash {
            self.hashes.index_of(&hash.to_string());
        }
    }
}

impl Default for PackedSize {
    fn default() -> Self {
        Self::new()
    }
}

impl Table {
    /// The index that an entry has or would get, and the bytes that it would add to the body.
    fn would_take(&self, entry: &str, number: u64) -> (u64, usize) {
        match self.known.get(entry) {
            Some(index) => (*index, 0),
            None => (self.entries.len() as u64, wire::bytes_field_bytes(number, entry.len())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::pack;
    use proptest::prelude::*;
    use tidemill_types::{PartitionKey, Record};

    proptest! {
        #[test]
        fn the_size_is_that_of_what_is_packed(
            records in proptest::collection::vec(("[a-zé]{1,200}|k", proptest::option::of(0u128..200), 0usize..400), 2..300),
        ) {
            let mut size = PackedSize::new();
            let mut all = Vec::new();
            for (key, hash, data_bytes) in records {
                let hash = hash.map(|hash| HashKey::new(hash * (u128::MAX / 200)));
                let foretold = size.with(&key, hash, data_bytes);
                size.add(&key, hash, data_bytes);
                prop_assert_eq!(size.bytes(), foretold);
                let record = Record::new(PartitionKey::new(&key).unwrap(), vec![7; data_bytes]).unwrap();
                all.push(hash.map_or(record.clone(), |hash| record.with_explicit_hash(hash)));
            }
            prop_assert_eq!(pack(&all).unwrap().data().len(), size.bytes());
        }
    }
}
