//! Who is calling: the one gate that every request passes before it is acted on.
//!
//! ```text
//!  request ─► Gate::verify ─► Verified ─► handler ─► decide(caller, action, resource) ─► engine
//!              │
//!              └ sigv4 (Kinesis API), name and secret (gRPC), checked against `credentials`, read anew by `reload`
//! ```
//!
//! What it is: a request's head and body in, a [`Verified`] out. Why: handlers demand a `Verified`, and only the gate can
//! make one, so no operation can be reached around it. With no credentials configured every signature, or none, is
//! accepted, and a caller may do everything within the account it names; then the broker stays on loopback addresses
//! unless it is told otherwise. `policy` and `resource_policy` decide what a caller may do.
//!
//! What it does not do: know operations, or keep anything beyond the credentials.

mod credentials;
mod policy;
mod reload;
mod resource_policy;
mod secret;
mod sender;
mod sigv4;

pub use credentials::{AccessSettings, CredentialSettings, PolicySettings, StatementSettings};
pub use policy::Effect;
pub(crate) use policy::{Decision, decide, decide_for_consumer};
pub(crate) use reload::follow;
pub(crate) use resource_policy::check_policy;
pub use secret::Secret;
pub(crate) use sender::Sender;
pub(crate) use sigv4::Signer;

use crate::aws::{ApiError, Code};
use arc_swap::{ArcSwap, ArcSwapOption};
use credentials::Keyring;
use http::request::Parts;
use http::{HeaderMap, header};
use policy::Statement;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tidemill_types::{AccountId, Region, TimestampMs};
use tokio_util::sync::CancellationToken;

/// Why a request does not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    pub(crate) message: String,
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.code, refusal.message)
    }
}

/// A caller that has passed the gate. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Verified(Arc<Identity>);

#[derive(PartialEq, Eq)]
struct Identity {
    account: AccountId,
    principal: String,
    /// When the credential ceases to be good.
    expires: Option<TimestampMs>,
    grants: Grants,
}

/// What a caller's own credential gives.
#[derive(PartialEq, Eq)]
enum Grants {
    /// No credentials are configured.
    Everything,
    /// What the policies of the credential say.
    Statements(Arc<[Statement]>),
}

impl Verified {
    /// The account that the caller belongs to, and whose streams it means.
    pub(crate) fn account(&self) -> &AccountId {
        &self.0.account
    }
    /// The ARN by which policies name the caller.
    pub(crate) fn principal(&self) -> &str {
        &self.0.principal
    }
    /// How long the credential is still good, if not for ever.
    pub(crate) fn left(&self, now: TimestampMs) -> Option<Duration> {
        let left = |end: TimestampMs| Duration::from_millis(end.get().saturating_sub(now.get()));
        self.0.expires.map(left)
    }
    fn grants(&self) -> &Grants {
        &self.0.grants
    }
    /// Someone of `account`, of whom no more is known.
    fn anyone_of(account: AccountId) -> Self {
        let principal = format!("arn:aws:iam::{account}:root");
        Self(Arc::new(Identity { account, principal, expires: None, grants: Grants::Everything }))
    }
}

impl fmt::Debug for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Verified").field(&self.principal()).finish()
    }
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.principal())
    }
}

/// The gate. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Gate(Arc<Inner>);

struct Inner {
    region: Region,
    /// Of callers that name none.
    account: AccountId,
    /// None until there are credentials; from then on it stays shut, whatever is taken away.
    keyring: ArcSwapOption<Keyring>,
    /// Cancelled, and made anew, when the keyring changes.
    validity: ArcSwap<CancellationToken>,
}

/// Whether the settings can be put into force; says why not.
pub(crate) fn check_access(settings: &AccessSettings, account: &AccountId) -> Result<(), String> {
    Keyring::new(settings, account).map(|_| ())
}

impl Gate {
    /// A gate that lets everyone pass.
    pub(crate) fn open(account: AccountId, region: Region) -> Self {
        Self(Arc::new(Inner {
            region,
            account,
            keyring: ArcSwapOption::empty(),
            validity: ArcSwap::default(),
        }))
    }

    /// A gate that lets those pass whom the settings name; everyone, if they name nobody.
    pub(crate) fn new(settings: &AccessSettings, account: AccountId, region: Region) -> Result<Self, String> {
        let gate = Self::open(account, region);
        gate.replace(settings)?;
        Ok(gate)
    }

