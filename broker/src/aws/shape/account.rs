//! Shapes of DescribeLimits, DescribeAccountSettings and UpdateAccountSettings.

use super::{Input, Output};
use crate::aws::codec::{Fields, Members};
use crate::aws::error::ApiError;
use crate::aws::validate::{COMMITMENT_STATUS, Check, Presence};
use tidemill_engine::{Commitment, CommitmentStatus};
use tidemill_types::TimestampMs;

/// A request without members.
pub(crate) struct NoInput;

impl Input for NoInput {
    fn read(_: &mut Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self)
    }
    fn check(&self, _: &mut Check) {}
}

pub(crate) struct DescribeLimitsOutput {
    pub(crate) shard_limit: u32,
    pub(crate) open_shards: u32,
    pub(crate) on_demand_streams: u32,
    pub(crate) on_demand_stream_limit: u32,
}

impl Output for DescribeLimitsOutput {
    /// There are no channels, and none can be made.
    fn write(&self, members: &mut Members<'_>) {
        members.integer("ShardLimit", self.shard_limit.into());
        members.integer("OpenShardCount", self.open_shards.into());
        members.integer("OnDemandStreamCount", self.on_demand_streams.into());
        members.integer("OnDemandStreamCountLimit", self.on_demand_stream_limit.into());
        members.integer("ChannelCount", 0);
        members.integer("ChannelCountLimit", 0);
    }
}

pub(crate) struct CommitmentInput {
    pub(crate) status: Option<String>,
}

pub(crate) struct UpdateAccountSettingsInput {
    pub(crate) commitment: Option<CommitmentInput>,
}

impl Input for UpdateAccountSettingsInput {
    fn read(fields: &mut Fields<'_>) -> Result<Self, ApiError> {
        let commitment = fields.structure("MinimumThroughputBillingCommitment")?;
        let read = |mut fields: Fields<'_>| fields.text("Status").map(|status| CommitmentInput { status });
        Ok(Self { commitment: commitment.map(read).transpose()? })
    }
    fn check(&self, check: &mut Check) {
        let member = "minimumThroughputBillingCommitment";
        check.presence(member, Presence::Required, self.commitment.is_some());
        check.structure(member, self.commitment.as_ref(), |commitment, check| {
            check.text("status", Presence::Required, commitment.status.as_deref(), &COMMITMENT_STATUS);
        });
    }
}

/// The reply of both operations on account settings, as of a time.
pub(crate) struct AccountSettingsOutput {
    pub(crate) commitment: Commitment,
    pub(crate) now: TimestampMs,
}

impl Output for AccountSettingsOutput {
    fn write(&self, members: &mut Members<'_>) {
        members.structure("MinimumThroughputBillingCommitment", &CommitmentOutput(self));
    }
}

struct CommitmentOutput<'a>(&'a AccountSettingsOutput);

impl Output for CommitmentOutput<'_> {
    fn write(&self, members: &mut Members<'_>) {
        let commitment = self.0.commitment;
        let (status, holds) = match commitment.status(self.0.now) {
            CommitmentStatus::Disabled => ("DISABLED", false),
            CommitmentStatus::Enabled => ("ENABLED", true),
            CommitmentStatus::Ending => ("ENABLED_UNTIL_EARLIEST_ALLOWED_END", true),
        };
        members.text("Status", status);
        members.timestamp_if("StartedAt", commitment.started);
        members.timestamp_if("EndedAt", commitment.ended.filter(|_| !holds));
        members.timestamp_if("EarliestAllowedEndAt", commitment.earliest_end().filter(|_| holds));
    }
}
