//! A disk in memory that loses, tears and fails what a real one may lose, tear and fail; for tests.
//!
//! Why: what a storage engine promises about power cuts cannot be tested on a disk that never loses power. How it
//! lives: a test keeps one handle to give orders, storage gets a clone. Each file has what is written and what is
//! durable; names likewise. [`FaultDisk::crash`] takes the disk away from everyone who has it (their calls fail from
//! then on) and gives back what a power cut leaves. Every choice comes from the seed, so a failure can be repeated.
//!
//! ```text
//!   write ──► visible ──sync──► durable          power cut: pending pieces are each lost, kept or torn by sectors
//!   create, rename, remove ──► visible names ──sync_dir──► durable names       cut: a possible part of the pending
//! ```
//!
//! Not here: slowness, bit rot by itself (tests flip bits by name), sparse files.

mod chance;
mod file;
mod names;
mod open_file;

use self::chance::Chance;
use self::file::{Inode, InodeRef};
use self::names::{Change, Names};
use self::open_file::FaultFile;
use super::{Disk, DiskFile, WriteMode, check_folder, check_name, check_range, check_rename};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// What files hold after a power cut where they were allocated, but never written or synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unwritten {
    /// Zeros.
    Zero,
    /// What lay in the blocks before: bytes of removed files, or anything.
    Stale,
}

/// A handle to a disk in memory. Clones are handles to the same disk; the one that took the lock releases it.
pub struct FaultDisk {
    shared: Arc<Mutex<State>>,
    has_lock: AtomicBool,
}

struct State {
    chance: Chance,
    names: Names,
    unwritten: Unwritten,
    /// The file removed last: what recycled blocks still hold.
    removed: Option<InodeRef>,
    locked: bool,
    powered: bool,
    capacity: u64,
    operations: u64,
    writes_until_failure: Option<u64>,
    syncs_until_failure: Option<u64>,
    operations_until_cut: Option<u64>,
}

/// How an operation is to end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    Failed,
    /// It was under way when the power went.
    Cut,
}

impl FaultDisk {
    /// An empty disk without bounds; everything that happens by chance follows from `seed`.
    pub fn new(seed: u64) -> Self {
        Self::with_state(State {
            chance: Chance::new(seed),
            names: Names::default(),
            unwritten: Unwritten::Zero,
            removed: None,
            locked: false,
            powered: true,
            capacity: u64::MAX,
            operations: 0,
            writes_until_failure: None,
            syncs_until_failure: None,
            operations_until_cut: None,
        })
    }

    fn with_state(state: State) -> Self {
        Self { shared: Arc::new(Mutex::new(state)), has_lock: AtomicBool::new(false) }
    }

    /// Chooses what never written areas hold after a power cut. At first: zeros.
    pub fn set_unwritten(&self, unwritten: Unwritten) {
        self.shared.lock().unwritten = unwritten;
    }
    /// After `n` more writes, one fails with an input/output error; what it has written is unknown.
    pub fn fail_write_after(&self, n: u64) {
        self.shared.lock().writes_until_failure = Some(n);
    }
    /// After `n` more syncs, one fails with an input/output error. As with a real kernel, what was not durable then is
    /// still seen, but no later sync makes it durable. Files, directories and writes that wait for the device count.
    pub fn fail_sync_after(&self, n: u64) {
        self.shared.lock().syncs_until_failure = Some(n);
    }
    /// Bounds all files together; a create beyond that fails with `StorageFull`. Existing files stay.
    pub fn set_capacity(&self, bytes: u64) {
        self.shared.lock().capacity = bytes;
    }
    /// After `n` more writes, syncs and changes of names, the power goes in the middle of one: it may be done in part,
    /// it and all later calls fail. [`FaultDisk::crash`] gives the disk as found afterwards.
    pub fn cut_power_after(&self, n: u64) {
        self.shared.lock().operations_until_cut = Some(n);
    }
    /// Calls off the failures and the power cut that have not happened yet.
    pub fn call_off(&self) {
        let mut state = self.shared.lock();
        state.writes_until_failure = None;
        state.syncs_until_failure = None;
        state.operations_until_cut = None;
    }
    /// Whether there is power; there is none after [`FaultDisk::cut_power_after`] has struck or a crash.
    pub fn is_powered(&self) -> bool {
        self.shared.lock().powered
    }
    /// Writes, syncs and changes of names so far.
    pub fn operations(&self) -> u64 {
        self.shared.lock().operations
    }

