//! One shard's log, as its users see it: append, read, seek, trim, watch.
//!
//! Appends go through the queue to the commit; reads go straight to the maps of the segments and never past `durable`.
//! Every frame is checked against its checksums each time it is read. What is damaged is told by the read that would begin with
//! it, with the index behind it ([`Error::lost`]); everything around it is read as ever.

use crate::commit::{Done, Item};
use crate::damage::{Frames, Lying, damaged};
use crate::error::{Error, ErrorKind, Result};
use crate::log_state::{Closing, LogState, Segment};
use crate::producers::Seen;
use crate::segment::{Pages, SegmentHeader, SegmentId, SparseIndex};
use crate::shared::Shared;
use crate::sync::{Mutex, RwLock};
use crate::{Appended, LogId, Marks};
use bytes::Bytes;
use std::sync::Arc;
use tidemill_types::{Frame, FrameKind, ProducerId, SequenceIndex, TimestampMs};

/// How often a read looks again when the segment it was sent to has been trimmed meanwhile.
pub(crate) const TRIM_RACES_MAX: u32 = 16;

/// Frames read in one go: whole, checked, one behind the other.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// The frames; the first may begin before the index asked for.
    pub frames: Vec<Frame>,
    /// The bytes of the frames, as they lie one behind the other; shared with them, not copied.
    pub bytes: Bytes,
    /// The index to go on from.
    pub next: SequenceIndex,
}

impl Chunk {
    fn none(next: SequenceIndex) -> Self {
        Self { frames: Vec::new(), bytes: Bytes::new(), next }
    }
}

type Watcher = Arc<dyn Fn(SequenceIndex) + Send + Sync>;

/// What is shared by all handles of a log.
pub(crate) struct LogInner {
    pub id: LogId,
    pub state: RwLock<LogState>,
    pub queue: Mutex<crate::commit::LogQueue>,
    watcher: RwLock<Option<Watcher>>,
}

impl LogInner {
    pub(crate) fn new(id: LogId, state: LogState) -> Arc<Self> {
        Arc::new(Self { id, state: RwLock::new(state), queue: Mutex::default(), watcher: RwLock::new(None) })
    }
    /// Tells the watcher where `durable` is.
    pub(crate) fn wake(&self) {
        let watcher = self.watcher.read().clone();
        if let Some(watcher) = watcher {
            watcher(self.state.read().marks.durable());
        }
    }
}

/// One shard's log. Cheap to clone.
#[derive(Clone)]
pub struct ShardLog {
    pub(crate) inner: Arc<LogInner>,
    pub(crate) shared: Arc<Shared>,
}

/// The segment to read from, as the state of the log tells it.
pub(crate) struct Target {
    segment: SegmentId,
    begin: Begin,
    end: u64,
    behind: SequenceIndex,
}

/// Where to begin walking a segment.
enum Begin {
    At(u64),
    /// Its index lies beside it.
    LookUp,
}

/// A stretch of a segment to read from.
pub(crate) struct Stretch {
    pub(crate) segment: SegmentId,
    pub(crate) offset: u64,
    end: u64,
    /// The index to go on from behind the stretch: numbers between its last frame and this one were never used.
    pub(crate) behind: SequenceIndex,
}

impl Stretch {
    fn bytes(&self) -> usize {
        usize::try_from(self.end - self.offset).expect("segments fit in memory maps")
    }
}

/// Why a walk over a stretch ends.
enum Stop {
    /// Nothing more is to be had of it.
    AtEnd,
    /// More would be too much.
    Full,
    /// What comes cannot be read, or is damaged.
    At(Error),
}

impl ShardLog {
    /// Its identity.
    pub fn id(&self) -> LogId {
        self.inner.id
    }

