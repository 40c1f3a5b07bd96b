//! The gate as a whole: whom it lets pass, and how it changes while the broker runs.

mod running;

use super::*;
use http::Request;

pub(super) const NOW: TimestampMs = TimestampMs::new(1_704_164_645_000);

fn account(text: &str) -> AccountId {
    AccountId::new(text).unwrap()
}

fn region() -> Region {
    Region::new("us-east-1").unwrap()
}

#[derive(serde::Deserialize)]
struct Written {
    #[serde(default)]
    credentials: Vec<CredentialSettings>,
    #[serde(default)]
    policies: Vec<PolicySettings>,
}

pub(super) fn settings(text: &str) -> AccessSettings {
    let Written { credentials, policies } = toml::from_str(text).unwrap();
    AccessSettings { credentials, policies, file: None }
}

pub(super) fn gate(text: &str) -> Gate {
    Gate::new(&settings(text), account("000000000000"), region()).unwrap()
}

const TWO: &str = "
    [[credentials]]
    access_key_id = 'AKIDEXAMPLE'
    secret_access_key = 'top secret'
    name = 'app'
    account = '111111111111'
    policies = ['all']
    [[credentials]]
    access_key_id = 'TEMPORARY'
    secret_access_key = 'top secret'
    session_token = 'some token'
    expires = 2024-01-02T03:04:06Z
    [[policies]]
    name = 'all'
    [[policies.statements]]
    effect = 'allow'
    actions = ['kinesis:*']
    streams = ['*']
";

fn head(authorization: Option<&str>) -> Parts {
    let mut request = Request::post("/");
    if let Some(value) = authorization {
        request = request.header("authorization", value);
    }
    request.body(()).unwrap().into_parts().0
}

fn as_basic(text: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let value = format!("Basic {}", base64_simd::STANDARD.encode_to_string(text));
    headers.insert("authorization", value.parse().unwrap());
    headers
}

#[test]
fn without_credentials_anyone_passes_and_twelve_digits_are_an_account() {
    let gate = gate("");
    assert!(!gate.verifies());
    for (header, expected) in [
        (None, "000000000000"),
        (Some("Bearer x"), "000000000000"),
        (Some("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20240102/x/y/z"), "000000000000"),
        (Some("AWS4-HMAC-SHA256 Credential=222222222222/20240102/x/y/z, Signature=1"), "222222222222"),
    ] {
        let caller = gate.verify(&head(header), b"", NOW).unwrap();
        assert_eq!(caller.account().as_str(), expected, "{header:?}");
        assert_eq!(caller.principal(), format!("arn:aws:iam::{expected}:root"));
    }
    let caller = gate.verify_basic(&as_basic("222222222222:x"), NOW).unwrap();
    assert_eq!(caller.account().as_str(), "222222222222");
    assert_eq!(gate.verify_basic(&HeaderMap::new(), NOW).unwrap().account().as_str(), "000000000000");
}

#[test]
fn with_credentials_nobody_passes_without_proof() {
    let gate = gate(TWO);
    assert!(gate.verifies());
    let refused = gate.verify(&head(None), b"", NOW).unwrap_err();
    assert_eq!(refused.code, Code::MissingAuthenticationToken);
    let refused = gate.verify_basic(&HeaderMap::new(), NOW).unwrap_err();
    assert_eq!(refused.code, Code::MissingAuthenticationToken);
}

#[test]
fn grpc_callers_pass_with_name_and_secret() {
    let gate = gate(TWO);
    let caller = gate.verify_basic(&as_basic("AKIDEXAMPLE:top secret"), NOW).unwrap();
    assert_eq!(caller.principal(), "arn:aws:iam::111111111111:user/app");
    let wrong =
        ["AKIDEXAMPLE:top secre", "AKIDEXAMPLE:", "AKIDEXAMPLF:top secret", "TEMPORARY:top secret", ":"];
    for wrong in wrong {
        let refused = gate.verify_basic(&as_basic(wrong), NOW).unwrap_err();
        assert_eq!(refused.code, Code::UnrecognizedClient, "{wrong}");
    }
}

#[test]
fn a_temporary_credential_needs_its_token_and_ends() {
    let gate = gate(TWO);
    let mut headers = as_basic("TEMPORARY:top secret");
    headers.insert("x-amz-security-token", "some token".parse().unwrap());
    let caller = gate.verify_basic(&headers, NOW).unwrap();
    assert_eq!(caller.principal(), "arn:aws:iam::000000000000:user/TEMPORARY");
    let late = TimestampMs::new(NOW.get() + 1000);
    assert_eq!(gate.verify_basic(&headers, late).unwrap_err().code, Code::ExpiredToken);
    headers.insert("x-amz-security-token", "other token".parse().unwrap());
    assert_eq!(gate.verify_basic(&headers, NOW).unwrap_err().code, Code::UnrecognizedClient);
}

#[test]
fn settings_with_a_mistake_change_nothing() {
    let gate = gate(TWO);
    let one = "[[credentials]]\naccess_key_id = 'A'\nsecret_access_key = 'hunter2'\n";
    for (text, word) in [
        (one.replace("'A'", "''"), "access_key_id"),
        (one.replace("'A'", "'a b'"), "access_key_id"),
        (one.replace("hunter2", ""), "empty"),
        (format!("{one}{one}"), "two credentials"),
        (format!("{one}name = 'a b'"), "name"),
        (format!("{one}account = '12'"), "12 digits"),
        (format!("{one}expires = 2024-01-01"), "expires"),
        (format!("{one}expires = 2024-01-01T00:00:00+01:00"), "expires"),
        (format!("{one}policies = ['none']"), "no policy"),
        ("[[policies]]\nname = 'p'\n[[policies]]\nname = 'p'".to_owned(), "two policies"),
        (
            "[[policies]]\nname = 'p'\nstatements = [{ effect = 'allow', actions = [], streams = ['*'] }]".to_owned(),
            "must name",
        ),
        (
            "[[policies]]\nname = 'p'\nstatements = [{ effect = 'deny', actions = ['s3:*'], streams = ['*'] }]"
                .to_owned(),
            "kinesis:",
        ),
        (
            "[[policies]]\nname = 'p'\nstatements = [{ effect = 'deny', actions = ['*'], streams = ['*:stream/s'] }]"
                .to_owned(),
            "begins with arn:",
        ),
    ] {
        let told = gate.replace(&settings(&text)).unwrap_err();
        assert!(told.contains(word) && !told.contains("hunter2"), "{text}: {told}");
    }
    assert!(gate.verify_basic(&as_basic("AKIDEXAMPLE:top secret"), NOW).is_ok());
}

#[test]
fn a_gate_that_had_credentials_never_opens_again() {
    let gate = gate("");
    assert_eq!(gate.replace(&settings("")), Ok(0));
    assert!(!gate.verifies());
    assert_eq!(gate.replace(&settings(TWO)), Ok(2));
    assert_eq!(gate.replace(&settings("")), Ok(0));
    assert!(gate.verifies());
    let refused = gate.verify_basic(&as_basic("AKIDEXAMPLE:top secret"), NOW).unwrap_err();
    assert_eq!(refused.code, Code::UnrecognizedClient);
}
