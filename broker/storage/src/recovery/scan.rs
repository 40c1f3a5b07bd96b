//! Forward from a log's safe point: frame by frame while they are intact and the next of their log, then the cut.
//!
//! The next frame carries the next index, or the first of a later epoch. Stale bytes of a recycled segment carry another log
//! or a lower index; a torn group is the newest of its log. An intact frame that was written when the bad one was durable
//! already proves damage.

use super::{Recovery, Reviving, leave};
use crate::disk::Sync;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::{Durable, ReplayRun};
use crate::log_state::{Closing, Segment};
use crate::producers::Batch;
use crate::segment::{Pages, SegmentHeader, SegmentId};
use bytes::Bytes;
use std::collections::BTreeSet;
use tidemill_types::{Frame, FrameHeader, FrameKind, SequenceIndex, limits};

/// Behind a bad frame, intact ones are looked for so far: two frames of the maximum size and a group.
pub(crate) const LOOK_BEHIND_BYTES: usize = 2 * limits::FRAME_STORED_BYTES_MAX + (8 << 20);

/// Extends the log by all intact frames, removes the segments behind the cut.
pub(super) fn forward(
    work: &Recovery<'_>,
    log: &mut Reviving,
    durable: Durable,
    touched: &mut BTreeSet<SegmentId>,
) -> Result<()> {
    loop {
        walk_last(work, log, touched)?;
        if log.state.closing == Closing::Sealed || !enter_next(work, log)? {
            break;
        }
    }
    if durable == Durable::EachGroup {
        tell_damage(work, log)?;
    }
    // a segment without frames was begun in an epoch that is over: the next append begins it anew
    if log.state.segments.back().is_some_and(|last| last.durable_end == SegmentHeader::BYTES as u64) {
        log.state.next_segment -= 1;
        log.state.segments.pop_back();
    }
    let behind = log.files.split_off(&log.state.next_segment);
    leave(work, log.id, behind.into_keys());
    Ok(())
}

/// The beginning of what lies behind `from` in a segment.
fn window_of(work: &Recovery<'_>, id: SegmentId, from: u64, capacity: u64) -> Result<Bytes> {
    let length = usize::try_from(capacity - from).unwrap_or(usize::MAX).min(LOOK_BEHIND_BYTES);
    let open = work.open.get(id)?;
    open.ready(from, length)?;
    open.bytes(from, length)
}

/// Takes the intact frames of the segment being filled.
fn walk_last(work: &Recovery<'_>, log: &mut Reviving, touched: &mut BTreeSet<SegmentId>) -> Result<()> {
    let state = &mut log.state;
    let Some(segment) = state.segments.back_mut() else { return Ok(()) };
    let id = SegmentId { log: log.id, number: segment.number };
    let from = segment.durable_end;
    let length = usize::try_from(segment.capacity - from).expect("segments fit in memory maps");
    let open = work.open.get(id)?;
    let (bytes, mut pages) = (open.bytes(from, length)?, Pages::new(&open, from, length));
    let mut at = 0;
    loop {
        pages.up_to(at + FrameHeader::BYTES)?;
        let Ok(header) = FrameHeader::decode(&bytes[at..]) else { break };
        pages.up_to(at + header.frame_bytes as usize)?;
        if Frame::decode(&bytes.slice(at..)).is_err() {
            break;
        }
        if header.log != log.id.get() || !header.first.follows(state.marks.durable()) {
            break;
        }
        segment.publish(&header, from + at as u64);
        let marks = state.marks.with_written(header.next()).with_durable(header.next());
        state.marks.set(marks);
        state.newest = state.newest.max(Some(header.arrival));
        state.producers.note(header.producer, Batch::of(&header), work.now);
        at += header.frame_bytes as usize;
        if header.kind == FrameKind::Close {
            state.closing = Closing::Sealed;
            break;
        }
    }
    let found = from..=from + at as u64;
    let of_journal = |run: &&ReplayRun| {
        let end = run.offset + run.bytes.len() as u64;
        run.segment.id == id && found.contains(&run.offset) && found.contains(&end)
    };
    let just_written: usize = log.runs.iter().filter(of_journal).map(|run| run.bytes.len()).sum();
    if at > just_written {
        touched.insert(id);
        write_again(work, segment.header(log.id), from, &bytes[..at])?;
    }
    Ok(())
}

/// Writes what was found once more, so that the sync at the end of recovery means something: after a failed write or sync
/// the page cache may show what the device never got, and count it as clean.
fn write_again(work: &Recovery<'_>, segment: SegmentHeader, from: u64, found: &[u8]) -> Result<()> {
    const STEP: usize = 1 << 20;
    let id = segment.id;
    let io = |offset| move |e| Error::io(format!("cannot write {} at {offset}", id.file()), e);
    let file = &work.open.get(id)?.file;
    file.write(0, &[&segment.encode()], Sync::None).map_err(io(0))?;
    let mut offset = from;
    for piece in found.chunks(STEP) {
        let copy = piece.to_vec(); // the source is a map of the very pages that are written
        file.write(offset, &[&copy], Sync::None).map_err(io(offset))?;
        offset += copy.len() as u64;
    }
    Ok(())
}