    /// Queues a frame. `done` is called once, from a storage thread (or at once, on refusal), when the frame is durable or
    /// has failed; calls for one log come in the order of the appends. A batch whose producer and number are known
    /// already is not stored again: `done` gets the first outcome. The caller bounds what it has in the queue.
    pub fn append(&self, frame: Frame, done: impl FnOnce(Result<Appended>) + Send + 'static) {
        self.shared.queue.push(&self.inner, Item { frame, done: Done::new(done) });
    }

    /// Ends the log: a closing entry behind everything queued. Later appends fail with [`ErrorKind::Closed`].
    ///
    /// A log that never had a frame gets no entry and no file: it is ended for as long as this storage is open, and may be
    /// found open again after that.
    pub fn seal(&self, done: impl FnOnce(Result<Appended>) + Send + 'static) {
        self.shared.queue.push(&self.inner, Item { frame: Frame::close(), done: Done::new(done) });
    }

    /// The first outcome of a batch that is durable and remembered; none of one that is still on its way.
    pub fn outcome_of(&self, producer: ProducerId, number: u64) -> Option<Appended> {
        match self.inner.state.read().producers.look(producer, number) {
            Seen::Stored(outcome) => Some(outcome),
            Seen::Never | Seen::TooOld => None,
        }
    }

    /// `true` once the closing entry is durable, or the log was ended without one.
    pub fn is_sealed(&self) -> bool {
        self.inner.state.read().closing == Closing::Sealed
    }

    /// Where it begins and ends.
    pub fn marks(&self) -> Marks {
        self.inner.state.read().marks
    }

    /// Arrival time of the newest durable frame, if one is kept still.
    pub fn newest(&self) -> Option<TimestampMs> {
        let state = self.inner.state.read();
        let kept = state.segments.iter().rev().find(|s| s.durable_end > SegmentHeader::BYTES as u64)?;
        (state.marks.horizon() < state.marks.durable()).then_some(kept.last_arrival)
    }

    /// Bytes on disk of this log's segments.
    pub fn segment_bytes(&self) -> u64 {
        self.inner.state.read().segments.iter().map(|segment| segment.capacity).sum()
    }

    /// Called from a storage thread with the new mark each time `durable` moves. One watcher a log; it must not block.
    pub fn watch(&self, watcher: Arc<dyn Fn(SequenceIndex) + Send + Sync>) {
        *self.inner.watcher.write() = Some(watcher);
    }

