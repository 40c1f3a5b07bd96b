//! A text that nobody may see: it cannot be printed, and is wiped from memory when it is dropped.

use serde::de::{Deserialize, Deserializer, Error};
use sha2::{Digest, Sha256};
use std::fmt;
use zeroize::Zeroizing;

/// A secret. It has no `Display`, and `Debug` does not show it.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes the text in.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
    /// The text itself: for hashing, for making a key of it, and for proving with it.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// By their hashes, so that the time tells nothing.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        Sha256::digest(self.reveal()) == Sha256::digest(other.reveal())
    }
}

impl Eq for Secret {}

impl std::str::FromStr for Secret {
    type Err = std::convert::Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self::new(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        // the usual complaint about another type would show the value
        match toml::Value::deserialize(from)? {
            toml::Value::String(text) => Ok(Self::new(text)),
            _ => Err(D::Error::custom("a secret must be a text in quotation marks")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_secret_is_never_printed() {
        let secret = Secret::new("hunter2".to_owned());
        assert_eq!(format!("{secret:?} {:#?}", Some(&secret)), "Secret(…) Some(\n    Secret(…),\n)");
        for text in ["a = 12345", "a = 1.2345", "a = [12345]", "a = { b = 12345 }", "a = 1979-05-27"] {
            let error = toml::from_str::<BTreeMap<String, Secret>>(text).unwrap_err();
            assert_eq!(error.message(), "a secret must be a text in quotation marks");
        }
    }
}
