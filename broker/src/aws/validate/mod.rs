//! Constraint validation: which values each member may have, and the one message that lists all that do not.
//!
//! Shapes declare their members in the order in which AWS reports them, with the rules of the model's scalar types (see
//! `rule`). It does not ask whether streams or shards exist, nor whether members suit each other.

mod pattern;
mod rule;

pub(crate) use rule::*;

use super::codec::excerpt;
use super::error::{ApiError, Code};
use super::shape::Input;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{Display, Write};

/// Most violations in one message (AWS).
const LISTED_MAX: usize = 10;

/// Whether a member may be absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    Required,
    Optional,
}

/// Where in the request the members being checked stand.
#[derive(Debug, Clone, Copy)]
enum Place {
    Member(&'static str),
    Item(usize),
}

/// Collects violations over one request.
#[derive(Default)]
pub(crate) struct Check {
    within: Vec<Place>,
    violations: Vec<String>,
}

impl Check {
    /// Checks a whole request; the error lists every violation, up to ten.
    pub(crate) fn all(input: &impl Input) -> Result<(), ApiError> {
        let mut check = Self::default();
        input.check(&mut check);
        check.finish()
    }

    fn finish(self) -> Result<(), ApiError> {
        let count = self.violations.len();
        if count == 0 {
            return Ok(());
        }
        let plural = if count == 1 { "" } else { "s" };
        let listed = self.violations.join("; ");
        Err(ApiError::new(Code::Validation, format!("{count} validation error{plural} detected: {listed}")))
    }

    fn violation(&mut self, member: &str, value: Option<&dyn Display>, constraint: impl Display) {
        if self.violations.len() == LISTED_MAX {
            return;
        }
        let mut path = String::new();
        for place in &self.within {
            // writing to a String cannot fail
            let _ = match place {
                Place::Member(name) => write!(path, "{name}."),
                Place::Item(number) => write!(path, "{number}.member."),
            };
        }
        let shown = match value {
            Some(value) => Cow::Owned(format!("'{}'", excerpt(&value.to_string()))),
            None => Cow::Borrowed("null"),
        };
        self.violations
            .push(format!("Value {shown} at '{path}{member}' failed to satisfy constraint: {constraint}"));
    }

    /// That a member is there.
    pub(crate) fn presence(&mut self, member: &str, presence: Presence, present: bool) {
        if presence == Presence::Required && !present {
            self.violation(member, None, "Member must not be null");
        }
    }

    pub(crate) fn text(
        &mut self,
        member: &'static str,
        presence: Presence,
        value: Option<&str>,
        rule: &TextRule,
    ) {
        self.presence(member, presence, value.is_some());
        let Some(value) = value else { return };
        if let Some(pattern) = rule.pattern.filter(|pattern| !pattern.matches(value)) {
            let constraint = format!("Member must satisfy regular expression pattern: {}", pattern.text());
            self.violation(member, Some(&value), constraint);
        }
        if !rule.one_of.is_empty() && !rule.one_of.contains(&value) {
            let constraint = format!("Member must satisfy enum value set: [{}]", rule.one_of.join(", "));
            self.violation(member, Some(&value), constraint);
        }
        if rule.chars != ANY_LENGTH {
            self.length(member, &value, value.chars().count(), rule.chars);
        }
    }

    pub(crate) fn integer(
        &mut self,
        member: &'static str,
        presence: Presence,
        value: Option<i32>,
        bounds: (i32, i32),
    ) {
        self.presence(member, presence, value.is_some());
        let Some(value) = value else { return };
        if value < bounds.0 {
            let constraint = format!("Member must have value greater than or equal to {}", bounds.0);
            self.violation(member, Some(&value), constraint);
        }
        if value > bounds.1 {
            let constraint = format!("Member must have value less than or equal to {}", bounds.1);
            self.violation(member, Some(&value), constraint);
        }
    }

    pub(crate) fn blob(&mut self, member: &'static str, length: Option<usize>, max: usize) {
        self.presence(member, Presence::Required, length.is_some());
        let Some(length) = length else { return };
        self.length(member, &shown_bytes(length), length, (0, max));
    }

