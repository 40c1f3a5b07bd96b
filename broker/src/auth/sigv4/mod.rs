//! Signature version 4: whether a request was signed with the secret of the key it names, for here and for now.
//!
//! ```text
//!  claim      header or query ─► key id, scope, signed headers, signature, date
//!   └ date        is it now, give or take five minutes
//!      └ canonical   the request as its signer saw it ─► its hash
//!         └ key         secret, date, region, service ─► signing key (kept) ─► compared in constant time
//! ```
//!
//! Why: AWS clients sign every request. An unknown key costs the same work as a known one: a stand-in is signed with.
//! What it does not do: bodies that are not hashed (`UNSIGNED-PAYLOAD`) or come in signed chunks (`STREAMING-…`).
//! `sign` goes the same way in the other direction.

mod canonical;
mod claim;
mod date;
mod key;
mod sign;

pub(super) use claim::claimed_key_id;
pub(super) use key::SigningKeys;
pub(crate) use sign::Signer;

use super::Refusal;
use super::credentials::{Credential, Keyring};
use crate::aws::Code;
use claim::{Claim, Form};
use date::{Moment, basic};
use http::request::Parts;
use sha2::{Digest, Sha256};
use tidemill_types::{Region, TimestampMs};

/// How far a signer's clock may be off.
const SKEW_MS: u64 = 5 * 60 * 1000;
const SERVICE: &str = "kinesis";
const TERMINATOR: &str = "aws4_request";
const ALGORITHM: &str = "AWS4-HMAC-SHA256";

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal { code: Code::InvalidSignature, message: message.into() }
}

fn incomplete(message: impl Into<String>) -> Refusal {
    Refusal { code: Code::IncompleteSignature, message: message.into() }
}

fn unrecognized() -> Refusal {
    let message = "The security token included in the request is invalid.".to_owned();
    Refusal { code: Code::UnrecognizedClient, message }
}

/// That the request says of its signature what has to be said, and names a known key.
pub(super) fn check_claim(keyring: &Keyring, parts: &Parts) -> Result<(), Refusal> {
    let claim = Claim::of(parts)?;
    keyring.get(&claim.key_id).map(|_| ()).ok_or_else(unrecognized)
}

/// The credential that the request is signed with.
pub(super) fn verify<'k>(
    keyring: &'k Keyring,
    region: &Region,
    parts: &Parts,
    body: &[u8],
    now: TimestampMs,
) -> Result<&'k Credential, Refusal> {
    let claim = Claim::of(parts)?;
    check_scope(&claim, region)?;
    check_signed_headers(&claim, parts)?;
    let body_hash = hex(&Sha256::digest(body));
    check_content_hash(parts, &body_hash)?;
    check_time(&claim, now)?;
    let known = keyring.get(&claim.key_id);
    let credential = known.unwrap_or(keyring.stand_in());
    let text = string_to_sign(&claim, parts, &body_hash)?;
    let matches =
        credential.signing_keys().verify(credential.secret(), &claim.scope, &text, &claim.signature);
    let token_matches = keyring.has_token(credential, claim.token.as_deref());
    match known {
        Some(credential) if token_matches => {
            if !matches {
                return Err(invalid(
                    "The request signature we calculated does not match the signature you provided. Check your AWS \
                     Secret Access Key and signing method. Consult the service documentation for details.",
                ));
            }
            credential.check_expiry(now)?;
            Ok(credential)
        }
        _ => Err(unrecognized()),
    }
}

fn string_to_sign(claim: &Claim, parts: &Parts, body_hash: &str) -> Result<String, Refusal> {
    let query_signature = matches!(claim.form, Form::Query { .. });
    let canonical = canonical::request(parts, query_signature, &claim.signed_headers, body_hash)
        .map_err(|absent| invalid(format!("The signed header '{absent}' is not in the request.")))?;
    let hash = hex(&Sha256::digest(&canonical));
    Ok(format!("{ALGORITHM}\n{}\n{}\n{hash}", basic(claim.moment), claim.scope))
}