    /// Frames from the one that holds `from` (or the horizon, if that is later) on, up to `max_bytes` (at least one frame).
    /// Empty when `from` is at `durable`. Reads through the page cache: call it from a thread that may wait for the disk.
    ///
    /// A closing entry is passed over: it carries no record. So is what `tidemill repair` has put in the place of damage.
    ///
    /// Errors: [`ErrorKind::Damaged`] with [`Error::lost`] if what is to come first cannot be read; a read from behind it
    /// succeeds. [`ErrorKind::Io`] if the disk cannot give it: it may be able to later, so nothing is passed over.
    pub fn read(&self, from: SequenceIndex, max_bytes: usize) -> Result<Chunk> {
        let asked = from;
        let mut from = from;
        for _ in 0..TRIM_RACES_MAX {
            let (target, durable) = {
                let state = self.inner.state.read();
                from = from.max(state.marks.horizon());
                match segment_of(&state, from) {
                    Some(at) => (self.target(&state, at, |index| index.seek(from)), state.marks.durable()),
                    None => return Ok(Chunk::none(from.max(state.marks.durable()))),
                }
            };
            let stretch = self.refine(target, |index| index.seek(from))?;
            match self.walk(&stretch, from, durable, max_bytes) {
                Ok(chunk) if chunk.frames.is_empty() && chunk.next < durable => from = chunk.next,
                Err(error) if error.kind() == ErrorKind::Io && self.has_left(stretch.segment) => {}
                other => return other,
            }
        }
        if from > asked {
            return Ok(Chunk::none(from)); // a long way without records: the next read goes on
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            "records are trimmed faster than this read could begin; try again",
        ))
    }

    /// The index of the first record that arrived at or after `time`; `durable` if none has.
    pub fn seek_time(&self, time: TimestampMs) -> Result<SequenceIndex> {
        for _ in 0..TRIM_RACES_MAX {
            let (target, marks) = {
                let state = self.inner.state.read();
                let marks = state.marks;
                let Some(at) = state.segments.iter().position(|s| s.last_arrival >= time && has_durable(s))
                else {
                    return Ok(marks.durable());
                };
                (self.target(&state, at, |index| index.seek_time(time)), marks)
            };
            let stretch = self.refine(target, |index| index.seek_time(time))?;
            match self.first_since(&stretch, time, marks) {
                Err(error) if error.kind() == ErrorKind::Io && self.has_left(stretch.segment) => {}
                other => return other,
            }
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            "records are trimmed faster than this search could begin; try again",
        ))
    }

    /// Moves the horizon past every frame that arrived before `before` and lets go of the segments below it.
    /// Returns the horizon. Never goes back.
    pub fn trim(&self, before: TimestampMs) -> Result<SequenceIndex> {
        {
            let state = self.inner.state.read();
            if state.segments.front().is_none_or(|first| first.first_arrival >= before || !has_durable(first))
            {
                return Ok(state.marks.horizon());
            }
        }
        let target = self.seek_time(before)?;
        let mut gone = Vec::new();
        let horizon = {
            let mut state = self.inner.state.write();
            let horizon = target.max(state.marks.horizon()).min(state.marks.durable());
            let marks = state.marks.with_horizon(horizon);
            state.marks.set(marks);
            while let Some(first) = state.segments.front() {
                let next_base = state.segments.get(1).map(|next| next.base);
                let settled = first.placed_end == first.durable_end;
                let below = match next_base {
                    Some(base) => base <= horizon && settled,
                    None => {
                        settled
                            && has_durable(first)
                            && horizon == marks.durable()
                            && marks.durable() == marks.written()
                    }
                };
                if !below {
                    break;
                }
                gone.extend(state.segments.pop_front());
            }
            horizon
        };
        self.shared.retire(self.inner.id, gone.iter());
        Ok(horizon)
    }

    /// What there is to know of segment `at` without touching the disk.
    pub(crate) fn target(
        &self,
        state: &LogState,
        at: usize,
        seek: impl Fn(&SparseIndex) -> Option<u64>,
    ) -> Target {
        let segment = &state.segments[at];
        let durable = state.marks.durable();
        let begin = match &segment.index {
            Some(index) => Begin::At(seek(index).unwrap_or(SegmentHeader::BYTES as u64)),
            None => Begin::LookUp,
        };
        Target {
            segment: SegmentId { log: self.inner.id, number: segment.number },
            begin,
            end: segment.durable_end,
            behind: state.segments.get(at + 1).map_or(durable, |next| next.base.min(durable)),
        }
    }

    /// Where to begin walking. May read the disk, so nobody must wait for this thread meanwhile.
    pub(crate) fn refine(
        &self,
        target: Target,
        seek: impl Fn(&SparseIndex) -> Option<u64>,
    ) -> Result<Stretch> {
        let Target { segment, begin, end, behind } = target;
        let offset = match begin {
            Begin::At(offset) => offset,
            Begin::LookUp => {
                let open = self.shared.open_segments.get(segment);
                let found = match open.and_then(|open| open.full_index(&*self.shared.disk, end)) {
                    Ok(index) => seek(&index),
                    Err(error) if error.kind() == ErrorKind::Io => None, // told by the walk, unless it was trimmed
                    Err(error) => return Err(error),
                };
                found.unwrap_or(SegmentHeader::BYTES as u64)
            }
        };
        Ok(Stretch { segment, offset, end, behind })
    }

    /// Whether the segment is no longer part of the log.
    pub(crate) fn has_left(&self, id: SegmentId) -> bool {
        let state = self.inner.state.read();
        !state.segments.iter().any(|segment| segment.number == id.number)
    }

    fn walk(
        &self,
        stretch: &Stretch,
        from: SequenceIndex,
        durable: SequenceIndex,
        max_bytes: usize,
    ) -> Result<Chunk> {
        let open = self.shared.open_segments.get(stretch.segment)?;
        let bytes = open.bytes(stretch.offset, stretch.bytes())?;
        let mut pages = Pages::new(&open, stretch.offset, bytes.len());
        let mut frames = Frames::new(self.inner.id, &bytes);
        let mut taken = 0..0;
        let mut chunk = Chunk::none(from);
        let stop = loop {
            if chunk.next >= durable {
                break Stop::AtEnd;
            }
            let (at, why, next) = match frames.next_in(&mut pages) {
                Err(error) => break Stop::At(error),
                Ok(None) => break Stop::AtEnd,
                Ok(Some(Lying::Frame(_, header)))
                    if header.last() < from || header.kind != FrameKind::Records =>
                {
                    chunk.next = chunk.next.max(header.next());
                    continue;
                }
                Ok(Some(Lying::Frame(at, header))) => {
                    if taken.is_empty() {
                        taken = at..at;
                    } else if taken.end != at || taken.len() + header.frame_bytes as usize > max_bytes {
                        break Stop::Full;
                    }
                    if let Err(error) = pages.up_to(at + header.frame_bytes as usize) {
                        break Stop::At(error);
                    }
                    match Frame::decode(&bytes.slice(at..)) {
                        Ok(frame) => {
                            chunk.frames.push(frame);
                            taken.end += header.frame_bytes as usize;
                            chunk.next = header.next();
                            continue;
                        }
                        Err(why) => (at, why, header.next()),
                    }
                }
                Ok(Some(Lying::Bad(bad))) => (bad.at, bad.why, bad.next.unwrap_or(stretch.behind)),
            };
            // unless it lies before what is asked for
            if next > from {
                let error = damaged(stretch.segment, stretch.offset + at as u64, &why);
                break Stop::At(error.losing(chunk.next, next));
            }
        };
        match stop {
            Stop::AtEnd => chunk.next = chunk.next.max(stretch.behind),
            Stop::At(error) if chunk.frames.is_empty() => return Err(error),
            Stop::At(_) | Stop::Full => {} // the next read begins there
        }
        chunk.bytes = bytes.slice(taken);
        Ok(chunk)
    }

    /// Walks over a stretch until `found` says that it is enough; what it said then. None at the end of the stretch.
    pub(crate) fn find_in<T>(
        &self,
        stretch: &Stretch,
        mut found: impl FnMut(Lying) -> Option<T>,
    ) -> Result<Option<T>> {
        let open = self.shared.open_segments.get(stretch.segment)?;
        let bytes = open.bytes(stretch.offset, stretch.bytes())?;
        let mut pages = Pages::new(&open, stretch.offset, bytes.len());
        let mut frames = Frames::new(self.inner.id, &bytes);
        while let Some(lying) = frames.next_in(&mut pages)? {
            if let Some(found) = found(lying) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn first_since(&self, stretch: &Stretch, time: TimestampMs, marks: Marks) -> Result<SequenceIndex> {
        let found = self.find_in(stretch, |lying| match lying {
            Lying::Frame(_, header) if header.arrival >= time => Some(header.first),
            _ => None,
        })?;
        let behind = stretch.behind.max(marks.horizon());
        Ok(found.unwrap_or(behind).clamp(marks.horizon(), marks.durable()))
    }
}

pub(crate) fn has_durable(segment: &Segment) -> bool {
    segment.durable_end > SegmentHeader::BYTES as u64
}

/// The segment that holds `from`, if anything at or after it is durable.
pub(crate) fn segment_of(state: &LogState, from: SequenceIndex) -> Option<usize> {
    if from >= state.marks.durable() || state.segments.is_empty() {
        return None;
    }
    let after = state.segments.partition_point(|segment| segment.base <= from);
    Some(after.saturating_sub(1))
}
