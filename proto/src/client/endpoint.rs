//! Where a broker listens, and whom to trust that it is the broker.

use super::channel;
use crate::{Error, Result};
use http::Uri;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The address of a broker, `http://host:port`, or `https://host:port` for TLS. Prints as it parses. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    uri: Uri,
    /// In PEM form. None: those the system trusts.
    authorities: Option<Arc<[u8]>>,
}

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
            Some("http" | "https") => {}
            _ => return Err(bad("it must begin with http:// or https://")),
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
        Ok(Self { uri, authorities: None })
    }
    /// Trusts the certificates of these authorities (PEM) instead of those the system trusts; without effect on
    /// `http://`. A broker with `--tls local` writes its own to `tls/ca.pem` in its data directory.
    pub fn ca_certificate(self, pem: impl Into<Vec<u8>>) -> Result<Self> {
        let pem = pem.into();
        let bad =
            |why: &str| Error::invalid(format!("not the certificate of an authority in PEM form: {why}"));
        if !String::from_utf8_lossy(&pem).contains("-----BEGIN CERTIFICATE-----") {
            return Err(bad("it holds no BEGIN CERTIFICATE"));
        }
        let endpoint = Self { authorities: Some(pem.into()), ..self };
        channel::encrypted(tonic::transport::Endpoint::from_static("https://checked"), &endpoint)
            .map_err(|error| bad(&channel::tell(&error)))?;
        Ok(endpoint)
    }
    /// Whether connections are encrypted.
    pub fn is_https(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }
    pub(crate) fn uri(&self) -> &Uri {
        &self.uri
    }
    pub(crate) fn authorities(&self) -> Option<&[u8]> {
        self.authorities.as_deref()
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
        let scheme = self.uri.scheme_str().unwrap_or("http");
        let authority = self.uri.authority().map_or("", |authority| authority.as_str());
        write!(f, "{scheme}://{authority}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_print_as_they_parse() {
        for text in
            ["http://127.0.0.1:4567", "http://localhost:1", "https://localhost:1", "http://[::1]:4567"]
        {
            assert_eq!(Endpoint::new(text).unwrap().to_string(), text);
        }
        assert_eq!(Endpoint::new("http://a:1/").unwrap().to_string(), "http://a:1");
    }

    #[test]
    fn an_authority_is_a_certificate_in_pem_form() {
        let endpoint = || Endpoint::new("https://a:1").unwrap();
        assert!(endpoint().ca_certificate("ca.pem").unwrap_err().message().contains("PEM"));
        let broken = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
        assert!(endpoint().ca_certificate(broken).is_err());
        assert!(endpoint().is_https() && !Endpoint::new("http://a:1").unwrap().is_https());
    }

    #[test]
    fn other_texts_are_refused_with_a_reason() {
        let why = |text: &str| Endpoint::new(text).unwrap_err().message().to_owned();
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
