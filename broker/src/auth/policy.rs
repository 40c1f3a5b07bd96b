//! Who may do what: the statements of credentials, the policies of streams and consumers, and the one decision.
//!
//! ```text
//!  another account's resource?  its policy must know the caller, or it is hidden
//!  an explicit deny, anywhere   denied
//!  own resource                 allowed by the credential, or by the resource's policy naming the caller
//!  another account's            allowed by both
//! ```
//!
//! Why pure: the rules are tested without a request. What it does not do: look anything up; conditions and the negated
//! forms of AWS policies are refused when a policy is put.

use super::resource_policy::{ResourcePolicy, Said};
use super::{Grants, Verified};
use serde::Deserialize;
use tidemill_types::{AccountId, ConsumerArn};

/// What comes of a request for an action on a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    Allowed,
    /// Refused, with what the caller is told.
    Denied(String),
    /// The caller must not learn whether the resource exists.
    Hidden,
}

/// Whether a statement gives or takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// It gives.
    Allow,
    /// It takes, whatever others give.
    Deny,
}

/// What a policy says about a request: an explicit deny wins over everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Allowed,
    Denied,
    Silent,
}

/// A text with `*` for any characters and `?` for any one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern(String);

impl Pattern {
    pub(super) fn new(text: &str) -> Self {
        Self(text.to_owned())
    }
    /// Of resources: as in the ARNs that requests name, the partition (`aws-cn`, …) does not count.
    pub(super) fn of_resource(text: &str) -> Self {
        match text.strip_prefix("arn:aws-").and_then(|rest| rest.split_once(':')) {
            Some((_, rest)) => Self(format!("arn:aws:{rest}")),
            None => Self::new(text),
        }
    }
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
    pub(super) fn matches(&self, text: &str) -> bool {
        matches(self.0.as_bytes(), text.as_bytes(), |a, b| a == b)
    }
    /// Actions are told apart by their letters only, as in AWS.
    pub(super) fn matches_action(&self, action: &str) -> bool {
        matches(self.0.as_bytes(), action.as_bytes(), |a, b| a.eq_ignore_ascii_case(&b))
    }
}

/// Goes back to the last star only, so the time is bounded by the product of the lengths.
fn matches(pattern: &[u8], text: &[u8], same: impl Fn(u8, u8) -> bool) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == b'?' || same(c, text[t]) => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    p = at + 1;
                    t = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

/// One statement of a credential's policy. Streams are named by name (of the credential's account) or by ARN;
/// a consumer is covered by its stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) effect: Effect,
    pub(super) actions: Vec<Pattern>,
    pub(super) streams: Vec<Pattern>,
}

impl Statement {
    fn covers(&self, account: &AccountId, action: &str, resource: &str) -> bool {
        self.actions.iter().any(|pattern| pattern.matches_action(action))
            && self.streams.iter().any(|pattern| covers_resource(pattern, account, resource))
    }
}

/// A name means streams of the credential's own account only; nothing but `*` alone and ARNs reach further.
fn covers_resource(pattern: &Pattern, account: &AccountId, resource: &str) -> bool {
    if pattern.as_str() == "*" {
        return true;
    }
    // arn:aws:kinesis:REGION:ACCOUNT:stream/NAME[/consumer/…]
    let Some((head, rest)) = resource.split_once(":stream/") else { return false };
    let name = rest.split('/').next().unwrap_or_default();
    if pattern.as_str().starts_with("arn:") {
        let stream = &resource[..head.len() + ":stream/".len() + name.len()];
        return pattern.matches(resource) || pattern.matches(stream);
    }
    head.rsplit(':').next() == Some(account.as_str()) && pattern.matches(name)
}

