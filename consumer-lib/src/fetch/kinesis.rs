//! A service that speaks the Kinesis API: its streams and shards. How shards are read is a choice (poll, fan_out).
//!
//! A list of shards is kept for a moment, since every look at the leases needs one and Amazon throttles the call; the end
//! of a shard drops it.

use super::fan_out::{self, Consumers};
use super::poll::{self, Polling};
use super::{Reader, Reading, Source};
use crate::aws::tell;
use crate::record::StoredRecord;
use crate::shard::{ShardInfo, ShardState};
use crate::store::Answer;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::types::{
    ChildShard, HashKeyRange as WireRange, Record as WireRecord, Shard as WireShard,
};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tidemill_proto::{Error, ErrorKind, Result};
use tidemill_types::{HashKeyRange, ShardId, StreamName, TimestampMs};
use tokio::time::{Instant, timeout};

/// How old a list of shards may be. A worker looks at its leases every few seconds.
const LIST_AGE_MAX: Duration = Duration::from_secs(10);
const LIST_PAGE: i32 = 1000;
/// Longest a call may take that concerns a whole stream.
const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// The calls that concern whole streams. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct KinesisApi {
    pub(super) client: Client,
    lists: Arc<Mutex<HashMap<StreamName, List>>>,
}

#[derive(Debug, Clone)]
struct List {
    asked: Instant,
    shards: Vec<ShardInfo>,
}

/// Which stream it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) arn: String,
    created_s: i64,
}

impl Summary {
    /// `account:stream:creationEpoch`, as the KCL names streams where there are many.
    pub(crate) fn identifier(&self, stream: &StreamName) -> String {
        let account = self.arn.split(':').nth(4).unwrap_or_default();
        format!("{account}:{stream}:{}", self.created_s)
    }
}

impl KinesisApi {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, lists: Arc::default() }
    }

    /// All shards that hold or take records.
    pub(crate) async fn shards(&self, stream: &StreamName) -> Result<Vec<ShardInfo>> {
        let known = self.lists.lock().get(stream).cloned();
        if let Some(list) = known.filter(|list| list.asked.elapsed() < LIST_AGE_MAX) {
            return Ok(list.shards);
        }
        let asked = Instant::now();
        let shards = self.list(stream).await?;
        self.lists.lock().insert(stream.clone(), List { asked, shards: shards.clone() });
        Ok(shards)
    }

    /// The shards of a stream have changed.
    pub(super) fn forget(&self, stream: &StreamName) {
        self.lists.lock().remove(stream);
    }

    async fn list(&self, stream: &StreamName) -> Result<Vec<ShardInfo>> {
        let (mut shards, mut next) = (Vec::new(), None);
        loop {
            let list = self.client.list_shards().max_results(LIST_PAGE);
            // a further page is asked for by its token alone
            let list = match next {
                None => list.stream_name(stream.as_str()),
                token => list.set_next_token(token),
            };
            let during = |error: Error| error.during(&format!("listing the shards of {stream}"));
            let page = answered(list.send()).await.map_err(during)?;
            for shard in page.shards() {
                shards.push(shard_info(shard)?);
            }
            next = page.next_token;
            if next.is_none() {
                return Ok(shards);
            }
        }
    }

    pub(crate) async fn summary(&self, stream: &StreamName) -> Result<Summary> {
        let describe = self.client.describe_stream_summary().stream_name(stream.as_str());
        let answer = answered(describe.send()).await;
        let answer = answer.map_err(|error| error.during(&format!("describing the stream {stream}")))?;
        let summary = answer.stream_description_summary;
        let summary =
            summary.ok_or_else(|| Error::new(ErrorKind::Internal, "a stream without description"))?;
        Ok(Summary { created_s: summary.stream_creation_timestamp.secs(), arn: summary.stream_arn })
    }
}

/// The answer to a call that concerns a whole stream.
pub(super) async fn answered<T, E, R>(
    call: impl Future<Output = std::result::Result<T, SdkError<E, R>>>,
) -> Result<T>
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug,
{
    match timeout(CALL_DEADLINE, call).await {
        Ok(answer) => answer.map_err(|error| tell(&error)),
        Err(_) => Err(Error::new(ErrorKind::UnknownOutcome, format!("no answer within {CALL_DEADLINE:?}"))),
    }
}

/// How the shards of a service are read.
#[derive(Debug, Clone)]
pub(crate) enum KinesisReads {
    Polling(Polling),
    FanOut(Consumers),
}

/// A service that speaks the Kinesis API.
#[derive(Debug)]
pub(crate) struct KinesisSource {
    api: KinesisApi,
    reads: KinesisReads,
}

impl KinesisSource {
    pub(crate) fn new(api: KinesisApi, reads: KinesisReads) -> Self {
        Self { api, reads }
    }
}

