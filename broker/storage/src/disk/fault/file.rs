//! The content of one file on a fault disk: what is seen, what is durable, and the writes between.
//!
//! A sector is written by the device whole or not at all, with the content it had in the page cache at some moment. So
//! after a power cut every sector holds what it held after one of the writes to it since it was last durable, or before
//! them all; which one, each sector decides for itself.

use super::Unwritten;
use super::chance::Chance;
use crate::sync::Mutex;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// What the device writes whole or not at all.
const SECTOR: usize = 512;

pub(super) type InodeRef = Arc<Mutex<Inode>>;

pub(super) struct Inode {
    visible: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Write>,
    /// Sectors made durable since the first pending write: how many pending writes that has settled there.
    settled: HashMap<usize, usize>,
    origin: Origin,
    /// A failed sync left bytes that are seen, are not durable, and are not pending either.
    is_diverged: bool,
    /// Where the device gives nothing.
    unreadable: Vec<Range<u64>>,
}

struct Write {
    offset: usize,
    bytes: Vec<u8>,
}

/// Whether the blocks of a file are known to hold what they read as.
enum Origin {
    Synced,
    /// Made and not synced yet; these ranges alone are durable.
    Fresh(Vec<Range<usize>>),
}

impl Inode {
    pub(super) fn fresh(bytes: usize) -> InodeRef {
        Self::new(vec![0; bytes], vec![0; bytes], Origin::Fresh(Vec::new()))
    }
    pub(super) fn durable(bytes: Vec<u8>) -> InodeRef {
        Self::new(bytes.clone(), bytes, Origin::Synced)
    }
    fn new(visible: Vec<u8>, durable: Vec<u8>, origin: Origin) -> InodeRef {
        let inode = Self {
            visible,
            durable,
            pending: Vec::new(),
            settled: HashMap::new(),
            origin,
            is_diverged: false,
            unreadable: Vec::new(),
        };
        Arc::new(Mutex::new(inode))
    }
    pub(super) fn spoil(&mut self, range: Range<u64>) {
        self.unreadable.push(range);
    }
    /// What the device cannot give is garbage in `copy`, which was taken at `offset`.
    pub(super) fn spoil_copy(&self, offset: u64, copy: &mut [u8]) {
        let end = offset + copy.len() as u64;
        for bad in &self.unreadable {
            for at in bad.start.max(offset)..bad.end.min(end) {
                copy[(at - offset) as usize] = 0xEE;
            }
        }
    }
    pub(super) fn is_readable(&self, range: &Range<u64>) -> bool {
        !self.unreadable.iter().any(|bad| bad.start < range.end && range.start < bad.end)
    }
    pub(super) fn visible(&self) -> &[u8] {
        &self.visible
    }
    pub(super) fn flip_bit(&mut self, offset: u64, bit: u8) {
        let at = usize::try_from(offset).expect("within the file, which is in memory");
        self.visible[at] ^= 1 << bit;
        self.durable[at] = self.visible[at];
    }

    /// A write into the page cache.
    pub(super) fn write(&mut self, offset: u64, pieces: &[&[u8]]) {
        let offset = usize::try_from(offset).expect("within the file, which is in memory");
        let bytes = pieces.concat();
        self.visible[offset..offset + bytes.len()].copy_from_slice(&bytes);
        if !bytes.is_empty() {
            self.pending.push(Write { offset, bytes });
        }
    }

    /// A write that waits for the device. It takes whole sectors, and with them what was pending there.
    pub(super) fn write_durable(&mut self, offset: u64, pieces: &[&[u8]]) {
        let start = usize::try_from(offset).expect("within the file, which is in memory");
        let mut end = start;
        for piece in pieces {
            self.visible[end..end + piece.len()].copy_from_slice(piece);
            end += piece.len();
        }
        if end == start {
            return;
        }
        let sectors = sectors(start, end);
        let range = sectors.start * SECTOR..(sectors.end * SECTOR).min(self.visible.len());
        self.durable[range.clone()].copy_from_slice(&self.visible[range.clone()]);
        if let Origin::Fresh(durable) = &mut self.origin {
            durable.push(range);
        }
        if !self.pending.is_empty() {
            let so_far = self.pending.len();
            self.settled.extend(sectors.map(|sector| (sector, so_far)));
        }
    }

