//! Shapes of SubscribeToShard, and of the events it answers with.

use super::{ChildShard, Input, Output};
use crate::aws::codec::{Fields, Members};
use crate::aws::error::ApiError;
use crate::aws::validate::{
    CONSUMER_ARN, Check, ITERATOR_TYPE, Presence, SEQUENCE_NUMBER, SHARD_ID, STREAM_ID,
};
use tidemill_engine::ReadRecord;
use tidemill_types::{SequenceNumber, TimestampMs};

/// Where a subscription begins.
#[derive(Debug, Default)]
pub(crate) struct StartingPosition {
    pub(crate) kind: Option<String>,
    pub(crate) number: Option<String>,
    pub(crate) time: Option<TimestampMs>,
}

impl StartingPosition {
    fn read(mut fields: Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self {
            kind: fields.text("Type")?,
            number: fields.text("SequenceNumber")?,
            time: fields.timestamp("Timestamp")?,
        })
    }
    fn check(&self, check: &mut Check) {
        check.text("type", Presence::Required, self.kind.as_deref(), &ITERATOR_TYPE);
        check.text("sequenceNumber", Presence::Optional, self.number.as_deref(), &SEQUENCE_NUMBER);
    }
}

pub(crate) struct SubscribeToShardInput {
    pub(crate) consumer: Option<String>,
    id: Option<String>,
    pub(crate) shard: Option<String>,
    pub(crate) position: Option<StartingPosition>,
    pub(crate) dry_run: bool,
}

impl Input for SubscribeToShardInput {
    fn read(fields: &mut Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self {
            consumer: fields.text("ConsumerARN")?,
            id: fields.text("StreamId")?,
            shard: fields.text("ShardId")?,
            position: fields.structure("StartingPosition")?.map(StartingPosition::read).transpose()?,
            dry_run: fields.boolean("DryRun")?.unwrap_or(false),
        })
    }
    fn check(&self, check: &mut Check) {
        check.text("consumerARN", Presence::Required, self.consumer.as_deref(), &CONSUMER_ARN);
        check.text("streamId", Presence::Optional, self.id.as_deref(), &STREAM_ID);
        check.text("shardId", Presence::Required, self.shard.as_deref(), &SHARD_ID);
        check.presence("startingPosition", Presence::Required, self.position.is_some());
        check.structure("startingPosition", self.position.as_ref(), StartingPosition::check);
    }
}

/// Some records of a shard and how its reading goes on: after a number or, at the end of a closed shard, in its
/// children. The KCL refuses an event with both or neither.
pub(crate) struct SubscribeToShardEvent {
    pub(crate) records: Vec<ReadRecord>,
    pub(crate) continuation: Option<SequenceNumber>,
    pub(crate) millis_behind: u64,
    pub(crate) children: Vec<ChildShard>,
}

impl Output for SubscribeToShardEvent {
    fn write(&self, members: &mut Members<'_>) {
        members.structures("Records", &self.records);
        members.id_if("ContinuationSequenceNumber", self.continuation);
        members.integer("MillisBehindLatest", self.millis_behind);
        if !self.children.is_empty() {
            members.structures("ChildShards", &self.children);
        }
    }
    fn size_hint(&self) -> usize {
        let of_record = |record: &ReadRecord| record.data.len().div_ceil(3) * 4 + record.key.len() + 192;
        512 + self.records.iter().map(of_record).sum::<usize>()
    }
}
