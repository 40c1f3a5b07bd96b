//! The policy that is put on a stream or a consumer: JSON in the manner of AWS.
//!
//! What it is: parser, check and evaluation of one document. Taken are `Version`, `Id` and `Statement`, and in a statement
//! `Sid`, `Effect`, `Principal`, `Action` and `Resource`. What it does not do: `Condition`, `NotAction`, `NotPrincipal` and
//! `NotResource`; a policy with one of them is refused when it is put, as ignoring them would give too much.

use super::Verified;
use super::policy::{Effect, Pattern, Verdict};
use crate::aws::Operation;
use serde_json::{Map, Value};
use tidemill_types::AccountId;

/// Whom a statement is about.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Principal {
    Anyone,
    Account(AccountId),
    Arn(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Statement {
    effect: Effect,
    principals: Vec<Principal>,
    actions: Vec<Pattern>,
    resources: Vec<Pattern>,
}

/// A policy that was understood whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ResourcePolicy {
    statements: Vec<Statement>,
}

/// What a policy says to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) verdict: Verdict,
    /// The caller itself, or anyone, is allowed: more than its account as a whole.
    pub(super) names_caller: bool,
    /// The caller is allowed something here, if not this.
    pub(super) knows_caller: bool,
}

/// Whether a text is a policy that can be put; says what is wrong, and what to do.
pub(crate) fn check_policy(text: &str) -> Result<(), String> {
    ResourcePolicy::parse(text).map(|_| ())
}

impl ResourcePolicy {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let document: Value =
            serde_json::from_str(text).map_err(|error| format!("The policy is not valid JSON: {error}."))?;
        let Value::Object(document) = document else {
            return Err("The policy must be a JSON object.".to_owned());
        };
        for (key, value) in &document {
            match key.as_str() {
                "Version" if !matches!(value.as_str(), Some("2012-10-17" | "2008-10-17")) => {
                    return Err("The policy's Version must be \"2012-10-17\".".to_owned());
                }
                "Version" | "Id" | "Statement" => {}
                other => return Err(format!("The policy holds an element that is not known: {other:?}.")),
            }
        }
        let statements = match document.get("Statement") {
            Some(Value::Array(list)) => list.iter().map(statement).collect::<Result<Vec<_>, _>>()?,
            Some(one) => vec![statement(one)?],
            None => Vec::new(),
        };
        if statements.is_empty() {
            return Err("The policy must hold at least one Statement.".to_owned());
        }
        Ok(Self { statements })
    }

    pub(super) fn said(&self, caller: &Verified, action: &str, resource: &str) -> Said {
        let mut said = Said { verdict: Verdict::Silent, names_caller: false, knows_caller: false };
        let mut denied = false;
        for statement in &self.statements {
            let about = |p: &&Principal| p.is(caller);
            if !statement.principals.iter().any(|p| about(&p)) {
                continue;
            }
            said.knows_caller |= statement.effect == Effect::Allow;
            if !statement.covers(action, resource) {
                continue;
            }
            match statement.effect {
                Effect::Deny => denied = true,
                Effect::Allow => {
                    said.verdict = Verdict::Allowed;
                    let directly = |p: &Principal| !matches!(p, Principal::Account(_));
                    said.names_caller |= statement.principals.iter().filter(about).any(directly);
                }
            }
        }
        if denied {
            said.verdict = Verdict::Denied;
        }
        said
    }
}

