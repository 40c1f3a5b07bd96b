//! Shapes of CreateStream, DeleteStream, DescribeStream, DescribeStreamSummary and ListStreams.

use super::{Address, Input, Output};
use crate::aws::codec::{Fields, Members};
use crate::aws::error::ApiError;
use crate::aws::validate::{
    Check, NEXT_TOKEN, Presence, RECORD_DISTRIBUTION, SHARD_ID, STREAM_MODE, STREAM_NAME,
};
use tidemill_engine::StreamInfo;
use tidemill_types::limits::RECORD_BYTES_DEFAULT;
use tidemill_types::{Shard, StreamArn};

pub(crate) struct StreamModeDetails {
    pub(crate) mode: Option<String>,
}

pub(crate) struct CreateStreamInput {
    pub(crate) name: Option<String>,
    pub(crate) shard_count: Option<i32>,
    pub(crate) mode: Option<StreamModeDetails>,
    pub(crate) tags: Option<usize>,
    pub(crate) warm_throughput: Option<i32>,
    pub(crate) record_kib_max: Option<i32>,
    pub(crate) distribution: Option<String>,
}

impl Input for CreateStreamInput {
    fn read(fields: &mut Fields<'_>) -> Result<Self, ApiError> {
        let mode = fields.structure("StreamModeDetails")?;
        Ok(Self {
            shard_count: fields.integer("ShardCount")?,
            name: fields.text("StreamName")?,
            mode: mode
                .map(|mut f| f.text("StreamMode").map(|mode| StreamModeDetails { mode }))
                .transpose()?,
            tags: fields.text_map("Tags")?.map(|tags| tags.len()),
            warm_throughput: fields.integer("WarmThroughputMiBps")?,
            record_kib_max: fields.integer("MaxRecordSizeInKiB")?,
            distribution: fields.text("RecordDistributionStrategy")?,
        })
    }
    fn check(&self, check: &mut Check) {
        check.integer("shardCount", Presence::Optional, self.shard_count, (1, i32::MAX));
        check.text("streamName", Presence::Required, self.name.as_deref(), &STREAM_NAME);
        check.structure("streamModeDetails", self.mode.as_ref(), |details, check| {
            check.text("streamMode", Presence::Required, details.mode.as_deref(), &STREAM_MODE);
        });
        check.integer("warmThroughputMiBps", Presence::Optional, self.warm_throughput, (0, i32::MAX));
        check.integer("maxRecordSizeInKiB", Presence::Optional, self.record_kib_max, (1024, 10_240));
        let distribution = self.distribution.as_deref();
        check.text("recordDistributionStrategy", Presence::Optional, distribution, &RECORD_DISTRIBUTION);
    }
}

/// EnforceConsumerDeletion is read for its kind and changes nothing: no stream has registered consumers yet.
pub(crate) struct DeleteStreamInput {
    pub(crate) stream: Address,
}

impl Input for DeleteStreamInput {
    fn read(fields: &mut Fields<'_>) -> Result<Self, ApiError> {
        fields.boolean("EnforceConsumerDeletion")?;
        Ok(Self { stream: Address::read(fields)? })
    }
    fn check(&self, check: &mut Check) {
        self.stream.check(check);
    }
}

pub(crate) struct DescribeStreamInput {
    pub(crate) stream: Address,
    pub(crate) limit: Option<i32>,
    pub(crate) after: Option<String>,
}

impl Input for DescribeStreamInput {
    fn read(fields: &mut Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self {
            limit: fields.integer("Limit")?,
            after: fields.text("ExclusiveStartShardId")?,
            stream: Address::read(fields)?,
        })
    }
    fn check(&self, check: &mut Check) {
        check.integer("limit", Presence::Optional, self.limit, (1, 10_000));
        check.text("exclusiveStartShardId", Presence::Optional, self.after.as_deref(), &SHARD_ID);
        self.stream.check(check);
    }
}

pub(crate) struct DescribeStreamSummaryInput {
    pub(crate) stream: Address,
}

impl Input for DescribeStreamSummaryInput {
    fn read(fields: &mut Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self { stream: Address::read(fields)? })
    }
    fn check(&self, check: &mut Check) {
        self.stream.check(check);
    }
}

