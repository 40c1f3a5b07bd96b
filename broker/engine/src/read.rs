//! The read verb: pages of frames or of single records, from a position on, never past what is durable.
//!
//! Reading may fault pages in from the disk and always checks checksums, so it runs on a thread that may block. What
//! that costs, some 10 to 20 µs, is small beside a page of records, and the thread that sends has the time to: read in place,
//! catching up gave 4,580 MB/s where it gives 5,120 (bare calls, all in memory, medians of 5). Two cases stay where they are: a read at the tip,
//! which touches nothing, and a subscription that has caught up, whose records were put to the page cache moments ago
//! ([`crate::subscribe`]). `block_in_place` would be cheaper for large pages, but it stalls whatever shares the task and
//! does not exist on a runtime of one thread.

use crate::append::counted_bytes;
use crate::damage;
use crate::error::{Error, ErrorKind, Result};
use crate::shard::handle::ShardHandle;
use crate::stream::{Stream, StreamCore};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use tidemill_storage::Chunk;
use tidemill_types::{Frame, Position, SequenceIndex, SequenceNumber, Shard, ShardId, TimestampMs};

/// Frames are fetched in steps of at most this many bytes, so that a read for a few records stays cheap.
const STEP_BYTES_MAX: usize = 1 << 20;

/// Some frames of a shard.
#[derive(Debug, Clone)]
pub struct FramePage {
    /// Whole frames, decrypted; the first may begin before `from`.
    pub frames: Vec<Frame>,
    /// The frames as they lie in the log one behind the other; none if one had to be decrypted.
    pub(crate) lying: Option<Bytes>,
    /// For each frame, whether it lies encrypted.
    pub encrypted: Vec<bool>,
    /// Where the page begins: what was asked for, or later where older records are no longer kept.
    pub from: SequenceIndex,
    /// The index to go on from.
    pub next: SequenceIndex,
    /// 0 at the tip, else how long ago the last record of the page arrived, at least 1.
    pub millis_behind: u64,
    /// Stored records behind the page; none if they cannot be counted.
    pub records_behind: Option<u64>,
    /// The children, when a closed shard was read to its end.
    pub end: Option<Vec<Shard>>,
}

impl FramePage {
    /// The bytes of the frames one behind the other: shared with the log, copied only where they had to be decrypted.
    pub fn bytes(&self) -> Bytes {
        self.lying.clone().unwrap_or_else(|| {
            let mut all = BytesMut::with_capacity(self.frames.iter().map(|frame| frame.bytes().len()).sum());
            self.frames.iter().for_each(|frame| all.extend_from_slice(frame.bytes()));
            all.freeze()
        })
    }
}

/// Some records of a shard.
#[derive(Debug, Clone)]
pub struct RecordPage {
    /// In order.
    pub records: Vec<ReadRecord>,
    /// The index to go on from.
    pub next: SequenceIndex,
    /// 0 at the tip, else how long ago the last record of the page arrived, at least 1.
    pub millis_behind: u64,
    /// The children, when a closed shard was read to its end.
    pub end: Option<Vec<Shard>>,
}

/// A record that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRecord {
    /// Its number.
    pub number: SequenceNumber,
    /// When it arrived.
    pub arrival: TimestampMs,
    /// Its partition key.
    pub key: String,
    /// Its data, shared with the frame it lies in.
    pub data: Bytes,
    /// Whether it lies encrypted.
    pub encrypted: bool,
}

impl Stream {
    /// The index a position stands for: `Latest` is the durable tip, `At` a number that is no longer kept leads to the
    /// oldest record there is, `AtTime` later than every record leads to the tip.
    ///
    /// Errors: `NotFound`, `Unavailable`; `Invalid` if a number is not of this shard, or no record has had it yet (see
    /// [`Stream::check_number`]); with `AtTime`, which reads, those of [`Stream::read`]. Cancel-safe.
    pub async fn resolve(&self, shard: ShardId, position: Position) -> Result<SequenceIndex> {
        let handle = self.core.handle(shard)?;
        let resolved = self.resolve_in(&handle, position).await;
        handle.shared().metrics().note(resolved)
    }

    async fn resolve_in(&self, handle: &Arc<ShardHandle>, position: Position) -> Result<SequenceIndex> {
        handle.check_readable()?;
        let log = handle.log();
        match position {
            Position::TrimHorizon => Ok(log.marks().horizon()),
            Position::Latest => Ok(log.marks().durable()),
            Position::At(number) => Ok(self.own(handle, number)?.index()),
            Position::After(number) => Ok(self.own(handle, number)?.index().next()),
            Position::AtTime(time) => {
                let (handle, shared) = (Arc::clone(handle), Arc::clone(handle.shared()));
                let seek = move || handle.log().seek_time(time);
                let seek = move || seek().map_err(|e| Error::from_storage("could not look for a time", e));
                shared.blocking("a read", seek).await
            }
        }
    }