fn identity_verdict(caller: &Verified, action: &str, resource: &str) -> Verdict {
    let statements = match caller.grants() {
        Grants::Everything => return Verdict::Allowed,
        Grants::Statements(statements) => statements,
    };
    let mut verdict = Verdict::Silent;
    for statement in statements.iter().filter(|s| s.covers(caller.account(), action, resource)) {
        match statement.effect {
            Effect::Deny => return Verdict::Denied,
            Effect::Allow => verdict = Verdict::Allowed,
        }
    }
    verdict
}

/// Whether `caller` may do `action` (as in `kinesis:PutRecord`) on `resource`, an ARN that belongs to `owner`, or `*` for
/// what concerns no one stream. `resource_policy` is that of the stream, or of the consumer. Pure.
pub(crate) fn decide(
    caller: &Verified,
    action: &str,
    resource: &str,
    owner: &AccountId,
    resource_policy: Option<&str>,
) -> Decision {
    let own = caller.account() == owner;
    // a policy must not lock its owner out of mending it
    let policy = resource_policy.filter(|_| !(own && mends_policies(action)));
    let said = policy.map(|text| said(text, caller, action, resource));
    if !own && !said.as_ref().is_some_and(|said| said.knows_caller) {
        return Decision::Hidden;
    }
    let by_policy = said.as_ref().map_or(Verdict::Silent, |said| said.verdict);
    let because = |why: &str| denied(caller, action, resource, why);
    match (by_policy, identity_verdict(caller, action, resource)) {
        (Verdict::Denied, _) => because(DENIED_BY_RESOURCE),
        (_, Verdict::Denied) => because("with an explicit deny in an identity-based policy"),
        (Verdict::Allowed, Verdict::Allowed) => Decision::Allowed,
        (Verdict::Silent, Verdict::Allowed) if own => Decision::Allowed,
        (Verdict::Allowed, Verdict::Silent) if own && said.is_some_and(|said| said.names_caller) => {
            Decision::Allowed
        }
        (Verdict::Silent, Verdict::Allowed) => {
            because(&format!("because no resource-based policy allows the {action} action"))
        }
        (_, Verdict::Silent) => {
            because(&format!("because no identity-based policy allows the {action} action"))
        }
    }
}

/// The same for a consumer. What the policy of its stream allows is not for consumers, but what it denies is denied there
/// too.
pub(crate) fn decide_for_consumer(
    caller: &Verified,
    action: &str,
    consumer: &ConsumerArn,
    policy: Option<&str>,
    stream_policy: Option<&str>,
) -> Decision {
    let (resource, stream) = (consumer.to_string(), consumer.stream.to_string());
    let owner = &consumer.stream.account;
    let decision = decide(caller, action, &resource, owner, policy);
    let mends = caller.account() == owner && mends_policies(action);
    let taken = |text: &str| {
        [&resource, &stream].iter().any(|named| said(text, caller, action, named).verdict == Verdict::Denied)
    };
    match stream_policy {
        Some(text) if decision == Decision::Allowed && !mends && taken(text) => {
            denied(caller, action, &resource, DENIED_BY_RESOURCE)
        }
        _ => decision,
    }
}

const DENIED_BY_RESOURCE: &str = "with an explicit deny in a resource-based policy";

fn denied(caller: &Verified, action: &str, resource: &str, why: &str) -> Decision {
    let who = caller.principal();
    Decision::Denied(format!(
        "User: {who} is not authorized to perform: {action} on resource: {resource} {why}"
    ))
}

/// What the text of a policy says to a request. It was checked when it was put: what cannot be read gives nothing.
fn said(text: &str, caller: &Verified, action: &str, resource: &str) -> Said {
    match ResourcePolicy::parse(text) {
        Ok(policy) => policy.said(caller, action, resource),
        Err(_) => Said { verdict: Verdict::Denied, names_caller: false, knows_caller: false },
    }
}

fn mends_policies(action: &str) -> bool {
    matches!(
        action,
        "kinesis:PutResourcePolicy" | "kinesis:GetResourcePolicy" | "kinesis:DeleteResourcePolicy"
    )
}

#[cfg(test)]
mod tests;
