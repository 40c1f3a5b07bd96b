//! Recycled segments: files whose blocks have been written once already, kept for the next segment of the largest size.
//!
//! A segment that has left its log is *retired* first: only after the next checkpoint, which no longer names it, may its file
//! go. It enters the pool if it has the right size, there is room and nobody reads it; otherwise it is removed (a reader
//! keeps its bytes: removing a name takes nothing from a map).

use super::{FOLDER, OpenSegment, OpenSegments, SegmentId};
use crate::disk::{Disk, DiskFile, WriteMode};
use crate::error::{Error, Result};
use crate::sync::Mutex;
use std::io;
use std::sync::{Arc, Weak};

/// A file of this size takes its time to remove: 35 ms for 128 MiB on the development machine.
const LARGE_BYTES: u64 = 4 << 20;
const PREFIX: &str = "pool-";
const SUFFIX: &str = ".recycled";

/// A segment that has left its log.
pub(crate) struct Retired {
    pub id: SegmentId,
    pub capacity: u64,
    /// As it was open when it left; whoever reads it keeps it alive.
    pub open: Weak<OpenSegment>,
}

/// The files at hand.
pub(crate) struct Pool {
    disk: Arc<dyn Disk>,
    file_bytes: u64,
    most: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    names: Vec<String>,
    next: u64,
}

impl Pool {
    pub(crate) fn new(disk: Arc<dyn Disk>, file_bytes: u64, most: usize) -> Self {
        Self { disk, file_bytes, most, state: Mutex::default() }
    }

