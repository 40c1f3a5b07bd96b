//! Signatures of others verify; anything changed in what they cover does not; each refusal has its words.
//!
//! `vectors/published.json` holds the signed requests of the test suite that AWS publishes for Signature Version 4
//! (those that HTTP can carry and that are signed as for this service), `vectors/botocore.json` requests signed by botocore
//! (made by the script beside it).

use super::super::tests::{NOW, gate, settings};
use super::super::{Gate, Refusal, Secret, Verified};
use super::*;
use base64_simd::STANDARD;
use http::{HeaderName, HeaderValue, Method, Request, Uri, Version};
use proptest::prelude::*;
use std::time::{Duration, SystemTime};
use tidemill_types::AccountId;

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

/// A request as it is sent.
#[derive(Debug, Clone, serde::Deserialize)]
struct Sent {
    name: String,
    method: String,
    uri: String,
    headers: Vec<(String, String)>,
    /// In base64.
    body: String,
    /// Of the signer; empty if it had none.
    token: String,
}

impl Sent {
    fn body(&self) -> Vec<u8> {
        STANDARD.decode_to_vec(&self.body).unwrap()
    }
    /// As the listener gives it, unless HTTP cannot carry it.
    fn parts(&self) -> Option<Parts> {
        let mut parts = Request::new(()).into_parts().0;
        parts.method = Method::from_bytes(self.method.as_bytes()).ok()?;
        parts.uri = self.uri.parse::<Uri>().ok()?;
        for (name, value) in &self.headers {
            parts.headers.append(HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?);
        }
        Some(parts)
    }
}

fn botocore() -> Vec<Sent> {
    serde_json::from_str(include_str!("vectors/botocore.json")).unwrap()
}

