//! Which of the streams that had a name: what is bound to one (iterators, leases, batches on their way) dies with it.

use std::fmt;

/// Tells streams of the same name apart: rises with each stream made, never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamIncarnation(u64);

impl StreamIncarnation {
    /// From the number.
    pub const fn new(value: u64) -> Self {
        Self(value)
    }
    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for StreamIncarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
