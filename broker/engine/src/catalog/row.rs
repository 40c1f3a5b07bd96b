//! How the catalog is written down: one row for each stream, shard, consumer and account, and the counters. FORMAT.md
//! lists the fields.

use super::accounts::{AccountRow, Commitment};
use super::consumers::ConsumerInfo;
use super::encryption::{DATA_KEY_PREFIX, data_key_key, decode_data_key, encode_data_key};
use super::reshard;
use super::settings_row;
use super::state::{CatalogState, Change, Counters, ShardRow, StreamRow};
use crate::error::{Error, ErrorKind, Result};
use crate::store::row::{RowReader, RowWriter};
use crate::store::{Batch, Expect, Store};
use bytes::{BufMut, Bytes, BytesMut};
use tidemill_storage::LogId;
use tidemill_types::{
    AccountId, ConsumerName, HashKey, HashKeyRange, SequenceIndex, Shard, ShardId, ShardMapVersion,
    ShardState, StreamIncarnation, StreamKey, StreamName, TimestampMs,
};

const COUNTERS_KEY: &[u8] = b"catalog/counters";
const STREAM_PREFIX: &[u8] = b"catalog/stream/";
const SHARD_PREFIX: &[u8] = b"catalog/shard/";
const RESHARD_PREFIX: &[u8] = b"catalog/reshard/";
const CONSUMER_PREFIX: &[u8] = b"consumer/";
const ACCOUNT_PREFIX: &[u8] = b"account/";
pub(super) const VERSION: u8 = 1;
/// Stands for "no parent": shard ids have 31 bits.
const NO_SHARD: u32 = u32::MAX;

fn stream_key(key: &StreamKey) -> Bytes {
    [STREAM_PREFIX, key.account.as_str().as_bytes(), b"/", key.name.as_str().as_bytes()].concat().into()
}

/// Big-endian, so that the shards of a stream lie together and in order.
fn shard_key(incarnation: StreamIncarnation, id: ShardId) -> Bytes {
    let mut key = BytesMut::from(SHARD_PREFIX);
    key.put_u64(incarnation.get());
    key.put_u32(id.get());
    key.freeze()
}

/// Big-endian, so that the consumers of a stream lie together.
fn consumer_key(incarnation: StreamIncarnation, name: &ConsumerName) -> Bytes {
    [CONSUMER_PREFIX, &incarnation.get().to_be_bytes(), name.as_str().as_bytes()].concat().into()
}

fn account_key(account: &AccountId) -> Bytes {
    [ACCOUNT_PREFIX, account.as_str().as_bytes()].concat().into()
}

fn reshard_key(incarnation: StreamIncarnation) -> Bytes {
    [RESHARD_PREFIX, &incarnation.get().to_be_bytes()].concat().into()
}

/// A parent as rows name it.
pub(super) fn parent_number(parent: Option<ShardId>) -> u32 {
    parent.map_or(NO_SHARD, ShardId::get)
}

/// The parent that a row names, if it names one.
pub(super) fn parent_of(row: &RowReader<'_>, number: u32) -> Result<Option<ShardId>> {
    (number != NO_SHARD).then(|| shard_id(row, number)).transpose()
}

/// The shard that a row names.
pub(super) fn shard_id(row: &RowReader<'_>, number: u32) -> Result<ShardId> {
    ShardId::new(number).map_err(|e| row.damaged(e))
}

fn encode_counters(counters: Counters) -> Bytes {
    RowWriter::new(VERSION).u64(counters.next_incarnation).u64(counters.next_log).finish()
}

fn encode_stream(row: &StreamRow) -> Bytes {
    let row_of = RowWriter::new(VERSION)
        .u64(row.incarnation.get())
        .u64(row.created.get())
        .u64(row.map_version.get())
        .u64(row.kept_from.get());
    settings_row::write(row_of, &row.settings).finish()
}

fn encode_shard(row: &ShardRow) -> Bytes {
    let shard = &row.shard;
    let writer = RowWriter::new(VERSION)
        .u64(row.log.get())
        .u32(parent_number(shard.parent))
        .u32(parent_number(shard.adjacent_parent))
        .u128(shard.range.start().get())
        .u128(shard.range.end().get())
        .u64(shard.created.get());
    match shard.state {
        ShardState::Open => writer.u8(0),
        ShardState::Closed { ending, closed } => writer.u8(1).u64(ending.get()).u64(closed.get()),
    }
    .finish()
}