pub(crate) struct ListStreamsInput {
    pub(crate) limit: Option<i32>,
    pub(crate) after: Option<String>,
    pub(crate) next_token: Option<String>,
}

impl Input for ListStreamsInput {
    fn read(fields: &mut Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self {
            limit: fields.integer("Limit")?,
            after: fields.text("ExclusiveStartStreamName")?,
            next_token: fields.text("NextToken")?,
        })
    }
    fn check(&self, check: &mut Check) {
        check.integer("limit", Presence::Optional, self.limit, (1, 10_000));
        check.text("exclusiveStartStreamName", Presence::Optional, self.after.as_deref(), &STREAM_NAME);
        check.text("nextToken", Presence::Optional, self.next_token.as_deref(), &NEXT_TOKEN);
    }
}

/// Every stream is made with a given number of shards, and is ready as soon as it is made.
struct Provisioned;

impl Output for Provisioned {
    fn write(&self, members: &mut Members<'_>) {
        members.text("StreamMode", "PROVISIONED");
    }
}

/// Shard-level metrics that were switched on: none.
struct NoMetrics;

impl Output for NoMetrics {
    fn write(&self, members: &mut Members<'_>) {
        members.ids("ShardLevelMetrics", [0u8; 0]);
    }
}

/// A stream with its ARN: what all descriptions of it begin with.
pub(crate) struct Described {
    pub(crate) info: StreamInfo,
    pub(crate) arn: StreamArn,
}

impl Output for Described {
    fn write(&self, members: &mut Members<'_>) {
        members.id("StreamName", &self.info.key.name);
        members.id("StreamARN", &self.arn);
        members.text("StreamStatus", "ACTIVE");
        members.structure("StreamModeDetails", &Provisioned);
        members.timestamp("StreamCreationTimestamp", self.info.created);
    }
}

impl Described {
    fn write_settings(&self, members: &mut Members<'_>) {
        members.integer("RetentionPeriodHours", self.info.settings.retention_hours.into());
        members.structures("EnhancedMonitoring", &[NoMetrics]);
        members.text("EncryptionType", "NONE");
    }
}

pub(crate) struct DescribeStreamOutput {
    pub(crate) stream: Described,
    pub(crate) shards: Vec<Shard>,
    pub(crate) more: bool,
}

impl Output for DescribeStreamOutput {
    fn write(&self, members: &mut Members<'_>) {
        members.structure("StreamDescription", &StreamDescription(self));
    }
    fn size_hint(&self) -> usize {
        384 * (self.shards.len() + 2)
    }
}

struct StreamDescription<'a>(&'a DescribeStreamOutput);

impl Output for StreamDescription<'_> {
    fn write(&self, members: &mut Members<'_>) {
        self.0.stream.write(members);
        self.0.stream.write_settings(members);
        members.structures("Shards", &self.0.shards);
        members.boolean("HasMoreShards", self.0.more);
    }
}

pub(crate) struct DescribeStreamSummaryOutput(pub(crate) Described);

impl Output for DescribeStreamSummaryOutput {
    fn write(&self, members: &mut Members<'_>) {
        members.structure("StreamDescriptionSummary", &StreamDescriptionSummary(&self.0));
    }
}

struct StreamDescriptionSummary<'a>(&'a Described);

impl Output for StreamDescriptionSummary<'_> {
    fn write(&self, members: &mut Members<'_>) {
        self.0.write(members);
        self.0.write_settings(members);
        members.integer("OpenShardCount", self.0.info.open_shards.into());
        members.integer("ConsumerCount", 0);
        members.integer("MaxRecordSizeInKiB", (RECORD_BYTES_DEFAULT / 1024) as u64);
    }
}

pub(crate) struct ListStreamsOutput {
    pub(crate) streams: Vec<Described>,
    pub(crate) next_token: Option<String>,
}

impl Output for ListStreamsOutput {
    fn write(&self, members: &mut Members<'_>) {
        members.ids("StreamNames", self.streams.iter().map(|stream| &stream.info.key.name));
        members.boolean("HasMoreStreams", self.next_token.is_some());
        members.id_if("NextToken", self.next_token.as_ref());
        members.structures("StreamSummaries", &self.streams);
    }
    fn size_hint(&self) -> usize {
        512 * (self.streams.len() + 1)
    }
}
