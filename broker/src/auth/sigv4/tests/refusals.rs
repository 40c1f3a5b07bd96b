//! What is refused, and in which words.

use super::super::super::tests::settings;
use super::*;
use tidemill_types::AccountId;

/// A request of the Kinesis API, signed here: what is signed by others is in the vectors.
pub(super) struct Draft {
    pub(super) parts: Parts,
    body: Vec<u8>,
    key_id: String,
    scope: String,
    signed_headers: String,
}

impl Draft {
    pub(super) fn new() -> Self {
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
    pub(super) fn set(&mut self, name: &'static str, value: &str) {
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
