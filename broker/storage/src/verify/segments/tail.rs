//! The open end of a log: what was written since the checkpoint, in its segments and in the journal. It ends where there is no
//! next frame; unless something behind proves that what lies there was durable, which recovery would refuse. So whatever recovery
//! refuses is told here, with what would mend it.

use super::{Bridge, End, Log, Mend, Walk, Wrong};
use crate::journal::{Durable, ReplayRun};
use crate::recovery::{LOOK_BEHIND_BYTES, later_frame};
use crate::segment::{SegmentHeader, SegmentId};
use bytes::Bytes;
use tidemill_types::{Frame, FrameError, FrameHeader, SequenceIndex};

const MISSING: &str = "the file is missing, and with it records that the journal does not hold";

impl Log<'_> {
    /// The index that comes next; [`SequenceIndex::ZERO`] where the log is not known to have begun.
    pub(super) fn expected(&self, walk: &Walk<'_>) -> SequenceIndex {
        walk.next.or(self.entry.map(|entry| entry.durable)).unwrap_or(SequenceIndex::ZERO)
    }

    /// The runs with frames; others announce those that only a segment holds.
    pub(super) fn held(&self) -> impl Iterator<Item = &ReplayRun> {
        self.runs.iter().filter(|run| !run.bytes.is_empty())
    }

    /// A segment that does not follow the log: if something in it was written when what lies before it was durable, the end before it
    /// is damage, and not an end. Returns whether it follows once that is mended.
    pub(super) fn behind_the_end(
        &self,
        (id, capacity): (SegmentId, u64),
        window: &Bytes,
        own: Option<SegmentHeader>,
        walk: &mut Walk<'_>,
    ) -> bool {
        if walk.ended || self.durable != Durable::EachGroup {
            return false;
        }
        let expected = self.expected(walk);
        let holds_run = self.held().any(|run| run.segment.id == id);
        if !holds_run && later_frame(window, self.id.get(), expected).is_none() {
            return false;
        }
        walk.ended = true;
        let why = "the log ends here, but the next segment goes on behind records that are missing";
        match (own, walk.end) {
            (Some(header), Some(end)) if header.base > expected => {
                let to = end.at.saturating_add(Bridge::bytes_min(expected, header.base));
                let follower = self.segment(end.id.number + 1);
                if let Some(unmade) = end.unmade {
                    walk.missing(unmade);
                } else if follower != id {
                    walk.missing(SegmentHeader { id: follower, base: expected, capacity });
                } else if to <= end.capacity {
                    let why = FrameError::Malformed(why);
                    walk.bridge(end.id, (end.at, to), (expected, header.base), &why);
                    walk.ended = false;
                } else {
                    walk.found(&end.id.file(), end.at, why.to_owned(), Wrong::damage(None));
                }
            }
            (Some(header), None) if header.base > expected && id.number > 0 => {
                let base = expected.max(header.base.epoch().first_index());
                walk.missing(SegmentHeader { id: self.segment(id.number - 1), base, capacity });
            }
            (None, _) => {
                let header = SegmentHeader { id, base: expected, capacity };
                let what = "its header is not intact, but frames behind it are".to_owned();
                walk.found(&id.file(), 0, what, Wrong::damage(Mend::Header(header)));
            }
            _ => {
                let what = format!("it does not go on where the log ends, at {expected}");
                walk.found(&id.file(), 0, what, Wrong::damage(None));
            }
        }
        !walk.ended
    }

    /// A segment that is not there, and that the next start makes from what the journal holds of it.
    pub(super) fn verify_unmade(&self, segment: SegmentHeader, walk: &mut Walk<'_>) {
        let SegmentHeader { id, base, capacity } = segment;
        if !base.follows(self.expected(walk))
            && !self.behind_the_end((id, capacity), &Bytes::new(), Some(segment), walk)
        {
            return;
        }
        if walk.ended {
            return;
        }
        walk.next = walk.next.max(Some(base));
        let at = self.take_runs(id, SegmentHeader::BYTES as u64, walk);
        let is_behind = |run: &ReplayRun| run.segment.id == id && run.offset > at;
        if self.durable == Durable::EachGroup && !walk.ended && self.held().any(is_behind) {
            walk.missing(segment);
            walk.ended = true;
        }
        walk.end = Some(End { id, at, capacity, unmade: Some(segment) });
    }

    /// Takes the frames that the journal holds from this place of a segment on; tells where they end.
    fn take_runs(&self, id: SegmentId, mut at: u64, walk: &mut Walk<'_>) -> u64 {
        while !walk.ended
            && let Some(run) = self.held().find(|run| run.segment.id == id && run.offset == at)
        {
            let mut inside = 0;
            while inside < run.bytes.len()
                && let Ok(header) = FrameHeader::decode(&run.bytes[inside..])
            {
                walk.take(&header);
                inside += header.frame_bytes as usize;
            }
            if inside == 0 {
                break;
            }
            at += inside as u64;
        }
        at
    }

    /// A file without a header of its own was never begun, unless a frame lies where the first belongs.
    pub(super) fn headless(&self, id: SegmentId, bytes: &Bytes, walk: &mut Walk<'_>) {
        if bytes.len() > SegmentHeader::BYTES
            && let Ok(frame) = Frame::decode(&bytes.slice(SegmentHeader::BYTES..))
            && walk.is_next(frame.header())
        {
            let base = frame.header().first;
            let header = SegmentHeader { id, base, capacity: bytes.len() as u64 };
            let what = format!("its header is not intact, but frame {base} behind it is");
            walk.found(&id.file(), 0, what, Wrong::damage(Mend::Header(header)));
        }
    }

    /// What was written since the checkpoint: it ends where there is no next frame, neither here nor in the journal, nor anything
    /// behind that proves one.
    pub(super) fn walk_open(&self, id: SegmentId, bytes: &Bytes, from: u64, walk: &mut Walk<'_>) {
        let mut at = usize::try_from(from).unwrap_or(bytes.len());
        loop {
            at = self.take_frames(id, bytes, at, walk);
            walk.end = Some(End { id, at: at as u64, capacity: bytes.len() as u64, unmade: None });
            if self.durable != Durable::EachGroup {
                return; // what lies behind proves nothing
            }
            let Some((to, next, why)) = self.goes_on(id, bytes, at, walk) else { return };
            let first = walk.next.unwrap_or(SequenceIndex::ZERO);
            walk.bridge(id, (at as u64, to as u64), (first, next), &FrameError::Malformed(why));
            // what lies behind can be told as if that were mended, if it can be
            walk.ended |= first >= next;
            if walk.ended {
                return;
            }
            at = to;
        }
    }

    /// Takes the frames that follow; tells where they end.
    fn take_frames(&self, id: SegmentId, bytes: &Bytes, mut at: usize, walk: &mut Walk<'_>) -> usize {
        while at < bytes.len() && !walk.ended {
            let taken = usize::try_from(self.take_runs(id, at as u64, walk)).unwrap_or(bytes.len());
            if taken > at {
                at = taken;
                continue;
            }
            match Frame::decode(&bytes.slice(at..)) {
                Ok(frame) if walk.is_next(frame.header()) => {
                    walk.take(frame.header());
                    at += frame.header().frame_bytes as usize;
                }
                _ => break,
            }
        }
        at
    }

    /// Where the log goes on behind a place that is not its next frame, with which index, and what proves it.
    fn goes_on(
        &self,
        id: SegmentId,
        bytes: &Bytes,
        at: usize,
        walk: &Walk<'_>,
    ) -> Option<(usize, SequenceIndex, &'static str)> {
        let expected = walk.next.unwrap_or(SequenceIndex::ZERO);
        let behind = |run: &&ReplayRun| run.segment.id == id && run.offset > at as u64;
        let run = self.held().filter(behind).min_by_key(|run| run.offset);
        let run = run.map(|run| (usize::try_from(run.offset).unwrap_or(bytes.len()), run));
        // between here and there, large frames may lie that the journal does not have
        let end =
            run.as_ref().map_or(bytes.len(), |(offset, _)| *offset).min(at.saturating_add(LOOK_BEHIND_BYTES));
        let window = bytes.slice(at.min(bytes.len())..end.max(at).min(bytes.len()));
        match (later_frame(&window, self.id.get(), expected).filter(|_| !walk.ended), run) {
            (Some((found, header)), _) => {
                Some((at + found, header.first, "the frame there is not intact, but one behind it is"))
            }
            (None, Some((offset, run))) => {
                let next = FrameHeader::decode(&run.bytes).map_or(expected, |header| header.first);
                Some((offset, next, "frames that the journal holds lie behind it"))
            }
            (None, None) => None,
        }
    }
}

impl Walk<'_> {
    /// Tells a segment that has to be there, and is not.
    fn missing(&mut self, segment: SegmentHeader) {
        self.found(&segment.id.file(), 0, MISSING.to_owned(), Wrong::damage(Mend::Whole(segment)));
    }
}