    /// A list of structures of the class `class`, each checked by `item`.
    pub(crate) fn structures<T>(
        &mut self,
        member: &'static str,
        class: &str,
        values: Option<&[T]>,
        bounds: (usize, usize),
        item: impl Fn(&T, &mut Self),
    ) {
        self.presence(member, Presence::Required, values.is_some());
        let Some(values) = values else { return };
        if !(bounds.0..=bounds.1).contains(&values.len()) {
            let each = format!("com.amazonaws.kinesis.v20131202.{class}@c965e310");
            let shown = format!("[{}]", vec![each.as_str(); values.len().min(20)].join(", "));
            self.length(member, &shown, values.len(), bounds);
        }
        self.within.push(Place::Member(member));
        for (place, value) in values.iter().enumerate() {
            self.within.push(Place::Item(place + 1));
            item(value, self);
            self.within.pop();
            if self.violations.len() == LISTED_MAX {
                break;
            }
        }
        self.within.pop();
    }

    /// A structure inside the request.
    pub(crate) fn structure<T>(
        &mut self,
        member: &'static str,
        value: Option<&T>,
        inner: impl Fn(&T, &mut Self),
    ) {
        if let Some(value) = value {
            self.within.push(Place::Member(member));
            inner(value, self);
            self.within.pop();
        }
    }

    /// A list of texts that each satisfy `rule`.
    pub(crate) fn texts(
        &mut self,
        member: &'static str,
        presence: Presence,
        values: Option<&[String]>,
        bounds: (usize, usize),
        rule: &TextRule,
    ) {
        self.presence(member, presence, values.is_some());
        let Some(values) = values else { return };
        let shown = shown_list('[', values.iter(), ']');
        self.length(member, &shown, values.len(), bounds);
        if !values.iter().all(|value| rule.is_met(value)) {
            self.violation(member, Some(&shown), format!("Member must satisfy constraint: [{rule}]"));
        }
    }

    /// A map whose keys and values each satisfy a rule.
    pub(crate) fn text_map(
        &mut self,
        member: &'static str,
        presence: Presence,
        entries: Option<&BTreeMap<String, String>>,
        bounds: (usize, usize),
        rules: (&TextRule, &TextRule),
    ) {
        self.presence(member, presence, entries.is_some());
        let Some(entries) = entries else { return };
        let shown = shown_list('{', entries.iter().map(|(key, value)| format!("{key}={value}")), '}');
        self.length(member, &shown, entries.len(), bounds);
        if !entries.keys().all(|key| rules.0.is_met(key)) {
            self.violation(member, Some(&shown), format!("Map keys must satisfy constraint: [{}]", rules.0));
        }
        if !entries.values().all(|value| rules.1.is_met(value)) {
            self.violation(member, Some(&shown), format!("Map value must satisfy constraint: [{}]", rules.1));
        }
    }

    fn length(&mut self, member: &str, value: &dyn Display, length: usize, bounds: (usize, usize)) {
        if length < bounds.0 {
            let constraint = format!("Member must have length greater than or equal to {}", bounds.0);
            self.violation(member, Some(value), constraint);
        }
        if length > bounds.1 {
            let constraint = format!("Member must have length less than or equal to {}", bounds.1);
            self.violation(member, Some(value), constraint);
        }
    }
}

/// As many values as a message has room for, see [`excerpt`].
fn shown_list(open: char, values: impl Iterator<Item = impl Display>, close: char) -> String {
    const BYTES_MAX: usize = 4096;
    let mut shown = String::from(open);
    for (place, value) in values.enumerate() {
        let comma = if place > 0 { ", " } else { "" };
        // writing to a String cannot fail
        let _ = write!(shown, "{comma}{value}");
        if shown.len() > BYTES_MAX {
            break;
        }
    }
    shown.push(close);
    shown
}

/// What only a stream's settings can tell of the members of a request, in the same words.
#[derive(Default)]
pub(crate) struct Violations(Check);

impl Violations {
    /// That a member is not there; `path` names it.
    pub(crate) fn missing(&mut self, path: &str) {
        self.0.presence(path, Presence::Required, false);
    }
    /// That the data of a record is longer than its stream allows.
    pub(crate) fn data_too_long(&mut self, path: &str, length: usize, max: usize) {
        self.0.length(path, &shown_bytes(length), length, (0, max));
    }
    pub(crate) fn finish(self) -> Result<(), ApiError> {
        self.0.finish()
    }
}

fn shown_bytes(length: usize) -> String {
    format!("java.nio.HeapByteBuffer[pos=0 lim={length} cap={length}]")
}

#[cfg(test)]
mod tests;
