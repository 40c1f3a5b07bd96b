//! The append verb: records to be routed, or a batch that its producer has routed already.
//!
//! A batch carries the version of the shard map it was routed by. An older map is no error as such: the shard it names
//! is either open, then it is right, or closed, then the answer is `ShardClosed` and the producer fetches the new map;
//! unless the batch was stored before the close: its answer is its first outcome, as of every repeated batch.

use crate::catalog::settings::Distribution;
use crate::catalog::state::StreamRow;
use crate::error::{Error, ErrorKind, Result};
use crate::shard::handle::ShardHandle;
use crate::shard::pending::PendingAppend;
use crate::stream::{Stream, StreamCore};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tidemill_types::{
    Frame, FrameHeader, FrameWriter, ProducerId, Record, SequenceNumber, ShardId, ShardMapVersion,
};
use tokio::time::Instant;

/// A put waits this long for room in the queues of its shards before what is left of it is throttled. Records that
/// follow to the children of a closed shard wait anew, again and again within the first so many seconds and once more
/// after that.
const PUT_WAIT_MAX: Duration = Duration::from_secs(2);

/// Where a record went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// Its shard.
    pub shard: ShardId,
    /// Its number there.
    pub number: SequenceNumber,
    /// Whether it lies encrypted.
    pub encrypted: bool,
}

/// One frame of a put that was handed over: whose it is, and which of the request's records are within.
struct Sent {
    handle: Arc<ShardHandle>,
    slots: Vec<usize>,
    pending: Result<PendingAppend>,
}

impl Stream {
    /// Routes each record, stores them as one frame for each shard, and waits until they are durable. Answers in the
    /// order of the records; each succeeds or fails alone. Records of one shard keep the order of the request; those of a
    /// shard that is closed meanwhile follow to its children.
    ///
    /// A record that is larger than the stream allows, or has no key where the stream needs one, is `Invalid`. Where a
    /// shard's queue has no room within two seconds, or its quota is used up, its records are `Throttled`; where the key of
    /// an encrypted stream cannot be used, all are told so. Cancelled, some of the records
    /// may be stored.
    pub async fn put(&self, records: Vec<Record>) -> Vec<Result<Placed>> {
        let mut results: Vec<Option<Result<Placed>>> = vec![None; records.len()];
        let last_try_from = Instant::now() + PUT_WAIT_MAX;
        let row = self.core.row();
        let mut left = Vec::with_capacity(records.len());
        for (at, record) in records.iter().enumerate() {
            match check_record(&row, at, record) {
                Ok(()) => left.push(at),
                Err(error) => results[at] = Some(Err(error)),
            }
        }
        while !left.is_empty() {
            let begun = Instant::now();
            self.put_once(&records, left, begun + PUT_WAIT_MAX, &mut results).await;
            let is_closed = |result: &Option<Result<Placed>>| matches!(result, Some(Err(error)) if error.kind() == ErrorKind::ShardClosed);
            // not stored, and the map that has its children is there: the order within a key is kept
            left = (0..results.len()).filter(|slot| is_closed(&results[*slot])).collect();
            if begun >= last_try_from {
                left.drain(..).for_each(|slot| results[slot] = Some(Err(self.resharded_too_often())));
            }
        }
        results.into_iter().map(|result| result.expect("every record was in one group")).collect()
    }

    /// Stores the records in `slots` by the map there is now.
    async fn put_once(
        &self,
        records: &[Record],
        slots: Vec<usize>,
        deadline: Instant,
        results: &mut [Option<Result<Placed>>],
    ) {
        let set = self.core.shard_set();
        let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for at in slots {
            groups.entry(set.map().route_slot(records[at].hash_key())).or_default().push(at);
        }
        let mut sent = Vec::new();
        for (route, slots) in groups {
            let shard = set.map().open()[route].id;
            match self.core.handle(shard) {
                Ok(handle) => {
                    let slots = self.within_quota(&handle, records, slots, results);
                    send_group(&self.core, &handle, records, slots, deadline, &mut sent).await;
                }
                Err(error) => slots.into_iter().for_each(|slot| results[slot] = Some(Err(error.clone()))),
            }
        }
        for part in sent {
            let encrypted = part.pending.as_ref().is_ok_and(PendingAppend::is_encrypted);
            let outcome = match part.pending {
                Ok(pending) => pending.await,
                Err(error) => part.handle.shared().metrics().note(Err(error)),
            };
            for (nth, slot) in (0..).zip(part.slots) {
                results[slot] = Some(outcome.as_ref().map_err(Error::clone).map(|appended| {
                    let shard = part.handle.shard();
                    Placed {
                        shard: shard.id,
                        number: shard.number(appended.first.plus(nth), appended.arrival),
                        encrypted,
                    }
                }));
            }
        }
    }

