//! What the scalar types of the model demand of texts: their patterns, lengths and sets of values, as constants.

use super::pattern::Pattern;
use std::fmt::Display;

/// What a text must satisfy.
pub(crate) struct TextRule {
    pub(super) pattern: Option<Pattern>,
    pub(super) one_of: &'static [&'static str],
    pub(super) chars: (usize, usize),
}

impl TextRule {
    pub(super) fn is_met(&self, value: &str) -> bool {
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

pub(super) const ANY_LENGTH: (usize, usize) = (0, usize::MAX);

const fn text(pattern: Pattern, min: usize, max: usize) -> TextRule {
    TextRule { pattern: Some(pattern), one_of: &[], chars: (min, max) }
}

pub(super) const fn sized(min: usize, max: usize) -> TextRule {
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
