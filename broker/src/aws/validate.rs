//! Constraint validation: which values each member may have, and the one message that lists all that do not.
//!
//! Shapes declare their members in the order in which AWS reports them; the rules of the model's scalar types stand
//! below as constants. It does not ask whether streams or shards exist, nor whether members suit each other.

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

/// A regular expression of the model, matched by hand. It must match the whole text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pattern {
    Name,
    HashKey,
    SequenceNumber,
    StreamArn,
    ConsumerArn,
    ResourceArn,
    StreamId,
}

impl Pattern {
    const fn text(self) -> &'static str {
        match self {
            Self::Name => "[a-zA-Z0-9_.-]+",
            Self::HashKey => r"0|([1-9]\d{0,38})",
            Self::SequenceNumber => r"0|([1-9]\d{0,128})",
            Self::StreamArn => r"arn:aws.*:kinesis:.*:\d{12}:stream/\S+",
            Self::ConsumerArn => {
                r"^(arn):aws.*:kinesis:.*:\d{12}:.*stream\/[a-zA-Z0-9_.-]+\/consumer\/[a-zA-Z0-9_.-]+:[0-9]+"
            }
            Self::ResourceArn => r"arn:aws.*:kinesis:.*:\d{12}:.*(stream|channel|queue)/\S+",
            Self::StreamId => "[a-z0-9]{20}-[a-z0-9]{3}",
        }
    }

    fn matches(self, text: &str) -> bool {
        let canonical = |digits_max: usize| {
            let digits = text.bytes().all(|b| b.is_ascii_digit());
            text == "0" || (digits && !text.starts_with('0') && (1..=digits_max).contains(&text.len()))
        };
        match self {
            Self::Name => {
                let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
                !text.is_empty() && text.bytes().all(allowed)
            }
            Self::HashKey => canonical(39),
            Self::SequenceNumber => canonical(129),
            Self::StreamArn => is_arn(text, ":stream/", is_resource),
            Self::ConsumerArn => is_arn(text, "stream/", is_consumer),
            Self::ResourceArn => {
                ["stream/", "channel/", "queue/"].iter().any(|kind| is_arn(text, kind, is_resource))
            }
            Self::StreamId => {
                let dash = |(place, b): (usize, u8)| match place {
                    20 => b == b'-',
                    _ => b.is_ascii_lowercase() || b.is_ascii_digit(),
                };
                text.len() == 24 && text.bytes().enumerate().all(dash)
            }
        }
    }
}

fn is_name(text: &str) -> bool {
    Pattern::Name.matches(text)
}

fn is_resource(text: &str) -> bool {
    !text.is_empty() && !text.contains(char::is_whitespace)
}

/// `STREAM/consumer/NAME:SECONDS`.
fn is_consumer(text: &str) -> bool {
    let parts =
        text.split_once("/consumer/").and_then(|(stream, rest)| Some((stream, rest.split_once(':')?)));
    parts.is_some_and(|(stream, (name, seconds))| {
        let digits = !seconds.is_empty() && seconds.bytes().all(|b| b.is_ascii_digit());
        is_name(stream) && is_name(name) && digits
    })
}

/// `arn:aws.*:kinesis:.*:\d{12}:`, then anything if `kind` does not begin with the colon, `kind` and a tail that fits.
fn is_arn(text: &str, kind: &str, tail_fits: impl Fn(&str) -> bool) -> bool {
    let Some(rest) = text.strip_prefix("arn:aws") else { return false };
    let is_account = |part: &str| part.len() == 12 && part.bytes().all(|b| b.is_ascii_digit());
    rest.match_indices(kind).any(|(at, found)| {
        let (head, tail) = (&rest[..at], &rest[at + found.len()..]);
        let Some(service) = head.find(":kinesis:") else { return false };
        let mut parts = head[service + ":kinesis:".len()..].split(':');
        // the region may hold colons; with a leading colon in `kind` the account must come right before it
        let account = if kind.starts_with(':') { parts.next_back() } else { parts.nth_back(1) };
        account.is_some_and(is_account) && parts.next().is_some() && !head.contains('\n') && tail_fits(tail)
    })
}

/// What a text must satisfy.
pub(crate) struct TextRule {
    pattern: Option<Pattern>,
    one_of: &'static [&'static str],
    chars: (usize, usize),
}

impl TextRule {
    fn is_met(&self, value: &str) -> bool {
        self.pattern.is_none_or(|pattern| pattern.matches(value))
            && (self.one_of.is_empty() || self.one_of.contains(&value))
            && (self.chars.0..=self.chars.1).contains(&value.chars().count())
    }
}