impl Source for KinesisSource {
    fn shards<'a>(&'a self, stream: &'a StreamName) -> Answer<'a, Vec<ShardInfo>> {
        Box::pin(self.api.shards(stream))
    }

    fn read(&self, reading: Reading) -> Reader {
        let (api, prefetch_bytes) = (self.api.clone(), reading.prefetch_bytes);
        match &self.reads {
            KinesisReads::Polling(polling) => {
                let polling = *polling;
                Reader::start(prefetch_bytes, move |outlet| poll::run(api, polling, reading, outlet))
            }
            KinesisReads::FanOut(consumers) => {
                let consumers = consumers.clone();
                Reader::start(prefetch_bytes, move |outlet| fan_out::run(api, consumers, reading, outlet))
            }
        }
    }
}

fn shard_info(shard: &WireShard) -> Result<ShardInfo> {
    let ended = shard.sequence_number_range().and_then(|range| range.ending_sequence_number()).is_some();
    let parent = |id: Option<&str>| id.map(str::parse).transpose();
    Ok(ShardInfo {
        id: shard.shard_id().parse()?,
        parent: parent(shard.parent_shard_id())?,
        adjacent_parent: parent(shard.adjacent_parent_shard_id())?,
        range: range(shard.hash_key_range())?,
        state: if ended { ShardState::Closed } else { ShardState::Open },
        created: None,
    })
}

/// What follows the end of a shard, as it is told with its last records.
pub(super) fn children(told: &[ChildShard]) -> Result<Vec<ShardInfo>> {
    let child = |child: &ChildShard| {
        let mut parents = child.parent_shards().iter().map(|id| id.parse::<ShardId>());
        Ok(ShardInfo {
            id: child.shard_id().parse()?,
            parent: parents.next().transpose()?,
            adjacent_parent: parents.next().transpose()?,
            range: range(child.hash_key_range())?,
            state: ShardState::Open,
            created: None,
        })
    };
    told.iter().map(child).collect()
}

fn range(wire: Option<&WireRange>) -> Result<HashKeyRange> {
    let wire = wire.ok_or_else(|| Error::new(ErrorKind::Internal, "a shard without a range of hash keys"))?;
    Ok(HashKeyRange::new(wire.starting_hash_key().parse()?, wire.ending_hash_key().parse()?)?)
}

/// Records as they were stored.
pub(super) fn stored(records: Vec<WireRecord>) -> Result<Vec<StoredRecord>> {
    let record = |record: WireRecord| {
        let arrival = record.approximate_arrival_timestamp().and_then(|time| time.to_millis().ok());
        Ok(StoredRecord {
            number: record.sequence_number().parse()?,
            arrival: TimestampMs::new(arrival.and_then(|ms| u64::try_from(ms).ok()).unwrap_or(0)),
            key: Bytes::from(record.partition_key.unwrap_or_default()),
            data: Bytes::from(record.data.into_inner()),
        })
    };
    records.into_iter().map(record).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_kinesis::types::SequenceNumberRange;

    fn wire_range() -> WireRange {
        WireRange::builder().starting_hash_key("0").ending_hash_key(u128::MAX.to_string()).build().unwrap()
    }

    #[test]
    fn a_shard_is_closed_when_its_numbers_have_an_end() {
        let numbers = |ending: Option<&str>| {
            let range = SequenceNumberRange::builder().starting_sequence_number("0");
            range.set_ending_sequence_number(ending.map(str::to_owned)).build().unwrap()
        };
        let shard = |ending| {
            let shard = WireShard::builder().shard_id("shardId-000000000007").hash_key_range(wire_range());
            let shard = shard.parent_shard_id("shardId-000000000001");
            shard_info(&shard.sequence_number_range(numbers(ending)).build().unwrap()).unwrap()
        };
        assert_eq!(shard(None).state, ShardState::Open);
        let closed = shard(Some("9"));
        assert_eq!((closed.state, closed.id.get()), (ShardState::Closed, 7));
        assert_eq!(closed.parents().map(ShardId::get).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn the_child_of_a_merge_has_two_parents() {
        let child = ChildShard::builder().shard_id("shardId-000000000005").hash_key_range(wire_range());
        let child = child.parent_shards("shardId-000000000003").parent_shards("shardId-000000000004");
        let found = children(&[child.build().unwrap()]).unwrap();
        assert_eq!(found[0].parents().map(ShardId::get).collect::<Vec<_>>(), [3, 4]);
    }

    #[test]
    fn a_stream_is_named_with_its_account_and_the_second_of_its_creation() {
        let arn = "arn:aws:kinesis:us-east-1:123456789012:stream/events".to_owned();
        let summary = Summary { arn, created_s: 1_700_000_000 };
        let stream = StreamName::new("events").unwrap();
        assert_eq!(summary.identifier(&stream), "123456789012:events:1700000000");
    }
}
