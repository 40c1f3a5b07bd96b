//! Signing keys: derived from a secret for one date and region, and kept, as a client uses the same for a day.

use super::claim::Scope;
use crate::auth::Secret;
use hmac::{Hmac, KeyInit, Mac};
use parking_lot::Mutex;
use sha2::Sha256;

/// Around midnight two dates are in use. The region is always the broker's.
const KEPT_MAX: usize = 2;

/// The signing keys of one credential that were used last.
#[derive(Default)]
pub(in crate::auth) struct SigningKeys(Mutex<Vec<Kept>>);

struct Kept {
    scope: Scope,
    key: Hmac<Sha256>,
}

impl SigningKeys {
    /// Whether `signature` is that of `text`. Compared in constant time.
    pub(super) fn verify(&self, secret: &Secret, scope: &Scope, text: &str, signature: &str) -> bool {
        let mac = self.key(secret, scope).chain_update(text);
        match unhex(signature) {
            Some(bytes) => mac.verify_slice(&bytes).is_ok(),
            None => false,
        }
    }

    /// The signature of `text`.
    pub(super) fn sign(&self, secret: &Secret, scope: &Scope, text: &str) -> [u8; 32] {
        self.key(secret, scope).chain_update(text).finalize().into_bytes().into()
    }

    fn key(&self, secret: &Secret, scope: &Scope) -> Hmac<Sha256> {
        let mut kept = self.0.lock();
        if let Some(found) = kept.iter().find(|kept| kept.scope == *scope) {
            return found.key.clone();
        }
        let key = derive(secret, scope);
        if kept.len() == KEPT_MAX {
            kept.remove(0);
        }
        kept.push(Kept { scope: scope.clone(), key: key.clone() });
        key
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

fn derive(secret: &Secret, scope: &Scope) -> Hmac<Sha256> {
    let first = Secret::new(format!("AWS4{}", secret.reveal()));
    [&scope.date, &scope.region, &scope.service, &scope.terminator]
        .iter()
        .fold(keyed(first.reveal().as_bytes()), |key, word| {
            keyed(&key.chain_update(word.as_bytes()).finalize().into_bytes())
        })
}

/// Exactly 64 digits in lower case: another spelling is another signature.
fn unhex(text: &str) -> Option<[u8; 32]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; 32];
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != bytes.len() || !rest.is_empty() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(pairs) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(date: &str) -> Scope {
        let [region, service, terminator] = ["us-east-1", "kinesis", "aws4_request"].map(str::to_owned);
        Scope { date: date.to_owned(), region, service, terminator }
    }

    #[test]
    fn a_signing_key_is_derived_as_published() {
        let secret = Secret::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned());
        let expected = unhex("8033a1a172c73727811255f85e4c79862831a83d2cf4a419c5bc365d7376a6fe").unwrap();
        let told = derive(&secret, &scope("20240102")).chain_update(b"x").finalize().into_bytes();
        assert_eq!(told, keyed(&expected).chain_update(b"x").finalize().into_bytes());
    }

    #[test]
    fn only_the_last_keys_are_kept() {
        let keys = SigningKeys::default();
        let secret = Secret::new("s".to_owned());
        for date in ["20240101", "20240102", "20240103", "20240102"] {
            keys.key(&secret, &scope(date));
        }
        let dates: Vec<_> = keys.0.lock().iter().map(|kept| kept.scope.date.clone()).collect();
        assert_eq!(dates, ["20240102", "20240103"]);
    }

    #[test]
    fn a_signature_has_one_spelling() {
        let text = "0123456789abcdef".repeat(4);
        assert_eq!(unhex(&text).unwrap()[..2], [0x01, 0x23]);
        for bad in [&text[1..], &text.to_uppercase(), &format!("{text}0"), &text.replace('a', "g"), ""] {
            assert_eq!(unhex(bad), None, "{bad}");
        }
    }
}