/// As AWS tells it of the members of lists and maps: all that is demanded, whichever part is not met.
impl Display for TextRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut parts = Vec::new();
        if self.chars != ANY_LENGTH {
            parts.push(format!("Member must have length less than or equal to {}", self.chars.1));
            parts.push(format!("Member must have length greater than or equal to {}", self.chars.0));
        }
        if let Some(pattern) = self.pattern {
            parts.push(format!("Member must satisfy regular expression pattern: {}", pattern.text()));
        }
        if !self.one_of.is_empty() {
            parts.push(format!("Member must satisfy enum value set: [{}]", self.one_of.join(", ")));
        }
        f.write_str(&parts.join(", "))
    }
}

const ANY_LENGTH: (usize, usize) = (0, usize::MAX);

const fn text(pattern: Pattern, min: usize, max: usize) -> TextRule {
    TextRule { pattern: Some(pattern), one_of: &[], chars: (min, max) }
}

const fn sized(min: usize, max: usize) -> TextRule {
    TextRule { pattern: None, one_of: &[], chars: (min, max) }
}

const fn one_of(values: &'static [&'static str]) -> TextRule {
    TextRule { pattern: None, one_of: values, chars: ANY_LENGTH }
}

pub(crate) const STREAM_NAME: TextRule = text(Pattern::Name, 1, 128);
pub(crate) const STREAM_ARN: TextRule = text(Pattern::StreamArn, 1, 2048);
pub(crate) const CONSUMER_NAME: TextRule = text(Pattern::Name, 1, 128);
pub(crate) const CONSUMER_ARN: TextRule = text(Pattern::ConsumerArn, 1, 2048);
pub(crate) const RESOURCE_ARN: TextRule = text(Pattern::ResourceArn, 1, 2048);
pub(crate) const STREAM_ID: TextRule = text(Pattern::StreamId, 1, 24);
pub(crate) const SHARD_ID: TextRule = text(Pattern::Name, 1, 128);
pub(crate) const HASH_KEY: TextRule = text(Pattern::HashKey, 0, usize::MAX);
pub(crate) const SEQUENCE_NUMBER: TextRule = text(Pattern::SequenceNumber, 0, usize::MAX);
pub(crate) const PARTITION_KEY: TextRule = sized(1, 256);
pub(crate) const SHARD_ITERATOR: TextRule = sized(1, 512);
pub(crate) const NEXT_TOKEN: TextRule = sized(1, 1_048_576);
pub(crate) const KEY_ID: TextRule = sized(1, 2048);
pub(crate) const TAG_KEY: TextRule = sized(1, 128);
pub(crate) const TAG_VALUE: TextRule = sized(0, 256);
pub(crate) const ANY_TEXT: TextRule = sized(0, usize::MAX);
pub(crate) const ENCRYPTION_TYPE: TextRule = one_of(&["KMS", "NONE"]);
pub(crate) const SCALING_TYPE: TextRule = one_of(&["UNIFORM_SCALING"]);
pub(crate) const COMMITMENT_STATUS: TextRule = one_of(&["ENABLED", "DISABLED"]);
pub(crate) const METRIC_NAME: TextRule = one_of(&[
    "IncomingBytes",
    "IncomingRecords",
    "OutgoingBytes",
    "OutgoingRecords",
    "WriteProvisionedThroughputExceeded",
    "ReadProvisionedThroughputExceeded",
    "IteratorAgeMilliseconds",
    "ALL",
]);
pub(crate) const STREAM_MODE: TextRule = one_of(&["PROVISIONED", "ON_DEMAND"]);
pub(crate) const RECORD_DISTRIBUTION: TextRule = one_of(&["AUTO", "USER_PARTITION_KEY"]);
pub(crate) const ITERATOR_TYPE: TextRule =
    one_of(&["AFTER_SEQUENCE_NUMBER", "LATEST", "AT_TIMESTAMP", "AT_SEQUENCE_NUMBER", "TRIM_HORIZON"]);
