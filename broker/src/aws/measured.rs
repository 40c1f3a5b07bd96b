//! Doors for `broker/benches`: what a request passes before a handler sees it. Compiled for these (feature `bench`) and for
//! the tests only.

use super::codec::Encoding;
use super::shape::{Input, PutRecordsInput};
use super::validate::Check;
use crate::auth::Gate;
use crate::{AccessSettings, CredentialSettings, Secret};
use http::request::Parts;
use tidemill_types::{AccountId, Region, TimestampMs};

/// Reads a PutRecords request in JSON and judges it; the number of its records, if it is right.
pub fn put_records_json(body: &[u8]) -> Option<usize> {
    put_records(Encoding::Json, body)
}

/// The same in CBOR.
pub fn put_records_cbor(body: &[u8]) -> Option<usize> {
    put_records(Encoding::Cbor, body)
}

fn put_records(encoding: Encoding, body: &[u8]) -> Option<usize> {
    let mut fields = encoding.decode(body).ok()?.into_fields(encoding).ok()?;
    let input = PutRecordsInput::read(&mut fields).ok()?;
    Check::all(&input).ok()?;
    input.entries.map(|entries| entries.len())
}

/// Verifies the signatures of one credential, in `us-east-1`.
pub struct Verifier(Gate);

impl Verifier {
    /// Of this credential; none if it cannot be one.
    pub fn new(access_key_id: &str, secret_access_key: &str) -> Option<Self> {
        let credential = CredentialSettings {
            access_key_id: access_key_id.to_owned(),
            secret_access_key: Secret::new(secret_access_key.to_owned()),
            session_token: None,
            expires: None,
            name: None,
            account: None,
            policies: Vec::new(),
        };
        let access = AccessSettings { credentials: vec![credential], ..AccessSettings::default() };
        let account = AccountId::new("000000000000").ok()?;
        Gate::new(&access, account, Region::new("us-east-1").ok()?).ok().map(Self)
    }

    /// Whether a request is signed with it.
    pub fn verifies(&self, parts: &Parts, body: &[u8], now: TimestampMs) -> bool {
        self.0.verify(parts, body, now).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_doors_tell_right_from_wrong() {
        let right = br#"{"StreamName":"s","Records":[{"Data":"aGk=","PartitionKey":"a"}]}"#;
        assert_eq!(put_records_json(right), Some(1));
        assert_eq!(put_records_json(br#"{"StreamName":"s"}"#), None);
        assert_eq!(put_records_cbor(right), None);
        let verifier = Verifier::new("AKIDEXAMPLE", "secret").unwrap();
        let parts = http::Request::post("/").body(()).unwrap().into_parts().0;
        assert!(!verifier.verifies(&parts, b"", TimestampMs::new(0)));
    }
}