    /// Those of the records in `slots` that the quota of their shard lets through, record by record.
    fn within_quota(
        &self,
        handle: &ShardHandle,
        records: &[Record],
        mut slots: Vec<usize>,
        results: &mut [Option<Result<Placed>>],
    ) -> Vec<usize> {
        slots.retain(|slot| match handle.take_record(&self.core, records[*slot].counted_bytes()) {
            Ok(()) => true,
            Err(error) => {
                results[*slot] = Some(handle.shared().metrics().note(Err(error)));
                false
            }
        });
        slots
    }

    fn resharded_too_often(&self) -> Error {
        let message =
            format!("shards of stream {} are being split or merged; repeat after a pause", self.core.key());
        Error::new(ErrorKind::Unavailable, message)
    }

    /// Waits until the shard's queue has room, then hands over a batch that was checked by `Frame::decode_untrusted`.
    /// The order of calls for a shard is the order in the shard. Dropped before it returns, nothing was handed over.
    ///
    /// A batch that is stored already is answered with its first outcome, whatever would forbid it now.
    ///
    /// Errors: `NotFound`, `ShardClosed`, `Unavailable`; `Invalid` if a record is larger than the stream allows;
    /// `Throttled` while the shard's quota is used up; those of keys if the stream is encrypted.
    pub async fn submit(
        &self,
        shard: ShardId,
        map_version: ShardMapVersion,
        frame: Frame,
    ) -> Result<PendingAppend> {
        let handle = self.door(shard, map_version)?;
        let (producer, number) = (frame.header().producer, frame.header().batch_number);
        let submitted = self
            .submit_to(&handle, frame)
            .await
            .or_else(|error| handle.outcome_of(producer, number).map(PendingAppend::answered).ok_or(error));
        handle.shared().metrics().note(submitted)
    }

    async fn submit_to(&self, handle: &ShardHandle, frame: Frame) -> Result<PendingAppend> {
        self.check_sizes(&frame)?;
        let held = handle.hold_batch(&self.core, frame.header().count, counted_bytes(&frame))?;
        handle.submit(&self.core, frame, held).await
    }

    /// Whether each record of a batch is as small as the stream demands.
    fn check_sizes(&self, frame: &Frame) -> Result<()> {
        let row = self.core.row();
        if frame.bytes().len() <= row.settings.record_bytes_max() {
            return Ok(()); // none can be larger than the frame
        }
        let mut records = frame.records().enumerate();
        records.try_for_each(|(at, record)| check_size(&row, at, record.key.len() + record.data.len()))
    }

