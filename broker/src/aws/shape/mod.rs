//! The requests and replies of the API as types, by family. A request reads its members, and declares its constraints
//! in the order in which AWS reports them; a reply writes its members. Neither knows an encoding.
//!
//! Members hold what was sent, converted but not yet judged: `validate` judges, handlers turn them into nouns.

mod records;
mod shards;
mod streams;

pub(crate) use records::*;
pub(crate) use shards::*;
pub(crate) use streams::*;

use super::codec::{Fields, Members};
use super::error::ApiError;
use super::validate::{Check, Presence, STREAM_ARN, STREAM_ID, STREAM_NAME};

/// A request.
pub(crate) trait Input: Sized {
    /// Takes the members.
    fn read(fields: &mut Fields<'_>) -> Result<Self, ApiError>;
    /// Checks the constraints of each member alone.
    fn check(&self, check: &mut Check);
}

/// A reply, or a structure within one.
pub(crate) trait Output {
    /// Whether there is a body at all.
    const HAS_BODY: bool = true;
    /// Writes the members.
    fn write(&self, members: &mut Members<'_>);
    /// About how many bytes it takes.
    fn size_hint(&self) -> usize {
        512
    }
}

/// The reply of operations without output: a body of no bytes.
pub(crate) struct Nothing;

impl Output for Nothing {
    const HAS_BODY: bool = false;
    fn write(&self, _: &mut Members<'_>) {}
}

/// Which stream is meant: by name, by ARN, or both.
#[derive(Debug, Default)]
pub(crate) struct Address {
    pub(crate) name: Option<String>,
    pub(crate) arn: Option<String>,
    id: Option<String>,
}

impl Address {
    fn read(fields: &mut Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self {
            name: fields.text("StreamName")?,
            arn: fields.text("StreamARN")?,
            id: fields.text("StreamId")?,
        })
    }
    fn check(&self, check: &mut Check) {
        check.text("streamName", Presence::Optional, self.name.as_deref(), &STREAM_NAME);
        check.text("streamARN", Presence::Optional, self.arn.as_deref(), &STREAM_ARN);
        check.text("streamId", Presence::Optional, self.id.as_deref(), &STREAM_ID);
    }
}
