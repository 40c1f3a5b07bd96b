//! Records as a processor sees them, and the batches they come in.
//!
//! A batch keeps the frames of one answer of the broker as they arrived; records are cut out of them one by one, when
//! asked for, and share their bytes. Keeping one small record therefore keeps its whole answer in memory: copy the
//! data of what is to stay long.

use bytes::Bytes;
use std::fmt;
use std::sync::Arc;
use tidemill_types::{
    Frame, FrameKind, SequenceIndex, SequenceNumber, Shard, ShardId, StreamName, TimestampMs,
};

/// A shard of a stream, by name. Prints as `stream/shardId-000000000000`. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardRef {
    stream: StreamName,
    shard: ShardId,
}

impl ShardRef {
    pub(crate) fn new(stream: StreamName, shard: ShardId) -> Self {
        Self { stream, shard }
    }
    /// The stream.
    pub fn stream(&self) -> &StreamName {
        &self.stream
    }
    /// The shard within the stream.
    pub fn shard(&self) -> ShardId {
        self.shard
    }
}

impl fmt::Display for ShardRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.stream, self.shard)
    }
}

/// One record. Owns its bytes by sharing those of its batch; cheap to clone and to send to other tasks.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    at: ShardRef,
    number: SequenceNumber,
    sub: u64,
    arrival: TimestampMs,
    key: Bytes,
    data: Bytes,
}

impl Record {
    /// The stream it was read from.
    pub fn stream(&self) -> &StreamName {
        self.at.stream()
    }
    /// The shard it was read from.
    pub fn shard(&self) -> ShardId {
        self.at.shard()
    }
    /// Its sequence number: unique in the shard and above those of all earlier records there. A record that is delivered
    /// again carries the same number.
    pub fn sequence_number(&self) -> SequenceNumber {
        self.number
    }
    /// Its place within an aggregated record; 0 for a record that travelled alone.
    pub fn sub_sequence_number(&self) -> u64 {
        self.sub
    }
    /// Its partition key.
    pub fn partition_key(&self) -> &str {
        std::str::from_utf8(&self.key).expect("was cut out of a frame as text")
    }
    /// When it arrived at the broker, by the broker's wall clock.
    pub fn arrival(&self) -> TimestampMs {
        self.arrival
    }
    /// Its data.
    pub fn data(&self) -> &Bytes {
        &self.data
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("shard", &format_args!("{}", self.at))
            .field("sequence_number", &format_args!("{}", self.number))
            .field("partition_key", &self.partition_key())
            .field("data_bytes", &self.data.len())
            .finish_non_exhaustive()
    }
}

/// Consecutive records of one shard, at least one. Cheap to clone: the bytes are shared.
#[derive(Debug, Clone)]
pub struct Batch {
    at: ShardRef,
    created: TimestampMs,
    frames: Arc<[Frame]>,
    from: SequenceIndex,
    count: u64,
    last: SequenceNumber,
}

impl Batch {
    /// The records at or above `from` in `frames`, or nothing if there is none.
    pub(crate) fn new(
        stream: &StreamName,
        shard: &Shard,
        frames: Vec<Frame>,
        from: SequenceIndex,
    ) -> Option<Self> {
        let frames: Vec<Frame> = frames
            .into_iter()
            .filter(|frame| frame.header().kind == FrameKind::Records && frame.header().last() >= from)
            .collect();
        let last = frames.last()?.header();
        let last = shard.number(last.last(), last.arrival);
        let wanted = |frame: &Frame| frame.header().next().get() - frame.header().first.max(from).get();
        let count = frames.iter().map(wanted).sum();
        let at = ShardRef::new(stream.clone(), shard.id);
        Some(Self { at, created: shard.created, frames: frames.into(), from, count, last })
    }
    /// The shard that all records are of.
    pub fn shard(&self) -> &ShardRef {
        &self.at
    }
    /// How many records there are.
    pub fn len(&self) -> usize {
        usize::try_from(self.count).unwrap_or(usize::MAX)
    }
    /// Never true: a batch holds at least one record.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
    /// The sequence number of the last record.
    pub fn last_sequence_number(&self) -> SequenceNumber {
        self.last
    }
    /// The records, in the order of the shard. May be called again.
    pub fn records(&self) -> impl Iterator<Item = Record> + Send + '_ {
        self.frames.iter().flat_map(move |frame| {
            let arrival = frame.header().arrival;
            frame.records().filter(move |view| view.index >= self.from).map(move |view| Record {
                at: self.at.clone(),
                number: SequenceNumber::new(self.created, self.at.shard, view.index, arrival),
                sub: 0,
                arrival,
                key: frame.bytes().slice_ref(view.key.as_bytes()),
                data: view.data_bytes(),
            })
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use tidemill_types::{FrameHeader, FrameWriter, HashKeyRange, ProducerId, ShardState};

    pub(crate) fn shard(id: u32) -> Shard {
        Shard {
            id: ShardId::new(id).unwrap(),
            parent: None,
            adjacent_parent: None,
            range: HashKeyRange::uniform(1)[0],
            created: TimestampMs::new(1_700_000_000_000),
            state: ShardState::Open,
        }
    }

    pub(crate) fn frame(first: u64, records: &[&str]) -> Frame {
        let mut writer = FrameWriter::with_capacity(64);
        for record in records {
            writer.push("key", record.as_bytes());
        }
        let made = writer.finish(ProducerId::NONE, 0);
        let header = FrameHeader { first: SequenceIndex::new(first).unwrap(), ..*made.header() };
        let mut bytes = header.encode().to_vec();
        bytes.extend_from_slice(&made.body());
        Frame::decode(&bytes.into()).unwrap()
    }

    #[test]
    fn a_batch_begins_where_it_was_asked_to_in_the_middle_of_a_frame() {
        let stream = StreamName::new("s").unwrap();
        let frames = vec![frame(1, &["a", "b"]), frame(3, &["c", "d", "e"]), frame(6, &["f"])];
        let batch = Batch::new(&stream, &shard(0), frames.clone(), SequenceIndex::new(4).unwrap()).unwrap();
        let got: Vec<_> =
            batch.records().map(|r| (r.sequence_number().index().get(), r.data().clone())).collect();
        assert_eq!(got, [(4, Bytes::from("d")), (5, Bytes::from("e")), (6, Bytes::from("f"))]);
        assert_eq!(batch.len(), got.len());
        assert_eq!(batch.last_sequence_number(), batch.records().last().unwrap().sequence_number());
        assert!(Batch::new(&stream, &shard(0), frames, SequenceIndex::new(7).unwrap()).is_none());
    }
}
