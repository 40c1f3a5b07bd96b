//! A record as a user gives it: a partition key and bytes, within the limits by construction.

use crate::error::{Error, Result};
use crate::hash_key::HashKey;
use crate::limits::{PARTITION_KEY_CHARS_MAX, RECORD_DATA_BYTES_MAX};
use bytes::Bytes;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Says which shard takes a record: 1 to 256 Unicode characters (Kinesis). Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionKey(Arc<str>);

impl PartitionKey {
    /// Checks and takes the key.
    pub fn new(text: &str) -> Result<Self> {
        Self::check(text)?;
        Ok(Self(text.into()))
    }
    /// Whether `text` may be a partition key.
    pub fn check(text: &str) -> Result<()> {
        // counting characters only where bytes do not settle it
        let fits = text.len() <= PARTITION_KEY_CHARS_MAX || text.chars().count() <= PARTITION_KEY_CHARS_MAX;
        if text.is_empty() || !fits {
            return Err(Error::new(format!(
                "a partition key must have 1 to {PARTITION_KEY_CHARS_MAX} characters, found {}",
                text.chars().count()
            )));
        }
        Ok(())
    }
    /// The key of a record that has none; it is written as an empty text, which no given key is.
    pub fn absent() -> Self {
        Self("".into())
    }
    /// Whether there is none.
    pub fn is_absent(&self) -> bool {
        self.0.is_empty()
    }
    /// The key as it was given; empty if there is none.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PartitionKey {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::new(text)
    }
}

impl fmt::Display for PartitionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PartitionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// One record on its way into a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    key: PartitionKey,
    explicit_hash: Option<HashKey>,
    data: Bytes,
}

impl Record {
    /// A record routed by its partition key. `data` may be empty and has at most 10 MiB.
    pub fn new(key: PartitionKey, data: impl Into<Bytes>) -> Result<Self> {
        Self::routed(key, None, data.into())
    }
    /// A record without a partition key, for streams that take such. `place` says which shard takes it: draw it at random
    /// for each record.
    pub fn without_key(place: HashKey, data: impl Into<Bytes>) -> Result<Self> {
        Self::routed(PartitionKey::absent(), Some(place), data.into())
    }
    fn routed(key: PartitionKey, explicit_hash: Option<HashKey>, data: Bytes) -> Result<Self> {
        if data.len() > RECORD_DATA_BYTES_MAX {
            return Err(Error::new(format!(
                "a record holds at most {RECORD_DATA_BYTES_MAX} bytes of data, found {}",
                data.len()
            )));
        }
        Ok(Self { key, explicit_hash, data })
    }
    /// The same record, routed by `hash` instead of by its partition key.
    #[must_use]
    pub fn with_explicit_hash(self, hash: HashKey) -> Self {
        Self { explicit_hash: Some(hash), ..self }
    }
    /// The partition key.
    pub fn key(&self) -> &PartitionKey {
        &self.key
    }
    /// The data.
    pub fn data(&self) -> &Bytes {
        &self.data
    }
    /// The hash that routes it instead of the key's own, if one was given.
    pub fn explicit_hash(&self) -> Option<HashKey> {
        self.explicit_hash
    }
    /// Where it goes in the hash space.
    pub fn hash_key(&self) -> HashKey {
        self.explicit_hash.unwrap_or_else(|| HashKey::of(self.key.as_str()))
    }
    /// Bytes that count against limits and quotas: data and key.
    pub fn counted_bytes(&self) -> usize {
        self.data.len() + self.key.as_str().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_given_key_is_the_absent_one() {
        assert!(PartitionKey::new("").is_err());
        assert!(PartitionKey::absent().is_absent());
        assert!(!PartitionKey::new("k").unwrap().is_absent());
        assert!(PartitionKey::new(&"é".repeat(256)).is_ok());
        assert!(PartitionKey::new(&"é".repeat(257)).is_err());
    }

    #[test]
    fn a_record_without_a_key_goes_where_it_was_told() {
        let record = Record::without_key(HashKey::MAX, "data").unwrap();
        assert!(record.key().is_absent());
        assert_eq!((record.hash_key(), record.counted_bytes()), (HashKey::MAX, 4));
        assert!(Record::without_key(HashKey::MIN, vec![0; RECORD_DATA_BYTES_MAX + 1]).is_err());
    }
}