pub(crate) const SHARD_FILTER_TYPE: TextRule = one_of(&[
    "AFTER_SHARD_ID",
    "AT_TRIM_HORIZON",
    "FROM_TRIM_HORIZON",
    "AT_LATEST",
    "AT_TIMESTAMP",
    "FROM_TIMESTAMP",
]);

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
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_texts_as_the_model_writes_them() {
        let cases: [(Pattern, &[&str], &[&str]); 7] = [
            (Pattern::Name, &["a", "A_b-c.9"], &["", "a b", "é"]),
            (
                Pattern::HashKey,
                &["0", "1", "340282366920938463463374607431768211456"],
                &["", "00", "01", "-1", "x"],
            ),
            (
                Pattern::SequenceNumber,
                &["0", "49646437577175378652512468275250536580403374760793210930"],
                &["", "0x", "1 "],
            ),
            (
                Pattern::StreamArn,
                &[
                    "arn:aws:kinesis:us-east-1:123456789012:stream/s",
                    "arn:aws-cn:kinesis::000000000000:stream/x/y",
                ],
                &[
                    "",
                    "arn:aws:kinesis:us-east-1:1:stream/s",
                    "arn:aws:s3:r:123456789012:stream/s",
                    "arn:aws:kinesis:r:123456789012:stream/",
                ],
            ),
            (
                Pattern::ConsumerArn,
                &["arn:aws:kinesis:us-east-1:123456789012:stream/s.1/consumer/c:17"],
                &[
                    "arn:aws:kinesis:us-east-1:123456789012:stream/s/consumer/c",
                    "arn:aws:kinesis:us-east-1:123456789012:stream/s/consumer/c:",
                    "arn:aws:kinesis:us-east-1:1234:stream/s/consumer/c:17",
                    "arn:aws:kinesis:us-east-1:123456789012:stream/s",
                ],
            ),
            (
                Pattern::ResourceArn,
                &[
                    "arn:aws:kinesis:us-east-1:123456789012:stream/s",
                    "arn:aws:kinesis:us-east-1:123456789012:stream/s/consumer/c:17",
                    "arn:aws:kinesis:us-east-1:123456789012:queue/q",
                ],
                &[
                    "arn:aws:kinesis:us-east-1:123456789012:topic/t",
                    "stream/s",
                    "arn:aws:kinesis:r:1:stream/s",
                ],
            ),
            (Pattern::StreamId, &["abcdefghij0123456789-a1b"], &["abcdefghij0123456789_a1b", "a-b", ""]),
        ];
        for (pattern, good, bad) in cases {
            for text in good {
                assert!(pattern.matches(text), "{pattern:?} refused {text:?}");
            }
            for text in bad {
                assert!(!pattern.matches(text), "{pattern:?} took {text:?}");
            }
        }
        assert!(!Pattern::HashKey.matches(&"9".repeat(40)));
        assert!(Pattern::SequenceNumber.matches(&"9".repeat(129)));
        assert!(!Pattern::SequenceNumber.matches(&"9".repeat(130)));
    }

    fn told(judge: impl Fn(&mut Check)) -> String {
        let mut check = Check::default();
        judge(&mut check);
        check.finish().map_or_else(|error| error.message().to_owned(), |()| String::new())
    }

    #[test]
    fn lists_of_texts_are_judged_by_length_and_by_member() {
        let judge = |values: Option<&[&str]>| {
            let values = values.map(|values| values.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>());
            told(|check| check.texts("tagKeys", Presence::Required, values.as_deref(), (1, 2), &sized(1, 3)))
        };
        let found = "1 validation error detected: Value";
        let constraint = "at 'tagKeys' failed to satisfy constraint: Member must";
        assert_eq!(judge(Some(&["a", "abc"])), "");
        assert_eq!(judge(None), format!("{found} null {constraint} not be null"));
        assert_eq!(
            judge(Some(&[])),
            format!("{found} '[]' {constraint} have length greater than or equal to 1")
        );
        assert_eq!(
            judge(Some(&["a", "b", "c"])),
            format!("{found} '[a, b, c]' {constraint} have length less than or equal to 2")
        );
        let lengths = "[Member must have length less than or equal to 3, Member must have length greater than or \
                       equal to 1]";
        assert_eq!(
            judge(Some(&["a", ""])),
            format!("{found} '[a, ]' {constraint} satisfy constraint: {lengths}")
        );
        let long = "x".repeat(5000);
        assert!(judge(Some(&[&long, &long, &long])).len() < 5000);
    }

    #[test]
    fn maps_are_judged_by_keys_and_by_values() {
        let judge = |entries: &[(&str, &str)]| {
            let entries = entries.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            let rules = (&sized(1, 2), &sized(0, 3));
            told(|check| check.text_map("tags", Presence::Required, Some(&entries), (1, 50), rules))
        };
        assert_eq!(judge(&[("k", "")]), "");
        let keys = "Map keys must satisfy constraint: [Member must have length less than or equal to 2, Member must \
                    have length greater than or equal to 1]";
        let values = "Map value must satisfy constraint: [Member must have length less than or equal to 3, Member \
                      must have length greater than or equal to 0]";
        let of = |shown, constraint| {
            format!("Value '{shown}' at 'tags' failed to satisfy constraint: {constraint}")
        };
        let shown = "{=long, k=v}";
        assert_eq!(
            judge(&[("", "long"), ("k", "v")]),
            format!("2 validation errors detected: {}; {}", of(shown, keys), of(shown, values))
        );
    }

    #[test]
    fn long_values_are_cut_in_messages() {
        let mut check = Check::default();
        check.text("partitionKey", Presence::Required, Some(&"k".repeat(1 << 20)), &PARTITION_KEY);
        assert!(check.finish().unwrap_err().message().len() < 2000);
    }
}
