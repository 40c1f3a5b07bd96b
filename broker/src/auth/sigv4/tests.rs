//! Signatures of others verify. `changes`: anything changed in what they cover does not; `refusals`: each has its words.
//!
//! `vectors/published.json` holds the signed requests of the test suite that AWS publishes for Signature Version 4
//! (those that HTTP can carry and that are signed as for this service), `vectors/botocore.json` requests signed by botocore
//! (made by the script beside it).

mod changes;
mod refusals;

use super::super::tests::{NOW, gate};
use super::super::{Gate, Refusal, Secret, Verified};
use super::*;
use base64_simd::STANDARD;
use http::{HeaderName, HeaderValue, Method, Request, Uri, Version};
use std::time::{Duration, SystemTime};

pub(super) const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

/// A request as it is sent.
#[derive(Debug, Clone, serde::Deserialize)]
pub(super) struct Sent {
    pub(super) name: String,
    method: String,
    uri: String,
    headers: Vec<(String, String)>,
    /// In base64.
    body: String,
    /// Of the signer; empty if it had none.
    token: String,
}

impl Sent {
    pub(super) fn body(&self) -> Vec<u8> {
        STANDARD.decode_to_vec(&self.body).unwrap()
    }
    /// As the listener gives it, unless HTTP cannot carry it.
    pub(super) fn parts(&self) -> Option<Parts> {
        let mut parts = Request::new(()).into_parts().0;
        parts.method = Method::from_bytes(self.method.as_bytes()).ok()?;
        parts.uri = self.uri.parse::<Uri>().ok()?;
        for (name, value) in &self.headers {
            parts.headers.append(HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?);
        }
        Some(parts)
    }
}

pub(super) fn botocore() -> Vec<Sent> {
    serde_json::from_str(include_str!("vectors/botocore.json")).unwrap()
}

pub(super) fn keyed_gate(token: &str) -> Gate {
    let token = if token.is_empty() { String::new() } else { format!("session_token = '{token}'") };
    gate(&format!(
        "[[credentials]]\naccess_key_id = 'AKIDEXAMPLE'\nsecret_access_key = '{SECRET}'\nname = 'me'\n{token}"
    ))
}

fn check(sent: &Sent) -> Result<Verified, Refusal> {
    keyed_gate(&sent.token).verify(&sent.parts().unwrap(), &sent.body(), NOW)
}

fn message(result: Result<Verified, Refusal>) -> String {
    result.unwrap_err().message
}

#[test]
fn the_vector_of_the_specification_verifies() {
    let sent = botocore().into_iter().find(|sent| sent.name == "list-streams").unwrap();
    let parts = sent.parts().unwrap();
    assert!(parts.headers["authorization"].to_str().unwrap().ends_with(
        "SignedHeaders=content-type;host;x-amz-date;x-amz-target, \
         Signature=ce06bbc52a0da2dc2e4168539f938c3188f14dd8a8af44ec8fdedcf1354e4abc"
    ));
    let signed_headers = "content-type;host;x-amz-date;x-amz-target";
    let canonical = canonical::request(&parts, false, signed_headers, &hex(&Sha256::digest(b"{}"))).unwrap();
    assert_eq!(
        hex(&Sha256::digest(canonical)),
        "4c91ffe3ee28f8b3069661cd35b360c9bcf3f8ad88315994d84608152c99edc8"
    );
    assert_eq!(check(&sent).unwrap().principal(), "arn:aws:iam::000000000000:user/me");
}

#[test]
fn signatures_made_by_botocore_verify() {
    let all = botocore();
    assert_eq!(all.len(), 15);
    for sent in &all {
        check(sent).unwrap_or_else(|refusal| panic!("{}: {refusal:?}", sent.name));
    }
}

#[test]
fn the_published_signatures_verify() {
    let all: Vec<Sent> = serde_json::from_str(include_str!("vectors/published.json")).unwrap();
    let (mut verified, mut not_http) = (0, Vec::new());
    for sent in &all {
        let Some(parts) = sent.parts() else {
            not_http.push(sent.name.as_str());
            continue;
        };
        // they are made for another service and time, so the checks of those are passed by
        let claim = Claim::of(&parts).unwrap();
        let text = string_to_sign(&claim, &parts, &hex(&Sha256::digest(sent.body()))).unwrap();
        let secret = Secret::new(SECRET.to_owned());
        let keys = SigningKeys::default();
        assert!(keys.verify(&secret, &claim.scope, &text, &claim.signature), "{}:\n{text}", sent.name);
        assert_eq!(claim.token.unwrap_or_default(), sent.token, "{}", sent.name);
        verified += 1;
    }
    assert!(verified >= 50 && verified + not_http.len() == all.len(), "{verified}, not {not_http:?}");
}