    /// Takes over a file found at start-up; `false` if the name is not of the pool. One of another size is removed.
    pub(crate) fn adopt(&self, name: &str, bytes: u64) -> Result<bool> {
        let Some(number) = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(SUFFIX)) else {
            return Ok(false);
        };
        let mut state = self.state.lock();
        let number: u64 = number.parse().unwrap_or(0);
        state.next = state.next.max(number + 1);
        let path = format!("{FOLDER}/{name}");
        if bytes == self.file_bytes && state.names.len() < self.most {
            state.names.push(path);
        } else {
            self.disk.remove(&path).map_err(|e| Error::io(format!("cannot remove {path}"), e))?;
        }
        Ok(true)
    }

    /// A file for segment `id`, recycled or new. Its old bytes mean nothing. On a full disk the files at hand make room.
    pub(crate) fn make(&self, id: SegmentId, bytes: u64) -> Result<Arc<dyn DiskFile>> {
        let name = id.file();
        if bytes == self.file_bytes
            && let Some(recycled) = self.state.lock().names.pop()
        {
            self.disk
                .rename(&recycled, &name)
                .map_err(|e| Error::io(format!("cannot rename {recycled}"), e))?;
            // the name must not stand in the way of the next try
            return self
                .disk
                .open(&name, WriteMode::Buffered)
                .inspect_err(|_| drop(self.disk.remove(&name)))
                .map_err(|e| Error::io(format!("cannot open {name}"), e));
        }
        loop {
            match self.disk.create(&name, bytes, WriteMode::Buffered) {
                Err(error) if error.kind() == io::ErrorKind::StorageFull && self.give_one_up() => {}
                made => {
                    return made.map_err(|e| {
                        Error::io(format!("cannot allocate a segment of {bytes} bytes ({name})"), e)
                    });
                }
            }
        }
    }

    /// Removes one of the files at hand, for what finds no room on the disk; `false` if there is none.
    pub(crate) fn give_one_up(&self) -> bool {
        let Some(path) = self.state.lock().names.pop() else { return false };
        if let Err(error) = self.disk.remove(&path) {
            tracing::warn!(%error, file = path, "a recycled segment could not be removed; the next start finds it");
        }
        true
    }

    /// Recycles or removes a retired segment. What was removed, is large and read by nobody is handed back, open: its room
    /// goes with it, and is better given back piece by piece.
    pub(crate) fn release(
        &self,
        retired: &Retired,
        open: &OpenSegments,
    ) -> Result<Option<Arc<dyn DiskFile>>> {
        let name = retired.id.file();
        // the index goes first, so that it never describes other bytes
        self.remove_if_there(&retired.id.index_file())?;
        let unread = |reopened: Option<Arc<OpenSegment>>| {
            retired.open.strong_count() == 0 && reopened.is_none_or(|open| Arc::strong_count(&open) == 1)
        };
        let mut state = self.state.lock();
        if retired.capacity != self.file_bytes || state.names.len() >= self.most {
            drop(state);
            let kept = (retired.capacity >= LARGE_BYTES)
                .then(|| self.disk.open(&name, WriteMode::Buffered).ok())
                .flatten();
            self.remove_if_there(&name)?;
            let reopened = open.take(retired.id); // behind the removal: nobody opens it again
            return Ok(kept.filter(|_| unread(reopened)));
        }
        let recycled = format!("{FOLDER}/{PREFIX}{}{SUFFIX}", state.next);
        state.next += 1;
        self.disk.rename(&name, &recycled).map_err(|e| Error::io(format!("cannot rename {name}"), e))?;
        // from here on nobody can open it by its old name; who has it open still is counted
        if unread(open.take(retired.id)) {
            state.names.push(recycled);
            return Ok(None);
        }
        drop(state);
        self.remove_if_there(&recycled)?;
        Ok(None)
    }

    fn remove_if_there(&self, name: &str) -> Result<()> {
        match self.disk.remove(name) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(Error::io(format!("cannot remove {name}"), e))
            }
            _ => Ok(()),
        }
    }

    /// Bytes of the files at hand.
    pub(crate) fn bytes(&self) -> u64 {
        self.state.lock().names.len() as u64 * self.file_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LogId;
    use crate::disk::fault::FaultDisk;

    #[test]
    fn a_full_disk_takes_back_what_is_kept_at_hand() {
        let fault = Arc::new(FaultDisk::new(1));
        let disk: Arc<dyn Disk> = fault.clone();
        disk.lock().unwrap();
        let (open, pool) = (OpenSegments::new(disk.clone(), 8), Pool::new(disk.clone(), 1 << 20, 2));
        let id = |number| SegmentId { log: LogId::new(1), number };
        for number in 0..2 {
            disk.create(&id(number).file(), 1 << 20, WriteMode::Buffered).unwrap();
            pool.release(&Retired { id: id(number), capacity: 1 << 20, open: Weak::new() }, &open).unwrap();
        }
        assert_eq!(pool.bytes(), 2 << 20);
        fault.set_capacity(2 << 20);
        pool.make(id(2), 64 << 10).unwrap();
        assert_eq!(pool.bytes(), 1 << 20, "one was enough");
        pool.make(id(3), 1 << 20).unwrap();
        assert_eq!(pool.bytes(), 0, "used again, not removed");
        let refused = pool.make(id(4), 1 << 20).err().expect("there is no room");
        assert_eq!(refused.kind(), crate::ErrorKind::Full);
    }

    /// A reader may open a segment again between its leaving and the removal of its file.
    #[test]
    fn a_removed_segment_stays_open_for_its_readers_alone_whatever_its_size() {
        let disk: Arc<dyn Disk> = Arc::new(FaultDisk::new(1));
        disk.lock().unwrap();
        let open = OpenSegments::new(disk.clone(), 8);
        let pool = Pool::new(disk.clone(), 1 << 30, 0);
        for (number, capacity, is_read, is_handed_back) in
            [(0, 4096, false, false), (1, LARGE_BYTES, false, true), (2, LARGE_BYTES, true, false)]
        {
            let id = SegmentId { log: LogId::new(1), number };
            disk.create(&id.file(), capacity, WriteMode::Buffered).unwrap();
            let held = open.get(id).unwrap().bytes(0, 1).unwrap();
            let held = is_read.then_some(held);
            let released = pool.release(&Retired { id, capacity, open: Weak::new() }, &open).unwrap();
            assert_eq!(released.is_some(), is_handed_back, "segment {number}");
            assert_eq!(open.len(), 0, "segment {number} is still open");
            drop(held);
        }
    }
}
