//! Hash keys: where a partition key falls, and which range a shard holds.

use crate::error::{Error, Result};
use md5::{Digest, Md5};
use std::fmt;
use std::str::FromStr;

/// A point of the hash space 0…2^128−1 (Kinesis: MD5 of the partition key, read as a big-endian number).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HashKey(u128);

impl HashKey {
    /// The first point.
    pub const MIN: Self = Self(0);
    /// The last point.
    pub const MAX: Self = Self(u128::MAX);

    /// From the number itself.
    pub const fn new(value: u128) -> Self {
        Self(value)
    }
    /// The number.
    pub const fn get(self) -> u128 {
        self.0
    }
    /// Where a partition key falls.
    pub fn of(partition_key: &str) -> Self {
        Self(u128::from_be_bytes(Md5::digest(partition_key.as_bytes()).into()))
    }
}

impl fmt::Display for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for HashKey {
    type Err = Error;
    /// Decimal without sign or leading zeros.
    fn from_str(text: &str) -> Result<Self> {
        let canonical = text == "0" || (!text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit()));
        match text.parse::<u128>() {
            Ok(value) if canonical => Ok(Self(value)),
            _ => Err(Error::new(format!("a hash key is a decimal number from 0 to 2^128-1, found {text:?}"))),
        }
    }
}

/// An inclusive range of hash keys; never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HashKeyRange {
    start: HashKey,
    end: HashKey,
}

impl HashKeyRange {
    /// The whole hash space.
    pub const ALL: Self = Self { start: HashKey::MIN, end: HashKey::MAX };

    /// From `start` to `end`, both within; an error if they are the wrong way round.
    pub fn new(start: HashKey, end: HashKey) -> Result<Self> {
        if start > end {
            return Err(Error::new(format!(
                "a hash key range must not end before it starts: {start} to {end}"
            )));
        }
        Ok(Self { start, end })
    }
    /// First key within.
    pub const fn start(self) -> HashKey {
        self.start
    }
    /// Last key within.
    pub const fn end(self) -> HashKey {
        self.end
    }
    /// Whether `key` is within.
    pub fn contains(self, key: HashKey) -> bool {
        self.start <= key && key <= self.end
    }
    /// Whether `next` begins right after this one ends.
    pub fn touches(self, next: Self) -> bool {
        self.end.0.checked_add(1) == Some(next.start.0)
    }
    /// The whole space in `count` equal parts, the last taking the remainder (Kinesis CreateStream). `count` ≥ 1.
    pub fn uniform(count: u32) -> Vec<Self> {
        assert!(count >= 1, "a stream has at least one shard");
        if count == 1 {
            return vec![Self::ALL];
        }
        // floor(2^128 / n): 2^128 is one more than u128 holds
        let n = u128::from(count);
        let width = u128::MAX / n + u128::from(u128::MAX % n == n - 1);
        (0..n)
            .map(|i| Self {
                start: HashKey(width * i),
                end: if i == n - 1 { HashKey::MAX } else { HashKey(width * (i + 1) - 1) },
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_hash_as_aws_hashes_them() {
        let vectors = [
            ("a", "16955237001963240173058271559858726497"),
            ("b", "195289424170611159128911017612795795343"),
            ("e", "299611584147932843547128611849858313266"),
            ("f", "190917122200326810055233066464581373159"),
            ("user-1", "285573413173782752570879317399258818820"),
            ("日本", "103341369634063465466164320543046703539"),
        ];
        for (key, hash) in vectors {
            assert_eq!(HashKey::of(key).to_string(), hash, "{key}");
        }
    }

    #[test]
    fn uniform_ranges_are_those_of_kinesis() {
        let ends = |n| HashKeyRange::uniform(n).iter().map(|r| r.end().to_string()).collect::<Vec<_>>();
        assert_eq!(ends(2)[0], "170141183460469231731687303715884105727");
        assert_eq!(
            ends(3)[..2],
            ["113427455640312821154458202477256070484", "226854911280625642308916404954512140969"]
        );
        assert_eq!(ends(4)[2], "255211775190703847597530955573826158591");
    }

    proptest! {
        #[test]
        fn uniform_ranges_tile_the_space(count in 1u32..2000) {
            let ranges = HashKeyRange::uniform(count);
            prop_assert_eq!(ranges.len(), count as usize);
            prop_assert_eq!(ranges[0].start(), HashKey::MIN);
            prop_assert_eq!(ranges[ranges.len() - 1].end(), HashKey::MAX);
            for pair in ranges.windows(2) {
                prop_assert!(pair[0].touches(pair[1]));
            }
        }

        #[test]
        fn hash_keys_print_as_they_parse(value: u128) {
            let key = HashKey::new(value);
            prop_assert_eq!(key.to_string().parse::<HashKey>().unwrap(), key);
        }
    }

    #[test]
    fn hash_keys_refuse_other_spellings() {
        for bad in ["", "00", "01", "-1", "+1", " 1", "1 ", "x", "340282366920938463463374607431768211456"] {
            assert!(bad.parse::<HashKey>().is_err(), "{bad:?} was taken");
        }
    }
}
