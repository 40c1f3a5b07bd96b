//! Between messages and nouns, in both directions. What a message may hold and a noun may not is an
//! [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) error that names the field; nothing behind this module checks again.

use crate::v1;
use crate::{Error, Result};
use bytes::Bytes;
use tidemill_types::{
    Checkpoint, HashKey, HashKeyRange, PendingCheckpoint, Position, SequenceIndex, SequenceNumber, Shard,
    ShardId, ShardMap, ShardMapVersion, ShardState, StreamIncarnation, StreamName, TimestampMs,
};

/// What a broker tells of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamDescription {
    /// Its name.
    pub name: StreamName,
    /// Which stream of that name.
    pub incarnation: StreamIncarnation,
    /// Shards that take records.
    pub open_shards: u32,
    /// How long records are kept.
    pub retention_hours: u32,
    /// When it was created.
    pub created: TimestampMs,
}

/// The shards of a stream at one version of its map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardList {
    /// Which stream of that name.
    pub incarnation: StreamIncarnation,
    /// The open ones, to route by.
    pub map: ShardMap,
    /// All that still hold or may take records, by id.
    pub shards: Vec<Shard>,
}

/// The value of a field that must be there; the error names the field.
pub fn required<T>(value: Option<T>, field: &str) -> Result<T> {
    value.ok_or_else(|| Error::invalid(format!("the field {field} is missing")))
}

/// A hash key as 16 bytes, big-endian.
pub fn hash_key_to_wire(key: HashKey) -> Bytes {
    Bytes::copy_from_slice(&key.get().to_be_bytes())
}

/// A hash key from 16 bytes, big-endian.
pub fn hash_key_from_wire(bytes: &[u8]) -> Result<HashKey> {
    match <[u8; 16]>::try_from(bytes) {
        Ok(bytes) => Ok(HashKey::new(u128::from_be_bytes(bytes))),
        Err(_) => Err(Error::invalid(format!("a hash key has 16 bytes, found {}", bytes.len()))),
    }
}

impl From<&Shard> for v1::Shard {
    fn from(shard: &Shard) -> Self {
        let closed = match shard.state {
            ShardState::Open => None,
            ShardState::Closed { ending, closed } => {
                Some(v1::shard::Closed { ending_index: ending.get(), closed_ms: closed.get() })
            }
        };
        Self {
            id: shard.id.get(),
            parent: shard.parent.map(ShardId::get),
            adjacent_parent: shard.adjacent_parent.map(ShardId::get),
            hash_start: hash_key_to_wire(shard.range.start()),
            hash_end: hash_key_to_wire(shard.range.end()),
            created_ms: shard.created.get(),
            closed,
        }
    }
}

impl TryFrom<v1::Shard> for Shard {
    type Error = Error;
    fn try_from(wire: v1::Shard) -> Result<Self> {
        let state = match wire.closed {
            None => ShardState::Open,
            Some(closed) => ShardState::Closed {
                ending: SequenceIndex::new(closed.ending_index)?,
                closed: TimestampMs::new(closed.closed_ms),
            },
        };
        Ok(Self {
            id: ShardId::new(wire.id)?,
            parent: wire.parent.map(ShardId::new).transpose()?,
            adjacent_parent: wire.adjacent_parent.map(ShardId::new).transpose()?,
            range: HashKeyRange::new(
                hash_key_from_wire(&wire.hash_start)?,
                hash_key_from_wire(&wire.hash_end)?,
            )?,
            created: TimestampMs::new(wire.created_ms),
            state,
        })
    }
}

impl From<&ShardList> for v1::ListShardsResponse {
    fn from(list: &ShardList) -> Self {
        Self {
            shards: list.shards.iter().map(v1::Shard::from).collect(),
            map_version: list.map.version().get(),
            stream_incarnation: list.incarnation.get(),
        }
    }
}

