//! Shapes of ListShards and of the operations that reshard, and how a shard looks in every reply.

use super::{Address, Input, Output};
use crate::aws::codec::{Fields, Members};
use crate::aws::error::ApiError;
use crate::aws::validate::{
    Check, HASH_KEY, NEXT_TOKEN, Presence, SCALING_TYPE, SHARD_FILTER_TYPE, SHARD_ID,
};
use tidemill_engine::Scaled;
use tidemill_types::{HashKeyRange, Shard, ShardId, StreamArn, TimestampMs};

pub(crate) struct ShardFilterInput {
    pub(crate) kind: Option<String>,
    pub(crate) shard: Option<String>,
    pub(crate) time: Option<TimestampMs>,
}

impl ShardFilterInput {
    fn read(mut fields: Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self {
            kind: fields.text("Type")?,
            shard: fields.text("ShardId")?,
            time: fields.timestamp("Timestamp")?,
        })
    }
    fn check(&self, check: &mut Check) {
        check.text("type", Presence::Required, self.kind.as_deref(), &SHARD_FILTER_TYPE);
        check.text("shardId", Presence::Optional, self.shard.as_deref(), &SHARD_ID);
    }
}

pub(crate) struct ListShardsInput {
    pub(crate) stream: Address,
    pub(crate) next_token: Option<String>,
    pub(crate) after: Option<String>,
    pub(crate) limit: Option<i32>,
    pub(crate) created: Option<TimestampMs>,
    pub(crate) filter: Option<ShardFilterInput>,
}

impl Input for ListShardsInput {
    fn read(fields: &mut Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self {
            after: fields.text("ExclusiveStartShardId")?,
            limit: fields.integer("MaxResults")?,
            next_token: fields.text("NextToken")?,
            created: fields.timestamp("StreamCreationTimestamp")?,
            filter: fields.structure("ShardFilter")?.map(ShardFilterInput::read).transpose()?,
            stream: Address::read(fields)?,
        })
    }
    fn check(&self, check: &mut Check) {
        check.text("exclusiveStartShardId", Presence::Optional, self.after.as_deref(), &SHARD_ID);
        check.integer("maxResults", Presence::Optional, self.limit, (1, 10_000));
        check.text("nextToken", Presence::Optional, self.next_token.as_deref(), &NEXT_TOKEN);
        check.structure("shardFilter", self.filter.as_ref(), ShardFilterInput::check);
        self.stream.check(check);
    }
}

pub(crate) struct ListShardsOutput {
    pub(crate) shards: Vec<Shard>,
    pub(crate) next_token: Option<String>,
}

impl Output for ListShardsOutput {
    fn write(&self, members: &mut Members<'_>) {
        members.structures("Shards", &self.shards);
        members.id_if("NextToken", self.next_token.as_ref());
    }
    fn size_hint(&self) -> usize {
        384 * (self.shards.len() + 1)
    }
}

pub(crate) struct SplitShardInput {
    pub(crate) stream: Address,
    pub(crate) shard: Option<String>,
    pub(crate) at: Option<String>,
}

impl Input for SplitShardInput {
    fn read(fields: &mut Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self {
            at: fields.text("NewStartingHashKey")?,
            stream: Address::read(fields)?,
            shard: fields.text("ShardToSplit")?,
        })
    }
    fn check(&self, check: &mut Check) {
        check.text("newStartingHashKey", Presence::Required, self.at.as_deref(), &HASH_KEY);
        self.stream.check(check);
        check.text("shardToSplit", Presence::Required, self.shard.as_deref(), &SHARD_ID);
    }
}

pub(crate) struct MergeShardsInput {
    pub(crate) stream: Address,
    pub(crate) shard: Option<String>,
    pub(crate) adjacent: Option<String>,
}

impl Input for MergeShardsInput {
    fn read(fields: &mut Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self {
            shard: fields.text("ShardToMerge")?,
            adjacent: fields.text("AdjacentShardToMerge")?,
            stream: Address::read(fields)?,
        })
    }
    fn check(&self, check: &mut Check) {
        check.text("shardToMerge", Presence::Required, self.shard.as_deref(), &SHARD_ID);
        check.text("adjacentShardToMerge", Presence::Required, self.adjacent.as_deref(), &SHARD_ID);
        self.stream.check(check);
    }
}

pub(crate) struct UpdateShardCountInput {
    pub(crate) stream: Address,
    pub(crate) target: Option<i32>,
    pub(crate) scaling: Option<String>,
}

impl Input for UpdateShardCountInput {
    fn read(fields: &mut Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self {
            scaling: fields.text("ScalingType")?,
            target: fields.integer("TargetShardCount")?,
            stream: Address::read(fields)?,
        })
    }
    fn check(&self, check: &mut Check) {
        check.text("scalingType", Presence::Required, self.scaling.as_deref(), &SCALING_TYPE);
        check.integer("targetShardCount", Presence::Required, self.target, (1, i32::MAX));
        self.stream.check(check);
    }
}

pub(crate) struct UpdateShardCountOutput {
    pub(crate) arn: StreamArn,
    pub(crate) scaled: Scaled,
}

impl Output for UpdateShardCountOutput {
    fn write(&self, members: &mut Members<'_>) {
        members.id("StreamName", &self.arn.stream);
        members.integer("CurrentShardCount", self.scaled.before.into());
        members.integer("TargetShardCount", self.scaled.after.into());
        members.id("StreamARN", &self.arn);
    }
}

impl Output for HashKeyRange {
    fn write(&self, members: &mut Members<'_>) {
        members.id("StartingHashKey", self.start());
        members.id("EndingHashKey", self.end());
    }
}

struct SequenceNumberRange<'a>(&'a Shard);

impl Output for SequenceNumberRange<'_> {
    fn write(&self, members: &mut Members<'_>) {
        members.id("StartingSequenceNumber", self.0.starting_number());
        members.id_if("EndingSequenceNumber", self.0.ending_number());
    }
}

impl Output for Shard {
    fn write(&self, members: &mut Members<'_>) {
        members.id("ShardId", self.id);
        members.id_if("ParentShardId", self.parent);
        members.id_if("AdjacentParentShardId", self.adjacent_parent);
        members.structure("HashKeyRange", &self.range);
        members.structure("SequenceNumberRange", &SequenceNumberRange(self));
    }
}

/// A shard as the reader of its closed parent is shown it.
pub(crate) struct ChildShard {
    id: ShardId,
    parents: Vec<ShardId>,
    range: HashKeyRange,
}

impl From<Shard> for ChildShard {
    fn from(shard: Shard) -> Self {
        Self { id: shard.id, parents: shard.parents().collect(), range: shard.range }
    }
}

impl Output for ChildShard {
    fn write(&self, members: &mut Members<'_>) {
        members.id("ShardId", self.id);
        members.ids("ParentShards", &self.parents);
        members.structure("HashKeyRange", &self.range);
    }
}
