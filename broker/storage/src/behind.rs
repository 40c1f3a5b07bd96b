//! What lies behind a place in a log: how many records, and since when the first of them is there.
//!
//! Both are exact. Counting touches no disk where the place and the tip are of one epoch, or of this and the last one before
//! the log was opened. Where older epochs end is read from their segments, once: per end, the headers of at most one
//! spacing of the sparse index.

use crate::damage::{Lying, damaged};
use crate::error::{Error, ErrorKind, Result};
use crate::log_state::{Closing, LogState};
use crate::segment::SegmentId;
use crate::shard_log::{ShardLog, TRIM_RACES_MAX, has_durable, segment_of};
use tidemill_types::{Epoch, FrameKind, SequenceIndex, TimestampMs};

/// A segment in which epochs end that are not known, as far as they are not.
struct Unknown {
    segment: u64,
    base: SequenceIndex,
    limit: SequenceIndex,
}

impl ShardLog {
    /// How many durable records there are at `from` and behind it. May read the disk.
    pub fn records_from(&self, from: SequenceIndex) -> Result<u64> {
        for _ in 0..TRIM_RACES_MAX {
            let (begin, unknown) = {
                let state = self.inner.state.read();
                let from = from.max(state.marks.horizon());
                match state.records_from(from) {
                    Some(records) => return Ok(records),
                    None => state.unknown_epochs(from),
                }
            };
            if let Some(ends) = self.epoch_ends(&unknown)? {
                self.inner.state.write().epochs.extend(begin, ends);
            }
        }
        Err(trimmed_away())
    }

    /// When the first durable record at `from` or behind it arrived; none if there is none. May read the disk.
    pub fn arrival_from(&self, from: SequenceIndex) -> Result<Option<TimestampMs>> {
        let mut from = from;
        for _ in 0..TRIM_RACES_MAX {
            let target = {
                let state = self.inner.state.read();
                from = from.max(state.marks.horizon());
                let Some(at) = segment_of(&state, from).filter(|_| state.records_from(from) != Some(0))
                else {
                    return Ok(None);
                };
                let segment = &state.segments[at];
                if from <= segment.base && has_durable(segment) {
                    return Ok(Some(segment.first_arrival));
                }
                self.target(&state, at, |index| index.seek(from))
            };
            let stretch = self.refine(target, |index| index.seek(from))?;
            let arrival = self.find_in(&stretch, |lying| match lying {
                Lying::Frame(_, header) if header.last() >= from && header.kind == FrameKind::Records => {
                    Some(header.arrival)
                }
                _ => None, // what is bad is passed over, as readers do
            });
            let arrival = match arrival {
                Err(error) if error.kind() == ErrorKind::Io && self.has_left(stretch.segment) => continue,
                arrival => arrival?,
            };
            if arrival.is_some() {
                return Ok(arrival);
            }
            if stretch.behind <= from {
                return Ok(None);
            }
            from = stretch.behind;
        }
        Err(trimmed_away())
    }

    /// The last record below `from` that is kept, and when it arrived; none if there is none. May read the disk.
    pub fn record_before(&self, from: SequenceIndex) -> Result<Option<(SequenceIndex, TimestampMs)>> {
        // from here on all ends are known
        self.records_from(SequenceIndex::ZERO)?;
        let before = {
            let state = self.inner.state.read();
            state.epochs.before(from, state.marks.durable()).filter(|before| *before >= state.marks.horizon())
        };
        let Some(before) = before else { return Ok(None) };
        match self.arrival_from(before)? {
            Some(arrival) => Ok(Some((before, arrival))),
            // the closing entry; or it was trimmed a moment ago
            None => {
                if self.records_from(SequenceIndex::ZERO)? > 0 {
                    self.record_before(before)
                } else {
                    Ok(None)
                }
            }
        }
    }