impl TryFrom<v1::ListShardsResponse> for ShardList {
    type Error = Error;
    fn try_from(wire: v1::ListShardsResponse) -> Result<Self> {
        let shards = wire.shards.into_iter().map(Shard::try_from).collect::<Result<Vec<_>>>()?;
        let map = ShardMap::new(ShardMapVersion::new(wire.map_version), shards.iter().cloned())?;
        Ok(Self { incarnation: StreamIncarnation::new(wire.stream_incarnation), map, shards })
    }
}

impl From<&StreamDescription> for v1::StreamDescription {
    fn from(stream: &StreamDescription) -> Self {
        Self {
            stream: stream.name.to_string(),
            open_shards: stream.open_shards,
            retention_hours: stream.retention_hours,
            created_ms: stream.created.get(),
            incarnation: stream.incarnation.get(),
        }
    }
}

impl TryFrom<v1::StreamDescription> for StreamDescription {
    type Error = Error;
    fn try_from(wire: v1::StreamDescription) -> Result<Self> {
        Ok(Self {
            name: StreamName::new(&wire.stream)?,
            incarnation: StreamIncarnation::new(wire.incarnation),
            open_shards: wire.open_shards,
            retention_hours: wire.retention_hours,
            created: TimestampMs::new(wire.created_ms),
        })
    }
}

impl From<Position> for v1::Position {
    fn from(position: Position) -> Self {
        use v1::position::At;
        let at = match position {
            Position::TrimHorizon => At::TrimHorizon(v1::Empty {}),
            Position::Latest => At::Latest(v1::Empty {}),
            Position::At(number) => At::AtSequenceNumber(number.to_string()),
            Position::After(number) => At::AfterSequenceNumber(number.to_string()),
            Position::AtTime(time) => At::AtTimeMs(time.get()),
        };
        Self { at: Some(at) }
    }
}

impl TryFrom<v1::Position> for Position {
    type Error = Error;
    fn try_from(wire: v1::Position) -> Result<Self> {
        use v1::position::At;
        Ok(match required(wire.at, "position.at")? {
            At::TrimHorizon(_) => Self::TrimHorizon,
            At::Latest(_) => Self::Latest,
            At::AtSequenceNumber(text) => Self::At(text.parse()?),
            At::AfterSequenceNumber(text) => Self::After(text.parse()?),
            At::AtTimeMs(ms) => Self::AtTime(TimestampMs::new(ms)),
        })
    }
}

impl From<Checkpoint> for v1::CheckpointValue {
    fn from(checkpoint: Checkpoint) -> Self {
        use v1::checkpoint_value::At;
        let at = match checkpoint {
            Checkpoint::TrimHorizon => At::TrimHorizon(v1::Empty {}),
            Checkpoint::Latest => At::Latest(v1::Empty {}),
            Checkpoint::At { number, sub } => At::Record(v1::RecordPosition {
                sequence_number: number.to_string(),
                sub_sequence_number: sub,
            }),
            Checkpoint::ShardEnd => At::ShardEnd(v1::Empty {}),
        };
        Self { at: Some(at) }
    }
}

impl TryFrom<v1::CheckpointValue> for Checkpoint {
    type Error = Error;
    fn try_from(wire: v1::CheckpointValue) -> Result<Self> {
        use v1::checkpoint_value::At;
        Ok(match required(wire.at, "checkpoint.at")? {
            At::TrimHorizon(_) => Self::TrimHorizon,
            At::Latest(_) => Self::Latest,
            At::Record(record) => {
                let number: SequenceNumber = record.sequence_number.parse()?;
                Self::At { number, sub: record.sub_sequence_number }
            }
            At::ShardEnd(_) => Self::ShardEnd,
        })
    }
}

impl From<&PendingCheckpoint> for v1::PendingCheckpoint {
    fn from(pending: &PendingCheckpoint) -> Self {
        Self { at: Some(pending.at().into()), state: pending.state().clone() }
    }
}

