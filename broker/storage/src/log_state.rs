//! What is known of one shard's log while the broker runs: its segments, its marks, the producers it knows.
//!
//! One owner sequences (the commit, one group in flight per log), whoever made the group durable publishes it, readers take
//! what they need under a short read lock. A [`Group`] is the work in between: numbered and placed, not yet durable.
//!
//! ```text
//!   queued ──sequence──► Group (placed, in flight) ──write──► publish: durable moves, producers noted
//! ```
//!
//! Not here: any file access but the making of a segment.

use crate::epochs::EpochEnds;
use crate::producers::{Batch, Producers, Seen};
use crate::segment::{SegmentHeader, SegmentId, SparseIndex};
use crate::write_back::DirtyStretch;
use crate::{Appended, LogId, Marks};
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use tidemill_types::{
    Epoch, Frame, FrameHeader, FrameKind, MonotonicMs, ProducerId, SequenceIndex, TimestampMs,
};

/// One segment of a log, as its owner sees it.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub number: u64,
    /// Index of its first frame.
    pub base: SequenceIndex,
    pub capacity: u64,
    /// Where the next frame would be placed.
    pub placed_end: u64,
    /// Where the durable frames end.
    pub durable_end: u64,
    /// Arrival of its first and last durable frame.
    pub first_arrival: TimestampMs,
    pub last_arrival: TimestampMs,
    /// Of the segment being filled; a full one has a sidecar.
    pub index: Option<SparseIndex>,
    /// Its name and size are known to be on the device.
    pub birth_synced: bool,
}

impl Segment {
    pub(crate) fn new(number: u64, base: SequenceIndex, capacity: u64) -> Self {
        Self {
            number,
            base,
            capacity,
            placed_end: SegmentHeader::BYTES as u64,
            durable_end: SegmentHeader::BYTES as u64,
            first_arrival: TimestampMs::default(),
            last_arrival: TimestampMs::default(),
            index: Some(SparseIndex::new(capacity)),
            birth_synced: false,
        }
    }
    pub(crate) fn room(&self) -> u64 {
        self.capacity - self.placed_end
    }
    pub(crate) fn header(&self, log: LogId) -> SegmentHeader {
        SegmentHeader { id: SegmentId { log, number: self.number }, base: self.base, capacity: self.capacity }
    }
    /// Counts a frame that is durable at `offset`.
    pub(crate) fn publish(&mut self, header: &FrameHeader, offset: u64) {
        if self.durable_end == SegmentHeader::BYTES as u64 {
            self.first_arrival = header.arrival;
        }
        self.last_arrival = header.arrival;
        self.durable_end = offset + u64::from(header.frame_bytes);
        self.placed_end = self.placed_end.max(self.durable_end);
        if let Some(index) = &mut self.index {
            index.note(header, offset);
        }
    }
}

/// The mutable part of a log.
#[derive(Debug)]
pub(crate) struct LogState {
    /// By number; the last is being filled.
    pub segments: VecDeque<Segment>,
    pub marks: Marks,
    pub epochs: EpochEnds,
    pub next_segment: u64,
    pub producers: Producers,
    /// Arrival of the newest sequenced frame: arrival times of a log never fall.
    pub newest: Option<TimestampMs>,
    pub closing: Closing,
    pub deleted: bool,
    /// The journal has named this log since that checkpoint ([`crate::shared::Shared::checkpoints`]), so that recovery
    /// looks for frames that only its segments hold. 0: never.
    pub announced: u64,
}

/// Whether the log takes frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closing {
    Open,
    /// The closing entry is on its way.
    Sequenced,
    /// The closing entry is durable; or there is none, as the log never had a frame.
    Sealed,
}

/// A frame with its number and place.
pub(crate) struct PlacedFrame {
    pub header: FrameHeader,
    pub head: [u8; FrameHeader::BYTES],
    pub body: Bytes,
}

/// Frames that lie one behind the other in one segment.
pub(crate) struct Run {
    pub segment: SegmentHeader,
    pub offset: u64,
    pub bytes: u64,
    pub frames: Vec<PlacedFrame>,
}