fn check_scope(claim: &Claim, region: &Region) -> Result<(), Refusal> {
    let scope = &claim.scope;
    let signed_at = basic(claim.moment);
    if scope.date != signed_at[..8] {
        return Err(invalid(format!(
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '{}' != '{}', \
             from '{signed_at}'.",
            scope.date,
            &signed_at[..8]
        )));
    }
    if scope.region != region.as_str() {
        return Err(invalid(format!(
            "Credential should be scoped to a valid region, not '{}'; this endpoint is of '{region}'.",
            scope.region
        )));
    }
    if scope.service != SERVICE {
        return Err(invalid(format!("Credential should be scoped to correct service: '{SERVICE}'.")));
    }
    if scope.terminator != TERMINATOR {
        return Err(invalid(format!(
            "Credential should be scoped with a valid terminator: '{TERMINATOR}', not '{}'.",
            scope.terminator
        )));
    }
    Ok(())
}

/// The host and everything that steers the service must be signed.
fn check_signed_headers(claim: &Claim, parts: &Parts) -> Result<(), Refusal> {
    let mut last = "";
    for name in claim.signed_headers.split(';') {
        let lower = name.bytes().all(|b| !b.is_ascii_uppercase());
        if name <= last || !lower {
            return Err(invalid(
                "The names in 'SignedHeaders' must be in lower case, sorted, and each there once.",
            ));
        }
        last = name;
    }
    let is_signed = |name: &str| claim.signed_headers.split(';').any(|signed| signed == name);
    if !is_signed("host") && !is_signed(canonical::AUTHORITY) {
        return Err(invalid("'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization."));
    }
    let date_header = claim.dated_by_date_header.then_some("date");
    let steering = parts.headers.keys().map(|name| name.as_str()).filter(|name| name.starts_with("x-amz-"));
    match steering.chain(date_header).find(|name| !is_signed(name)) {
        Some(name) => Err(invalid(format!("'{name}' must be a 'SignedHeader' in the AWS Authorization."))),
        None => Ok(()),
    }
}

fn check_content_hash(parts: &Parts, body_hash: &str) -> Result<(), Refusal> {
    for value in parts.headers.get_all("x-amz-content-sha256") {
        if value.as_bytes() == body_hash.as_bytes() {
            continue;
        }
        let told = String::from_utf8_lossy(value.as_bytes());
        return Err(invalid(if told == "UNSIGNED-PAYLOAD" || told.starts_with("STREAMING-") {
            format!("The payload must be signed whole: x-amz-content-sha256 '{told}' is not supported.")
        } else {
            "The value of x-amz-content-sha256 does not match the SHA-256 of the request body.".to_owned()
        }));
    }
    Ok(())
}

fn check_time(claim: &Claim, now: TimestampMs) -> Result<(), Refusal> {
    let signed_ms = claim.moment.seconds().saturating_mul(1000);
    let signed_at = basic(claim.moment);
    let (age_ms_max, age) = match claim.form {
        Form::Query { expires_s: Some(seconds) } => (u64::from(seconds) * 1000, format!("{seconds} sec.")),
        Form::Header | Form::Query { expires_s: None } => (SKEW_MS, "5 min.".to_owned()),
    };
    let at = |ms: u64| basic(Moment::new(ms / 1000));
    if now.get().saturating_sub(signed_ms) > age_ms_max {
        return Err(invalid(format!(
            "Signature expired: {signed_at} is now earlier than {} ({} - {age})",
            at(now.get().saturating_sub(age_ms_max)),
            at(now.get())
        )));
    }
    if signed_ms.saturating_sub(now.get()) > SKEW_MS {
        return Err(invalid(format!(
            "Signature not yet current: {signed_at} is still later than {} ({} + 5 min.)",
            at(now.get().saturating_add(SKEW_MS)),
            at(now.get())
        )));
    }
    Ok(())
}

/// Milliseconds since the epoch of a date as in `2024-01-02T03:04:05Z`.
pub(super) fn moment_ms(text: &str) -> Option<TimestampMs> {
    let moment = date::parse_basic(&text.replace(['-', ':'], ""))?;
    Some(TimestampMs::new(moment.seconds() * 1000))
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes.iter().flat_map(|&byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests;
