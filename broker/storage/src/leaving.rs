//! Files whose names are gone: their room goes back to the file system piece by piece.
//!
//! Why: a file system that gives back 128 MiB in one go holds up every write for 35 ms meanwhile (ext4 with discard on the
//! development machine), and a deleted stream has many such files: appends stood for half a second. In pieces of 4 MiB with
//! pauses the slowest write took 2.6 ms. How it lives: checkpoints add files, one thread takes them; when it is to end, or
//! when too many wait, files go at once. A file here has no name and no reader.

use crate::disk::DiskFile;
use crate::sync::{Condvar, Mutex};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Given back at a time.
const PIECE_BYTES: u64 = 4 << 20;
/// Between two pieces, for others. Together with the pieces themselves: over 1 GB/s.
const PAUSE: Duration = Duration::from_millis(2);
/// Files that may wait, each with a descriptor.
const WAITING_MAX: usize = 256;

#[derive(Default)]
struct State {
    files: VecDeque<Arc<dyn DiskFile>>,
    /// Whether somebody takes them.
    taken: bool,
}

/// See the module's header.
#[derive(Default)]
pub(crate) struct Leaving {
    state: Mutex<State>,
    changed: Condvar,
}

impl Leaving {
    /// Takes a file over, or lets it go at once if nobody would take it.
    pub(crate) fn add(&self, file: Arc<dyn DiskFile>) {
        let mut state = self.state.lock();
        if state.taken && state.files.len() < WAITING_MAX {
            state.files.push_back(file);
            self.changed.notify_one();
        }
    }
    /// From now on files wait for [`Leaving::run`].
    pub(crate) fn begin(&self) {
        self.state.lock().taken = true;
    }
    /// Gives files back until [`Leaving::close`].
    pub(crate) fn run(&self) {
        while let Some(file) = self.next() {
            let mut at = 0;
            while at < file.len() && self.state.lock().taken {
                let bytes = PIECE_BYTES.min(file.len() - at);
                if let Err(error) = file.give_back(at, bytes) {
                    tracing::debug!(%error, "the room of a file goes back in one go");
                    break;
                }
                at += bytes;
                std::thread::sleep(PAUSE);
            }
        }
    }
    fn next(&self) -> Option<Arc<dyn DiskFile>> {
        let mut state = self.state.lock();
        loop {
            if !state.taken {
                return None;
            }
            if let Some(file) = state.files.pop_front() {
                return Some(file);
            }
            self.changed.wait(&mut state);
        }
    }
    /// What waits goes at once, and what comes later too.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.taken = false;
        state.files.clear();
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::fault::FaultDisk;
    use crate::disk::{Disk, WriteMode};

    #[test]
    fn a_file_is_held_until_its_room_is_given_back_and_not_beyond_the_end() {
        let disk = FaultDisk::new(1);
        disk.lock().unwrap();
        let file = || disk.create("file", 16 << 20, WriteMode::Buffered).unwrap();
        let leaving = Leaving::default();
        let early = file();
        leaving.add(early.clone());
        assert_eq!(Arc::strong_count(&early), 1, "nobody would take it");
        disk.remove("file").unwrap();
        let paced = file();
        leaving.begin();
        std::thread::scope(|scope| {
            scope.spawn(|| leaving.run());
            leaving.add(paced.clone());
            while Arc::strong_count(&paced) > 1 {
                std::thread::yield_now();
            }
            disk.remove("file").unwrap();
            leaving.close();
        });
        let late = file();
        leaving.add(late.clone());
        assert_eq!(Arc::strong_count(&late), 1);
    }
}
