//! Shapes of PutRecord, PutRecords, GetShardIterator and GetRecords.

use super::{Address, Input, Output};
use crate::aws::codec::{Fields, Members};
use crate::aws::error::ApiError;
use crate::aws::shape::ChildShard;
use crate::aws::validate::{
    Check, HASH_KEY, ITERATOR_TYPE, PARTITION_KEY, Presence, SEQUENCE_NUMBER, SHARD_ID, SHARD_ITERATOR,
};
use bytes::Bytes;
use tidemill_engine::{Placed, ReadRecord};
use tidemill_types::TimestampMs;
use tidemill_types::limits::{GET_RECORDS_MAX, PUT_RECORDS_ENTRIES_MAX, RECORD_DATA_BYTES_MAX};

/// A record to put: an entry of PutRecords, or the heart of PutRecord.
pub(crate) struct PutEntry {
    pub(crate) data: Option<Bytes>,
    pub(crate) partition_key: Option<String>,
    pub(crate) explicit_hash_key: Option<String>,
}

impl PutEntry {
    fn read(fields: &mut Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self {
            data: fields.blob("Data")?,
            partition_key: fields.text("PartitionKey")?,
            explicit_hash_key: fields.text("ExplicitHashKey")?,
        })
    }
    fn check(&self, check: &mut Check) {
        // whether it may be absent depends on the stream
        check.text("partitionKey", Presence::Optional, self.partition_key.as_deref(), &PARTITION_KEY);
        check.text("explicitHashKey", Presence::Optional, self.explicit_hash_key.as_deref(), &HASH_KEY);
        check.blob("data", self.data.as_ref().map(Bytes::len), RECORD_DATA_BYTES_MAX);
    }
}

pub(crate) struct PutRecordInput {
    pub(crate) stream: Address,
    pub(crate) entry: PutEntry,
    pub(crate) after: Option<String>,
    pub(crate) dry_run: bool,
}

impl Input for PutRecordInput {
    fn read(fields: &mut Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self {
            after: fields.text("SequenceNumberForOrdering")?,
            entry: PutEntry::read(fields)?,
            stream: Address::read(fields)?,
            dry_run: fields.boolean("DryRun")?.unwrap_or(false),
        })
    }
    fn check(&self, check: &mut Check) {
        let after = self.after.as_deref();
        check.text("sequenceNumberForOrdering", Presence::Optional, after, &SEQUENCE_NUMBER);
        self.entry.check(check);
        self.stream.check(check);
    }
}

/// How records are kept.
fn encryption_type(encrypted: bool) -> &'static str {
    if encrypted { "KMS" } else { "NONE" }
}

pub(crate) struct PutRecordOutput {
    pub(crate) placed: Placed,
    pub(crate) encrypted: bool,
}

impl Output for PutRecordOutput {
    fn write(&self, members: &mut Members<'_>) {
        write_placed(&self.placed, members);
        members.text("EncryptionType", encryption_type(self.encrypted));
    }
}

fn write_placed(placed: &Placed, members: &mut Members<'_>) {
    members.id("SequenceNumber", placed.number);
    members.id("ShardId", placed.shard);
}

pub(crate) struct PutRecordsInput {
    pub(crate) stream: Address,
    pub(crate) entries: Option<Vec<PutEntry>>,
    pub(crate) dry_run: bool,
}

impl Input for PutRecordsInput {
    fn read(fields: &mut Fields<'_>) -> Result<Self, ApiError> {
        let entries = fields.structures("Records")?.map(|entries| {
            entries.into_iter().map(|mut entry| PutEntry::read(&mut entry)).collect::<Result<Vec<_>, _>>()
        });
        Ok(Self {
            entries: entries.transpose()?,
            stream: Address::read(fields)?,
            dry_run: fields.boolean("DryRun")?.unwrap_or(false),
        })
    }
    fn check(&self, check: &mut Check) {
        let bounds = (1, PUT_RECORDS_ENTRIES_MAX);
        let entries = self.entries.as_deref();
        check.structures("records", "PutRecordsRequestEntry", entries, bounds, PutEntry::check);
        self.stream.check(check);
    }
}

