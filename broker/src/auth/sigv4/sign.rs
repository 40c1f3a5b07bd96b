//! The other side of the verifier: signs requests of the Kinesis API, in the `Authorization` header.
//!
//! Why: the load generator speaks to anything that verifies signatures, and must pay for them what every client pays. It
//! shares the canonical form, the dates and the signing keys with the verifier, and each is tested against the other. What
//! it does not do: the query form.

use super::claim::Scope;
use super::date::{Moment, basic};
use super::key::SigningKeys;
use super::{ALGORITHM, SERVICE, TERMINATOR, canonical, hex};
use crate::auth::Secret;
use http::header::{AUTHORIZATION, HOST};
use http::request::Parts;
use http::{HeaderName, HeaderValue};
use sha2::{Digest, Sha256};
use tidemill_types::TimestampMs;

const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");

/// Signs with one credential for one region. Its signing keys are kept, so a signature costs two hashes.
pub(crate) struct Signer {
    key_id: String,
    secret: Secret,
    /// Of temporary credentials.
    token: Option<Secret>,
    region: String,
    service: &'static str,
    keys: SigningKeys,
}

impl Signer {
    pub(crate) fn new(key_id: String, secret: Secret, token: Option<Secret>, region: String) -> Self {
        Self { key_id, secret, token, region, service: SERVICE, keys: SigningKeys::default() }
    }

    /// Dates the request and signs every header that it has by now, and the body. A host must be among them. What cannot
    /// stand in a header (an access key id with a line end) is said.
    pub(crate) fn sign(&self, parts: &mut Parts, body: &[u8], now: TimestampMs) -> Result<(), String> {
        let date = basic(Moment::new(now.seconds()));
        parts.headers.remove(AUTHORIZATION);
        parts.headers.insert(DATE, header(&date)?);
        if let Some(token) = &self.token {
            let mut value = header(token.reveal())?;
            value.set_sensitive(true);
            parts.headers.insert(TOKEN, value);
        }
        if !parts.headers.contains_key(HOST) {
            return Err("a request without a host cannot be signed".to_owned());
        }
        let authorization = self.authorization(parts, body, &date)?;
        parts.headers.insert(AUTHORIZATION, header(&authorization)?);
        Ok(())
    }

    fn authorization(&self, parts: &Parts, body: &[u8], date: &str) -> Result<String, String> {
        let mut names: Vec<&str> = parts.headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        let signed_headers = names.join(";");
        let scope = Scope {
            date: date[..8].to_owned(),
            region: self.region.clone(),
            service: self.service.to_owned(),
            terminator: TERMINATOR.to_owned(),
        };
        let body_hash = hex(&Sha256::digest(body));
        let canonical = canonical::request(parts, false, &signed_headers, &body_hash)
            .map_err(|absent| format!("the header {absent} is not in the request"))?;
        let text = format!("{ALGORITHM}\n{date}\n{scope}\n{}", hex(&Sha256::digest(canonical)));
        let signature = hex(&self.keys.sign(&self.secret, &scope, &text));
        let key_id = &self.key_id;
        Ok(format!(
            "{ALGORITHM} Credential={key_id}/{scope}, SignedHeaders={signed_headers}, Signature={signature}"
        ))
    }
}

