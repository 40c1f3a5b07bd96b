//! Where a log begins, is durable, and has given out numbers.

use tidemill_types::SequenceIndex;

/// The marks of one log. Each is the index that the next record in that state will have:
/// `horizon ≤ durable ≤ written`, always. Records in `horizon..durable` are readable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    horizon: SequenceIndex,
    durable: SequenceIndex,
    written: SequenceIndex,
}

impl Marks {
    pub(crate) fn new(horizon: SequenceIndex, durable: SequenceIndex, written: SequenceIndex) -> Self {
        Self { horizon, durable, written }.checked()
    }
    /// The first index that is kept.
    pub fn horizon(&self) -> SequenceIndex {
        self.horizon
    }
    /// The first index that is not yet durable.
    pub fn durable(&self) -> SequenceIndex {
        self.durable
    }
    /// The first index that is not yet given out.
    pub fn written(&self) -> SequenceIndex {
        self.written
    }

    /// The one place where a mark moves; marks never go back.
    pub(crate) fn set(&mut self, next: Self) {
        assert!(self.horizon <= next.horizon, "the horizon went back: {self:?} to {next:?}");
        assert!(self.durable <= next.durable, "the durable mark went back: {self:?} to {next:?}");
        assert!(self.written <= next.written, "the written mark went back: {self:?} to {next:?}");
        *self = next.checked();
    }
    pub(crate) fn with_horizon(self, horizon: SequenceIndex) -> Self {
        Self { horizon, ..self }
    }
    pub(crate) fn with_durable(self, durable: SequenceIndex) -> Self {
        Self { durable, ..self }
    }
    pub(crate) fn with_written(self, written: SequenceIndex) -> Self {
        Self { written, ..self }
    }

    fn checked(self) -> Self {
        assert!(self.horizon <= self.durable, "the horizon passed the durable mark: {self:?}");
        assert!(self.durable <= self.written, "the durable mark passed the written one: {self:?}");
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(value: u64) -> SequenceIndex {
        SequenceIndex::new(value).unwrap()
    }

    #[test]
    #[should_panic(expected = "passed the written one")]
    fn nothing_is_durable_before_it_is_written() {
        let mut marks = Marks::new(at(1), at(1), at(1));
        marks.set(marks.with_durable(at(2)));
    }

    #[test]
    #[should_panic(expected = "went back")]
    fn marks_never_go_back() {
        let mut marks = Marks::new(at(1), at(5), at(5));
        marks.set(marks.with_durable(at(4)));
    }
}
