//! The credentials that open the gate: from what the configuration says to what a request is checked against.
//!
//! What it is: settings in, a [`Keyring`] out, whole or not at all. Why: a set of credentials is swapped as one when the
//! configuration changes, and one with a mistake in it never comes into force. What it does not do: read files.

use super::policy::{Effect, Pattern, Statement};
use super::secret::Secret;
use super::sigv4::SigningKeys;
use super::{Grants, Identity, Refusal, Verified};
use crate::aws::Code;
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use sha2::Sha256;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::PathBuf;
use std::sync::Arc;
use tidemill_types::{AccountId, TimestampMs};

const KEY_ID_CHARS_MAX: usize = 128;
const NAME_CHARS_MAX: usize = 64;

/// Who may use the broker. Default: nobody is named, and signatures are not checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccessSettings {
    /// Those who may. As soon as there is one, every request must be signed, and what no policy allows is refused.
    pub credentials: Vec<CredentialSettings>,
    /// What they may do, by name.
    pub policies: Vec<PolicySettings>,
    /// The configuration file that both were read from: read again when it changes.
    pub file: Option<PathBuf>,
}

/// `[[credentials]]` of the configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CredentialSettings {
    /// What a signature names: 1 to 128 letters, digits and `_`.
    pub access_key_id: String,
    /// What it is made with.
    pub secret_access_key: Secret,
    /// Must come with each request, for a credential that lasts some time only.
    pub session_token: Option<Secret>,
    /// When it ceases to be good, as in `2026-12-31T23:59:59Z`. Default: never.
    pub expires: Option<toml::value::Datetime>,
    /// Who it is, in ARNs: `arn:aws:iam::ACCOUNT:user/NAME`. Default: the access key id.
    pub name: Option<String>,
    /// Whose streams it means. Default: the broker's account.
    pub account: Option<String>,
    /// What it may do, by the names of policies. Default: nothing.
    #[serde(default)]
    pub policies: Vec<String>,
}

/// `[[policies]]` of the configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicySettings {
    /// By which credentials name it.
    pub name: String,
    /// What it says. An explicit `deny` wins.
    #[serde(default)]
    pub statements: Vec<StatementSettings>,
}

/// `[[policies.statements]]` of the configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatementSettings {
    /// Whether it gives or takes.
    pub effect: Effect,
    /// As in `kinesis:PutRecord`; `*` stands for any characters, `?` for any one.
    pub actions: Vec<String>,
    /// Names of streams of the credential's account, or ARNs, with `*` and `?` as above. `*` alone means all there is.
    pub streams: Vec<String>,
}

/// One credential, ready to be checked against.
pub(super) struct Credential {
    secret: Secret,
    token: Option<Secret>,
    signing_keys: SigningKeys,
    verified: Verified,
}

/// All credentials.
pub(super) struct Keyring {
    by_id: HashMap<String, Credential>,
    /// Is checked against when a key is not known, so that it takes the same time.
    stand_in: Credential,
    /// Compared are tags under this key, so that neither lengths nor contents of secrets show in the time.
    compare: Hmac<Sha256>,
}

impl Keyring {
    /// Checks the settings; says what is wrong with them, without the secrets.
    pub(super) fn new(settings: &AccessSettings, account: &AccountId) -> Result<Self, String> {
        let mut policies: HashMap<&str, Vec<Statement>> = HashMap::new();
        for policy in &settings.policies {
            let statements =
                policy.statements.iter().map(|s| statement(s, &policy.name)).collect::<Result<_, _>>()?;
            if policies.insert(&policy.name, statements).is_some() {
                return Err(format!("there are two policies of the name {:?}", policy.name));
            }
        }
        let mut by_id = HashMap::new();
        for credential in &settings.credentials {
            match by_id.entry(credential.access_key_id.clone()) {
                Entry::Occupied(at) => {
                    return Err(format!("there are two credentials with the id {:?}", at.key()));
                }
                Entry::Vacant(place) => place.insert(Credential::new(credential, &policies, account)?),
            };
        }
        let compare =
            Hmac::new_from_slice(&rand::random::<[u8; 32]>()).expect("HMAC takes keys of any length");
        Ok(Self { by_id, stand_in: Credential::stand_in(account), compare })
    }
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }
    pub(super) fn get(&self, access_key_id: &str) -> Option<&Credential> {
        self.by_id.get(access_key_id)
    }
    pub(super) fn stand_in(&self) -> &Credential {
        &self.stand_in
    }
    /// Compares in a time that tells nothing.
    pub(super) fn is_same(&self, secret: &Secret, told: &Secret) -> bool {
        let tag = self.compare.clone().chain_update(told.reveal()).finalize().into_bytes();
        self.compare.clone().chain_update(secret.reveal()).verify_slice(&tag).is_ok()
    }
    /// Whether the session token is that of the credential; a lasting credential has none.
    pub(super) fn has_token(&self, credential: &Credential, told: Option<&str>) -> bool {
        match (&credential.token, told) {
            (Some(token), Some(told)) => self.is_same(token, &Secret::new(told.to_owned())),
            (None, None) => true,
            _ => false,
        }
    }
}

