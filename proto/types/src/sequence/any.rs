//! Sequence numbers as any Kinesis gives them: opaque, increasing decimals.
//!
//! Why: Amazon promises nothing of a number but that it is a decimal and that later ones are larger. Whoever reads from it
//! as well as from a Tidemill broker must not look inside. What this does not do: tell a shard or a time; a broker's own
//! [`SequenceNumber`] does.

use super::SequenceNumber;
use crate::error::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// A sequence number of whatever service: below 2^256 (Amazon's have 186 bits, 56 digits), ordered as the decimal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AnySequenceNumber {
    high: u128,
    low: u128,
}

impl AnySequenceNumber {
    /// Before every other number.
    pub const ZERO: Self = Self { high: 0, low: 0 };
}

impl From<SequenceNumber> for AnySequenceNumber {
    fn from(number: SequenceNumber) -> Self {
        let (high, low) = number.bits();
        Self { high: u128::from(high), low }
    }
}

impl TryFrom<AnySequenceNumber> for SequenceNumber {
    type Error = Error;
    /// An error unless it is laid out as a broker's own.
    fn try_from(number: AnySequenceNumber) -> Result<Self> {
        let high = u64::try_from(number.high).ok();
        high.and_then(|high| Self::from_bits(high, number.low))
            .ok_or_else(|| Error::new(format!("not a sequence number of a broker: {number}")))
    }
}

const TEN_19: u128 = 10_000_000_000_000_000_000;
/// 2^256 has 78 digits.
const PARTS: usize = 5;

impl fmt::Display for AnySequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut limbs =
            [(self.high >> 64) as u64, self.high as u64, (self.low >> 64) as u64, self.low as u64];
        let mut parts = [0u64; PARTS];
        for part in parts.iter_mut().rev() {
            let mut rest = 0u128;
            for limb in &mut limbs {
                let value = (rest << 64) | u128::from(*limb);
                *limb = (value / TEN_19) as u64;
                rest = value % TEN_19;
            }
            *part = rest as u64;
        }
        let first = parts.iter().position(|part| *part > 0).unwrap_or(PARTS - 1);
        write!(f, "{}", parts[first])?;
        parts[first + 1..].iter().try_for_each(|part| write!(f, "{part:019}"))
    }
}

impl FromStr for AnySequenceNumber {
    type Err = Error;
    /// A decimal without sign and without leading zeros.
    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::new(format!("not a sequence number: {text:?}"));
        if text.is_empty() || text.len() > 78 || (text.starts_with('0') && text != "0") {
            return Err(bad());
        }
        let mut limbs = [0u64; 4];
        for byte in text.bytes() {
            if !byte.is_ascii_digit() {
                return Err(bad());
            }
            let mut carry = u128::from(byte - b'0');
            for limb in limbs.iter_mut().rev() {
                let value = u128::from(*limb) * 10 + carry;
                *limb = value as u64;
                carry = value >> 64;
            }
            if carry != 0 {
                return Err(bad());
            }
        }
        let pair = |high: u64, low: u64| (u128::from(high) << 64) | u128::from(low);
        Ok(Self { high: pair(limbs[0], limbs[1]), low: pair(limbs[2], limbs[3]) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sequence::SequenceIndex;
    use crate::shard::ShardId;
    use crate::time::TimestampMs;
    use proptest::prelude::*;

    #[test]
    fn numbers_of_amazon_that_are_laid_out_otherwise_are_taken_too() {
        for text in [
            "0",
            "21269319989652663814458848515492872193",
            "49545115243490985018280067714973144582180062593244200961",
            "115792089237316195423570985008687907853269984665640564039457584007913129639935",
        ] {
            let number: AnySequenceNumber = text.parse().unwrap();
            assert_eq!(number.to_string(), text);
            assert!(SequenceNumber::try_from(number).is_err(), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        let beyond = "115792089237316195423570985008687907853269984665640564039457584007913129639936";
        for bad in ["", "00", "01", "x", "-1", "+1", " 1", beyond, &"9".repeat(129)] {
            assert!(bad.parse::<AnySequenceNumber>().is_err(), "{bad:?} was taken");
        }
    }

    proptest! {
        #[test]
        fn a_number_of_a_broker_prints_orders_and_comes_back_as_itself(
            created in 0u64..(1 << 36), shard in 0u32..(1 << 31), a in 0u64..(1 << 63), b in 0u64..(1 << 63),
        ) {
            let number = |index| SequenceNumber::new(
                TimestampMs::new(created * 1000),
                ShardId::new(shard).unwrap(),
                SequenceIndex::new(index).unwrap(),
                TimestampMs::new(created * 1000),
            );
            let (one, two) = (number(a), number(b));
            let (any_one, any_two) = (AnySequenceNumber::from(one), AnySequenceNumber::from(two));
            prop_assert_eq!(any_one.to_string(), one.to_string());
            prop_assert_eq!(one.to_string().parse::<AnySequenceNumber>().unwrap(), any_one);
            prop_assert_eq!(SequenceNumber::try_from(any_one).unwrap(), one);
            prop_assert_eq!(any_one.cmp(&any_two), one.cmp(&two));
        }

        #[test]
        fn any_number_parses_as_it_prints_and_orders_as_its_digits(a in any::<[u128; 2]>(), b in any::<[u128; 2]>()) {
            let [a, b] = [a, b].map(|[high, low]| AnySequenceNumber { high, low });
            let (x, y) = (a.to_string(), b.to_string());
            prop_assert_eq!(x.parse::<AnySequenceNumber>().unwrap(), a);
            prop_assert_eq!((x.len(), &x).cmp(&(y.len(), &y)), a.cmp(&b));
        }
    }
}
