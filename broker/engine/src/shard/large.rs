//! Frames that are too large to be checked and decrypted beside other work, noted from the moment they are handed over, so
//! that a reader at the tip knows of each before it can see it.
//!
//! Not here: what was stored before the engine was opened. Whoever reads that is not at the tip.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use tidemill_types::SequenceIndex;

/// So much is read by whoever waits for it, without another thread: it takes some 50 µs.
pub(crate) const INLINE_BYTES_MAX: usize = 256 << 10;

/// The large frames of one shard.
#[derive(Default)]
pub(super) struct LargeFrames {
    on_their_way: AtomicUsize,
    /// Behind the last one that was stored.
    until: AtomicU64,
}

/// A large frame that was handed over; dropped, it is on its way no more.
pub(super) struct LargeFrame(Arc<LargeFrames>);

impl LargeFrames {
    /// Notes a frame of so many bytes, if it is large.
    pub(super) fn note(self: &Arc<Self>, bytes: usize) -> Option<LargeFrame> {
        (bytes > INLINE_BYTES_MAX).then(|| {
            self.on_their_way.fetch_add(1, Ordering::SeqCst);
            LargeFrame(Arc::clone(self))
        })
    }
    /// Whether a large frame lies at or behind `from`, or may lie there soon.
    pub(super) fn are_ahead(&self, from: SequenceIndex) -> bool {
        // in this order: one that is no longer on its way is counted below
        self.on_their_way.load(Ordering::SeqCst) > 0 || from.get() < self.until.load(Ordering::SeqCst)
    }
}

impl LargeFrame {
    /// It was stored; its last record is the one before `next`.
    pub(super) fn stored(self, next: SequenceIndex) {
        self.0.until.fetch_max(next.get(), Ordering::SeqCst);
    }
}

impl Drop for LargeFrame {
    fn drop(&mut self) {
        self.0.on_their_way.fetch_sub(1, Ordering::SeqCst);
    }
}