#[test]
fn signatures_made_by_the_aws_crate_verify_in_both_forms_and_over_http_2() {
    use aws_credential_types::Credentials;
    use aws_sigv4::http_request::{
        PayloadChecksumKind, SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign,
    };
    use aws_sigv4::sign::v4;
    let body = br#"{"StreamName":"s"}"#;
    for (location, checksum, token) in [
        (SignatureLocation::Headers, PayloadChecksumKind::NoHeader, None),
        (SignatureLocation::Headers, PayloadChecksumKind::XAmzSha256, Some("a/token+with==")),
        (SignatureLocation::QueryParams, PayloadChecksumKind::NoHeader, Some("a/token+with==")),
        (SignatureLocation::QueryParams, PayloadChecksumKind::NoHeader, None),
    ] {
        let identity = Credentials::new("AKIDEXAMPLE", SECRET, token.map(str::to_owned), None, "test").into();
        let mut settings = SigningSettings::default();
        settings.signature_location = location;
        settings.payload_checksum_kind = checksum;
        settings.expires_in = (location == SignatureLocation::QueryParams).then_some(Duration::from_secs(60));
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region("us-east-1")
            .name("kinesis")
            .time(SystemTime::UNIX_EPOCH + Duration::from_millis(NOW.get()))
            .settings(settings)
            .build()
            .unwrap();
        let url = "http://localhost:4567/a%20path/?b=%2F&a=1";
        let headers = [
            ("content-type", "application/x-amz-json-1.1"),
            ("x-amz-target", "Kinesis_20131202.DescribeStream"),
        ];
        let signable =
            SignableRequest::new("POST", url, headers.into_iter(), SignableBody::Bytes(body)).unwrap();
        let (instructions, _) = sign(signable, &params.into()).unwrap().into_parts();
        let mut request = Request::post(url).version(Version::HTTP_2);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let mut request = request.body(()).unwrap();
        instructions.apply_to_request_http1x(&mut request);
        let (mut parts, ()) = request.into_parts();
        let gate = keyed_gate(token.unwrap_or_default());
        gate.verify(&parts, body, NOW).unwrap_or_else(|refusal| panic!("{location:?}: {refusal:?}"));
        // the same over HTTP/1.1
        parts.headers.insert("host", HeaderValue::from_static("localhost:4567"));
        parts.uri = parts.uri.path_and_query().unwrap().as_str().parse().unwrap();
        parts.version = Version::HTTP_11;
        gate.verify(&parts, body, NOW).unwrap_or_else(|refusal| panic!("{location:?}: {refusal:?}"));
        parts.headers.insert("host", HeaderValue::from_static("localhost:4568"));
        gate.verify(&parts, body, NOW).unwrap_err();
    }
}

#[test]
fn over_http_2_the_authority_is_the_host() {
    let mut parts = botocore()[0].parts().unwrap();
    parts.headers.remove("host");
    parts.version = Version::HTTP_2;
    parts.uri = "http://localhost:4567/".parse().unwrap();
    keyed_gate("").verify(&parts, b"{}", NOW).unwrap();
    parts.uri = "http://localhost:4568/".parse().unwrap();
    keyed_gate("").verify(&parts, b"{}", NOW).unwrap_err();
    // a header beside it does not count
    parts.headers.insert("host", "localhost:4567".parse().unwrap());
    keyed_gate("").verify(&parts, b"{}", NOW).unwrap_err();
}

/// Signed by the JavaScript SDK, which signs `:authority` by that name over HTTP/2.
#[test]
fn over_http_2_the_authority_may_be_signed_by_its_own_name() {
    let sent = |version: Version, uri: &str| {
        let mut parts = Request::post(uri).version(version).body(()).unwrap().into_parts().0;
        let headers = [
            ("content-type", "application/x-amz-json-1.1"),
            ("x-amz-target", "Kinesis_20131202.ListStreams"),
            ("content-length", "2"),
            ("x-amz-user-agent", "aws-sdk-js/3.1142.0"),
            ("amz-sdk-invocation-id", "84c371bb-33de-4330-ba01-24857a73d22e"),
            ("amz-sdk-request", "attempt=1; max=1"),
            ("x-amz-date", "20240102T030405Z"),
            ("x-amz-content-sha256", "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"),
            (
                "authorization",
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20240102/us-east-1/kinesis/aws4_request, \
                 SignedHeaders=:authority;amz-sdk-invocation-id;amz-sdk-request;content-length;content-type;\
                 x-amz-content-sha256;x-amz-date;x-amz-target;x-amz-user-agent, \
                 Signature=b6e7218dbcef0f3e33d35a64ca0aa38f7ce95a9171818642d3153f2420217300",
            ),
        ];
        for (name, value) in headers {
            parts.headers.insert(name, value.parse().unwrap());
        }
        keyed_gate("").verify(&parts, b"{}", NOW)
    };
    sent(Version::HTTP_2, "http://127.0.0.1:14999/").unwrap();
    let other = sent(Version::HTTP_2, "http://127.0.0.1:14998/").unwrap_err();
    assert_eq!(other.code, Code::InvalidSignature);
    // HTTP/1.1 has nothing of that name
    assert_eq!(
        message(sent(Version::HTTP_11, "http://127.0.0.1:14999/")),
        "The signed header ':authority' is not in the request."
    );
}

#[test]
fn without_any_host_nothing_is_verified() {
    let mut parts = botocore()[0].parts().unwrap();
    parts.headers.remove("host");
    assert_eq!(
        message(keyed_gate("").verify(&parts, b"{}", NOW)),
        "The signed header 'host' is not in the request."
    );
}