    /// The shard a batch goes to. A map from the future means that the producer speaks of another stream.
    fn door(&self, shard: ShardId, map_version: ShardMapVersion) -> Result<Arc<ShardHandle>> {
        let known = self.core.shard_set().map().version();
        if map_version > known {
            let message =
                format!("shard map version {map_version} is not one of this stream, which is at {known}");
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        self.core.handle(shard)
    }
}

/// Whether the stream takes the record at place `at` of a request.
fn check_record(stream: &StreamRow, at: usize, record: &Record) -> Result<()> {
    check_size(stream, at, record.counted_bytes())?;
    if record.key().is_absent() && stream.settings.distribution != Distribution::Auto {
        let message = format!(
            "record {} of the request has no partition key; stream {} needs one for each record",
            at + 1,
            stream.key
        );
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    Ok(())
}

/// Whether the stream takes a record of `bytes`, data and partition key together.
fn check_size(stream: &StreamRow, at: usize, bytes: usize) -> Result<()> {
    let bytes_max = stream.settings.record_bytes_max();
    if bytes <= bytes_max {
        return Ok(());
    }
    let message = format!(
        "record {} of the request has {bytes} bytes, data and partition key together; stream {} takes at most {bytes_max}",
        at + 1,
        stream.key
    );
    Err(Error::new(ErrorKind::Invalid, message))
}

/// Writes the records of one shard into as few frames as hold them, and hands those over in order.
async fn send_group(
    core: &StreamCore,
    handle: &Arc<ShardHandle>,
    records: &[Record],
    slots: Vec<usize>,
    deadline: Instant,
    sent: &mut Vec<Sent>,
) {
    for slots in split_by_frame(records, slots) {
        let bytes = slots.iter().map(|slot| record_bytes(&records[*slot])).sum();
        let mut writer = FrameWriter::with_capacity(bytes);
        for slot in &slots {
            writer.push(records[*slot].key().as_str(), records[*slot].data());
        }
        let submitted = handle.submit(core, writer.finish(ProducerId::NONE, 0), None);
        let pending = match tokio::time::timeout_at(deadline, submitted).await {
            Ok(pending) => pending,
            Err(_) => Err(handle.no_room()),
        };
        sent.push(Sent { handle: Arc::clone(handle), slots, pending });
    }
}

/// Bytes that count against quotas: data and keys of all records.
pub(crate) fn counted_bytes(frame: &Frame) -> usize {
    let header = frame.header();
    let overhead = header.count as usize * FrameWriter::record_bytes(0, 0);
    (header.frame_bytes as usize).saturating_sub(FrameHeader::BYTES + overhead)
}

fn record_bytes(record: &Record) -> usize {
    FrameWriter::record_bytes(record.key().as_str().len(), record.data().len())
}

/// The same slots in the same order, cut so that each part fits one frame.
fn split_by_frame(records: &[Record], slots: Vec<usize>) -> Vec<Vec<usize>> {
    use tidemill_types::limits::{FRAME_BYTES_MAX, FRAME_RECORDS_MAX};
    let mut parts: Vec<Vec<usize>> = Vec::new();
    let mut bytes = usize::MAX;
    for slot in slots {
        let more = record_bytes(&records[slot]);
        match parts.last_mut() {
            Some(part) if bytes + more <= FRAME_BYTES_MAX && part.len() < FRAME_RECORDS_MAX as usize => {
                part.push(slot);
                bytes += more;
            }
            _ => {
                parts.push(vec![slot]);
                bytes = FrameHeader::BYTES + more;
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::settings::StreamSettings;
    use crate::one_stream::OneStream;
    use crate::settings::Settings;
    use crate::stream::StreamSpec;
    use tidemill_types::PartitionKey;
    use tidemill_types::limits::RECORD_KIB_MAX;

    /// Nothing is written here until the test says so: the queue stays as full as it is.
    #[tokio::test(start_paused = true)]
    async fn a_full_queue_makes_a_batch_wait_and_throttles_a_put_after_two_seconds() {
        let settings = StreamSettings { record_kib_max: RECORD_KIB_MAX, ..StreamSettings::default() };
        let spec = StreamSpec { settings, ..StreamSpec::default() };
        let queues = Settings { queue_bytes_per_shard: 12 << 20, ..Settings::default() };
        let one = OneStream::of(&spec, queues);
        let (shard, version) = (ShardId::new(0).unwrap(), one.stream.map().version());
        let mut writer = FrameWriter::with_capacity(8 << 20);
        writer.push("k", &vec![1; 8 << 20]);
        let large = writer.finish(ProducerId::NONE, 0);
        let first = one.stream.submit(shard, version, large.clone()).await.unwrap();
        let second = one.stream.submit(shard, version, large);
        tokio::pin!(second);
        let hour = Duration::from_secs(3600);
        assert!(tokio::time::timeout(hour, &mut second).await.is_err(), "it waits for as long as it takes");

        let asked = Instant::now();
        let record = Record::new(PartitionKey::new("k").unwrap(), vec![1]).unwrap();
        let put = one.stream.put(vec![record]).await;
        assert_eq!(put[0].as_ref().unwrap_err().kind(), ErrorKind::Throttled);
        assert_eq!(asked.elapsed().as_secs(), PUT_WAIT_MAX.as_secs());

        one.storage.start().unwrap();
        let second = second.await.unwrap();
        let first = first.await.unwrap();
        assert!(second.await.unwrap().first > first.first);
        one.storage.close().unwrap();
    }
}
