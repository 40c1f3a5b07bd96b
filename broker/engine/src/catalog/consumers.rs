//! Registered consumers of a stream (enhanced fan-out): names under which readers subscribe, each at its own pace.

use super::settings::Tags;
use tidemill_types::{ConsumerName, TimestampMs};

/// A registered consumer of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerInfo {
    /// Its name, unique in its stream.
    pub name: ConsumerName,
    /// When it was registered; its seconds are part of its ARN and differ from those of every earlier consumer of the name.
    pub created: TimestampMs,
    /// Its tags.
    pub tags: Tags,
    /// Its resource policy, a JSON document that was checked when it was set.
    pub policy: Option<String>,
}

/// A change of a consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConsumerUpdate {
    /// These tags besides.
    Tag(Tags),
    /// These keys no more; unknown ones are ignored.
    Untag(Vec<String>),
    /// This resource policy, or none.
    Policy(Option<String>),
}

/// What becomes of registered consumers when their stream is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsumersOnDelete {
    /// The stream is not deleted while there are any.
    Refuse,
    /// They go with it.
    Remove,
}
