//! An open file of a fault disk: each call asks the disk how it is to end.

use super::file::InodeRef;
use super::{Outcome, State, device_error, no_power, sync_error};
use crate::disk::{AlignedBuffer, DiskFile, Sync, WriteMode, check_aligned, check_range};
use crate::sync::Mutex;
use bytes::Bytes;
use std::io;
use std::sync::Arc;

/// An open file of a [`super::FaultDisk`].
pub(super) struct FaultFile {
    inode: InodeRef,
    shared: Arc<Mutex<State>>,
    mode: WriteMode,
    bytes: u64,
}

impl FaultFile {
    pub(super) fn new(inode: InodeRef, shared: Arc<Mutex<State>>, mode: WriteMode) -> Self {
        let bytes = inode.lock().visible().len() as u64;
        Self { inode, shared, mode, bytes }
    }
}

impl DiskFile for FaultFile {
    fn len(&self) -> u64 {
        self.bytes
    }

    fn write(&self, offset: u64, pieces: &[&[u8]], sync: Sync) -> io::Result<()> {
        check_range(self.bytes, offset, pieces.iter().map(|piece| piece.len()).sum())?;
        let mut state = self.shared.lock();
        let outcome = state.begin(true, sync == Sync::Data)?;
        let mut inode = self.inode.lock();
        match (outcome, sync) {
            (Outcome::Done, Sync::None) => inode.write(offset, pieces),
            (Outcome::Done, Sync::Data) => inode.write_durable(offset, pieces),
            (Outcome::Failed, _) => {
                inode.write_in_part(offset, pieces, &mut state.chance);
                return Err(device_error());
            }
            (Outcome::Cut, _) => {
                inode.write(offset, pieces);
                return Err(no_power());
            }
        }
        Ok(())
    }

    fn write_aligned(&self, offset: u64, buffer: &AlignedBuffer, sync: Sync) -> io::Result<()> {
        check_aligned(self.mode, offset, buffer)?;
        self.write(offset, &[buffer.as_slice()], sync)
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        check_range(self.bytes, offset, into.len())?;
        self.shared.lock().powered()?;
        self.ready(offset, into.len())?;
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        into.copy_from_slice(&self.inode.lock().visible()[start..start + into.len()]);
        Ok(())
    }

    /// A copy of the bytes as they are now: unlike a map, it does not show later writes. What the device cannot give is garbage, by
    /// which a test sees that it was touched.
    fn map(&self, offset: u64, bytes: usize) -> io::Result<Bytes> {
        check_range(self.bytes, offset, bytes)?;
        self.shared.lock().powered()?;
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let inode = self.inode.lock();
        let mut copy = inode.visible()[start..start + bytes].to_vec();
        inode.spoil_copy(offset, &mut copy);
        Ok(copy.into())
    }

    fn ready(&self, offset: u64, bytes: usize) -> io::Result<()> {
        let range = offset..check_range(self.bytes, offset, bytes)?;
        if self.inode.lock().is_readable(&range) { Ok(()) } else { Err(device_error()) }
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.shared.lock();
        match state.begin(false, true)? {
            Outcome::Done => {
                self.inode.lock().sync();
                // many file systems commit all names with the first file that is synced; nobody may count on it
                if state.chance.coin() {
                    state.names.settle_all();
                }
                Ok(())
            }
            Outcome::Failed => {
                self.inode.lock().fail_sync(&mut state.chance);
                Err(sync_error(&mut state.chance))
            }
            Outcome::Cut => Err(no_power()),
        }
    }

    fn start_write_back(&self, _offset: u64, _bytes: u64) -> io::Result<()> {
        self.shared.lock().powered()
    }

    fn give_back(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let bytes = usize::try_from(bytes).map_err(io::Error::other)?;
        check_range(self.bytes, offset, bytes)?;
        self.shared.lock().powered()?;
        self.inode.lock().write_durable(offset, &[&vec![0; bytes]]);
        Ok(())
    }
}