/// Goes on to the segment behind, if it follows.
fn enter_next(work: &Recovery<'_>, log: &mut Reviving) -> Result<bool> {
    let Some((number, capacity)) = log.files.range(log.state.next_segment..).next().map(|(n, c)| (*n, *c))
    else {
        return Ok(false);
    };
    let expected_number = log.state.segments.back().map(|last| last.number + 1);
    let id = SegmentId { log: log.id, number };
    let Some(header) = header_of(work, id, capacity)? else { return Ok(false) };
    if expected_number.is_some_and(|expected| expected != number)
        || !header.base.follows(log.state.marks.durable())
    {
        return Ok(false);
    }
    if log.state.segments.is_empty() && log.state.marks.durable() == SequenceIndex::ZERO {
        // a log that no checkpoint knows begins here
        log.state.marks = crate::watermarks::Marks::new(header.base, header.base, header.base);
    }
    let mut segment = Segment::new(number, header.base, capacity);
    segment.birth_synced = true; // recovery syncs what it keeps
    log.state.push_segment(segment);
    log.state.next_segment = number + 1;
    Ok(true)
}

/// The header of a segment file, if it is the one of this segment.
fn header_of(work: &Recovery<'_>, id: SegmentId, capacity: u64) -> Result<Option<SegmentHeader>> {
    if capacity < SegmentHeader::BYTES as u64 {
        return Ok(None);
    }
    let mut head = [0; SegmentHeader::BYTES];
    let name = id.file();
    work.open.get(id)?.file.read(0, &mut head).map_err(|e| Error::io(format!("cannot read {name}"), e))?;
    Ok(SegmentHeader::decode(&head).filter(|header| header.id == id && header.capacity == capacity))
}

/// Refuses the log if what lies behind the cut proves that what was cut had been durable.
fn tell_damage(work: &Recovery<'_>, log: &Reviving) -> Result<()> {
    let expected = log.state.marks.durable();
    let (cut_number, cut_offset) =
        log.state.segments.back().map_or((log.state.next_segment, 0), |last| (last.number, last.durable_end));
    let id = SegmentId { log: log.id, number: cut_number };
    let refuse = |what: String| {
        let file = id.file();
        Err(Error::new(ErrorKind::Damaged, format!("{file} is damaged at offset {cut_offset}: {what}")))
    };
    if log.replayed_end() > Some((cut_number, cut_offset)) {
        return refuse("frames that the journal holds lie behind it".to_owned());
    }
    if let Some(last) = log.state.segments.back() {
        let window = window_of(work, id, last.durable_end, last.capacity)?;
        if let Some((at, frame)) = later_frame(&window, log.id.get(), expected) {
            return refuse(format!(
                "the frame there is not intact, but that of {} at {} is",
                frame.first,
                cut_offset + at as u64
            ));
        }
    }
    for (&number, &capacity) in log.files.range(log.state.next_segment..) {
        if capacity <= SegmentHeader::BYTES as u64 {
            continue;
        }
        let behind = SegmentId { log: log.id, number };
        let header = header_of(work, behind, capacity)?;
        let window = window_of(work, behind, SegmentHeader::BYTES as u64, capacity)?;
        // a header is durable before the first frame behind it
        if header.is_none()
            && let Ok(frame) = Frame::decode(&window)
            && frame.header().log == log.id.get()
            && frame.header().first >= expected
        {
            let (file, first) = (behind.file(), frame.header().first);
            let message =
                format!("{file} is damaged at offset 0: its header is not intact, but frame {first} is");
            return Err(Error::new(ErrorKind::Damaged, message));
        }
        if let Some((_, frame)) = later_frame(&window, log.id.get(), expected) {
            return refuse(format!("{} goes on with {}", behind.file(), frame.first));
        }
    }
    Ok(())
}

fn proves_damage(header: &FrameHeader, log: u64, expected: SequenceIndex) -> bool {
    header.log == log && header.group_first() > expected
}

/// The first intact frame of the log in `bytes` that was written when `expected` was durable already.
pub(crate) fn later_frame(bytes: &Bytes, log: u64, expected: SequenceIndex) -> Option<(usize, FrameHeader)> {
    const LOG_OFFSET: usize = 16;
    let needle = log.to_le_bytes();
    memchr::memmem::find_iter(bytes, &needle).find_map(|found| {
        let at = found.checked_sub(LOG_OFFSET)?;
        let header = FrameHeader::decode(&bytes[at..]).ok()?;
        if !proves_damage(&header, log, expected) {
            return None;
        }
        Frame::decode(&bytes.slice(at..)).ok().map(|frame| (at, *frame.header()))
    })
}