fn encode_consumer(consumer: &ConsumerInfo) -> Bytes {
    let row = RowWriter::new(VERSION).u64(consumer.created.get());
    let row = settings_row::write_tags(row, &consumer.tags);
    settings_row::write_policy(row, consumer.policy.as_deref()).finish()
}

fn encode_account(account: &AccountRow) -> Bytes {
    let Commitment { started, ended, enabled } = account.commitment;
    let time = |row: RowWriter, time: Option<TimestampMs>| match time {
        None => row.u8(0),
        Some(time) => row.u8(1).u64(time.get()),
    };
    let row = RowWriter::new(VERSION).u64(account.consumers_from_s).u8(u8::from(enabled));
    time(time(row, started), ended).finish()
}

/// All changes of one verb as one batch, on condition that nobody else has moved the catalog's counters.
pub(crate) fn batch(state: &CatalogState, changes: &[Change], stored: Counters) -> Batch {
    debug_assert!(state.counters().next_log >= stored.next_log);
    let expect = match stored == CatalogState::default().counters() {
        true => Expect::Absent,
        false => Expect::Value(encode_counters(stored)),
    };
    let changes = changes.iter().map(|change| match change {
        Change::Counters(counters) => (Bytes::from_static(COUNTERS_KEY), Some(encode_counters(*counters))),
        Change::Stream(row) => (stream_key(&row.key), Some(encode_stream(row))),
        Change::StreamGone(name) => (stream_key(name), None),
        Change::Shard(incarnation, row) => (shard_key(*incarnation, row.shard.id), Some(encode_shard(row))),
        Change::ShardGone(incarnation, id) => (shard_key(*incarnation, *id), None),
        Change::Reshard(incarnation, row) => (reshard_key(*incarnation), Some(reshard::row::encode(row))),
        Change::ReshardDone(incarnation) => (reshard_key(*incarnation), None),
        Change::Consumer(incarnation, consumer) => {
            (consumer_key(*incarnation, &consumer.name), Some(encode_consumer(consumer)))
        }
        Change::ConsumerGone(incarnation, name) => (consumer_key(*incarnation, name), None),
        Change::DataKey(incarnation, number, wrapped) => {
            (data_key_key(*incarnation, *number), Some(encode_data_key(wrapped)))
        }
        Change::DataKeyGone(incarnation, number) => (data_key_key(*incarnation, *number), None),
        Change::Account(account, row) => (account_key(account), Some(encode_account(row))),
    });
    Batch { conditions: vec![(Bytes::from_static(COUNTERS_KEY), expect)], changes: changes.collect() }
}

/// Reads the whole catalog and checks that it fits together.
pub(crate) fn load(store: &dyn Store) -> Result<CatalogState> {
    let mut state = CatalogState::default();
    if let Some(row) = store.get(COUNTERS_KEY)? {
        state.apply(Change::Counters(decode_counters(&row)?));
    }
    for (key, value) in store.scan(STREAM_PREFIX)? {
        state.apply(Change::Stream(decode_stream(&key, &value)?));
    }
    for (key, value) in store.scan(SHARD_PREFIX)? {
        let (incarnation, row) = decode_shard(&key, &value)?;
        state.apply(Change::Shard(incarnation, row));
    }
    for (key, value) in store.scan(CONSUMER_PREFIX)? {
        let (incarnation, consumer) = decode_consumer(&key, &value)?;
        state.apply(Change::Consumer(incarnation, consumer));
    }
    for (key, value) in store.scan(DATA_KEY_PREFIX)? {
        state.apply(decode_data_key(&key, &value)?);
    }
    for (key, value) in store.scan(ACCOUNT_PREFIX)? {
        let (account, row) = decode_account(&key, &value)?;
        state.apply(Change::Account(account, row));
    }
    for (key, value) in store.scan(RESHARD_PREFIX)? {
        let incarnation = key[RESHARD_PREFIX.len()..].try_into().map(u64::from_be_bytes).map_err(|_| {
            Error::new(ErrorKind::Damaged, "the key of a split or merge in the metadata store is damaged")
        })?;
        state.apply(Change::Reshard(StreamIncarnation::new(incarnation), reshard::row::decode(&value)?));
    }
    state.check()?;
    Ok(state)
}

fn decode_counters(bytes: &[u8]) -> Result<Counters> {
    let mut row = RowReader::new("catalog's counters", bytes, VERSION)?;
    let counters = Counters { next_incarnation: row.u64()?, next_log: row.u64()? };
    row.finish()?;
    Ok(counters)
}

