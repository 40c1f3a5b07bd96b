//! Where a broker listens, whom to trust that it is the broker, and with what to prove who calls.

use super::channel;
use super::dial::Dial;
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
    credentials: Option<Credentials>,
    dial: Option<Dial>,
}

/// What is sent with each call to prove who makes it. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Credentials(Arc<str>);

impl Credentials {
    /// The value of the header `authorization`.
    pub(crate) fn header(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
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
        Ok(Self { uri, authorities: None, credentials: None, dial: None })
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
    /// Proves with each call who makes it: an access key id and its secret, as they are configured at the broker. Both go
    /// over the connection as they are, so use `https://` wherever others could listen.
    pub fn credentials(self, access_key_id: &str, secret_access_key: &str) -> Result<Self> {
        if access_key_id.is_empty() || access_key_id.contains(':') || secret_access_key.is_empty() {
            return Err(Error::invalid(
                "not credentials: an access key id (without a colon) and its secret are needed",
            ));
        }
        let pair = format!("{access_key_id}:{secret_access_key}");
        let header = format!("Basic {}", base64_simd::STANDARD.encode_to_string(pair));
        Ok(Self { credentials: Some(Credentials(header.into())), ..self })
    }
    /// Makes connections by `dial` instead of TCP.
    #[must_use]
    pub fn dialed_by(self, dial: Dial) -> Self {
        Self { dial: Some(dial), ..self }
    }
    /// Whether connections are encrypted.
    pub fn is_https(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }
    pub(crate) fn proof(&self) -> Option<&Credentials> {
        self.credentials.as_ref()
    }
    pub(crate) fn dial(&self) -> Option<&Dial> {
        self.dial.as_ref()
    }
    pub(crate) fn uri(&self) -> &Uri {
        &self.uri
    }
    /// The authorities that are trusted instead of those of the system, in PEM form, for clients that speak another protocol
    /// to the same address.
    pub fn authorities(&self) -> Option<&[u8]> {
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
    fn credentials_are_sent_but_never_printed() {
        let endpoint = Endpoint::new("http://127.0.0.1:1").unwrap();
        for (id, secret) in [("", "s"), ("a", ""), ("a:b", "s")] {
            assert!(endpoint.clone().credentials(id, secret).is_err(), "{id:?} {secret:?}");
        }
        let endpoint = endpoint.credentials("Aladdin", "open sesame").unwrap();
        let header = endpoint.proof().unwrap().header();
        assert_eq!(header, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        let printed = format!("{endpoint} {endpoint:?}");
        assert!(!printed.contains("QWxh") && !printed.contains("sesame"), "{printed}");
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