    /// Puts other settings into force, or says what is wrong with them and changes nothing. Tells how many credentials
    /// there are now.
    fn replace(&self, settings: &AccessSettings) -> Result<usize, String> {
        let keyring = Keyring::new(settings, &self.0.account)?;
        let credentials = keyring.len();
        if credentials == 0 {
            if !self.verifies() {
                return Ok(0);
            }
            // to leave the door open is for a start to decide, not for a change of a file
            tracing::warn!(
                "no credentials are left: requests are refused until there are some, or a restart"
            );
        }
        self.0.keyring.store(Some(Arc::new(keyring)));
        self.0.validity.swap(Arc::default()).cancel();
        Ok(credentials)
    }

    /// What was verified while this is not cancelled is good until it is, or the credential expires. Every call that goes
    /// on for long takes it before it is verified, and ends with it.
    pub(crate) fn validity(&self) -> CancellationToken {
        CancellationToken::clone(&self.0.validity.load())
    }

    /// Whether requests must prove who sends them.
    pub(crate) fn verifies(&self) -> bool {
        self.0.keyring.load().is_some()
    }

    /// Whether the head alone names a key that can have signed the request; why not, if there is none. Cheap.
    pub(crate) fn check_claim(&self, parts: &Parts) -> Result<(), Refusal> {
        match &*self.0.keyring.load() {
            Some(keyring) => sigv4::check_claim(keyring, parts),
            None => Ok(()),
        }
    }

    /// Establishes who sends a request of the Kinesis API, or why it is refused.
    pub(crate) fn verify(&self, parts: &Parts, body: &[u8], now: TimestampMs) -> Result<Verified, Refusal> {
        match &*self.0.keyring.load() {
            Some(keyring) => {
                sigv4::verify(keyring, &self.0.region, parts, body, now).map(|found| found.verified().clone())
            }
            None => Ok(self.claimed(sigv4::claimed_key_id(parts).as_deref())),
        }
    }

    /// Establishes who sends a gRPC call, from `authorization: Basic base64(access key id:secret)`.
    pub(crate) fn verify_basic(&self, headers: &HeaderMap, now: TimestampMs) -> Result<Verified, Refusal> {
        let told = headers.get(header::AUTHORIZATION).and_then(|value| basic(value.as_bytes()));
        let Some(keyring) = &*self.0.keyring.load() else {
            return Ok(self.claimed(told.as_ref().map(|(id, _)| id.as_str())));
        };
        let Some((id, secret)) = told else {
            return Err(Refusal {
                code: Code::MissingAuthenticationToken,
                message: "this broker serves only callers with credentials: \
                          send an access key id and its secret in the metadata, as authorization: Basic"
                    .to_owned(),
            });
        };
        let known = keyring.get(&id);
        let credential = known.unwrap_or(keyring.stand_in());
        let same_secret = keyring.is_same(credential.secret(), &secret);
        let token =
            headers.get("x-amz-security-token").map(|value| String::from_utf8_lossy(value.as_bytes()));
        let same_token = keyring.has_token(credential, token.as_deref());
        match known {
            Some(credential) if same_secret && same_token => {
                credential.check_expiry(now)?;
                Ok(credential.verified().clone())
            }
            // which of the two is wrong is not told
            _ => Err(Refusal {
                code: Code::UnrecognizedClient,
                message: "the access key id or its secret is not right".to_owned(),
            }),
        }
    }

    /// Nobody is checked: a caller is of the account that it names in place of an access key id.
    fn claimed(&self, key_id: Option<&str>) -> Verified {
        let claimed = key_id.and_then(|id| AccountId::new(id).ok());
        Verified::anyone_of(claimed.unwrap_or_else(|| self.0.account.clone()))
    }

    /// Establishes that a request is sent by someone of the broker's own account, who may see what concerns all. With no
    /// credentials configured everyone may.
    pub(crate) fn verify_operator(&self, headers: &HeaderMap, now: TimestampMs) -> Result<(), Refusal> {
        if !self.verifies() || self.verify_basic(headers, now)?.account() == &self.0.account {
            return Ok(());
        }
        let message = "this is for credentials of the broker's own account".to_owned();
        Err(Refusal { code: Code::AccessDenied, message })
    }

    /// The region of the broker.
    pub(crate) fn region(&self) -> &Region {
        &self.0.region
    }
}

/// Name and secret of `Basic base64(name:secret)`.
fn basic(value: &[u8]) -> Option<(String, Secret)> {
    let (scheme, text) = value.split_at_checked("basic ".len())?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let bytes = base64_simd::STANDARD.decode_to_vec(text.trim_ascii()).ok()?;
    let whole = Secret::new(String::from_utf8(bytes).ok()?);
    let (id, secret) = whole.reveal().split_once(':')?;
    Some((id.to_owned(), Secret::new(secret.to_owned())))
}

#[cfg(test)]
mod tests;
