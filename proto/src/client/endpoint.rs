//! Where a broker listens.

use crate::{Error, Result};
use http::Uri;
use std::fmt;
use std::str::FromStr;

/// The address of a broker, `http://host:port`. Prints as it parses. Cheap enough to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint(Uri);

impl Endpoint {
    /// Parses the address; the error says what is expected.
    pub fn new(text: &str) -> Result<Self> {
        let bad = |why: &str| {
            Error::invalid(format!(
                "not the address of a broker: {text:?}: {why}; expected such as http://127.0.0.1:4567"
            ))
        };
        let uri: Uri = text.parse().map_err(|_| bad("it does not parse"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(bad("TLS is not supported yet, use http://")),
            _ => return Err(bad("it must begin with http://")),
        }
        if uri.host().is_none_or(str::is_empty) || uri.port_u16().is_none() {
            return Err(bad("it names no host or no port"));
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(bad("user names and passwords are not taken"));
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(bad("nothing may follow the port"));
        }
        Ok(Self(uri))
    }
    pub(crate) fn uri(&self) -> &Uri {
        &self.0
    }
}

impl FromStr for Endpoint {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::new(text)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = self.0.authority().map_or("", |authority| authority.as_str());
        write!(f, "http://{authority}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_print_as_they_parse() {
        for text in ["http://127.0.0.1:4567", "http://localhost:1", "http://[::1]:4567"] {
            assert_eq!(Endpoint::new(text).unwrap().to_string(), text);
        }
        assert_eq!(Endpoint::new("http://a:1/").unwrap().to_string(), "http://a:1");
    }

    #[test]
    fn other_texts_are_refused_with_a_reason() {
        let why = |text: &str| Endpoint::new(text).unwrap_err().message().to_owned();
        assert!(why("https://a:1").contains("TLS"));
        assert!(why("127.0.0.1:4567").contains("http://"));
        for bad in [
            "",
            "http://",
            "http://a",
            "http://a:1/x",
            "http://a:1?x",
            "ftp://a:1",
            "http://u:p@a:1",
            "http://a:x",
        ] {
            assert!(why(bad).contains("expected such as http://127.0.0.1:4567"), "{bad:?}");
        }
    }
}
