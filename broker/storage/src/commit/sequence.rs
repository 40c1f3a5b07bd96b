//! Sequencing: frames of one log get their numbers and places, duplicates get their first outcome.
//!
//! Nothing is written here but the header of a new segment. What fails here has used no number.

use super::queue::{Done, Item};
use crate::error::{Error, ErrorKind, Result};
use crate::log_state::{Closing, LogState, Run, Segment};
use crate::producers::{Batch, Seen};
use crate::segment::{OpenSegment, SegmentId};
use crate::shard_log::LogInner;
use crate::shared::Shared;
use crate::{Appended, disk::Sync};
use std::collections::HashMap;
use std::sync::Arc;
use tidemill_types::{Frame, FrameKind, ProducerId, TimestampMs};

/// Frames of one log on their way to the disk, and who waits for them, in order.
pub(crate) struct Group {
    pub log: Arc<LogInner>,
    pub runs: Vec<Run>,
    pub answers: Vec<(Done, Result<Appended>)>,
}

impl Group {
    /// Bytes of all frames.
    pub(crate) fn bytes(&self) -> u64 {
        self.runs.iter().map(|run| run.bytes).sum()
    }
    /// Makes the group part of what readers see, answers, and lets the log go on.
    pub(crate) fn publish(self, shared: &Shared) {
        {
            let now = shared.clock.monotonic();
            let mut state = self.log.state.write();
            for run in &self.runs {
                state.publish(run, now);
            }
        }
        if !self.runs.is_empty() {
            self.log.wake();
        }
        for (done, outcome) in self.answers {
            done.call(outcome);
        }
        shared.finished(&self.log);
    }
    /// Answers that nobody knows what the disk holds.
    pub(crate) fn fail(self, shared: &Shared, error: &Error) {
        for (done, outcome) in self.answers {
            let refused = matches!(&outcome, Err(e) if e.kind() != ErrorKind::Unknown);
            done.call(if refused { outcome } else { Err(error.clone()) });
        }
        shared.finished(&self.log);
    }
}

/// Numbers and places `items`, the next of `log`.
pub(crate) fn sequence(shared: &Shared, log: &Arc<LogInner>, items: Vec<Item>) -> Group {
    let mut group = Group { log: log.clone(), runs: Vec::new(), answers: Vec::with_capacity(items.len()) };
    let mut batches: HashMap<(ProducerId, u64), Batch> = HashMap::new();
    let now = shared.clock.now();
    let mut state = log.state.write();
    let group_first = state.marks.written();
    for item in items {
        let header = item.frame.header();
        let outcome = match state.look(&batches, header) {
            Seen::Stored(first_outcome) => Ok(first_outcome),
            Seen::TooOld => Err(Error::new(
                ErrorKind::Stale,
                format!("batch {} lies too far back to tell whether it was stored", header.batch_number),
            )),
            Seen::Never if header.kind == FrameKind::Close && state.newest.is_none() => {
                end_unwritten(&mut state, now)
            }
            Seen::Never => match admit(shared, log, &mut state, &item.frame) {
                Err(error) => Err(error),
                Ok(()) => {
                    let (placed, offset) = state.place(log.id, &item.frame, now, group_first);
                    let header = placed.header;
                    if header.producer != ProducerId::NONE {
                        batches.insert((header.producer, header.batch_number), Batch::of(&header));
                    }
                    let segment = state.segments.back().expect("just placed there").header(log.id);
                    push(&mut group.runs, segment, offset, placed);
                    Ok(LogState::outcome(&header))
                }
            },
        };
        group.answers.push((item.done, outcome));
    }
    group
}

fn push(
    runs: &mut Vec<Run>,
    segment: crate::segment::SegmentHeader,
    offset: u64,
    frame: crate::log_state::PlacedFrame,
) {
    let bytes = u64::from(frame.header.frame_bytes);
    match runs.last_mut() {
        Some(run) if run.segment.id == segment.id && run.offset + run.bytes == offset => {
            run.bytes += bytes;
            run.frames.push(frame);
        }
        _ => runs.push(Run { segment, offset, bytes, frames: vec![frame] }),
    }
}

/// Whether the log takes frames.
fn check_open(state: &LogState) -> Result<()> {
    if state.deleted {
        return Err(Error::new(ErrorKind::Closed, "the shard was deleted"));
    }
    if state.closing != Closing::Open {
        return Err(Error::new(ErrorKind::Closed, "the shard is closed; its children take the records"));
    }
    Ok(())
}

/// Ends a log that never had a frame. Nothing is written: an entry would take a segment of its own for each of what may
/// be thousands of idle shards.
fn end_unwritten(state: &mut LogState, now: TimestampMs) -> Result<Appended> {
    check_open(state)?;
    state.closing = Closing::Sealed;
    Ok(Appended { first: state.marks.written(), count: 0, arrival: now, duplicate: false })
}

/// Whether the log takes the frame; makes room for it in a segment.
fn admit(shared: &Shared, log: &LogInner, state: &mut LogState, frame: &Frame) -> Result<()> {
    check_open(state)?;
    let bytes = frame.bytes().len() as u64;
    if state.marks.written().plus(frame.header().indexes()).epoch() != shared.epoch {
        return Err(Error::new(
            ErrorKind::Unavailable,
            "the sequence numbers of this epoch are used up; restart the broker to begin the next",
        ));
    }
    if !state.has_room(bytes) {
        add_segment(shared, log, state, bytes)?;
    }
    Ok(())
}

/// Ends the segment being filled and begins the next, with room for a frame of `bytes`.
fn add_segment(shared: &Shared, log: &LogInner, state: &mut LogState, bytes: u64) -> Result<()> {
    let settings = &shared.settings;
    let capacity = state.next_capacity(settings.segment_bytes_min, settings.segment_bytes_max, bytes);
    let segment = Segment::new(state.next_segment, state.marks.written(), capacity);
    let id = SegmentId { log: log.id, number: segment.number };
    let file = match shared.pool.make(id, capacity) {
        Ok(file) => file,
        Err(error) => {
            shared.note_full(&error);
            return Err(error.with_kind(ErrorKind::Full));
        }
    };
    if let Err(error) = file.write(0, &[&segment.header(log.id).encode()], Sync::None) {
        // the name exists; the next try must not stumble over it
        let _ = shared.disk.remove(&id.file());
        return Err(Error::io(format!("cannot begin {}", id.file()), error).with_kind(ErrorKind::Full));
    }
    shared.open_segments.put(OpenSegment::new(id, file));
    state.next_segment += 1;
    state.push_segment(segment);
    shared.note_room();
    Ok(())
}