    /// A write that failed: none of it, all of it, or its first bytes are in the page cache.
    pub(super) fn write_in_part(&mut self, offset: u64, pieces: &[&[u8]], chance: &mut Chance) {
        let mut bytes = pieces.concat();
        match chance.below(3) {
            0 => return,
            1 => {}
            _ => bytes.truncate(chance.below(bytes.len() + 1)),
        }
        self.write(offset, &[&bytes]);
    }

    pub(super) fn sync(&mut self) {
        for write in self.pending.drain(..) {
            let range = write.offset..write.offset + write.bytes.len();
            self.durable[range.clone()].copy_from_slice(&self.visible[range]);
        }
        self.settled.clear();
        self.origin = Origin::Synced;
    }

    /// A sync that failed: some of the pending writes have become durable, the others never will be, and all are seen.
    pub(super) fn fail_sync(&mut self, chance: &mut Chance) {
        self.settle_in_part(chance);
        self.is_diverged = true;
    }

    /// What a power cut leaves.
    pub(super) fn lose_power(
        &mut self,
        chance: &mut Chance,
        unwritten: Unwritten,
        removed: Option<&InodeRef>,
    ) {
        let is_fresh = matches!(self.origin, Origin::Fresh(_));
        if self.pending.is_empty() && !self.is_diverged && !is_fresh {
            return;
        }
        if let Origin::Fresh(durable) = std::mem::replace(&mut self.origin, Origin::Synced)
            && unwritten == Unwritten::Stale
        {
            self.fill_with_stale(&durable, chance, removed);
        }
        self.settle_in_part(chance);
        self.visible.copy_from_slice(&self.durable);
        self.is_diverged = false;
    }

    /// Brings each sector with pending writes to the state after one of them, or leaves it.
    fn settle_in_part(&mut self, chance: &mut Chance) {
        let pending = std::mem::take(&mut self.pending);
        let settled = std::mem::take(&mut self.settled);
        let whole_disk = chance.below(8);
        let mut last_kept: HashMap<usize, usize> = HashMap::new();
        for (number, write) in pending.iter().enumerate() {
            // of the whole file: everything is lost or kept now and then, most often each write for itself
            let fate = match whole_disk {
                0 => 0,
                1 => 1,
                _ => chance.below(3),
            };
            for sector in sectors(write.offset, write.offset + write.bytes.len()) {
                if fate == 1 || (fate == 2 && chance.coin()) {
                    last_kept.insert(sector, number);
                }
            }
        }
        for (number, write) in pending.iter().enumerate() {
            let end = write.offset + write.bytes.len();
            for sector in sectors(write.offset, end) {
                let is_kept = last_kept.get(&sector).is_some_and(|last| *last >= number);
                let is_settled = settled.get(&sector).is_some_and(|before| number < *before);
                if is_kept && !is_settled {
                    let from = write.offset.max(sector * SECTOR);
                    let to = end.min((sector + 1) * SECTOR);
                    let piece = &write.bytes[from - write.offset..to - write.offset];
                    self.durable[from..to].copy_from_slice(piece);
                }
            }
        }
    }

    /// Fills what was never durable with what its blocks may have held before.
    fn fill_with_stale(&mut self, durable: &[Range<usize>], chance: &mut Chance, removed: Option<&InodeRef>) {
        let kept: Vec<_> =
            durable.iter().map(|range| (range.start, self.durable[range.clone()].to_vec())).collect();
        match chance.below(3) {
            0 => {}
            1 => {
                for piece in self.durable.chunks_mut(8) {
                    piece.copy_from_slice(&chance.next().to_le_bytes()[..piece.len()]);
                }
            }
            _ => {
                // a file that was removed and has this name again is another inode, so this cannot be locked already
                if let Some(removed) = removed.and_then(|removed| removed.try_lock()) {
                    let shared = removed.visible.len().min(self.durable.len());
                    self.durable[..shared].copy_from_slice(&removed.visible[..shared]);
                }
            }
        }
        for (start, bytes) in kept {
            self.durable[start..start + bytes.len()].copy_from_slice(&bytes);
        }
    }
}

/// The sectors that a range of bytes touches.
fn sectors(start: usize, end: usize) -> Range<usize> {
    start / SECTOR..end.div_ceil(SECTOR)
}
