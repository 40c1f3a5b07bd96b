//! The requests and replies of the API as types, by family. A request reads its members, and declares its constraints
//! in the order in which AWS reports them; a reply writes its members. Neither knows an encoding.
//!
//! Members hold what was sent, converted but not yet judged: `validate` judges, handlers turn them into nouns.

mod account;
mod consumers;
mod policies;
mod records;
mod settings;
mod shards;
mod streams;
mod subscribe;
mod tags;

pub(crate) use account::*;
pub(crate) use consumers::*;
pub(crate) use policies::*;
pub(crate) use records::*;
pub(crate) use settings::*;
pub(crate) use shards::*;
pub(crate) use streams::*;
pub(crate) use subscribe::*;
pub(crate) use tags::*;

use super::codec::{Fields, Members};
use super::error::ApiError;
use super::validate::{
    CONSUMER_ARN, CONSUMER_NAME, Check, Presence, RESOURCE_ARN, STREAM_ARN, STREAM_ID, STREAM_NAME,
};

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
        Ok(Self { name: fields.text("StreamName")?, ..Self::read_arn(fields)? })
    }
    /// For operations that take no name.
    fn read_arn(fields: &mut Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self { name: None, arn: fields.text("StreamARN")?, id: fields.text("StreamId")? })
    }
    fn check(&self, check: &mut Check) {
        check.text("streamName", Presence::Optional, self.name.as_deref(), &STREAM_NAME);
        self.check_arn(check, Presence::Optional);
    }
    fn check_arn(&self, check: &mut Check, presence: Presence) {
        check.text("streamARN", presence, self.arn.as_deref(), &STREAM_ARN);
        check.text("streamId", Presence::Optional, self.id.as_deref(), &STREAM_ID);
    }
}

/// Which consumer is meant: by its ARN, by its name and the ARN of its stream, or both.
#[derive(Debug)]
pub(crate) struct ConsumerAddress {
    pub(crate) stream: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) arn: Option<String>,
    id: Option<String>,
}

impl ConsumerAddress {
    fn read(fields: &mut Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self {
            stream: fields.text("StreamARN")?,
            name: fields.text("ConsumerName")?,
            arn: fields.text("ConsumerARN")?,
            id: fields.text("StreamId")?,
        })
    }
    fn check(&self, check: &mut Check) {
        check.text("streamARN", Presence::Optional, self.stream.as_deref(), &STREAM_ARN);
        check.text("consumerName", Presence::Optional, self.name.as_deref(), &CONSUMER_NAME);
        check.text("consumerARN", Presence::Optional, self.arn.as_deref(), &CONSUMER_ARN);
        check.text("streamId", Presence::Optional, self.id.as_deref(), &STREAM_ID);
    }
}

/// Which stream or consumer is meant, by its ARN.
#[derive(Debug)]
pub(crate) struct ResourceAddress {
    pub(crate) arn: Option<String>,
    id: Option<String>,
}

impl ResourceAddress {
    fn read(fields: &mut Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self { arn: fields.text("ResourceARN")?, id: fields.text("StreamId")? })
    }
    fn check(&self, check: &mut Check) {
        check.text("resourceARN", Presence::Required, self.arn.as_deref(), &RESOURCE_ARN);
        check.text("streamId", Presence::Optional, self.id.as_deref(), &STREAM_ID);
    }
}
