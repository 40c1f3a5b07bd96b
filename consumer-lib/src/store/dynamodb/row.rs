//! Rows of a lease table, attribute by attribute as the KCL for Java writes and reads them (its versions 2 and 3).
//!
//! ```text
//!  leaseKey S · leaseOwner S · leaseCounter N · ownerSwitchesSinceCheckpoint N
//!  checkpoint S · checkpointSubSequenceNumber N · pendingCheckpoint S · pendingCheckpointSubSequenceNumber N
//!  pendingCheckpointState B · parentShardId SS · childShardIds SS · startingHashKey S · endingHashKey S
//!  throughputKBps N · checkpointOwner S (a handoff is under way) · streamName S, shardId S (many streams) · entityType S
//! ```
//!
//! Other programs read these bytes: names and sentinels never change. What is absent is absent, never empty. A table may
//! hold rows of other kinds (a leader's lock, metrics of workers); they are told apart here and left alone.

use crate::place::{Checkpoint, PendingCheckpoint};
use crate::shard::ShardInfo;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use std::collections::HashMap;
use tidemill_types::AnySequenceNumber;

pub(super) const LEASE_KEY: &str = "leaseKey";
pub(super) const LEASE_OWNER: &str = "leaseOwner";
pub(super) const LEASE_COUNTER: &str = "leaseCounter";
pub(super) const OWNER_SWITCHES: &str = "ownerSwitchesSinceCheckpoint";
pub(super) const CHECKPOINT: &str = "checkpoint";
pub(super) const CHECKPOINT_SUB: &str = "checkpointSubSequenceNumber";
pub(super) const PENDING: &str = "pendingCheckpoint";
pub(super) const PENDING_SUB: &str = "pendingCheckpointSubSequenceNumber";
pub(super) const PENDING_STATE: &str = "pendingCheckpointState";
/// In the singular, though it is a set.
pub(super) const PARENT_SHARDS: &str = "parentShardId";
pub(super) const CHILD_SHARDS: &str = "childShardIds";
pub(super) const STARTING_HASH_KEY: &str = "startingHashKey";
pub(super) const ENDING_HASH_KEY: &str = "endingHashKey";
pub(super) const THROUGHPUT: &str = "throughputKBps";
pub(super) const CHECKPOINT_OWNER: &str = "checkpointOwner";
pub(super) const STREAM_NAME: &str = "streamName";
pub(super) const SHARD_ID: &str = "shardId";
pub(super) const ENTITY_TYPE: &str = "entityType";
const ENTITY_LEASE: &str = "LEASE";

const TRIM_HORIZON: &str = "TRIM_HORIZON";
const LATEST: &str = "LATEST";
const AT_TIMESTAMP: &str = "AT_TIMESTAMP";
const SHARD_END: &str = "SHARD_END";

const BYTES_PER_KB: f64 = 1024.0;

/// A row as DynamoDB gives it.
pub(super) type Item = HashMap<String, AttributeValue>;

/// A lease in the table.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) key: String,
    /// Whose it is, or whose it will be once `checkpoint_owner` has let go. As it is written: the KCL sets no bounds.
    pub(super) owner: Option<String>,
    /// During a handoff, who still works on the shard.
    pub(super) checkpoint_owner: Option<String>,
    pub(super) counter: u64,
    pub(super) checkpoint: Checkpoint,
    pub(super) pending: Option<PendingCheckpoint>,
    pub(super) bytes_per_s: u64,
}

/// What a row turns out to be.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Found {
    Lease(Row),
    /// A lease that makes no sense; why.
    Garbled {
        key: String,
        why: String,
    },
    /// Something else that the KCL keeps here.
    Other,
}

impl Row {
    /// Who works on the shard.
    pub(super) fn holder(&self) -> Option<&str> {
        self.checkpoint_owner.as_deref().or(self.owner.as_deref())
    }
    /// Who waits for the holder to let go.
    pub(super) fn successor(&self) -> Option<&str> {
        self.checkpoint_owner.as_ref().and(self.owner.as_deref())
    }
}

