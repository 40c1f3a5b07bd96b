//! Shapes of RegisterStreamConsumer, DeregisterStreamConsumer, DescribeStreamConsumer and ListStreamConsumers.

use super::{Address, ConsumerAddress, Input, Output};
use crate::aws::codec::{Fields, Members};
use crate::aws::error::ApiError;
use crate::aws::validate::{CONSUMER_NAME, Check, NEXT_TOKEN, Presence, TAG_KEY, TAG_VALUE};
use std::collections::BTreeMap;
use tidemill_engine::ConsumerInfo;
use tidemill_types::{ConsumerArn, TimestampMs};

pub(crate) struct RegisterStreamConsumerInput {
    pub(crate) stream: Address,
    pub(crate) name: Option<String>,
    pub(crate) tags: Option<BTreeMap<String, String>>,
}

impl Input for RegisterStreamConsumerInput {
    fn read(fields: &mut Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self {
            name: fields.text("ConsumerName")?,
            tags: fields.text_map("Tags")?,
            stream: Address::read_arn(fields)?,
        })
    }
    fn check(&self, check: &mut Check) {
        check.text("consumerName", Presence::Required, self.name.as_deref(), &CONSUMER_NAME);
        check.text_map("tags", Presence::Optional, self.tags.as_ref(), (1, 200), (&TAG_KEY, &TAG_VALUE));
        self.stream.check_arn(check, Presence::Required);
    }
}

/// A consumer with its ARN: what all descriptions of it begin with.
pub(crate) struct Consumer {
    pub(crate) arn: ConsumerArn,
    pub(crate) created: TimestampMs,
}

impl Consumer {
    pub(crate) fn new(arn: ConsumerArn, info: &ConsumerInfo) -> Self {
        Self { arn, created: info.created }
    }
}

impl Output for Consumer {
    /// A consumer is ready as soon as it is registered.
    fn write(&self, members: &mut Members<'_>) {
        members.id("ConsumerName", &self.arn.consumer);
        members.id("ConsumerARN", &self.arn);
        members.text("ConsumerStatus", "ACTIVE");
        members.timestamp("ConsumerCreationTimestamp", self.created);
    }
}

pub(crate) struct RegisterStreamConsumerOutput(pub(crate) Consumer);

impl Output for RegisterStreamConsumerOutput {
    fn write(&self, members: &mut Members<'_>) {
        members.structure("Consumer", &self.0);
    }
}

/// The request of both DeregisterStreamConsumer and DescribeStreamConsumer.
pub(crate) struct ConsumerInput(pub(crate) ConsumerAddress);

impl Input for ConsumerInput {
    fn read(fields: &mut Fields<'_>) -> Result<Self, ApiError> {
        ConsumerAddress::read(fields).map(Self)
    }
    fn check(&self, check: &mut Check) {
        self.0.check(check);
    }
}

pub(crate) struct DescribeStreamConsumerOutput(pub(crate) Consumer);

impl Output for DescribeStreamConsumerOutput {
    fn write(&self, members: &mut Members<'_>) {
        members.structure("ConsumerDescription", &ConsumerDescription(&self.0));
    }
}

struct ConsumerDescription<'a>(&'a Consumer);

impl Output for ConsumerDescription<'_> {
    fn write(&self, members: &mut Members<'_>) {
        self.0.write(members);
        members.id("StreamARN", &self.0.arn.stream);
    }
}

pub(crate) struct ListStreamConsumersInput {
    pub(crate) stream: Address,
    pub(crate) next_token: Option<String>,
    pub(crate) limit: Option<i32>,
    pub(crate) created: Option<TimestampMs>,
}

impl Input for ListStreamConsumersInput {
    fn read(fields: &mut Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self {
            limit: fields.integer("MaxResults")?,
            next_token: fields.text("NextToken")?,
            created: fields.timestamp("StreamCreationTimestamp")?,
            stream: Address::read_arn(fields)?,
        })
    }
    fn check(&self, check: &mut Check) {
        check.integer("maxResults", Presence::Optional, self.limit, (1, 10_000));
        check.text("nextToken", Presence::Optional, self.next_token.as_deref(), &NEXT_TOKEN);
        self.stream.check_arn(check, Presence::Required);
    }
}

pub(crate) struct ListStreamConsumersOutput {
    pub(crate) consumers: Vec<Consumer>,
    pub(crate) next_token: Option<String>,
}

impl Output for ListStreamConsumersOutput {
    fn write(&self, members: &mut Members<'_>) {
        members.structures("Consumers", &self.consumers);
        members.id_if("NextToken", self.next_token.as_ref());
    }
    fn size_hint(&self) -> usize {
        384 * (self.consumers.len() + 1)
    }
}