fn decode_stream(key: &[u8], bytes: &[u8]) -> Result<StreamRow> {
    let mut row = RowReader::new("row of a stream", bytes, VERSION)?;
    let tail = std::str::from_utf8(&key[STREAM_PREFIX.len()..]).map_err(|e| row.damaged(e))?;
    let (account, name) = tail.split_once('/').ok_or_else(|| row.damaged("its key names no account"))?;
    let account = AccountId::new(account).map_err(|e| row.damaged(e))?;
    let name = StreamName::new(name).map_err(|e| row.damaged(e))?;
    let stream = StreamRow {
        key: StreamKey::new(account, name),
        incarnation: StreamIncarnation::new(row.u64()?),
        created: TimestampMs::new(row.u64()?),
        map_version: ShardMapVersion::new(row.u64()?),
        kept_from: TimestampMs::new(row.u64()?),
        settings: settings_row::read(&mut row)?,
    };
    row.finish()?;
    Ok(stream)
}

fn decode_shard(key: &[u8], bytes: &[u8]) -> Result<(StreamIncarnation, ShardRow)> {
    let short = || Error::new(ErrorKind::Damaged, "the key of a shard in the metadata store is damaged");
    let tail = key[SHARD_PREFIX.len()..].first_chunk::<12>().filter(|_| key.len() == SHARD_PREFIX.len() + 12);
    let tail = tail.ok_or_else(short)?;
    let (incarnation, id) = tail.split_at(8);
    let incarnation = u64::from_be_bytes(incarnation.try_into().expect("split at eight"));
    let id = u32::from_be_bytes(id.try_into().expect("four are left"));

    let mut row = RowReader::new("row of a shard", bytes, VERSION)?;
    let log = LogId::new(row.u64()?);
    let (first, second) = (row.u32()?, row.u32()?);
    let (start, end) = (HashKey::new(row.u128()?), HashKey::new(row.u128()?));
    let created = TimestampMs::new(row.u64()?);
    let state = match row.u8()? {
        0 => ShardState::Open,
        1 => {
            let ending = SequenceIndex::new(row.u64()?).map_err(|e| row.damaged(e))?;
            ShardState::Closed { ending, closed: TimestampMs::new(row.u64()?) }
        }
        other => return Err(row.damaged(format!("unknown state {other}"))),
    };
    let shard = Shard {
        id: shard_id(&row, id)?,
        parent: parent_of(&row, first)?,
        adjacent_parent: parent_of(&row, second)?,
        range: HashKeyRange::new(start, end).map_err(|e| row.damaged(e))?,
        created,
        state,
    };
    row.finish()?;
    Ok((StreamIncarnation::new(incarnation), ShardRow { shard, log }))
}

fn decode_consumer(key: &[u8], bytes: &[u8]) -> Result<(StreamIncarnation, ConsumerInfo)> {
    let mut row = RowReader::new("row of a consumer", bytes, VERSION)?;
    let tail = key[CONSUMER_PREFIX.len()..].split_first_chunk::<8>();
    let (incarnation, name) = tail.ok_or_else(|| row.damaged("its key names no stream"))?;
    let name = std::str::from_utf8(name).map_err(|e| row.damaged(e))?;
    let consumer = ConsumerInfo {
        name: ConsumerName::new(name).map_err(|e| row.damaged(e))?,
        created: TimestampMs::new(row.u64()?),
        tags: settings_row::read_tags(&mut row)?,
        policy: settings_row::read_policy(&mut row)?,
    };
    row.finish()?;
    Ok((StreamIncarnation::new(u64::from_be_bytes(*incarnation)), consumer))
}

fn decode_account(key: &[u8], bytes: &[u8]) -> Result<(AccountId, AccountRow)> {
    let mut row = RowReader::new("row of an account", bytes, VERSION)?;
    let account = std::str::from_utf8(&key[ACCOUNT_PREFIX.len()..]).map_err(|e| row.damaged(e))?;
    let account = AccountId::new(account).map_err(|e| row.damaged(e))?;
    let time = |row: &mut RowReader<'_>| -> Result<Option<TimestampMs>> {
        Ok(if settings_row::read_flag(row)? { Some(TimestampMs::new(row.u64()?)) } else { None })
    };
    let consumers_from_s = row.u64()?;
    let enabled = settings_row::read_flag(&mut row)?;
    let (started, ended) = (time(&mut row)?, time(&mut row)?);
    row.finish()?;
    Ok((account, AccountRow { commitment: Commitment { started, ended, enabled }, consumers_from_s }))
}