    /// The disk after a power cut at this moment. All handles and files so far fail from now on.
    pub fn crash(&self) -> Self {
        let mut state = self.take();
        state.names.lose_power(&mut state.chance);
        for inode in state.names.inodes() {
            inode.lock().lose_power(&mut state.chance, state.unwritten, state.removed.as_ref());
        }
        Self::with_state(state)
    }

    /// The disk after the process was killed at this moment: everything written is there, nothing more is durable.
    /// All handles and files so far fail from now on.
    pub fn process_crash(&self) -> Self {
        Self::with_state(self.take())
    }

    /// Takes the content for another disk; this one is left without power.
    fn take(&self) -> State {
        let mut state = self.shared.lock();
        state.powered = false;
        let seed = state.chance.next();
        State {
            chance: Chance::new(seed),
            names: std::mem::take(&mut state.names),
            removed: state.removed.take(),
            locked: false,
            powered: true,
            operations: 0,
            writes_until_failure: None,
            syncs_until_failure: None,
            operations_until_cut: None,
            ..*state
        }
    }

    /// All files, `segments/…` too, with their sizes.
    pub fn files(&self) -> Vec<(String, u64)> {
        self.shared.lock().names.sizes().collect()
    }
    /// What a file holds.
    pub fn read_file(&self, name: &str) -> io::Result<Vec<u8>> {
        Ok(self.shared.lock().names.find(name)?.lock().visible().to_vec())
    }
    /// Makes or replaces a file; durable at once.
    pub fn write_file(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        check_name(name)?;
        self.shared.lock().names.insert_durable(name, Inode::durable(bytes.to_vec()));
        Ok(())
    }
    /// Removes a file; durable at once.
    pub fn remove_file(&self, name: &str) -> io::Result<()> {
        let mut state = self.shared.lock();
        state.names.find(name)?;
        state.names.remove_durable(name);
        Ok(())
    }
    /// Turns one bit of a file around (`bit` counts within the byte), durably.
    pub fn flip_bit(&self, name: &str, offset: u64, bit: u8) -> io::Result<()> {
        let inode = self.shared.lock().names.find(name)?;
        let mut inode = inode.lock();
        check_range(inode.visible().len() as u64, offset, 1)?;
        inode.flip_bit(offset, bit % 8);
        Ok(())
    }

    /// Makes a range of a file one that the device cannot read any more.
    pub fn spoil(&self, name: &str, range: Range<u64>) -> io::Result<()> {
        let inode = self.shared.lock().names.find(name)?;
        inode.lock().spoil(range);
        Ok(())
    }

    fn open_inode(&self, inode: InodeRef, mode: WriteMode) -> Arc<dyn DiskFile> {
        Arc::new(FaultFile::new(inode, Arc::clone(&self.shared), mode))
    }
}

impl Clone for FaultDisk {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), has_lock: AtomicBool::new(false) }
    }
}

impl Drop for FaultDisk {
    fn drop(&mut self) {
        if self.has_lock.load(Ordering::Relaxed) {
            self.shared.lock().locked = false;
        }
    }
}

impl State {
    fn powered(&self) -> io::Result<()> {
        if self.powered { Ok(()) } else { Err(no_power()) }
    }

