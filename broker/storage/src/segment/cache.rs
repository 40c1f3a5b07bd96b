//! Segments that are open, and mapped once somebody has read them: bounded, the longest unused are closed first.
//!
//! Who reads a segment holds its [`OpenSegment`] through the bytes handed out; such a segment is never closed, so one
//! file is never open twice, and a count of one tells that nobody reads it.

use super::{FOLDER, Pages, SegmentHeader, SegmentId, SparseIndex};
use crate::damage::{Frames, Lying};
use crate::disk::{Disk, DiskFile, WriteMode};
use crate::error::{Error, ErrorKind, Result};
use crate::sync::Mutex;
use bytes::Bytes;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

/// Uses are counted from one; this is none.
const UNUSED: u64 = 0;

/// An open segment.
pub(crate) struct OpenSegment {
    pub id: SegmentId,
    pub file: Arc<dyn DiskFile>,
    /// Of a full segment, once somebody needed it.
    index: OnceLock<Arc<SparseIndex>>,
}

/// Bytes of a map that keep the segment from being recycled.
struct Held {
    bytes: Bytes,
    _segment: Arc<OpenSegment>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl OpenSegment {
    pub(crate) fn new(id: SegmentId, file: Arc<dyn DiskFile>) -> Arc<Self> {
        Arc::new(Self { id, file, index: OnceLock::new() })
    }

    /// Shared bytes of the segment; while any of them lives, the file is not used for anything else.
    pub(crate) fn bytes(self: &Arc<Self>, offset: u64, bytes: usize) -> Result<Bytes> {
        let mapped = self.file.map(offset, bytes).map_err(|e| {
            Error::io(format!("cannot map {bytes} bytes at {offset} of {}", self.id.file()), e)
        })?;
        Ok(Bytes::from_owner(Held { bytes: mapped, _segment: self.clone() }))
    }

    /// Makes a range ready to be touched.
    pub(crate) fn ready(&self, offset: u64, bytes: usize) -> Result<()> {
        self.file
            .ready(offset, bytes)
            .map_err(|e| Error::io(format!("cannot read {bytes} bytes at {offset} of {}", self.id.file()), e))
    }

    /// The index of a full segment that ends at `end`: from the sidecar, or by walking the frames.
    pub(crate) fn full_index(self: &Arc<Self>, disk: &dyn Disk, end: u64) -> Result<Arc<SparseIndex>> {
        if let Some(index) = self.index.get() {
            return Ok(index.clone());
        }
        let index = match self.sidecar(disk) {
            Some(index) => index,
            None => self.walk(end)?,
        };
        Ok(self.index.get_or_init(|| Arc::new(index)).clone())
    }

    fn sidecar(&self, disk: &dyn Disk) -> Option<SparseIndex> {
        let file = disk.open(&self.id.index_file(), WriteMode::Buffered).ok()?;
        let mut bytes = vec![0; usize::try_from(file.len()).ok()?];
        file.read(0, &mut bytes).ok()?;
        SparseIndex::decode(self.id, self.file.len(), &bytes)
    }

    fn walk(self: &Arc<Self>, end: u64) -> Result<SparseIndex> {
        tracing::info!(file = %self.id.file(), "the index of a segment is missing or damaged; walking the segment");
        let bytes = self.bytes(0, usize::try_from(end).expect("segments fit in memory maps"))?;
        let mut index = SparseIndex::new(self.file.len());
        let frames = bytes.slice(SegmentHeader::BYTES..);
        let mut pages = Pages::new(self, SegmentHeader::BYTES as u64, frames.len());
        let mut walk = Frames::new(self.id.log, &frames);
        while let Some(lying) = walk.next_in(&mut pages)? {
            // what is bad is told by who reads it
            if let Lying::Frame(at, header) = lying {
                index.note(&header, (SegmentHeader::BYTES + at) as u64);
            }
        }
        Ok(index)
    }
}

/// The open segments of a directory.
pub(crate) struct OpenSegments {
    disk: Arc<dyn Disk>,
    most: usize,
    open: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    /// With the number of their last use.
    by_id: HashMap<SegmentId, (Arc<OpenSegment>, u64)>,
    uses: u64,
    /// How many uses there had been at the last look for idle ones.
    looked_at: u64,
}

impl OpenSegments {
    pub(crate) fn new(disk: Arc<dyn Disk>, most: usize) -> Self {
        Self { disk, most: most.max(1), open: Mutex::default() }
    }

    /// The segment, opened if it is not. It is opened under the lock: whoever takes a segment out afterwards
    /// ([`OpenSegments::take`]) knows that there is no second handle.
    pub(crate) fn get(&self, id: SegmentId) -> Result<Arc<OpenSegment>> {
        let mut table = self.open.lock();
        table.uses += 1;
        let now = table.uses;
        if let Some((segment, used)) = table.by_id.get_mut(&id) {
            *used = now;
            return Ok(segment.clone());
        }
        self.open(&mut table, id, now)
    }

    /// The segment, for a sync: that is no use which keeps it open.
    fn get_aside(&self, id: SegmentId) -> Result<Arc<OpenSegment>> {
        let mut table = self.open.lock();
        match table.by_id.get(&id) {
            Some((segment, _)) => Ok(segment.clone()),
            None => self.open(&mut table, id, UNUSED),
        }
    }

    /// Closes a segment that was opened for a sync alone.
    fn leave_aside(&self, segment: &Arc<OpenSegment>) {
        let mut table = self.open.lock();
        if let Some((_, used)) = table.by_id.get(&segment.id)
            && *used == UNUSED
            && Arc::strong_count(segment) == 2
        {
            table.by_id.remove(&segment.id);
        }
    }