/// What became of one entry of PutRecords.
pub(crate) enum PutOutcome {
    Placed(Placed),
    Failed { code: &'static str, message: String },
}

impl Output for PutOutcome {
    fn write(&self, members: &mut Members<'_>) {
        match self {
            Self::Placed(placed) => write_placed(placed, members),
            Self::Failed { code, message } => {
                members.text("ErrorCode", code);
                members.text("ErrorMessage", message);
            }
        }
    }
}

pub(crate) struct PutRecordsOutput {
    pub(crate) outcomes: Vec<PutOutcome>,
    pub(crate) encrypted: bool,
}

impl Output for PutRecordsOutput {
    fn write(&self, members: &mut Members<'_>) {
        let failed = self.outcomes.iter().filter(|outcome| matches!(outcome, PutOutcome::Failed { .. }));
        members.integer("FailedRecordCount", failed.count() as u64);
        members.structures("Records", &self.outcomes);
        members.text("EncryptionType", encryption_type(self.encrypted));
    }
    fn size_hint(&self) -> usize {
        128 * (self.outcomes.len() + 1)
    }
}

pub(crate) struct GetShardIteratorInput {
    pub(crate) stream: Address,
    pub(crate) shard: Option<String>,
    pub(crate) kind: Option<String>,
    pub(crate) number: Option<String>,
    pub(crate) time: Option<TimestampMs>,
    pub(crate) dry_run: bool,
}

impl Input for GetShardIteratorInput {
    fn read(fields: &mut Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self {
            shard: fields.text("ShardId")?,
            kind: fields.text("ShardIteratorType")?,
            number: fields.text("StartingSequenceNumber")?,
            stream: Address::read(fields)?,
            time: fields.timestamp("Timestamp")?,
            dry_run: fields.boolean("DryRun")?.unwrap_or(false),
        })
    }
    fn check(&self, check: &mut Check) {
        check.text("shardId", Presence::Required, self.shard.as_deref(), &SHARD_ID);
        check.text("shardIteratorType", Presence::Required, self.kind.as_deref(), &ITERATOR_TYPE);
        let number = self.number.as_deref();
        check.text("startingSequenceNumber", Presence::Optional, number, &SEQUENCE_NUMBER);
        self.stream.check(check);
    }
}

pub(crate) struct GetShardIteratorOutput(pub(crate) String);

impl Output for GetShardIteratorOutput {
    fn write(&self, members: &mut Members<'_>) {
        members.text("ShardIterator", &self.0);
    }
}

pub(crate) struct GetRecordsInput {
    pub(crate) stream: Address,
    pub(crate) iterator: Option<String>,
    pub(crate) limit: Option<i32>,
    pub(crate) dry_run: bool,
}

impl Input for GetRecordsInput {
    fn read(fields: &mut Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self {
            limit: fields.integer("Limit")?,
            iterator: fields.text("ShardIterator")?,
            stream: Address::read_arn(fields)?,
            dry_run: fields.boolean("DryRun")?.unwrap_or(false),
        })
    }
    fn check(&self, check: &mut Check) {
        check.integer("limit", Presence::Optional, self.limit, (1, GET_RECORDS_MAX as i32));
        check.text("shardIterator", Presence::Required, self.iterator.as_deref(), &SHARD_ITERATOR);
        self.stream.check_arn(check, Presence::Optional);
    }
}

impl Output for ReadRecord {
    fn write(&self, members: &mut Members<'_>) {
        members.id("SequenceNumber", self.number);
        members.timestamp("ApproximateArrivalTimestamp", self.arrival);
        members.blob("Data", &self.data);
        if !self.key.is_empty() {
            members.text("PartitionKey", &self.key);
        }
        if self.encrypted {
            members.text("EncryptionType", encryption_type(true));
        }
    }
}

/// How a reading goes on: at an iterator or, once a closed shard was read to its end, in its children.
pub(crate) enum GoOn {
    At(String),
    In(Vec<ChildShard>),
}