impl Credential {
    fn new(
        settings: &CredentialSettings,
        policies: &HashMap<&str, Vec<Statement>>,
        account: &AccountId,
    ) -> Result<Self, String> {
        let id = settings.access_key_id.as_str();
        let bad = |what: String| format!("credential {id:?}: {what}");
        let id_fits = (1..=KEY_ID_CHARS_MAX).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !id_fits {
            return Err(bad(format!("access_key_id must be 1 to {KEY_ID_CHARS_MAX} letters, digits and _")));
        }
        let tokens = settings.session_token.iter();
        if tokens.chain([&settings.secret_access_key]).any(|secret| secret.reveal().is_empty()) {
            return Err(bad("secret_access_key and session_token must not be empty".to_owned()));
        }
        let name = settings.name.as_deref().unwrap_or(id);
        if !is_name(name) && name != id {
            return Err(bad(format!("name must be 1 to {NAME_CHARS_MAX} letters, digits and + = , . @ _ -")));
        }
        let account = match &settings.account {
            Some(text) => AccountId::new(text).map_err(|error| bad(error.to_string()))?,
            None => account.clone(),
        };
        let expires = match settings.expires {
            Some(date) => {
                let why = "expires must be a date and time of UTC, as in 2026-12-31T23:59:59Z";
                Some(super::sigv4::moment_ms(&date.to_string()).ok_or_else(|| bad(why.to_owned()))?)
            }
            None => None,
        };
        let mut statements = Vec::new();
        for name in &settings.policies {
            match policies.get(name.as_str()) {
                Some(found) => statements.extend_from_slice(found),
                None => return Err(bad(format!("there is no policy of the name {name:?}"))),
            }
        }
        let principal = format!("arn:aws:iam::{account}:user/{name}");
        Ok(Self {
            secret: settings.secret_access_key.clone(),
            token: settings.session_token.clone(),
            signing_keys: SigningKeys::default(),
            verified: Verified(Arc::new(Identity {
                account,
                principal,
                expires,
                grants: Grants::Statements(statements.into()),
            })),
        })
    }

    /// A credential that nobody has.
    fn stand_in(account: &AccountId) -> Self {
        let identity = Identity {
            account: account.clone(),
            principal: String::new(),
            expires: None,
            grants: Grants::Statements(Arc::new([])),
        };
        Self {
            secret: Secret::new(rand::random::<[char; 32]>().iter().collect()),
            token: None,
            signing_keys: SigningKeys::default(),
            verified: Verified(Arc::new(identity)),
        }
    }
    pub(super) fn secret(&self) -> &Secret {
        &self.secret
    }
    pub(super) fn signing_keys(&self) -> &SigningKeys {
        &self.signing_keys
    }
    pub(super) fn verified(&self) -> &Verified {
        &self.verified
    }
    pub(super) fn check_expiry(&self, now: TimestampMs) -> Result<(), Refusal> {
        match self.verified.left(now) {
            Some(left) if left.is_zero() => Err(Refusal {
                code: Code::ExpiredToken,
                message: "The security token included in the request is expired".to_owned(),
            }),
            _ => Ok(()),
        }
    }
}

fn is_name(name: &str) -> bool {
    (1..=NAME_CHARS_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"+=,.@_-".contains(&b))
}

fn statement(settings: &StatementSettings, policy: &str) -> Result<Statement, String> {
    let bad = |what: &str| format!("policy {policy:?}: {what}");
    if settings.actions.is_empty() || settings.streams.is_empty() {
        return Err(bad("a statement must name actions and streams; \"*\" means all"));
    }
    let is_action = |text: &String| {
        let text = text.to_ascii_lowercase();
        text == "*" || text.starts_with("kinesis:") || text.starts_with("tidemill:")
    };
    if let Some(other) = settings.actions.iter().find(|text| !is_action(text)) {
        return Err(bad(&format!("actions begin with kinesis: or tidemill:, found {other:?}")));
    }
    // a pattern that can never match would give nothing, but also take nothing
    let is_stream = |text: &String| text == "*" || text.starts_with("arn:") || !text.contains([':', '/']);
    if let Some(other) = settings.streams.iter().find(|text| !is_stream(text)) {
        return Err(bad(&format!(
            "streams are named by name, or by an ARN that begins with arn:, found {other:?}"
        )));
    }
    let patterns = |texts: &[String]| texts.iter().map(|text| Pattern::new(text)).collect();
    Ok(Statement {
        effect: settings.effect,
        actions: patterns(&settings.actions),
        streams: settings.streams.iter().map(|text| Pattern::of_resource(text)).collect(),
    })
}