fn keyed_gate(token: &str) -> Gate {
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

/// A request of the Kinesis API, signed here: what is signed by others is in the vectors.
struct Draft {
    parts: Parts,
    body: Vec<u8>,
    key_id: String,
    scope: String,
    signed_headers: String,
}

impl Draft {
    fn new() -> Self {
        let mut draft = Self {
            parts: Request::post("/").body(()).unwrap().into_parts().0,
            body: b"{}".to_vec(),
            key_id: "AKIDEXAMPLE".to_owned(),
            scope: "20240102/us-east-1/kinesis/aws4_request".to_owned(),
            signed_headers: "host;x-amz-date;x-amz-target".to_owned(),
        };
        for (name, value) in [
            ("host", "localhost:4567"),
            ("x-amz-date", "20240102T030405Z"),
            ("x-amz-target", "Kinesis_20131202.ListStreams"),
        ] {
            draft.set(name, value);
        }
        draft
    }
    fn set(&mut self, name: &'static str, value: &str) {
        self.parts.headers.insert(name, value.parse().unwrap());
    }
    fn remove(&mut self, name: &str) {
        self.parts.headers.remove(name);
    }
    fn send(mut self) -> Result<Verified, Refusal> {
        let (id, scope, signed_headers) = (&self.key_id, &self.scope, &self.signed_headers);
        let head = format!("{ALGORITHM} Credential={id}/{scope},SignedHeaders={signed_headers},Signature=");
        self.set("authorization", &format!("{head}00"));
        if let Ok(claim) = Claim::of(&self.parts)
            && let Ok(text) = string_to_sign(&claim, &self.parts, &hex(&Sha256::digest(&self.body)))
        {
            let signature = SigningKeys::default().sign(&Secret::new(SECRET.to_owned()), &claim.scope, &text);
            self.set("authorization", &format!("{head}{}", hex(&signature)));
        }
        keyed_gate("").verify(&self.parts, &self.body, NOW)
    }
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

/// Every place in what a signature covers, and the signature.
#[derive(Debug, Clone, Copy)]
enum Place {
    Method(usize),
    Uri(usize),
    Header(usize, usize),
    Body(usize),
}

fn places(sent: &Sent) -> Vec<Place> {
    let parts = sent.parts().unwrap();
    let claim = Claim::of(&parts).unwrap();
    let mut places: Vec<Place> = (0..sent.method.len()).map(Place::Method).collect();
    places.extend((1..sent.uri.len()).map(Place::Uri));
    for (i, (name, value)) in sent.headers.iter().enumerate() {
        let first = match name.as_str() {
            "authorization" => value.find("Signature=").unwrap() + "Signature=".len(),
            name if claim.signed_headers.split(';').any(|signed| signed == name) => 0,
            _ => continue,
        };
        places.extend((first..value.len()).map(|at| Place::Header(i, at)));
    }
    places.extend((0..sent.body().len()).map(Place::Body));
    places
}

/// Puts another letter or digit to the place: not one that differs in its case only, which in an escape means the same.
fn changed(sent: &Sent, place: Place, byte: u8) -> Option<Sent> {
    let mut changed = sent.clone();
    if let Place::Body(at) = place {
        let mut body = sent.body();
        body[at] = if body[at] == byte { !byte } else { byte };
        changed.body = STANDARD.encode_to_string(body);
        return Some(changed);
    }
    let (text, at) = match place {
        Place::Method(at) => (&mut changed.method, at),
        Place::Uri(at) => (&mut changed.uri, at),
        Place::Header(i, at) => (&mut changed.headers[i].1, at),
        Place::Body(_) => unreachable!("handled above"),
    };
    let old = text.as_bytes()[at];
    if old.eq_ignore_ascii_case(&byte) {
        return None;
    }
    text.replace_range(at..=at, char::from(byte).encode_utf8(&mut [0]));
    // what the listener would not even take is refused too
    changed.parts().is_some().then_some(changed)
}

/// Requests of which every byte counts: in a path with dot segments some mean nothing.
fn exact() -> Vec<Sent> {
    botocore().into_iter().filter(|sent| sent.name != "path").collect()
}

#[test]
fn no_byte_of_a_signed_request_can_be_changed() {
    let mut tried = 0;
    for sent in exact().iter().filter(|sent| sent.name != "large") {
        let gate = keyed_gate(&sent.token);
        for (i, place) in places(sent).into_iter().enumerate() {
            let byte = b"x7Qf0"[i % 5];
            for byte in [byte, if byte == b'7' { b'8' } else { b'7' }] {
                let Some(changed) = changed(sent, place, byte) else { continue };
                let result = gate.verify(&changed.parts().unwrap(), &changed.body(), NOW);
                assert!(result.is_err(), "{}: {place:?} {byte}: {changed:?}", sent.name);
                tried += 1;
            }
        }
    }
    assert!(tried > 5000, "{tried}");
}

proptest! {
    #[test]
    fn no_random_change_of_a_signed_request_passes(which in 0usize..14, at in 0usize..10_000, byte in any::<u8>()) {
        let sent = &exact()[which];
        let places = places(sent);
        let place = places[at % places.len()];
        let byte = if matches!(place, Place::Body(_)) { byte } else { b'0' + byte % 10 };
        if let Some(changed) = changed(sent, place, byte) {
            prop_assert!(check(&changed).is_err(), "{place:?} {byte}");
        }
    }

    #[test]
    fn no_header_value_panics(authorization in "[ -~]{0,200}", date in "[ -~]{0,30}", query in "[!-~]{0,80}") {
        let mut draft = Draft::new();
        draft.set("authorization", &authorization);
        draft.set("x-amz-date", &date);
        if let Ok(uri) = format!("/?{query}").parse() {
            draft.parts.uri = uri;
        }
        let result = keyed_gate("").verify(&draft.parts, b"{}", NOW);
        prop_assert!(result.is_err());
    }
}

#[test]
fn a_draft_signed_here_passes() {
    Draft::new().send().unwrap();
}

#[test]
fn the_date_header_stands_in_for_a_missing_x_amz_date_and_must_be_signed() {
    let dated = |signed: &str| {
        let mut draft = Draft::new();
        draft.remove("x-amz-date");
        draft.set("date", "Tue, 02 Jan 2024 03:04:05 GMT");
        draft.signed_headers = signed.to_owned();
        draft.send()
    };
    dated("date;host;x-amz-target").unwrap();
    let told = message(dated("host;x-amz-target"));
    assert_eq!(told, "'date' must be a 'SignedHeader' in the AWS Authorization.");
}

#[test]
fn a_wrong_signature_is_told_in_the_words_of_aws() {
    let mut sent = botocore()[0].clone();
    sent.body = STANDARD.encode_to_string(b"{ }");
    let refusal = check(&sent).unwrap_err();
    assert_eq!(refusal.code, Code::InvalidSignature);
    assert_eq!(
        refusal.message,
        "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access \
         Key and signing method. Consult the service documentation for details."
    );
}

#[test]
fn five_minutes_of_skew_are_taken_and_not_a_second_more() {
    let sent = &botocore()[0];
    let at = |ms: u64| keyed_gate("").verify(&sent.parts().unwrap(), b"{}", TimestampMs::new(ms));
    at(NOW.get() + 300_000).unwrap();
    at(NOW.get() - 300_000).unwrap();
    assert_eq!(
        message(at(NOW.get() + 301_000)),
        "Signature expired: 20240102T030405Z is now earlier than 20240102T030406Z (20240102T030906Z - 5 min.)"
    );
    assert_eq!(
        message(at(NOW.get() - 301_000)),
        "Signature not yet current: 20240102T030405Z is still later than 20240102T030404Z (20240102T025904Z + 5 min.)"
    );
}

#[test]
fn a_presigned_request_is_good_for_as_long_as_it_says() {
    let all = botocore();
    let sent = all.iter().find(|sent| sent.name == "presigned").unwrap();
    let at = |ms: u64| keyed_gate("").verify(&sent.parts().unwrap(), &sent.body(), TimestampMs::new(ms));
    at(NOW.get() + 60_000).unwrap();
    let told = message(at(NOW.get() + 61_000));
    assert!(
        told.starts_with("Signature expired: 20240102T030405Z") && told.ends_with("- 60 sec.)"),
        "{told}"
    );
}

#[test]
fn a_scope_of_elsewhere_is_refused() {
    let with = |scope: &str| {
        let mut draft = Draft::new();
        draft.scope = scope.to_owned();
        let refusal = draft.send().unwrap_err();
        assert_eq!(refusal.code, Code::InvalidSignature);
        refusal.message
    };
    assert_eq!(
        with("20240101/us-east-1/kinesis/aws4_request"),
        "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '20240101' != \
         '20240102', from '20240102T030405Z'."
    );
    assert!(with("20240102/eu-west-1/kinesis/aws4_request").contains("valid region, not 'eu-west-1'"));
    assert!(with("20240102/us-east-1/dynamodb/aws4_request").contains("correct service: 'kinesis'"));
    assert!(with("20240102/us-east-1/kinesis/aws5_request").contains("valid terminator: 'aws4_request'"));
}

#[test]
fn host_and_all_amz_headers_must_be_signed() {
    let with = |signed: &str| {
        let mut draft = Draft::new();
        draft.set("x-amz-extra", "1");
        draft.signed_headers = signed.to_owned();
        draft.send()
    };
    with("host;x-amz-date;x-amz-extra;x-amz-target").unwrap();
    assert!(
        message(with("x-amz-date;x-amz-extra;x-amz-target")).starts_with("'Host' or ':authority' must be")
    );
    for unsigned in ["x-amz-date", "x-amz-extra", "x-amz-target"] {
        let signed = "host;x-amz-date;x-amz-extra;x-amz-target".replace(&format!(";{unsigned}"), "");
        let told = message(with(&signed));
        assert_eq!(told, format!("'{unsigned}' must be a 'SignedHeader' in the AWS Authorization."));
    }
    let absent = message(with("absent;host;x-amz-date;x-amz-extra;x-amz-target"));
    assert_eq!(absent, "The signed header 'absent' is not in the request.");
    for disorder in [
        "host;host;x-amz-date;x-amz-extra;x-amz-target",
        "x-amz-date;host;x-amz-extra;x-amz-target",
        "Host;x-amz-date;x-amz-extra;x-amz-target",
        ";host;x-amz-date;x-amz-extra;x-amz-target",
    ] {
        assert!(message(with(disorder)).starts_with("The names in 'SignedHeaders'"), "{disorder}");
    }
}

#[test]
fn values_of_a_header_that_is_there_twice_are_joined() {
    let mut draft = Draft::new();
    draft.parts.headers.append("x-amz-many", "  b  c ".parse().unwrap());
    draft.parts.headers.append("x-amz-many", "a".parse().unwrap());
    let joined = canonical::request(&draft.parts, false, "x-amz-many", "").unwrap();
    assert!(String::from_utf8(joined).unwrap().contains("\nx-amz-many:b c,a\n"));
}

#[test]
fn a_body_must_be_the_one_that_was_hashed() {
    let with = |value: &str| {
        let mut draft = Draft::new();
        draft.set("x-amz-content-sha256", value);
        draft.signed_headers = "host;x-amz-content-sha256;x-amz-date;x-amz-target".to_owned();
        draft.send()
    };
    with(&hex(&Sha256::digest(b"{}"))).unwrap();
    assert!(message(with(&hex(&Sha256::digest(b"[]")))).contains("does not match"));
    for unhashed in
        ["UNSIGNED-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"]
    {
        assert!(message(with(unhashed)).contains("must be signed whole"), "{unhashed}");
    }
}

#[test]
fn an_unknown_key_or_token_is_not_recognized() {
    let mut draft = Draft::new();
    draft.key_id = "AKIDOTHER".to_owned();
    let refusal = draft.send().unwrap_err();
    assert_eq!(refusal.code, Code::UnrecognizedClient);
    assert_eq!(refusal.message, "The security token included in the request is invalid.");
    for name in ["session-token", "presigned-token"] {
        let sent = botocore().into_iter().find(|sent| sent.name == name).unwrap();
        for token in ["", "other"] {
            let refusal = keyed_gate(token).verify(&sent.parts().unwrap(), &sent.body(), NOW).unwrap_err();
            assert_eq!(refusal.code, Code::UnrecognizedClient, "{name} {token}");
        }
    }
}

#[test]
fn an_expired_token_is_told_to_whoever_can_sign_with_it() {
    let text = format!(
        "[[credentials]]\naccess_key_id = 'AKIDEXAMPLE'\nsecret_access_key = '{SECRET}'\nexpires = 2024-01-02T03:04:05Z"
    );
    let region = Region::new("us-east-1").unwrap();
    let gate = Gate::new(&settings(&text), AccountId::new("000000000000").unwrap(), region).unwrap();
    let sent = &botocore()[0];
    let refusal = gate.verify(&sent.parts().unwrap(), b"{}", NOW).unwrap_err();
    assert_eq!(refusal.code, Code::ExpiredToken);
    assert_eq!(refusal.message, "The security token included in the request is expired");
    let refusal = gate.verify(&sent.parts().unwrap(), b"{ }", NOW).unwrap_err();
    assert_eq!(refusal.code, Code::InvalidSignature);
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
