//! Who wrote which batches lately: so that a retried batch is answered with its first outcome and stored once.
//!
//! Lives inside the state of one log, moves when a batch becomes durable, is part of every checkpoint and is carried
//! on by recovery from the frames themselves. A producer is remembered for its last [`WINDOW`] batch numbers, until it has
//! been silent for [`IDLE_MS`] or [`PRODUCERS_MAX`] newer ones have come. Silence is counted on the monotonic clock, from the
//! start of the process on: by arrival times, a wall clock that was set forward while a batch was on its way again made it
//! be stored twice.

use crate::Appended;
use tidemill_types::{FrameHeader, MonotonicMs, ProducerId, SequenceIndex, TimestampMs, limits};

/// Batch numbers remembered of each producer, counted back from its highest: twice what it may have in flight.
pub(crate) const WINDOW: u64 = 2 * limits::PRODUCER_BATCHES_IN_FLIGHT_MAX as u64;
/// A producer that has been silent for so long is forgotten.
const IDLE_MS: u64 = 15 * 60 * 1000;
/// Producers remembered for one log.
const PRODUCERS_MAX: usize = 1024;

/// What is known of a batch number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It was not stored.
    Never,
    /// It was, with this outcome.
    Stored(Appended),
    /// It lies further back than is remembered.
    TooOld,
}

/// One stored batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Batch {
    pub number: u64,
    pub first: SequenceIndex,
    pub count: u32,
    pub arrival: TimestampMs,
}

impl Batch {
    pub(crate) fn of(header: &FrameHeader) -> Self {
        Self {
            number: header.batch_number,
            first: header.first,
            count: header.count,
            arrival: header.arrival,
        }
    }
    pub(crate) fn outcome(&self) -> Appended {
        Appended { first: self.first, count: self.count, arrival: self.arrival, duplicate: true }
    }
}

/// The producers of one log. Few and packed, for the sake of idle shards: one producer takes 72 bytes (as a hash map with
/// room to grow: 320).
#[derive(Debug, Clone, Default)]
pub(crate) struct Producers {
    /// By id, ascending.
    all: Vec<Known>,
}

/// What is known of one producer.
#[derive(Debug, Clone)]
struct Known {
    id: ProducerId,
    batches: Vec<Batch>,
    /// When it was last heard of.
    heard: MonotonicMs,
}

impl Known {
    fn is_silent(&self, now: MonotonicMs) -> bool {
        now.since(self.heard) > IDLE_MS
    }
}

impl Producers {
    /// What is known of a batch.
    pub(crate) fn look(&self, producer: ProducerId, number: u64) -> Seen {
        let Ok(at) = self.find(producer) else { return Seen::Never };
        let batches = &self.all[at].batches;
        if let Some(batch) = batches.iter().rev().find(|batch| batch.number == number) {
            return Seen::Stored(batch.outcome());
        }
        let highest = batches.iter().map(|batch| batch.number).max().unwrap_or(0);
        if number.saturating_add(WINDOW) <= highest { Seen::TooOld } else { Seen::Never }
    }

    /// Where a producer stands, or would.
    fn find(&self, producer: ProducerId) -> Result<usize, usize> {
        self.all.binary_search_by_key(&producer, |known| known.id)
    }

    /// Whether any producer is remembered.
    pub(crate) fn is_any(&self) -> bool {
        !self.all.is_empty()
    }

    /// Notes a batch that is durable.
    pub(crate) fn note(&mut self, producer: ProducerId, batch: Batch, now: MonotonicMs) {
        if producer == ProducerId::NONE {
            return;
        }
        if self.all.len() >= PRODUCERS_MAX && self.find(producer).is_err() {
            self.forget(now);
        }
        let at = self.find(producer).unwrap_or_else(|at| {
            if self.all.is_empty() {
                self.all.reserve_exact(1);
            }
            self.all.insert(at, Known { id: producer, batches: Vec::with_capacity(1), heard: now });
            at
        });
        let Known { batches, heard, .. } = &mut self.all[at];
        *heard = now;
        if batches.len() >= 2 * WINDOW as usize {
            let highest = batches.iter().map(|known| known.number).fold(batch.number, u64::max);
            batches.retain(|known| known.number.saturating_add(WINDOW) > highest);
        }
        batches.push(batch);
    }

    /// Forgets those that have been silent; no checkpoint carries them any more.
    pub(crate) fn forget_silent(&mut self, now: MonotonicMs) {
        let before = self.all.len();
        self.all.retain(|known| !known.is_silent(now));
        if self.all.len() < before {
            self.all.shrink_to_fit();
        }
    }

    /// Makes room: drops the silent, or else the longest silent eighth.
    fn forget(&mut self, now: MonotonicMs) {
        self.forget_silent(now);
        if self.all.len() >= PRODUCERS_MAX {
            let age = |known: &Known| {
                let last = known.batches.last().map_or(SequenceIndex::ZERO, |batch| batch.first);
                (known.heard, last)
            };
            let mut ages: Vec<_> = self.all.iter().map(age).collect();
            let (_, &mut oldest_kept, _) = ages.select_nth_unstable(PRODUCERS_MAX / 8);
            self.all.retain(|known| age(known) >= oldest_kept);
        }
    }

    /// All that is remembered and not silent at `now`, by id, for a checkpoint.
    pub(crate) fn snapshot(&self, now: MonotonicMs) -> Vec<(ProducerId, Vec<Batch>)> {
        let heard = self.all.iter().filter(|known| !known.is_silent(now));
        let recent = |Known { id, batches, .. }: &Known| {
            let highest = batches.iter().map(|batch| batch.number).max().unwrap_or(0);
            let kept = batches.iter().filter(|batch| batch.number.saturating_add(WINDOW) > highest);
            (*id, kept.copied().collect())
        };
        heard.map(recent).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: MonotonicMs = MonotonicMs::new(7);

    fn batch(number: u64, first: u64, at: u64) -> Batch {
        Batch { number, first: SequenceIndex::new(first).unwrap(), count: 1, arrival: TimestampMs::new(at) }
    }

    #[test]
    fn a_batch_is_recognised_within_the_window_and_refused_beyond_it() {
        let mut known = Producers::default();
        let id = ProducerId::new(1);
        for number in (1..=1000).filter(|n| n % 7 != 0) {
            known.note(id, batch(number, number * 10, number), NOW);
        }
        assert_eq!(known.look(id, 1000), Seen::Stored(batch(1000, 10_000, 1000).outcome()));
        assert_eq!(known.look(id, 994), Seen::Never, "a gap is filled later");
        assert_eq!(known.look(id, 1001), Seen::Never);
        assert_eq!(known.look(id, 1000 - 3 * WINDOW), Seen::TooOld);
        assert_eq!(known.look(ProducerId::new(2), 1), Seen::Never);
        assert!(known.all[0].batches.len() <= 2 * WINDOW as usize);
    }

    #[test]
    fn producers_are_bounded_and_the_silent_go_first() {
        let mut known = Producers::default();
        for id in 1..=3 * PRODUCERS_MAX as u64 {
            known.note(ProducerId::new(id), batch(1, id, id), NOW);
        }
        assert!(known.all.len() <= PRODUCERS_MAX);
        assert_eq!(known.look(ProducerId::new(1), 1), Seen::Never);
        assert!(matches!(known.look(ProducerId::new(3 * PRODUCERS_MAX as u64), 1), Seen::Stored(_)));
        assert!(!known.snapshot(NOW.plus_ms(IDLE_MS)).is_empty());
        assert!(known.snapshot(NOW.plus_ms(IDLE_MS + 1)).is_empty());
    }
}