    fn own(&self, handle: &ShardHandle, number: SequenceNumber) -> Result<SequenceNumber> {
        let shard = handle.shard().id;
        match self.check_number(shard, &number) {
            Ok(()) => Ok(number),
            Err(problem) => {
                let message =
                    format!("{number} cannot be used on {shard} of stream {}: {problem}", self.core.key());
                Err(Error::new(ErrorKind::Invalid, message))
            }
        }
    }

    /// Frames from `from` on, up to `max_bytes`, at least one if there is any. Empty at the tip. Cancel-safe.
    ///
    /// A page ends before the first frame that cannot be decrypted.
    ///
    /// Errors: `NotFound`, `Unavailable`, `Throttled` while the shard's quota is used up, `Internal`; `Damaged` where records cannot
    /// be served, with the sequence number at which reading goes on; those of keys if what is to be read is encrypted.
    pub async fn read(&self, shard: ShardId, from: SequenceIndex, max_bytes: usize) -> Result<FramePage> {
        let handle = self.core.handle(shard)?;
        handle.check_readable()?;
        let held = handle.shared().metrics().note(handle.hold_read(max_bytes))?;
        let (core, reader) = (Arc::clone(&self.core), Arc::clone(&handle));
        let page = match from >= handle.log().marks().durable() {
            true => frame_page(&core, &handle, from, max_bytes),
            false => {
                let read = move || frame_page(&core, &reader, from, max_bytes);
                handle.shared().blocking("a read", read).await
            }
        };
        let page = handle.shared().metrics().note(page)?;
        handle.end_read(held, page.frames.iter().map(counted_bytes).sum());
        Ok(page)
    }