fn header(text: &str) -> Result<HeaderValue, String> {
    HeaderValue::try_from(text)
        .map_err(|_| "the access key id, session token or region cannot stand in a header".to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{SECRET, Sent, botocore, keyed_gate};
    use super::*;
    use crate::auth::tests::NOW;
    use http::Request;

    fn signer(service: &'static str) -> Signer {
        let secret = Secret::new(SECRET.to_owned());
        Signer { service, ..Signer::new("AKIDEXAMPLE".to_owned(), secret, None, "us-east-1".to_owned()) }
    }

    fn request(body: &[u8]) -> Parts {
        let mut parts = Request::post("/")
            .header(HOST, "localhost:4567")
            .header("content-type", "application/x-amz-json-1.1")
            .header("x-amz-target", "Kinesis_20131202.PutRecords")
            .body(())
            .unwrap()
            .into_parts()
            .0;
        signer(SERVICE).sign(&mut parts, body, NOW).unwrap();
        parts
    }

    #[test]
    fn the_verifier_accepts_what_is_signed_here_and_nothing_else() {
        let body = br#"{"StreamName":"s"}"#;
        let parts = request(body);
        let verified = keyed_gate("").verify(&parts, body, NOW).unwrap();
        assert_eq!(verified.principal(), "arn:aws:iam::000000000000:user/me");
        keyed_gate("").verify(&parts, b"{}", NOW).unwrap_err();
        let mut moved = request(body);
        moved.headers.insert("x-amz-target", HeaderValue::from_static("Kinesis_20131202.DeleteStream"));
        keyed_gate("").verify(&moved, body, NOW).unwrap_err();
    }

    #[test]
    fn a_request_that_is_signed_again_has_one_signature_and_date() {
        let body = b"{}";
        let mut parts = request(body);
        signer(SERVICE).sign(&mut parts, body, NOW).unwrap();
        assert_eq!(parts.headers.get_all(AUTHORIZATION).iter().count(), 1);
        assert_eq!(parts.headers.get_all(DATE).iter().count(), 1);
        keyed_gate("").verify(&parts, body, NOW).unwrap();
    }

    #[test]
    fn the_vector_of_the_specification_comes_out() {
        let sent = botocore().into_iter().find(|sent| sent.name == "list-streams").unwrap();
        let mut parts = sent.parts().unwrap();
        let signed = ["content-type", "host", "x-amz-date", "x-amz-target", "authorization"];
        let others: Vec<_> =
            parts.headers.keys().filter(|name| !signed.contains(&name.as_str())).cloned().collect();
        others.iter().for_each(|name| drop(parts.headers.remove(name)));
        let expected = parts.headers.get(AUTHORIZATION).unwrap().clone();
        signer(SERVICE).sign(&mut parts, &sent.body(), NOW).unwrap();
        assert_eq!(parts.headers.get(AUTHORIZATION).unwrap(), expected);
    }

    #[test]
    fn the_vector_with_a_session_token_comes_out() {
        let has_token = |sent: &Sent| sent.parts().is_some_and(|parts| parts.headers.contains_key(TOKEN));
        let sent = botocore().into_iter().find(has_token).unwrap();
        let mut parts = sent.parts().unwrap();
        let expected = parts.headers.remove(AUTHORIZATION).unwrap();
        let token = parts.headers.remove(TOKEN).unwrap().to_str().unwrap().to_owned();
        for unsigned in ["user-agent", "content-length"] {
            parts.headers.remove(unsigned);
        }
        let signer = Signer { token: Some(Secret::new(token)), ..signer(SERVICE) };
        signer.sign(&mut parts, &sent.body(), NOW).unwrap();
        assert_eq!(parts.headers.get(AUTHORIZATION).unwrap(), &expected);
        assert!(parts.headers[TOKEN].is_sensitive());
    }

    /// Those of the suite that AWS publishes whose every header is signed.
    #[test]
    fn the_published_signatures_come_out() {
        let all: Vec<Sent> = serde_json::from_str(include_str!("vectors/published.json")).unwrap();
        let mut made = 0;
        for sent in &all {
            let Some(mut parts) = sent.parts() else { continue };
            let Some(expected) = parts.headers.remove(AUTHORIZATION) else { continue };
            let expected = expected.to_str().unwrap();
            let Some(date) = parts.headers.get(DATE).map(|date| date.to_str().unwrap().to_owned()) else {
                continue;
            };
            let authorization = signer("service").authorization(&parts, &sent.body(), &date).unwrap();
            let headers = |text: &str| {
                text.split("SignedHeaders=").nth(1).map(|t| t.split(',').next().map(str::to_owned))
            };
            if headers(expected) == headers(&authorization) {
                assert_eq!(authorization, expected, "{}", sent.name);
                made += 1;
            }
        }
        assert!(made >= 20, "only {made} of {} are comparable", all.len());
    }

    #[test]
    fn what_cannot_stand_in_a_header_is_said() {
        let secret = Secret::new("s".to_owned());
        let signer = Signer::new("line\nend".to_owned(), secret, None, "us-east-1".to_owned());
        let mut parts = Request::post("/").header(HOST, "h:1").body(()).unwrap().into_parts().0;
        assert!(signer.sign(&mut parts, b"", NOW).unwrap_err().contains("access key id"));
        let mut hostless = Request::post("/").body(()).unwrap().into_parts().0;
        assert!(signer.sign(&mut hostless, b"", NOW).is_err());
    }
}