    /// The ends of the epochs that are over within these segments; none if one of them is trimmed away meanwhile.
    fn epoch_ends(&self, unknown: &[Unknown]) -> Result<Option<Vec<SequenceIndex>>> {
        let mut ends = Vec::new();
        for segment in unknown {
            let mut begin = Some(segment.base);
            while let Some(first) = begin {
                match self.epoch_end(segment, first) {
                    Ok((end, next)) => {
                        ends.extend(end);
                        begin = next;
                    }
                    Err(error) if error.kind() == ErrorKind::Io && self.has_left(self.id_of(segment)) => {
                        return Ok(None);
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(Some(ends))
    }

    /// Where the epoch of `first` ends in a segment, unless it goes on behind what is looked at; and where the next begins
    /// in it, if one does.
    fn epoch_end(
        &self,
        unknown: &Unknown,
        first: SequenceIndex,
    ) -> Result<(Option<SequenceIndex>, Option<SequenceIndex>)> {
        let last = last_of_epoch(first);
        let target = {
            let state = self.inner.state.read();
            let at = state.segments.iter().position(|segment| segment.number == unknown.segment);
            let gone = || Error::new(ErrorKind::Io, "the segment was trimmed");
            self.target(&state, at.ok_or_else(gone)?, |index| index.seek(last))
        };
        let stretch = self.refine(target, |index| index.seek(last))?;
        let mut end = None;
        // where the next epoch begins, unless what is looked at ends before
        let next = self.find_in(&stretch, |lying| match lying {
            Lying::Bad(bad) => Some(Err(damaged(stretch.segment, stretch.offset + bad.at as u64, &bad.why))),
            Lying::Frame(_, header) if header.first >= unknown.limit => Some(Ok(None)),
            Lying::Frame(_, header) if header.first > last => Some(Ok(Some(header.first))),
            Lying::Frame(_, header) => {
                end = Some(header.next());
                None
            }
        })?;
        match next.transpose()?.flatten() {
            Some(next) => Ok((end, Some(next))),
            None => Ok((end.filter(|end| *end != unknown.limit), None)),
        }
    }

    fn id_of(&self, unknown: &Unknown) -> SegmentId {
        SegmentId { log: self.inner.id, number: unknown.segment }
    }
}

impl LogState {
    /// How many records there are at `from` and behind it; none if that is not known without looking at segments.
    fn records_from(&self, from: SequenceIndex) -> Option<u64> {
        let indexes = self.epochs.count(from, self.marks.durable())?;
        // the closing entry has an index too
        Some(indexes - u64::from(indexes > 0 && self.closing == Closing::Sealed))
    }

    /// The segments in which epochs end that are not known, back to the one that holds `from`; and where that begins.
    fn unknown_epochs(&self, from: SequenceIndex) -> (SequenceIndex, Vec<Unknown>) {
        let known_from = self.epochs.known_from();
        let front = self.segments.partition_point(|segment| segment.base <= from).saturating_sub(1);
        let begin = self.segments.get(front).map_or(from, |segment| segment.base);
        let until =
            |at: usize| self.segments.get(at + 1).map_or(known_from, |next| next.base.min(known_from));
        let within = self.segments.iter().enumerate().skip(front).take_while(|(_, s)| s.base < known_from);
        let unknown = within
            .map(|(at, segment)| Unknown { segment: segment.number, base: segment.base, limit: until(at) })
            .filter(|unknown| unknown.base.epoch() != unknown.limit.epoch());
        (begin.min(from), unknown.collect())
    }
}

/// The last index that the epoch of `index` could use.
fn last_of_epoch(index: SequenceIndex) -> SequenceIndex {
    let next = Epoch::new(index.epoch().get() + 1).map_or(SequenceIndex::MAX, |next| next.first_index());
    SequenceIndex::new(next.get() - 1).unwrap_or(SequenceIndex::MAX)
}

fn trimmed_away() -> Error {
    Error::new(ErrorKind::Unavailable, "records are trimmed faster than they could be counted; try again")
}