    /// The same as single records: at most `max_records` and `max_bytes` (data and key; a single larger record comes
    /// alone). Records that are damaged are passed over, see the module `damage`. Cancel-safe. Errors as of [`Stream::read`].
    pub async fn read_records(
        &self,
        shard: ShardId,
        from: SequenceIndex,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<RecordPage> {
        let handle = self.core.handle(shard)?;
        handle.check_readable()?;
        handle.shared().metrics().note(handle.take_call())?;
        let (core, reader) = (Arc::clone(&self.core), Arc::clone(&handle));
        let page = match from >= handle.log().marks().durable() {
            true => record_page(&core, &handle, from, max_records, max_bytes),
            false => {
                let read = move || record_page(&core, &reader, from, max_records, max_bytes);
                handle.shared().blocking("a read", read).await
            }
        };
        let page = handle.shared().metrics().note(page)?;
        handle.add_read(page.records.iter().map(|record| record.key.len() + record.data.len()).sum());
        Ok(page)
    }
}

/// What a page says about where it ends.
pub(crate) struct Ending {
    pub(crate) millis_behind: u64,
    pub(crate) records_behind: Option<u64>,
    end: Option<Vec<Shard>>,
}

/// `last` is the arrival of the last record of the page, `next` the index behind it. Also counts the page.
pub(crate) fn ending(
    core: &StreamCore,
    handle: &ShardHandle,
    next: SequenceIndex,
    last: Option<TimestampMs>,
) -> Ending {
    // in this order: once the shard shows closed, its end does not move
    let is_closed = !handle.shard().is_open();
    let log = handle.log();
    let durable = log.marks().durable();
    let at_tip = next >= durable;
    let now = handle.shared().clock().now();
    let millis_behind = match last.or_else(|| log.newest()) {
        Some(arrival) if !at_tip => now.get().saturating_sub(arrival.get()).max(1),
        _ => 0,
    };
    // what keeps records from being counted keeps them from being read: the next page tells it
    let records_behind = if at_tip { Some(0) } else { log.records_from(next).ok() };
    if last.is_some() {
        handle.metrics().lag_records.record(records_behind.unwrap_or_default() as f64);
        handle.metrics().lag_ms.record(millis_behind as f64);
    }
    let at_end = at_tip && is_closed;
    Ending {
        millis_behind,
        records_behind,
        end: at_end.then(|| core.shard_set().children(handle.shard().id)),
    }
}

/// A page of frames. Blocks on the page cache unless `from` is at the tip.
pub(crate) fn frame_page(
    core: &StreamCore,
    handle: &ShardHandle,
    from: SequenceIndex,
    max_bytes: usize,
) -> Result<FramePage> {
    let opened = match from >= handle.log().marks().durable() {
        true => Opened::none(from),
        false => {
            let chunk = handle.log().read(from, max_bytes);
            open_frames(core, chunk.map_err(|e| damage::told(core, handle, e))?)?
        }
    };
    let Opened { frames, lying, encrypted, next } = opened;
    let last = frames.last().map(|frame| frame.header());
    let ending = ending(core, handle, next, last.map(|header| header.arrival));
    let first = frames.first().map_or(from, |frame| frame.header().first.max(from));
    let records: u64 = frames.iter().map(|frame| u64::from(frame.header().count)).sum();
    let bytes: u64 = frames.iter().map(|frame| u64::from(frame.header().frame_bytes)).sum();
    handle.metrics().records_out.increment(records);
    handle.metrics().bytes_out.increment(bytes);
    Ok(FramePage {
        frames,
        lying,
        encrypted,
        from: first,
        next,
        millis_behind: ending.millis_behind,
        records_behind: ending.records_behind,
        end: ending.end,
    })
}

/// The frames of a chunk, decrypted, and for each whether it had to be.
struct Opened {
    frames: Vec<Frame>,
    lying: Option<Bytes>,
    encrypted: Vec<bool>,
    next: SequenceIndex,
}

impl Opened {
    fn none(next: SequenceIndex) -> Self {
        Self { frames: Vec::new(), lying: None, encrypted: Vec::new(), next }
    }
}

/// Ends before the first frame that cannot be decrypted; it is an error if that is the first one.
fn open_frames(core: &StreamCore, chunk: Chunk) -> Result<Opened> {
    let mut opened = Opened::none(chunk.next);
    for frame in chunk.frames {
        let (sealed, first) = (frame.header().is_sealed(), frame.header().first);
        match core.keys().open(frame) {
            Ok(frame) => opened.frames.push(frame),
            Err(error) if opened.frames.is_empty() => return Err(error),
            Err(_) => {
                opened.next = first;
                break;
            }
        }
        opened.encrypted.push(sealed);
    }
    let as_they_lie = opened.next == chunk.next && !opened.encrypted.contains(&true);
    opened.lying = as_they_lie.then_some(chunk.bytes);
    Ok(opened)
}

/// Records collected under the limits of a page.
struct Collected {
    records: Vec<ReadRecord>,
    bytes: usize,
    next: SequenceIndex,
}

fn record_page(
    core: &StreamCore,
    handle: &ShardHandle,
    from: SequenceIndex,
    max_records: usize,
    max_bytes: usize,
) -> Result<RecordPage> {
    let mut page = Collected { records: Vec::new(), bytes: 0, next: from };
    let mut room = max_records > 0;
    while room && page.next < handle.log().marks().durable() {
        let step = max_bytes.saturating_sub(page.bytes).min(STEP_BYTES_MAX);
        let chunk = handle.log().read(page.next, step);
        let chunk = match chunk {
            Ok(chunk) => chunk,
            Err(error) => {
                let error = damage::told(core, handle, error);
                page.next = damage::pass_over(handle, &error).ok_or(error)?;
                continue;
            }
        };
        let came_to_nothing = chunk.next <= page.next && chunk.frames.is_empty();
        room = collect(&mut page, core, handle.shard(), chunk.frames, max_records, max_bytes)?;
        if room {
            if came_to_nothing {
                break; // nothing more to be had now
            }
            page.next = page.next.max(chunk.next);
        }
    }
    let ending = ending(core, handle, page.next, page.records.last().map(|record| record.arrival));
    handle.metrics().records_out.increment(page.records.len() as u64);
    handle.metrics().bytes_out.increment(page.bytes as u64);
    Ok(RecordPage {
        records: page.records,
        next: page.next,
        millis_behind: ending.millis_behind,
        end: ending.end,
    })
}

/// Adds records of `frames` while the limits allow; returns whether they all went in. Ends before the first frame that
/// cannot be decrypted; it is an error if no record came before it.
fn collect(
    page: &mut Collected,
    core: &StreamCore,
    shard: &Shard,
    frames: Vec<Frame>,
    max_records: usize,
    max_bytes: usize,
) -> Result<bool> {
    for frame in frames {
        let encrypted = frame.header().is_sealed();
        let frame = match core.keys().open(frame) {
            Ok(frame) => frame,
            Err(error) if page.records.is_empty() => return Err(error),
            Err(_) => return Ok(false),
        };
        let arrival = frame.header().arrival;
        let from = page.next;
        for record in frame.records().filter(|record| record.index >= from) {
            let bytes = record.data.len() + record.key.len();
            let over = page.bytes + bytes > max_bytes && !page.records.is_empty();
            if over || page.records.len() >= max_records {
                return Ok(false);
            }
            page.records.push(ReadRecord {
                number: shard.number(record.index, arrival),
                arrival,
                key: record.key.to_owned(),
                data: record.data_bytes(),
                encrypted,
            });
            page.bytes += bytes;
            page.next = record.index.next();
        }
    }
    Ok(page.records.len() < max_records)
}
