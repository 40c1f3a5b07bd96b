//! Shapes of the operations that change what a stream is set to: retention, mode, record size, throughput, distribution,
//! monitoring, encryption.

use super::{Address, Input, Output, StreamModeDetails};
use crate::aws::codec::{Fields, Members};
use crate::aws::error::ApiError;
use crate::aws::validate::{Check, ENCRYPTION_TYPE, KEY_ID, METRIC_NAME, Presence, RECORD_DISTRIBUTION};
use tidemill_engine::MetricSet;
use tidemill_types::StreamArn;

/// The request of both IncreaseStreamRetentionPeriod and DecreaseStreamRetentionPeriod.
pub(crate) struct RetentionInput {
    pub(crate) stream: Address,
    pub(crate) hours: Option<i32>,
}

impl Input for RetentionInput {
    fn read(fields: &mut Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self { hours: fields.integer("RetentionPeriodHours")?, stream: Address::read(fields)? })
    }
    fn check(&self, check: &mut Check) {
        check.integer("retentionPeriodHours", Presence::Required, self.hours, (1, i32::MAX));
        self.stream.check(check);
    }
}

pub(crate) struct UpdateStreamModeInput {
    pub(crate) stream: Address,
    pub(crate) mode: Option<StreamModeDetails>,
    pub(crate) warm_throughput: Option<i32>,
}

impl Input for UpdateStreamModeInput {
    fn read(fields: &mut Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self {
            mode: fields.structure("StreamModeDetails")?.map(StreamModeDetails::read).transpose()?,
            warm_throughput: fields.integer("WarmThroughputMiBps")?,
            stream: Address::read_arn(fields)?,
        })
    }
    fn check(&self, check: &mut Check) {
        check.presence("streamModeDetails", Presence::Required, self.mode.is_some());
        check.structure("streamModeDetails", self.mode.as_ref(), StreamModeDetails::check);
        check.integer("warmThroughputMiBps", Presence::Optional, self.warm_throughput, (0, i32::MAX));
        self.stream.check_arn(check, Presence::Required);
    }
}

pub(crate) struct UpdateMaxRecordSizeInput {
    pub(crate) stream: Address,
    pub(crate) record_kib_max: Option<i32>,
}

impl Input for UpdateMaxRecordSizeInput {
    fn read(fields: &mut Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self { record_kib_max: fields.integer("MaxRecordSizeInKiB")?, stream: Address::read_arn(fields)? })
    }
    fn check(&self, check: &mut Check) {
        check.integer("maxRecordSizeInKiB", Presence::Required, self.record_kib_max, (1024, 10_240));
        self.stream.check_arn(check, Presence::Optional);
    }
}

pub(crate) struct UpdateStreamWarmThroughputInput {
    pub(crate) stream: Address,
    pub(crate) warm_throughput: Option<i32>,
}

impl Input for UpdateStreamWarmThroughputInput {
    fn read(fields: &mut Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self { warm_throughput: fields.integer("WarmThroughputMiBps")?, stream: Address::read(fields)? })
    }
    fn check(&self, check: &mut Check) {
        check.integer("warmThroughputMiBps", Presence::Required, self.warm_throughput, (0, i32::MAX));
        self.stream.check(check);
    }
}

/// Throughput a stream is to be ready for. Nothing has to be warmed here, so it is ready at once.
pub(crate) struct WarmThroughput(pub(crate) u32);

impl Output for WarmThroughput {
    fn write(&self, members: &mut Members<'_>) {
        members.integer("TargetMiBps", self.0.into());
        members.integer("CurrentMiBps", self.0.into());
    }
}

pub(crate) struct UpdateStreamWarmThroughputOutput {
    pub(crate) arn: StreamArn,
    pub(crate) warm_throughput: WarmThroughput,
}

impl Output for UpdateStreamWarmThroughputOutput {
    fn write(&self, members: &mut Members<'_>) {
        members.id("StreamARN", &self.arn);
        members.id("StreamName", &self.arn.stream);
        members.structure("WarmThroughput", &self.warm_throughput);
    }
}

pub(crate) struct UpdateDistributionInput {
    pub(crate) stream: Address,
    pub(crate) distribution: Option<String>,
}

impl Input for UpdateDistributionInput {
    fn read(fields: &mut Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self {
            distribution: fields.text("RecordDistributionStrategy")?,
            stream: Address::read_arn(fields)?,
        })
    }
    fn check(&self, check: &mut Check) {
        let distribution = self.distribution.as_deref();
        check.text("recordDistributionStrategy", Presence::Required, distribution, &RECORD_DISTRIBUTION);
        self.stream.check_arn(check, Presence::Required);
    }
}

/// The request of both EnableEnhancedMonitoring and DisableEnhancedMonitoring.
pub(crate) struct MonitoringInput {
    pub(crate) stream: Address,
    pub(crate) metrics: Option<Vec<String>>,
}

impl Input for MonitoringInput {
    fn read(fields: &mut Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self { metrics: fields.text_list("ShardLevelMetrics")?, stream: Address::read(fields)? })
    }
    fn check(&self, check: &mut Check) {
        let metrics = self.metrics.as_deref();
        check.texts("shardLevelMetrics", Presence::Required, metrics, (1, 7), &METRIC_NAME);
        self.stream.check(check);
    }
}

pub(crate) struct MonitoringOutput {
    pub(crate) arn: StreamArn,
    pub(crate) before: MetricSet,
    pub(crate) after: MetricSet,
}

impl Output for MonitoringOutput {
    fn write(&self, members: &mut Members<'_>) {
        members.id("StreamName", &self.arn.stream);
        members.ids("CurrentShardLevelMetrics", self.before.names());
        members.ids("DesiredShardLevelMetrics", self.after.names());
        members.id("StreamARN", &self.arn);
    }
}

/// The request of both StartStreamEncryption and StopStreamEncryption.
pub(crate) struct EncryptionInput {
    pub(crate) stream: Address,
    pub(crate) kind: Option<String>,
    pub(crate) key_id: Option<String>,
}

impl Input for EncryptionInput {
    fn read(fields: &mut Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self {
            kind: fields.text("EncryptionType")?,
            key_id: fields.text("KeyId")?,
            stream: Address::read(fields)?,
        })
    }
    fn check(&self, check: &mut Check) {
        check.text("encryptionType", Presence::Required, self.kind.as_deref(), &ENCRYPTION_TYPE);
        check.text("keyId", Presence::Required, self.key_id.as_deref(), &KEY_ID);
        self.stream.check(check);
    }
}
