//! Names that users give: streams, applications, accounts, regions.
//!
//! A name is checked once, when it is made, and prints as it was given. None ever becomes a file name.

use crate::error::{Error, Result};
use crate::limits::NAME_CHARS_MAX;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

fn check(kind: &str, text: &str) -> Result<()> {
    if text.is_empty() || text.len() > NAME_CHARS_MAX {
        return Err(Error::new(format!(
            "{kind} must have 1 to {NAME_CHARS_MAX} characters, found {}",
            text.chars().count()
        )));
    }
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-')) {
        return Err(Error::new(format!("{kind} may hold only a-z A-Z 0-9 _ . -, found {text:?}")));
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);

        impl $type {
            /// Checks and takes the name.
            pub fn new(text: &str) -> Result<Self> {
                check($kind, text)?;
                Ok(Self(text.into()))
            }
            /// The name as it was given.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $type {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self> {
                Self::new(text)
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

name! {
    /// The name of a stream: 1 to 128 of `a-z A-Z 0-9 _ . -` (Kinesis). Cheap to clone.
    StreamName, "a stream name"
}
impl StreamName {
    /// The first of all names in their order: `-`.
    pub fn first() -> Self {
        Self("-".into())
    }
}
name! {
    /// The name of a consumer application, under which its workers share leases: 1 to 128 of `a-z A-Z 0-9 _ . -`.
    AppName, "an application name"
}
name! {
    /// The name of a consumer with enhanced fan-out: 1 to 128 of `a-z A-Z 0-9 _ . -` (Kinesis).
    ConsumerName, "a consumer name"
}
name! {
    /// A region name as it stands in ARNs, such as `us-east-1`.
    Region, "a region"
}

/// A 12-digit account number.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AccountId(Arc<str>);

impl AccountId {
    /// Checks and takes the account number.
    pub fn new(text: &str) -> Result<Self> {
        if text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit()) {
            return Ok(Self(text.into()));
        }
        Err(Error::new(format!("an account id must be 12 digits, found {text:?}")))
    }
    /// The twelve digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AccountId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::new(text)
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_refuse_what_kinesis_refuses() {
        for bad in ["", "a b", "a/b", "é", "..\\x", &"x".repeat(129)] {
            assert!(StreamName::new(bad).is_err(), "{bad:?} was taken");
        }
        for good in ["a", "..", "A_b-c.9", &"x".repeat(128)] {
            assert_eq!(StreamName::new(good).unwrap().to_string(), *good);
        }
    }

    #[test]
    fn account_ids_are_twelve_digits() {
        assert!(AccountId::new("000000000000").is_ok());
        assert!(AccountId::new("00000000000").is_err());
        assert!(AccountId::new("00000000000x").is_err());
    }
}
