//! Append requests that are ready: frames of real records for a shard, in any size up to 1 MiB.

use super::super::load::{Stamp, keys_of_shards, noise};
use crate::error::Result;
use tidemill_producer::PartitionKey;
use tidemill_proto::v1::AppendRequest;
use tidemill_types::{FrameWriter, ProducerId, ShardMap, StreamName};

/// Most bytes of a frame.
const FRAME_BYTES: usize = 1 << 20;
/// Most bytes of all frames of a measurement.
const FRAMES_BYTES_MAX: usize = 128 << 20;

/// Makes requests for the shards of a stream.
pub(super) struct Frames {
    stream: String,
    map: ShardMap,
    keys: Vec<PartitionKey>,
    record_bytes: usize,
}

/// How many records go into a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fill {
    One,
    /// As many as it holds.
    Full,
}

impl Frames {
    pub(super) fn new(stream: &StreamName, map: ShardMap, record_bytes: u32) -> Result<Self> {
        let keys = keys_of_shards(&map)?;
        Ok(Self { stream: stream.to_string(), map, keys, record_bytes: record_bytes as usize })
    }

    /// Open shards.
    pub(super) fn shards(&self) -> usize {
        self.keys.len()
    }

    /// A request for each shard that a connection of so many has in turn; if there are fewer shards, they are shared.
    pub(super) fn of_connection(
        &self,
        connection: usize,
        connections: usize,
        fill: Fill,
    ) -> Vec<AppendRequest> {
        let shards = self.shards();
        (connection % shards..shards).step_by(connections).map(|slot| self.request(slot, fill)).collect()
    }

    fn request(&self, slot: usize, fill: Fill) -> AppendRequest {
        let key = self.keys[slot].as_str();
        let record = FrameWriter::record_bytes(key.len(), self.record_bytes);
        let frame_bytes = (FRAMES_BYTES_MAX / self.shards()).min(FRAME_BYTES);
        let mut writer = FrameWriter::with_capacity(frame_bytes.max(record));
        writer.push(key, &noise(self.record_bytes));
        while fill == Fill::Full
            && writer.frame_bytes() + record <= frame_bytes
            && writer.fits(key.len(), self.record_bytes)
        {
            writer.push(key, &noise(self.record_bytes));
        }
        self.wrap(slot, writer)
    }

    /// One record for a shard, in turn, that carries when it was due.
    pub(super) fn stamped(&self, turn: usize, stamp: Stamp, data: &mut [u8]) -> AppendRequest {
        let slot = turn % self.shards();
        let key = self.keys[slot].as_str();
        stamp.write(data);
        let mut writer = FrameWriter::with_capacity(FrameWriter::record_bytes(key.len(), data.len()));
        writer.push(key, data);
        self.wrap(slot, writer)
    }

    fn wrap(&self, slot: usize, writer: FrameWriter) -> AppendRequest {
        AppendRequest {
            request_id: 0,
            stream: self.stream.clone(),
            shard: self.map.open()[slot].id.get(),
            map_version: self.map.version().get(),
            stream_incarnation: 0,
            // sent again and again, so it must not be recognised
            frame: writer.finish(ProducerId::NONE, 0).bytes().clone(),
        }
    }
}