/// Reads a row.
pub(super) fn read(item: &Item) -> Found {
    let Some(key) = string(item, LEASE_KEY) else { return Found::Other };
    let is_lease = string(item, ENTITY_TYPE).is_none_or(|kind| kind == ENTITY_LEASE);
    if !is_lease || !item.contains_key(LEASE_COUNTER) {
        return Found::Other;
    }
    match read_lease(key, item) {
        Ok(row) => Found::Lease(row),
        Err(why) => Found::Garbled { key: key.to_owned(), why },
    }
}

fn read_lease(key: &str, item: &Item) -> Result<Row, String> {
    let at = |name: &str, sub: &str| {
        let text = string(item, name).ok_or_else(|| format!("{name} is missing"))?;
        checkpoint(text, number(item, sub)?.unwrap_or(0))
    };
    let pending = match string(item, PENDING) {
        None | Some("") => None,
        // a number in the place of the bytes is a quirk of one version: there were no bytes
        Some(_) => {
            Some(PendingCheckpoint { at: at(PENDING, PENDING_SUB)?, state: binary(item, PENDING_STATE) })
        }
    };
    Ok(Row {
        key: key.to_owned(),
        owner: string(item, LEASE_OWNER).map(str::to_owned),
        checkpoint_owner: string(item, CHECKPOINT_OWNER).map(str::to_owned),
        counter: number(item, LEASE_COUNTER)?.ok_or_else(|| format!("{LEASE_COUNTER} is missing"))?,
        checkpoint: at(CHECKPOINT, CHECKPOINT_SUB)?,
        pending,
        bytes_per_s: throughput(item),
    })
}

fn string<'a>(item: &'a Item, name: &str) -> Option<&'a str> {
    item.get(name)?.as_s().ok().map(String::as_str)
}

fn number(item: &Item, name: &str) -> Result<Option<u64>, String> {
    let Some(value) = item.get(name) else { return Ok(None) };
    let text = value.as_n().map_err(|_| format!("{name} is no number"))?;
    text.parse().map(Some).map_err(|_| format!("{name} is {text:?}"))
}

fn binary(item: &Item, name: &str) -> Bytes {
    let value = item.get(name).and_then(|value| value.as_b().ok());
    value.map(|blob| Bytes::copy_from_slice(blob.as_ref())).unwrap_or_default()
}

/// Only for balance: one that cannot be read is none.
fn throughput(item: &Item) -> u64 {
    let text = item.get(THROUGHPUT).and_then(|value| value.as_n().ok());
    let kilobytes = text.and_then(|text| text.parse::<f64>().ok()).filter(|value| value.is_finite());
    // a float that is out of bounds becomes the bound
    (kilobytes.unwrap_or(0.0) * BYTES_PER_KB) as u64
}

fn checkpoint(text: &str, sub: u64) -> Result<Checkpoint, String> {
    Ok(match text {
        TRIM_HORIZON => Checkpoint::TrimHorizon,
        LATEST => Checkpoint::Latest,
        AT_TIMESTAMP => Checkpoint::AtTimestamp,
        SHARD_END => Checkpoint::ShardEnd,
        number => {
            let number: AnySequenceNumber = number.parse().map_err(|error| format!("{error}"))?;
            Checkpoint::At { number, sub }
        }
    })
}

/// The two attributes that a checkpoint is.
pub(super) fn checkpoint_values(checkpoint: Checkpoint) -> (AttributeValue, AttributeValue) {
    let (text, sub) = match checkpoint {
        Checkpoint::TrimHorizon => (TRIM_HORIZON.to_owned(), 0),
        Checkpoint::Latest => (LATEST.to_owned(), 0),
        Checkpoint::AtTimestamp => (AT_TIMESTAMP.to_owned(), 0),
        Checkpoint::ShardEnd => (SHARD_END.to_owned(), 0),
        Checkpoint::At { number, sub } => (number.to_string(), sub),
    };
    (AttributeValue::S(text), numeral(sub))
}