impl Principal {
    fn is(&self, caller: &Verified) -> bool {
        match self {
            Self::Anyone => true,
            Self::Account(account) => caller.account() == account,
            Self::Arn(arn) => caller.principal() == arn,
        }
    }
    fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Anyone);
        }
        if let Ok(account) = AccountId::new(text) {
            return Ok(Self::Account(account));
        }
        let bad = || {
            format!(
                "The policy names a Principal that is no account, ARN of an IAM identity or \"*\": {text:?}. \
                 Wildcards within an ARN are not taken."
            )
        };
        let mut parts = text.splitn(6, ':');
        let mut next = || parts.next().ok_or_else(bad);
        let (scheme, partition, service, _region) = (next()?, next()?, next()?, next()?);
        let account = AccountId::new(next()?).map_err(|_| bad())?;
        let name = next()?;
        let known = scheme == "arn" && partition.starts_with("aws") && matches!(service, "iam" | "sts");
        if !known || name.is_empty() || name.contains(['*', '?']) {
            return Err(bad());
        }
        let arn = text.replacen(partition, "aws", 1);
        Ok(if name == "root" { Self::Account(account) } else { Self::Arn(arn) })
    }
}

impl Statement {
    fn covers(&self, action: &str, resource: &str) -> bool {
        self.actions.iter().any(|pattern| pattern.matches_action(action))
            && self.resources.iter().any(|pattern| pattern.matches(resource))
    }
}

fn statement(value: &Value) -> Result<Statement, String> {
    let Value::Object(fields) = value else {
        return Err("A Statement of the policy must be a JSON object.".to_owned());
    };
    for key in fields.keys() {
        match key.as_str() {
            "Sid" | "Effect" | "Principal" | "Action" | "Resource" => {}
            "Condition" | "NotAction" | "NotPrincipal" | "NotResource" => {
                return Err(format!(
                    "{key} is not supported in policies here. Say it with Allow and Deny statements."
                ));
            }
            other => {
                return Err(format!(
                    "A Statement of the policy holds an element that is not known: {other:?}."
                ));
            }
        }
    }
    let effect = match fields.get("Effect").and_then(Value::as_str) {
        Some("Allow") => Effect::Allow,
        Some("Deny") => Effect::Deny,
        _ => return Err("The Effect of a Statement must be \"Allow\" or \"Deny\".".to_owned()),
    };
    let actions = texts(fields, "Action")?;
    if let Some(bad) = actions.iter().find(|a| **a != "*" && !a.to_ascii_lowercase().starts_with("kinesis:"))
    {
        return Err(format!(
            "The policy names an Action of another service: {bad:?}. Actions begin with kinesis:."
        ));
    }
    let is_known = |action: &str| {
        let pattern = Pattern::new(action);
        Operation::ALL.iter().any(|known| pattern.matches_action(known.action()))
    };
    if let Some(bad) = actions.iter().find(|action| !is_known(action)) {
        return Err(format!("The policy names an Action that Kinesis does not have: {bad:?}."));
    }
    let resources = texts(fields, "Resource")?;
    if let Some(bad) = resources.iter().find(|r| **r != "*" && !r.starts_with("arn:")) {
        return Err(format!("The policy names a Resource that is no ARN: {bad:?}."));
    }
    Ok(Statement {
        effect,
        principals: principals(fields.get("Principal"))?,
        actions: actions.iter().map(|text| Pattern::new(text)).collect(),
        resources: resources.iter().map(|text| Pattern::of_resource(text)).collect(),
    })
}

fn principals(value: Option<&Value>) -> Result<Vec<Principal>, String> {
    match value {
        Some(Value::String(text)) if text == "*" => Ok(vec![Principal::Anyone]),
        Some(Value::Object(fields)) if fields.len() == 1 && fields.contains_key("AWS") => {
            texts(fields, "AWS")?.into_iter().map(Principal::parse).collect()
        }
        _ => Err("The Principal of a Statement must be \"*\" or {\"AWS\": …}.".to_owned()),
    }
}

/// One text or a list of some.
fn texts<'a>(fields: &'a Map<String, Value>, name: &str) -> Result<Vec<&'a str>, String> {
    let texts: Option<Vec<&str>> = match fields.get(name) {
        Some(Value::String(text)) => Some(vec![text]),
        Some(Value::Array(list)) if !list.is_empty() => list.iter().map(Value::as_str).collect(),
        _ => None,
    };
    texts.ok_or_else(|| format!("A Statement of the policy must hold {name}: a text, or a list of texts."))
}