    /// Counts an operation that changes something and says how it ends.
    fn begin(&mut self, is_write: bool, is_sync: bool) -> io::Result<Outcome> {
        self.powered()?;
        self.operations += 1;
        if strikes(&mut self.operations_until_cut) {
            self.powered = false;
            return Ok(Outcome::Cut);
        }
        let write_fails = is_write && strikes(&mut self.writes_until_failure);
        let sync_fails = is_sync && strikes(&mut self.syncs_until_failure);
        Ok(if write_fails || sync_fails { Outcome::Failed } else { Outcome::Done })
    }

    /// Begins a change of names, which is made in any case but may not be durable.
    fn change(&mut self, change: Change) -> io::Result<()> {
        let outcome = self.begin(false, false)?;
        self.names.change(change);
        match outcome {
            Outcome::Cut => Err(no_power()),
            Outcome::Done | Outcome::Failed => Ok(()),
        }
    }
}

/// Counts down to a fault; `true` when it is its turn, which it is once.
fn strikes(countdown: &mut Option<u64>) -> bool {
    match countdown {
        None => false,
        Some(0) => {
            *countdown = None;
            true
        }
        Some(left) => {
            *left -= 1;
            false
        }
    }
}

fn no_power() -> io::Error {
    io::Error::other("the power is cut")
}

fn device_error() -> io::Error {
    rustix::io::Errno::IO.into()
}

/// Why a sync failed: the device, or a file system that finds room only when it writes back.
fn sync_error(chance: &mut Chance) -> io::Error {
    if chance.coin() { rustix::io::Errno::NOSPC.into() } else { device_error() }
}

impl Disk for FaultDisk {
    fn lock(&self) -> io::Result<()> {
        let mut state = self.shared.lock();
        state.powered()?;
        if self.has_lock.load(Ordering::Relaxed) {
            return Ok(());
        }
        if state.locked {
            let message = "another storage has the data directory in memory; close it first";
            return Err(io::Error::new(io::ErrorKind::WouldBlock, message));
        }
        state.locked = true;
        self.has_lock.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn list(&self, folder: &str) -> io::Result<Vec<(String, u64)>> {
        check_folder(folder)?;
        let state = self.shared.lock();
        state.powered()?;
        Ok(state.names.list(folder))
    }

    fn create(&self, name: &str, bytes: u64, mode: WriteMode) -> io::Result<Arc<dyn DiskFile>> {
        check_name(name)?;
        let mut state = self.shared.lock();
        state.powered()?;
        if state.names.find(name).is_ok() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("there is a file {name} already"),
            ));
        }
        if state.names.used_bytes().saturating_add(bytes) > state.capacity {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                format!("no room for {bytes} bytes for {name}"),
            ));
        }
        let bytes = usize::try_from(bytes).map_err(io::Error::other)?;
        let inode = Inode::fresh(bytes);
        state.change(Change::Create { name: name.to_owned(), inode: Arc::clone(&inode) })?;
        drop(state);
        Ok(self.open_inode(inode, mode))
    }

    fn open(&self, name: &str, mode: WriteMode) -> io::Result<Arc<dyn DiskFile>> {
        check_name(name)?;
        let state = self.shared.lock();
        state.powered()?;
        let inode = state.names.find(name)?;
        drop(state);
        Ok(self.open_inode(inode, mode))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        check_rename(from, to)?;
        let mut state = self.shared.lock();
        state.powered()?;
        let inode = state.names.find(from)?;
        state.change(Change::Rename { from: from.to_owned(), to: to.to_owned(), inode })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        check_name(name)?;
        let mut state = self.shared.lock();
        state.powered()?;
        let inode = state.names.find(name)?;
        state.removed = Some(inode);
        state.change(Change::Remove { name: name.to_owned() })
    }

    fn sync_dir(&self, folder: &str) -> io::Result<()> {
        check_folder(folder)?;
        let mut state = self.shared.lock();
        match state.begin(false, true)? {
            Outcome::Done => {
                state.names.settle(folder);
                Ok(())
            }
            Outcome::Failed => Err(sync_error(&mut state.chance)),
            Outcome::Cut => Err(no_power()),
        }
    }

    fn path(&self) -> String {
        "(disk in memory)".to_owned()
    }
}
