//! What all parts of storage share: the queue, the committer, the files, and whether writes are taken.
//!
//! Lock order: checkpointed, syncing, committer, logs, one log's queue, one log's state, open segments.

use crate::commit::{Committer, Queue};
use crate::disk::{Disk, Sync};
use crate::error::{Error, ErrorKind, Result};
use crate::journal::Durable;
use crate::leaving::Leaving;
use crate::log_state::Segment;
use crate::metrics::Metrics;
use crate::segment::{OpenSegments, Pool, Retired, SegmentId};
use crate::settings::{Durability, Settings};
use crate::shard_log::LogInner;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, RwLock};
use crate::write_back::WriteBack;
use crate::{Health, LogId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use tidemill_types::{Clock, Epoch, MonotonicMs};

/// So long after the last refusal for lack of room, storage counts as healthy again.
const FULL_FOR_MS: u64 = 5_000;

/// What all parts share.
pub(crate) struct Shared {
    pub disk: Arc<dyn Disk>,
    pub clock: Arc<dyn Clock>,
    pub settings: Settings,
    pub epoch: Epoch,
    pub directory: u32,
    pub queue: Queue,
    pub committer: Mutex<Committer>,
    pub open_segments: OpenSegments,
    pub pool: Pool,
    pub write_back: WriteBack,
    pub leaving: Leaving,
    pub metrics: Metrics,
    pub(crate) logs: RwLock<BTreeMap<LogId, Arc<LogInner>>>,
    pub(crate) retired: Mutex<Vec<Retired>>,
    /// Held while a checkpoint is written: the group number the last one covers.
    pub(crate) checkpointed: Mutex<u64>,
    /// Held during a sync, so that the next one does not return before what this one took is on the device.
    pub(crate) syncing: Mutex<()>,
    pub(crate) bytes_since: AtomicU64,
    /// Counts checkpoints that were begun: what a log announced in the journal before the newest is forgotten with it.
    pub(crate) checkpoints: AtomicU64,
    pub(crate) poisoned: RwLock<Option<Error>>,
    /// Monotonic milliseconds of the last refusal for lack of room, plus one; 0: none.
    pub(crate) full_at: AtomicU64,
}

impl Shared {
    /// How the writes that acknowledge are done.
    pub(crate) fn ack_sync(&self) -> Sync {
        match self.settings.durability {
            Durability::Device => Sync::Data,
            Durability::Interval { .. } | Durability::Os => Sync::None,
        }
    }

    pub(crate) fn check_writable(&self) -> Result<()> {
        match &*self.poisoned.read() {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// Refuses writes from here on. Returns what to tell those whose write this was: nobody knows.
    pub(crate) fn poison(&self, what: &str, error: &Error) -> Error {
        let mut poisoned = self.poisoned.write();
        if poisoned.is_none() {
            tracing::error!(what, %error, "storage is poisoned: what the disk holds is unknown; restart to recover");
            let message =
                format!("writes are refused since a disk failure ({error}); restart the broker to recover");
            *poisoned = Some(Error::new(ErrorKind::Poisoned, message));
        }
        Error::new(
            ErrorKind::Unknown,
            format!("{error}; whether the records are stored is not known until a restart"),
        )
    }

    /// Remembers that the disk had no room, and makes some for the next try.
    pub(crate) fn note_full(&self, error: &Error) {
        if error.kind() != ErrorKind::Full {
            return;
        }
        self.pool.give_one_up();
        let now = self.clock.monotonic().get() + 1;
        let before = self.full_at.swap(now, Ordering::Relaxed);
        if before == 0 || before + FULL_FOR_MS < now {
            tracing::warn!(%error, "the disk is full: appends are refused until there is room");
        }
    }

    pub(crate) fn note_room(&self) {
        if self.full_at.load(Ordering::Relaxed) != 0 {
            self.full_at.store(0, Ordering::Relaxed);
        }
    }

    /// The group of this log is done with.
    pub(crate) fn finished(&self, log: &Arc<LogInner>) {
        self.queue.finished(log);
        self.drop_if_deleted(log);
    }

    /// Lets go of the files of a deleted log, unless a group of it is in flight: then it is called again behind that.
    pub(crate) fn drop_if_deleted(&self, log: &Arc<LogInner>) {
        if !log.state.read().deleted || log.queue.lock().is_busy() {
            return;
        }
        let segments = std::mem::take(&mut log.state.write().segments);
        self.retire(log.id, segments.iter());
    }

    /// Takes segments that have left their log; their files go with the next checkpoint.
    pub(crate) fn retire<'a>(&self, log: LogId, segments: impl Iterator<Item = &'a Segment>) {
        let gone: Vec<_> = segments
            .map(|segment| {
                let id = SegmentId { log, number: segment.number };
                let open = self.open_segments.take(id).as_ref().map_or_else(Weak::new, Arc::downgrade);
                Retired { id, capacity: segment.capacity, open }
            })
            .collect();
        if !gone.is_empty() {
            self.retired.lock().extend(gone);
        }
    }

    pub(crate) fn count_bytes(&self, bytes: u64) {
        self.bytes_since.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whether a checkpoint would pay by now.
    pub(crate) fn checkpoint_due(&self) -> bool {
        self.bytes_since.load(Ordering::Relaxed) >= self.settings.checkpoint_bytes
    }

    /// Whether a checkpoint would do anything.
    pub(crate) fn checkpoint_useful(&self) -> bool {
        let covered = *self.checkpointed.lock();
        !self.retired.lock().is_empty()
            || self.committer.lock().journal.next_group() != covered
            || self.write_back.any()
    }

    /// Syncs segments and their names. One that is gone meanwhile needs no sync.
    pub(crate) fn sync_segments(&self, segments: &BTreeSet<SegmentId>) -> Result<()> {
        self.open_segments.sync(segments, |id| self.holds(id))
    }

    /// Whether the segment is part of its log.
    pub(crate) fn holds(&self, id: SegmentId) -> bool {
        let log = self.logs.read().get(&id.log).cloned();
        log.is_some_and(|log| log.state.read().segments.iter().any(|segment| segment.number == id.number))
    }

    /// Syncs what modes `interval` and `os` have acknowledged since the last time.
    pub(crate) fn timed_sync(&self) -> Result<()> {
        let _syncing = self.syncing.lock();
        let journal = self.committer.lock().journal.take_unsynced();
        let direct = self.write_back.take_direct();
        for file in journal {
            file.sync().map_err(|e| Error::io("cannot sync the journal", e))?;
        }
        self.sync_segments(&direct)
    }

    /// How what is written from here on becomes durable, for who recovers it.
    pub(crate) fn written_durable(&self) -> Durable {
        match self.ack_sync() {
            Sync::Data => Durable::EachGroup,
            Sync::None => Durable::Later,
        }
    }

    pub(crate) fn health(&self) -> Health {
        if let Some(error) = &*self.poisoned.read() {
            return Health::Poisoned(error.to_string());
        }
        match self.full_at.load(Ordering::Relaxed).checked_sub(1) {
            Some(at) if self.clock.monotonic().since(MonotonicMs::new(at)) < FULL_FOR_MS => Health::Full,
            _ => Health::Healthy,
        }
    }
}
