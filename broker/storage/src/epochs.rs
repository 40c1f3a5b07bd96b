//! Where the earlier epochs of a log ended, so that its records can be counted: numbers rise without gap inside of an
//! epoch, and each begins with its first index (FORMAT.md, *Index*).
//!
//! Kept in memory only. Opening a log tells where the epoch before ended; older ends are looked up in the segments when
//! somebody first asks for them (`behind`), and remembered.

use tidemill_types::SequenceIndex;

/// The ends of all epochs of a log from some index on.
#[derive(Debug, Clone)]
pub(crate) struct EpochEnds {
    /// All ends above this are known. Never above `durable`.
    known_from: SequenceIndex,
    /// Of each epoch that has records and is over, the index right behind its last one; ascending.
    ends: Vec<SequenceIndex>,
}

impl EpochEnds {
    /// Of a log that ended at `durable` and goes on with a later epoch, or begins there.
    pub(crate) fn of_ended(durable: SequenceIndex) -> Self {
        let first = durable.epoch().first_index();
        Self { known_from: first.min(durable), ends: Vec::from_iter((durable > first).then_some(durable)) }
    }
    /// Where what is known begins.
    pub(crate) fn known_from(&self) -> SequenceIndex {
        self.known_from
    }
    /// Notes the ends between `from` and what was known before, ascending.
    pub(crate) fn extend(&mut self, from: SequenceIndex, mut ends: Vec<SequenceIndex>) {
        if from < self.known_from {
            ends.append(&mut self.ends);
            assert!(ends.is_sorted(), "epochs end in their order: {ends:?}");
            *self = Self { known_from: from, ends };
        }
    }
    /// How many indexes in `from..durable` were used; none if an end between them is not known.
    pub(crate) fn count(&self, from: SequenceIndex, durable: SequenceIndex) -> Option<u64> {
        let is_known = from >= self.known_from || from.epoch() == self.known_from.epoch();
        let up_to = |end: &SequenceIndex| end.get().saturating_sub(from.max(end.epoch().first_index()).get());
        is_known.then(|| self.ends.iter().chain([&durable]).map(up_to).sum())
    }
    /// The last index below `index` that was used, if all ends from there on are known.
    pub(crate) fn before(&self, index: SequenceIndex, durable: SequenceIndex) -> Option<SequenceIndex> {
        let mut ends = self.ends.iter().chain([&durable]).rev();
        let end = ends.find(|end| index.min(**end) > end.epoch().first_index())?;
        SequenceIndex::new(index.min(*end).get() - 1).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_types::Epoch;

    fn at(epoch: u32, counter: u64) -> SequenceIndex {
        Epoch::new(epoch).unwrap().first_index().plus(counter - 1)
    }

    #[test]
    fn numbers_that_no_epoch_used_are_not_counted() {
        let mut ends = EpochEnds::of_ended(at(5, 11));
        let durable = at(7, 4);
        for (from, count) in [(at(5, 1), 13), (at(5, 6), 8), (at(5, 11), 3), (at(6, 9), 3), (at(7, 1), 3)] {
            assert_eq!(ends.count(from, durable), Some(count), "{from}");
        }
        assert_eq!(ends.count(durable, durable), Some(0));
        assert_eq!(ends.count(at(4, 1), durable), None, "what came before is not known");
        ends.extend(at(2, 1), vec![at(2, 3), at(4, 2)]);
        assert_eq!(ends.count(at(2, 1), durable), Some(2 + 1 + 13));
        assert_eq!(ends.count(at(3, 1), durable), Some(1 + 13));
        for (index, before) in [
            (at(7, 3), Some(at(7, 2))),
            (at(9, 9), Some(at(7, 3))),
            (at(7, 1), Some(at(5, 10))),
            (at(6, 5), Some(at(5, 10))),
            (at(5, 99), Some(at(5, 10))),
            (at(5, 1), Some(at(4, 1))),
            (at(2, 1), None),
        ] {
            assert_eq!(ends.before(index, durable), before, "{index}");
        }
        ends.extend(at(3, 1), vec![]);
        assert_eq!(ends.known_from(), at(2, 1), "what is known stays known");
    }

    #[test]
    fn an_epoch_without_records_has_no_end() {
        assert_eq!(EpochEnds::of_ended(at(5, 1)).count(at(5, 1), at(6, 3)), Some(2));
        assert_eq!(EpochEnds::of_ended(SequenceIndex::ZERO).count(SequenceIndex::ZERO, at(1, 3)), Some(2));
    }
}