pub(super) fn numeral(value: u64) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

pub(super) fn text(value: &str) -> AttributeValue {
    AttributeValue::S(value.to_owned())
}

pub(super) fn bytes(value: &Bytes) -> AttributeValue {
    AttributeValue::B(Blob::new(value.to_vec()))
}

/// As the KCL rounds it: six decimals.
pub(super) fn throughput_value(bytes_per_s: u64) -> AttributeValue {
    AttributeValue::N(format!("{:.6}", bytes_per_s as f64 / BYTES_PER_KB))
}

/// Ids of shards as a set; nothing for none, since a set is never empty.
pub(super) fn shard_set(ids: impl IntoIterator<Item = tidemill_types::ShardId>) -> Option<AttributeValue> {
    let ids: Vec<String> = ids.into_iter().map(|id| id.to_string()).collect();
    (!ids.is_empty()).then_some(AttributeValue::Ss(ids))
}

/// The row of a lease that nobody has held yet. `stream` is its identifier where a table serves many streams.
pub(super) fn new_row(key: &str, stream: Option<&str>, shard: &ShardInfo, from: Checkpoint) -> Item {
    let (checkpoint, sub) = checkpoint_values(from);
    let named = [
        (LEASE_KEY, Some(text(key))),
        (LEASE_COUNTER, Some(numeral(0))),
        (OWNER_SWITCHES, Some(numeral(0))),
        (CHECKPOINT, Some(checkpoint)),
        (CHECKPOINT_SUB, Some(sub)),
        (PARENT_SHARDS, shard_set(shard.parents())),
        (STARTING_HASH_KEY, Some(text(&shard.range.start().to_string()))),
        (ENDING_HASH_KEY, Some(text(&shard.range.end().to_string()))),
        (STREAM_NAME, stream.map(text)),
        (SHARD_ID, stream.map(|_| text(&shard.id.to_string()))),
        (ENTITY_TYPE, Some(text(ENTITY_LEASE))),
    ];
    named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::shard;

    fn item(named: &[(&str, AttributeValue)]) -> Item {
        named.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    fn lease(found: Found) -> Row {
        match found {
            Found::Lease(row) => row,
            other => panic!("a lease was expected: {other:?}"),
        }
    }

    #[test]
    fn a_new_row_is_the_one_that_the_kcl_makes() {
        let expected = item(&[
            ("leaseKey", text("shardId-000000000000")),
            ("leaseCounter", numeral(0)),
            ("ownerSwitchesSinceCheckpoint", numeral(0)),
            ("checkpoint", text("TRIM_HORIZON")),
            ("checkpointSubSequenceNumber", numeral(0)),
            ("startingHashKey", text("0")),
            ("endingHashKey", text("340282366920938463463374607431768211455")),
            ("entityType", text("LEASE")),
        ]);
        let made = new_row("shardId-000000000000", None, &shard(0), Checkpoint::TrimHorizon);
        assert_eq!(made, expected);
        let row = lease(read(&made));
        assert_eq!((row.counter, row.checkpoint, row.holder()), (0, Checkpoint::TrimHorizon, None));
    }

    #[test]
    fn a_row_of_many_streams_names_its_stream_and_a_child_its_parents() {
        let child = ShardInfo { parent: Some(shard(1).id), adjacent_parent: Some(shard(2).id), ..shard(3) };
        let made = new_row("1:s:2:shardId-000000000003", Some("1:s:2"), &child, Checkpoint::Latest);
        assert_eq!(made["streamName"], text("1:s:2"));
        assert_eq!(made["shardId"], text("shardId-000000000003"));
        let parents = ["shardId-000000000001", "shardId-000000000002"].map(str::to_owned);
        assert_eq!(made["parentShardId"], AttributeValue::Ss(parents.to_vec()));
    }

    #[test]
    fn checkpoints_are_written_with_the_sentinels_of_the_kcl_and_read_back() {
        let number = "49545115243490985018280067714973144582180062593244200961".parse().unwrap();
        let at = Checkpoint::At { number, sub: 3 };
        let written = [
            (Checkpoint::TrimHorizon, "TRIM_HORIZON", 0),
            (Checkpoint::Latest, "LATEST", 0),
            (Checkpoint::AtTimestamp, "AT_TIMESTAMP", 0),
            (Checkpoint::ShardEnd, "SHARD_END", 0),
            (at, "49545115243490985018280067714973144582180062593244200961", 3),
        ];
        for (value, told, sub) in written {
            assert_eq!(checkpoint_values(value), (text(told), numeral(sub)));
            assert_eq!(checkpoint(told, sub), Ok(value));
        }
    }

    #[test]
    fn during_a_handoff_the_old_owner_holds_and_the_new_one_waits() {
        let mut made = new_row("shardId-000000000000", None, &shard(0), Checkpoint::TrimHorizon);
        made.insert("leaseOwner".into(), text("new"));
        assert_eq!((lease(read(&made)).holder(), lease(read(&made)).successor()), (Some("new"), None));
        made.insert("checkpointOwner".into(), text("old"));
        let row = lease(read(&made));
        assert_eq!((row.holder(), row.successor()), (Some("old"), Some("new")));
    }

    #[test]
    fn a_prepared_checkpoint_is_read_with_its_state_also_where_a_number_stands_for_none() {
        let mut made = new_row("shardId-000000000000", None, &shard(0), Checkpoint::TrimHorizon);
        made.insert("pendingCheckpoint".into(), text("7"));
        made.insert("pendingCheckpointSubSequenceNumber".into(), numeral(1));
        made.insert("pendingCheckpointState".into(), bytes(&Bytes::from_static(b"state")));
        let at = Checkpoint::At { number: "7".parse().unwrap(), sub: 1 };
        let pending = lease(read(&made)).pending.unwrap();
        assert_eq!((pending.at, &pending.state[..]), (at, &b"state"[..]));
        made.insert("pendingCheckpointState".into(), numeral(1));
        let pending = lease(read(&made)).pending.unwrap();
        assert_eq!((pending.at, &pending.state[..]), (at, &b""[..]));
    }

    #[test]
    fn throughput_is_told_in_kilobytes_and_read_in_bytes() {
        assert_eq!(throughput_value(1536), AttributeValue::N("1.500000".into()));
        assert_eq!(throughput(&item(&[("throughputKBps", AttributeValue::N("1.5".into()))])), 1536);
        assert_eq!(throughput(&item(&[("throughputKBps", text("x"))])), 0);
    }

    #[test]
    fn rows_of_other_kinds_are_passed_over_and_garbled_leases_are_told() {
        let lock = item(&[("leaseKey", text("Leader")), ("entityType", text("LEADER"))]);
        let metrics = item(&[("leaseKey", text("w")), ("entityType", text("WORKER_METRIC_STATS"))]);
        let foreign = item(&[("key", text("Leader"))]);
        for other in [lock, metrics, foreign] {
            assert_eq!(read(&other), Found::Other);
        }
        let mut garbled = new_row("shardId-000000000000", None, &shard(0), Checkpoint::TrimHorizon);
        garbled.insert("checkpoint".into(), text("nowhere"));
        assert!(matches!(read(&garbled), Found::Garbled { .. }));
        // a row of version 2 has no entity type
        garbled.insert("checkpoint".into(), text("LATEST"));
        garbled.remove("entityType");
        assert_eq!(lease(read(&garbled)).checkpoint, Checkpoint::Latest);
    }
}
