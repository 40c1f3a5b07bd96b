//! Plans that make and remove streams: pure functions from the state to the changes to be made.

use super::accounts::Commitment;
use super::consumers::{ConsumersOnDelete, plan_delete_all};
use super::reshard::plan::check_kept;
use super::state::{CatalogState, Change, Counters, ShardRow, StreamRow};
use super::update::check_settings;
use crate::error::{Error, ErrorKind, Result};
use crate::stream::StreamSpec;
use tidemill_storage::LogId;
use tidemill_types::limits::SHARDS_PER_STREAM_MAX;
use tidemill_types::{
    HashKeyRange, Shard, ShardId, ShardMapVersion, ShardState, StreamIncarnation, StreamKey, TimestampMs,
};

/// A new stream whose shards share the hash space equally. `shards_max` bounds the open shards of all streams, and
/// so the closed ones that are kept.
pub(crate) fn plan_create(
    state: &CatalogState,
    name: &StreamKey,
    spec: &StreamSpec,
    now: TimestampMs,
    shards_max: u32,
) -> Result<Vec<Change>> {
    check_spec(name, spec, state.account(&name.account).commitment, now)?;
    if state.stream(name).is_some() {
        return Err(Error::new(ErrorKind::AlreadyExists, format!("Stream {name} already exists.")));
    }
    let shards = state.open_shard_count() as u64 + u64::from(spec.shard_count);
    if shards > u64::from(shards_max) {
        let message = format!(
            "stream {name} would bring this broker to {shards} shards; it holds at most {shards_max}"
        );
        return Err(Error::new(ErrorKind::Throttled, message));
    }
    check_kept(state, spec.shard_count as usize, shards_max as usize)?;
    let Counters { next_incarnation, next_log } = state.counters();
    let incarnation = StreamIncarnation::new(next_incarnation);
    let counters =
        Counters { next_incarnation: next_incarnation + 1, next_log: next_log + u64::from(spec.shard_count) };
    let row = StreamRow {
        key: name.clone(),
        incarnation,
        created: now,
        map_version: ShardMapVersion::default().next(),
        kept_from: TimestampMs::default(),
        settings: spec.settings.clone(),
    };
    let shards = (0..).zip(HashKeyRange::uniform(spec.shard_count)).map(|(id, range)| {
        let shard = Shard {
            id: ShardId::new(id).expect("bounded by SHARDS_PER_STREAM_MAX"),
            parent: None,
            adjacent_parent: None,
            range,
            created: now,
            state: ShardState::Open,
        };
        Change::Shard(incarnation, ShardRow { shard, log: LogId::new(next_log + u64::from(id)) })
    });
    Ok([Change::Counters(counters), Change::Stream(row)].into_iter().chain(shards).collect())
}

fn check_spec(key: &StreamKey, spec: &StreamSpec, commitment: Commitment, now: TimestampMs) -> Result<()> {
    if !(1..=SHARDS_PER_STREAM_MAX).contains(&spec.shard_count) {
        let message = format!("a stream has 1 to {SHARDS_PER_STREAM_MAX} shards, found {}", spec.shard_count);
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    check_settings(key, &spec.settings, commitment, now)
}

/// The stream, its shards and its consumers go.
pub(crate) fn plan_delete(
    state: &CatalogState,
    name: &StreamKey,
    consumers: ConsumersOnDelete,
) -> Result<Vec<Change>> {
    let stream = state.stream(name).ok_or_else(|| not_found(name))?;
    let consumers = plan_delete_all(state, name, consumers)?;
    let shards =
        state.shards(stream.incarnation).map(|row| Change::ShardGone(stream.incarnation, row.shard.id));
    let data_keys = state.data_keys(stream.incarnation).into_iter().flatten();
    let data_keys = data_keys.map(|(number, _)| Change::DataKeyGone(stream.incarnation, *number));
    let gone = [Change::StreamGone(name.clone()), Change::ReshardDone(stream.incarnation)];
    Ok(gone.into_iter().chain(shards).chain(data_keys).chain(consumers).collect())
}

/// The error for a name that no stream has.
pub(crate) fn not_found(name: &StreamKey) -> Error {
    Error::new(ErrorKind::NotFound, format!("Stream {name} not found."))
}