pub(crate) struct GetRecordsOutput {
    pub(crate) records: Vec<ReadRecord>,
    pub(crate) go_on: GoOn,
    pub(crate) millis_behind: u64,
}

impl Output for GetRecordsOutput {
    fn write(&self, members: &mut Members<'_>) {
        members.structures("Records", &self.records);
        match &self.go_on {
            GoOn::At(iterator) => members.text("NextShardIterator", iterator),
            GoOn::In(children) => members.structures("ChildShards", children),
        }
        members.integer("MillisBehindLatest", self.millis_behind);
    }
    fn size_hint(&self) -> usize {
        let of_record = |record: &ReadRecord| record.data.len().div_ceil(3) * 4 + record.key.len() + 192;
        512 + self.records.iter().map(of_record).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::codec::Encoding;
    use tidemill_types::{HashKeyRange, SequenceIndex, Shard, ShardId, ShardState};

    fn child(id: u32, parents: &[u32], range: HashKeyRange) -> ChildShard {
        let mut parents = parents.iter().map(|id| ShardId::new(*id).unwrap());
        ChildShard::from(Shard {
            id: ShardId::new(id).unwrap(),
            parent: parents.next(),
            adjacent_parent: parents.next(),
            range,
            created: TimestampMs::new(0),
            state: ShardState::Open,
        })
    }

    /// The worked example of the API: the KCL refuses a reply with both or neither of iterator and children.
    #[test]
    fn the_end_of_a_closed_shard_names_its_children_instead_of_an_iterator() {
        let halves = HashKeyRange::uniform(2);
        let children = vec![child(1, &[0], halves[0]), child(2, &[0], halves[1])];
        let output = GetRecordsOutput { records: Vec::new(), go_on: GoOn::In(children), millis_behind: 0 };
        let text = String::from_utf8(Encoding::Json.encode(&output)).unwrap();
        let lower = r#"{"StartingHashKey":"0","EndingHashKey":"170141183460469231731687303715884105727"}"#;
        let upper = "\"170141183460469231731687303715884105728\",\"EndingHashKey\":\"340282366920938463463374607431768211455\"";
        let first = format!(
            r#"{{"ShardId":"shardId-000000000001","ParentShards":["shardId-000000000000"],"HashKeyRange":{lower}}}"#
        );
        let second = format!(
            r#"{{"ShardId":"shardId-000000000002","ParentShards":["shardId-000000000000"],"HashKeyRange":{{"StartingHashKey":{upper}}}}}"#
        );
        assert_eq!(
            text,
            format!(r#"{{"Records":[],"ChildShards":[{first},{second}],"MillisBehindLatest":0}}"#)
        );
    }

    #[test]
    fn a_child_of_a_merge_names_both_parents() {
        let merged = child(4, &[2, 3], HashKeyRange::ALL);
        let text = String::from_utf8(Encoding::Json.encode(&merged)).unwrap();
        assert!(text.contains(r#""ParentShards":["shardId-000000000002","shardId-000000000003"]"#), "{text}");
    }

    #[test]
    fn a_record_is_written_with_its_arrival_in_seconds_and_how_it_is_kept() {
        let arrival = TimestampMs::new(1_700_000_000_123);
        let (shard, index) = (ShardId::new(3).unwrap(), SequenceIndex::new(1).unwrap());
        let number =
            tidemill_types::SequenceNumber::new(TimestampMs::new(1_700_000_000_000), shard, index, arrival);
        let record =
            ReadRecord { number, arrival, key: "a".into(), data: Bytes::from_static(b"hi"), encrypted: true };
        let expected = format!(
            r#"{{"SequenceNumber":"{number}","ApproximateArrivalTimestamp":1700000000.123,"Data":"aGk=","PartitionKey":"a","EncryptionType":"KMS"}}"#
        );
        assert_eq!(String::from_utf8(Encoding::Json.encode(&record)).unwrap(), expected);
    }
}