impl Run {
    /// Where it lies.
    pub(crate) fn stretch(&self) -> DirtyStretch {
        DirtyStretch { id: self.segment.id, from: self.offset, to: self.offset + self.bytes }
    }
    /// The pieces to write, in order.
    pub(crate) fn pieces(&self) -> Vec<&[u8]> {
        self.frames
            .iter()
            .flat_map(|frame| [&frame.head[..], &frame.body[..]])
            .filter(|p| !p.is_empty())
            .collect()
    }
}

impl LogState {
    pub(crate) fn empty(epoch: Epoch) -> Self {
        let first = epoch.first_index();
        Self {
            segments: VecDeque::new(),
            marks: Marks::new(first, first, first),
            epochs: EpochEnds::of_ended(first),
            next_segment: 0,
            producers: Producers::default(),
            newest: None,
            closing: Closing::Open,
            deleted: false,
            announced: 0,
        }
    }

    /// What is known of a batch, counting those of the group being made.
    pub(crate) fn look(&self, group: &HashMap<(ProducerId, u64), Batch>, header: &FrameHeader) -> Seen {
        if header.producer == ProducerId::NONE {
            return Seen::Never;
        }
        match group.get(&(header.producer, header.batch_number)) {
            Some(batch) => Seen::Stored(batch.outcome()),
            None => self.producers.look(header.producer, header.batch_number),
        }
    }

    /// Begins the next segment. Most shards of a large stream have one, and shall not pay for more.
    pub(crate) fn push_segment(&mut self, segment: Segment) {
        if self.segments.is_empty() {
            self.segments.reserve_exact(1);
        }
        self.segments.push_back(segment);
    }

    /// Whether the segment being filled has room for `bytes`.
    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        self.segments.back().is_some_and(|segment| segment.room() >= bytes)
    }

    /// Capacity of the next segment: fourfold the last one's within `min..=max`, or what the frame needs.
    pub(crate) fn next_capacity(&self, min: u64, max: u64, frame_bytes: u64) -> u64 {
        let step = self.segments.back().map_or(min, |last| last.capacity.saturating_mul(4).clamp(min, max));
        let needed = frame_bytes + SegmentHeader::BYTES as u64;
        if needed <= step { step } else { needed.next_multiple_of(4096) }
    }

    /// Numbers and places the next frame in the segment being filled, which has room for it.
    pub(crate) fn place(
        &mut self,
        log: LogId,
        frame: &Frame,
        now: TimestampMs,
        group_first: SequenceIndex,
    ) -> (PlacedFrame, u64) {
        let first = self.marks.written();
        let arrival = self.newest.map_or(now, |newest| newest.max(now));
        let header = FrameHeader {
            log: log.get(),
            first,
            arrival,
            group_before: u32::try_from(first.get() - group_first.get())
                .expect("a group is bounded in bytes"),
            ..*frame.header()
        };
        let segment = self.segments.back_mut().expect("the caller made room");
        let offset = segment.placed_end;
        segment.placed_end += u64::from(header.frame_bytes);
        assert!(segment.placed_end <= segment.capacity, "a frame was placed past the end of its segment");
        self.marks.set(self.marks.with_written(header.next()));
        self.newest = Some(arrival);
        if header.kind == FrameKind::Close {
            self.closing = Closing::Sequenced;
        }
        (PlacedFrame { header, head: header.encode(), body: frame.body() }, offset)
    }

    /// Makes a written run part of what readers see. Runs are published in the order in which they were placed.
    pub(crate) fn publish(&mut self, run: &Run, now: MonotonicMs) {
        let mut offset = run.offset;
        let Some(segment) = self.segments.iter_mut().rev().find(|s| s.number == run.segment.id.number) else {
            assert!(self.deleted, "a run was published into a segment that is not there");
            return;
        };
        for frame in &run.frames {
            assert!(frame.header.first >= self.marks.durable(), "frames are published in order");
            segment.publish(&frame.header, offset);
            offset += u64::from(frame.header.frame_bytes);
            self.marks.set(self.marks.with_durable(frame.header.next()));
            self.producers.note(frame.header.producer, Batch::of(&frame.header), now);
            if frame.header.kind == FrameKind::Close {
                self.closing = Closing::Sealed;
            }
        }
    }

    /// The first outcome of a batch of this group.
    pub(crate) fn outcome(header: &FrameHeader) -> Appended {
        Appended { first: header.first, count: header.count, arrival: header.arrival, duplicate: false }
    }
}
