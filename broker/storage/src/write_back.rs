//! What lies in the page cache and is on the device only in the journal, or not yet at all.
//!
//! Two lists: segments that the next checkpoint must sync, and stretches that the operating system is asked to begin
//! writing every few MiB, so that a checkpoint never finds a mountain. Mode `interval` has a third: segments that were
//! written directly since the last timed sync.

use crate::segment::SegmentId;
use crate::sync::{Condvar, Mutex};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Write-back of a segment is asked for when so much has come. What is left for a checkpoint goes at once, and appends wait
/// behind it: at 10 MB/s over 8 shards with 4 MiB, checkpoints took 30 ms and the slowest append 41 to 130 ms (4 runs of 33 s);
/// with 512 KiB 10 ms and 19 to 51 ms, interleaved.
const STEP_BYTES: u64 = 512 << 10;
/// Stretches that may wait to be asked for; beyond, the checkpoint sees to them.
const WAITING_MAX: usize = 64;

/// Bytes `from..to` of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DirtyStretch {
    pub id: SegmentId,
    pub from: u64,
    pub to: u64,
}

#[derive(Default)]
struct State {
    dirty: BTreeMap<SegmentId, (u64, u64)>,
    to_sync: BTreeSet<SegmentId>,
    direct: BTreeSet<SegmentId>,
    waiting: VecDeque<DirtyStretch>,
    closed: bool,
}

/// See the module's header.
#[derive(Default)]
pub(crate) struct WriteBack {
    state: Mutex<State>,
    filled: Condvar,
}

impl WriteBack {
    /// Runs were copied to their places.
    pub(crate) fn note(&self, runs: impl IntoIterator<Item = DirtyStretch>) {
        let mut state = self.state.lock();
        for DirtyStretch { id, from, to } in runs {
            state.to_sync.insert(id);
            let (from, to) = *state.dirty.entry(id).and_modify(|(_, end)| *end = to).or_insert((from, to));
            if to - from >= STEP_BYTES {
                state.dirty.remove(&id);
                if state.waiting.len() < WAITING_MAX {
                    state.waiting.push_back(DirtyStretch { id, from, to });
                    self.filled.notify_one();
                }
            }
        }
    }
    /// A run was written to its place and nowhere else, and nobody has synced it.
    pub(crate) fn note_direct(&self, id: SegmentId) {
        self.state.lock().direct.insert(id);
    }
    /// What the checkpoint has to sync.
    pub(crate) fn take_to_sync(&self) -> BTreeSet<SegmentId> {
        let mut state = self.state.lock();
        state.dirty.clear();
        std::mem::take(&mut state.to_sync)
    }
    /// The checkpoint did not come to be: the next one has to sync these too.
    pub(crate) fn put_back(&self, segments: BTreeSet<SegmentId>) {
        self.state.lock().to_sync.extend(segments);
    }
    /// Whether a checkpoint has anything to sync.
    pub(crate) fn any(&self) -> bool {
        !self.state.lock().to_sync.is_empty()
    }
    /// What a timed sync has to sync besides the journal.
    pub(crate) fn take_direct(&self) -> BTreeSet<SegmentId> {
        std::mem::take(&mut self.state.lock().direct)
    }
    /// The next stretch to ask for; waits. `None` once closed.
    pub(crate) fn next(&self) -> Option<DirtyStretch> {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(stretch) = state.waiting.pop_front() {
                return Some(stretch);
            }
            self.filled.wait(&mut state);
        }
    }
    /// Nobody waits from here on.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.filled.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LogId;

    #[test]
    fn write_back_is_asked_for_in_steps_and_the_checkpoint_sees_every_segment() {
        let list = WriteBack::default();
        let id = SegmentId { log: LogId::new(1), number: 0 };
        let other = SegmentId { log: LogId::new(2), number: 0 };
        list.note([DirtyStretch { id: other, from: 64, to: 164 }]);
        let piece = STEP_BYTES / 4;
        list.note((0..5).map(|nth| DirtyStretch { id, from: nth * piece, to: (nth + 1) * piece }));
        assert_eq!(list.next(), Some(DirtyStretch { id, from: 0, to: STEP_BYTES }));
        list.close();
        assert_eq!(list.next(), None);
        assert_eq!(list.take_to_sync().into_iter().collect::<Vec<_>>(), [id, other]);
        assert!(list.take_to_sync().is_empty());
    }
}