impl TryFrom<v1::PendingCheckpoint> for PendingCheckpoint {
    type Error = Error;
    fn try_from(wire: v1::PendingCheckpoint) -> Result<Self> {
        Ok(Self::new(required(wire.at, "pending.at")?.try_into()?, wire.state)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use proptest::prelude::*;

    fn shard() -> impl Strategy<Value = Shard> {
        let id = || (0u32..1 << 31).prop_map(|id| ShardId::new(id).unwrap());
        let parent = || proptest::option::of(id());
        let closed = proptest::option::of((0u64..1 << 63, any::<u64>()));
        (id(), parent(), parent(), any::<[u128; 2]>(), any::<u64>(), closed).prop_map(
            |(id, parent, adjacent_parent, [a, b], created, closed)| Shard {
                id,
                parent,
                adjacent_parent,
                range: HashKeyRange::new(HashKey::new(a.min(b)), HashKey::new(a.max(b))).unwrap(),
                created: TimestampMs::new(created),
                state: closed.map_or(ShardState::Open, |(ending, closed)| ShardState::Closed {
                    ending: SequenceIndex::new(ending).unwrap(),
                    closed: TimestampMs::new(closed),
                }),
            },
        )
    }

    fn number() -> SequenceNumber {
        let shard = ShardId::new(3).unwrap();
        SequenceNumber::new(
            TimestampMs::new(9_000),
            shard,
            SequenceIndex::new(17).unwrap(),
            TimestampMs::new(10_000),
        )
    }

    proptest! {
        #[test]
        fn shards_come_back_as_they_went(shard in shard()) {
            prop_assert_eq!(Shard::try_from(v1::Shard::from(&shard)).unwrap(), shard);
        }
    }

    #[test]
    fn positions_and_checkpoints_come_back_as_they_went() {
        let time = TimestampMs::new(5);
        for position in [
            Position::TrimHorizon,
            Position::Latest,
            Position::At(number()),
            Position::After(number()),
            Position::AtTime(time),
        ] {
            assert_eq!(Position::try_from(v1::Position::from(position)).unwrap(), position);
        }
        for checkpoint in [
            Checkpoint::TrimHorizon,
            Checkpoint::Latest,
            Checkpoint::At { number: number(), sub: 4 },
            Checkpoint::ShardEnd,
        ] {
            assert_eq!(Checkpoint::try_from(v1::CheckpointValue::from(checkpoint)).unwrap(), checkpoint);
        }
    }

    #[test]
    fn prepared_checkpoints_come_back_as_they_went() {
        let at = Checkpoint::At { number: number(), sub: 4 };
        for state in [&b""[..], b"half done"] {
            let pending = PendingCheckpoint::new(at, Bytes::from_static(state)).unwrap();
            assert_eq!(PendingCheckpoint::try_from(v1::PendingCheckpoint::from(&pending)).unwrap(), pending);
        }
        let too_much = v1::PendingCheckpoint { at: Some(at.into()), state: vec![0; 4097].into() };
        let nowhere = v1::PendingCheckpoint { at: None, state: Bytes::new() };
        for wire in [too_much, nowhere] {
            assert_eq!(PendingCheckpoint::try_from(wire).unwrap_err().kind(), ErrorKind::Invalid);
        }
    }

    #[test]
    fn what_no_noun_holds_is_invalid() {
        let at = |text: &str| v1::Position { at: Some(v1::position::At::AtSequenceNumber(text.into())) };
        for wire in [at(""), at("12x"), v1::Position { at: None }] {
            assert_eq!(Position::try_from(wire).unwrap_err().kind(), ErrorKind::Invalid);
        }
        assert_eq!(hash_key_from_wire(&[0; 15]).unwrap_err().kind(), ErrorKind::Invalid);
        let hole = v1::ListShardsResponse { shards: vec![], map_version: 1, stream_incarnation: 1 };
        assert_eq!(ShardList::try_from(hole).unwrap_err().kind(), ErrorKind::Invalid);
        let backwards = v1::Shard {
            hash_start: hash_key_to_wire(HashKey::MAX),
            hash_end: hash_key_to_wire(HashKey::MIN),
            ..v1::Shard::default()
        };
        assert_eq!(Shard::try_from(backwards).unwrap_err().kind(), ErrorKind::Invalid);
    }
}
