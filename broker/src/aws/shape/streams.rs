//! Shapes of CreateStream, DeleteStream, DescribeStream, DescribeStreamSummary and ListStreams.

use super::{Address, Input, Output, WarmThroughput};
use crate::aws::codec::{Fields, Members};
use crate::aws::error::ApiError;
use crate::aws::validate::{
    Check, NEXT_TOKEN, Presence, RECORD_DISTRIBUTION, SHARD_ID, STREAM_MODE, STREAM_NAME, TAG_KEY, TAG_VALUE,
};
use tidemill_engine::{Distribution, MetricSet, StreamInfo, StreamMode, Tags};
use tidemill_types::{Shard, StreamArn};

pub(crate) struct StreamModeDetails {
    pub(crate) mode: Option<String>,
}

impl StreamModeDetails {
    pub(super) fn read(mut fields: Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self { mode: fields.text("StreamMode")? })
    }
    pub(super) fn check(&self, check: &mut Check) {
        check.text("streamMode", Presence::Required, self.mode.as_deref(), &STREAM_MODE);
    }
    /// The mode meant, in a request that passed validation.
    pub(crate) fn mode(&self) -> StreamMode {
        match self.mode.as_deref() {
            Some("ON_DEMAND") => StreamMode::OnDemand,
            _ => StreamMode::Provisioned,
        }
    }
}

/// The distribution meant, in a request that passed validation.
pub(crate) fn distribution(text: Option<&str>) -> Distribution {
    match text {
        Some("AUTO") => Distribution::Auto,
        _ => Distribution::PartitionKey,
    }
}

pub(crate) struct CreateStreamInput {
    pub(crate) name: Option<String>,
    pub(crate) shard_count: Option<i32>,
    pub(crate) mode: Option<StreamModeDetails>,
    pub(crate) tags: Option<Tags>,
    pub(crate) warm_throughput: Option<i32>,
    pub(crate) record_kib_max: Option<i32>,
    pub(crate) distribution: Option<String>,
}

impl Input for CreateStreamInput {
    fn read(fields: &mut Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self {
            shard_count: fields.integer("ShardCount")?,
            name: fields.text("StreamName")?,
            mode: fields.structure("StreamModeDetails")?.map(StreamModeDetails::read).transpose()?,
            tags: fields.text_map("Tags")?,
            warm_throughput: fields.integer("WarmThroughputMiBps")?,
            record_kib_max: fields.integer("MaxRecordSizeInKiB")?,
            distribution: fields.text("RecordDistributionStrategy")?,
        })
    }
    fn check(&self, check: &mut Check) {
        check.integer("shardCount", Presence::Optional, self.shard_count, (1, i32::MAX));
        check.text("streamName", Presence::Required, self.name.as_deref(), &STREAM_NAME);
        check.structure("streamModeDetails", self.mode.as_ref(), StreamModeDetails::check);
        check.text_map("tags", Presence::Optional, self.tags.as_ref(), (1, 200), (&TAG_KEY, &TAG_VALUE));
        check.integer("warmThroughputMiBps", Presence::Optional, self.warm_throughput, (0, i32::MAX));
        check.integer("maxRecordSizeInKiB", Presence::Optional, self.record_kib_max, (1024, 10_240));
        let distribution = self.distribution.as_deref();
        check.text("recordDistributionStrategy", Presence::Optional, distribution, &RECORD_DISTRIBUTION);
    }
}

pub(crate) struct DeleteStreamInput {
    pub(crate) stream: Address,
    pub(crate) with_consumers: bool,
}

impl Input for DeleteStreamInput {
    fn read(fields: &mut Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self {
            with_consumers: fields.boolean("EnforceConsumerDeletion")?.unwrap_or(false),
            stream: Address::read(fields)?,
        })
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

struct ModeDetails(StreamMode);

impl Output for ModeDetails {
    fn write(&self, members: &mut Members<'_>) {
        let mode = match self.0 {
            StreamMode::Provisioned => "PROVISIONED",
            StreamMode::OnDemand => "ON_DEMAND",
        };
        members.text("StreamMode", mode);
    }
}

struct EnhancedMetrics(MetricSet);

impl Output for EnhancedMetrics {
    fn write(&self, members: &mut Members<'_>) {
        members.ids("ShardLevelMetrics", self.0.names());
    }
}

/// A stream with its ARN: what all descriptions of it begin with.
pub(crate) struct Described {
    pub(crate) info: StreamInfo,
    pub(crate) arn: StreamArn,
}

impl Output for Described {
    /// A change is done when its call returns, so a stream is always ready.
    fn write(&self, members: &mut Members<'_>) {
        members.id("StreamName", &self.info.key.name);
        members.id("StreamARN", &self.arn);
        members.text("StreamStatus", "ACTIVE");
        members.structure("StreamModeDetails", &ModeDetails(self.info.settings.mode));
        members.timestamp("StreamCreationTimestamp", self.info.created);
    }
}

impl Described {
    fn write_settings(&self, members: &mut Members<'_>) {
        let settings = &self.info.settings;
        members.integer("RetentionPeriodHours", settings.retention_hours.into());
        members.structures("EnhancedMonitoring", &[EnhancedMetrics(settings.monitoring)]);
        match &settings.encryption {
            None => members.text("EncryptionType", "NONE"),
            Some(encryption) => {
                members.text("EncryptionType", "KMS");
                members.text("KeyId", &encryption.key_id);
            }
        }
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
        let settings = &self.0.info.settings;
        members.integer("OpenShardCount", self.0.info.open_shards.into());
        members.integer("ConsumerCount", self.0.info.consumers.into());
        if let Some(mibps) = settings.warm_mibps {
            members.structure("WarmThroughput", &WarmThroughput(mibps));
        }
        members.integer("MaxRecordSizeInKiB", settings.record_kib_max.into());
        let distribution = match settings.distribution {
            Distribution::PartitionKey => "USER_PARTITION_KEY",
            Distribution::Auto => "AUTO",
        };
        members.text("RecordDistributionStrategy", distribution);
        // there are no channels and no queues
        members.integer("ChannelCount", 0);
        members.integer("QueueCount", 0);
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