    fn open(&self, table: &mut Table, id: SegmentId, used: u64) -> Result<Arc<OpenSegment>> {
        let name = id.file();
        let file = self
            .disk
            .open(&name, WriteMode::Buffered)
            .map_err(|e| Error::io(format!("cannot open {name}"), e))?;
        let segment = OpenSegment::new(id, file);
        table.put(segment.clone(), used, self.most);
        Ok(segment)
    }

    /// Takes a segment that was just made.
    pub(crate) fn put(&self, segment: Arc<OpenSegment>) {
        let mut table = self.open.lock();
        table.uses += 1;
        let now = table.uses;
        table.put(segment, now, self.most);
    }

    /// Forgets a segment that is no longer part of its log, and hands it over.
    pub(crate) fn take(&self, id: SegmentId) -> Option<Arc<OpenSegment>> {
        self.open.lock().by_id.remove(&id).map(|(segment, _)| segment)
    }

    /// Makes segments durable, and the names of all. One that cannot be opened because it is gone (`is_there` tells) needs
    /// no sync. A failure is final whatever its reason, also for lack of room: the kernel tells it once.
    pub(crate) fn sync(&self, ids: &BTreeSet<SegmentId>, is_there: impl Fn(SegmentId) -> bool) -> Result<()> {
        // all on their way first, then waited for one by one: 1,000 files take 100 ms so, instead of 190
        for open in ids.iter().skip(1).filter_map(|id| self.get_aside(*id).ok()) {
            if let Err(error) = open.file.start_write_back(0, open.file.len()) {
                tracing::debug!(%error, file = %open.id.file(), "write-back was not begun; the sync will wait for it");
            }
        }
        let failed = |what: String, error| Error::io(what, error).with_kind(ErrorKind::Io);
        for &id in ids {
            let open = match self.get_aside(id) {
                Ok(open) => open,
                Err(_) if !is_there(id) => continue,
                Err(error) => return Err(error),
            };
            open.file.sync().map_err(|e| failed(format!("cannot sync {}", id.file()), e))?;
            self.leave_aside(&open);
        }
        if ids.is_empty() {
            return Ok(());
        }
        self.disk.sync_dir(FOLDER).map_err(|e| failed(format!("cannot sync {FOLDER}"), e))
    }

    /// Closes those that nobody has used since the last call: an idle shard holds no descriptor and no map.
    pub(crate) fn close_idle(&self) {
        let table = &mut *self.open.lock();
        let since = std::mem::replace(&mut table.looked_at, table.uses);
        table.by_id.retain(|_, (segment, used)| *used > since || Arc::strong_count(segment) > 1);
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.open.lock().by_id.len()
    }
}

impl Table {
    fn put(&mut self, segment: Arc<OpenSegment>, used: u64, most: usize) {
        self.by_id.insert(segment.id, (segment, used));
        if self.by_id.len() > most {
            self.close_unused(most);
        }
    }

    /// Closes the longest unused eighth, so that the search is paid for once in many openings.
    fn close_unused(&mut self, most: usize) {
        let mut idle: Vec<_> = self
            .by_id
            .iter()
            .filter(|(_, (segment, _))| Arc::strong_count(segment) == 1)
            .map(|(id, (_, used))| (*used, *id))
            .collect();
        idle.sort_unstable();
        let close = self.by_id.len() - most + most / 8;
        for (_, id) in idle.into_iter().take(close) {
            self.by_id.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LogId;
    use crate::disk::Sync;
    use crate::disk::fault::FaultDisk;

    #[test]
    fn idle_segments_are_closed_and_read_ones_stay() {
        let disk: Arc<dyn Disk> = Arc::new(FaultDisk::new(1));
        disk.lock().unwrap();
        let cache = OpenSegments::new(disk.clone(), 8);
        let id = |number| SegmentId { log: LogId::new(1), number };
        for number in 0..50 {
            let file = disk.create(&id(number).file(), 4096, WriteMode::Buffered).unwrap();
            file.write(0, &[&[number as u8]], Sync::None).unwrap();
        }
        let held = cache.get(id(0)).unwrap().bytes(0, 1).unwrap();
        for number in 1..50 {
            cache.get(id(number)).unwrap();
        }
        assert!(cache.len() <= 9, "{} open", cache.len());
        assert!(Arc::strong_count(&cache.take(id(0)).expect("a segment that is read stays open")) > 1);
        assert_eq!(held[0], 0);
    }

    #[test]
    fn what_nobody_uses_is_closed_at_the_second_look_and_what_is_read_stays() {
        let disk: Arc<dyn Disk> = Arc::new(FaultDisk::new(1));
        disk.lock().unwrap();
        let cache = OpenSegments::new(disk.clone(), 8);
        let ids = [1, 2, 3].map(|number| SegmentId { log: LogId::new(1), number });
        for id in ids {
            disk.create(&id.file(), 4096, WriteMode::Buffered).unwrap();
            cache.get(id).unwrap();
        }
        let held = cache.get(ids[0]).unwrap().bytes(0, 1).unwrap();
        cache.close_idle();
        assert_eq!(cache.len(), 3, "all were used since the look before");
        cache.get(ids[1]).unwrap();
        cache.close_idle();
        assert_eq!(cache.len(), 2, "the third was not");
        cache.close_idle();
        assert_eq!(cache.len(), 1, "the first has a reader");
        drop(held);
        cache.close_idle();
        assert_eq!(cache.len(), 0);

        cache.get(ids[0]).unwrap();
        cache.sync(&ids.into(), |_| true).unwrap();
        assert_eq!(cache.len(), 1, "what a sync has opened is closed behind it");
    }
}
