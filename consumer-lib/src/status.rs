//! What a worker is doing, for people and dashboards: a snapshot taken on demand.
//!
//! Each shard task writes its own [`ShardBoard`]; nothing waits for a reader.

use crate::checkpoint::Checkpointer;
use crate::place::Checkpoint;
use crate::shard::ShardRef;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tidemill_types::{LeaseEpoch, WorkerId};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// A worker at one moment.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WorkerStatus {
    /// The worker's id.
    pub worker: WorkerId,
    /// The shards it works on, in order.
    pub shards: Vec<ShardStatus>,
    /// Whether everything that this worker may process has been processed at least once up to the newest record.
    pub caught_up: bool,
    /// The last thing that went wrong outside a shard (the broker out of reach, a stream deleted, a processor that
    /// panicked), for a person; nothing after it went right again.
    pub trouble: Option<String>,
}

/// A shard under work at one moment.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ShardStatus {
    /// The shard.
    pub shard: ShardRef,
    /// What is being done.
    pub phase: ShardPhase,
    /// How far behind the newest record processing is, in milliseconds; 0 at the newest. Nothing before the first answer of
    /// the service.
    pub lag_ms: Option<u64>,
    /// The same in records, counting those under way; as of the last answer. Nothing where the service does not tell.
    pub lag_records: Option<u64>,
    /// The fencing number of the lease.
    pub epoch: LeaseEpoch,
    /// Nothing is given to the processor ([`WorkerHandle::pause`](crate::WorkerHandle::pause)).
    pub paused: bool,
    /// The last checkpoint stored.
    pub checkpoint: Checkpoint,
    /// Records processed under this lease.
    pub records: u64,
    /// Records skipped under this lease, because the processor failed on them and the application wants that.
    pub skipped: u64,
    /// The same, put among the dead letters.
    pub dead_lettered: u64,
    /// What is going wrong now, for a person.
    pub trouble: Option<String>,
}

/// What is being done with a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShardPhase {
    /// The processor initializes.
    Initializing,
    /// Records are processed, or awaited.
    Processing,
    /// The processor failed and is called again after a pause; so often in a row.
    Retrying {
        /// Failed attempts in a row.
        attempts: u32,
    },
    /// The processor failed on a record as often as it may, and the shard is stopped there until it is resumed.
    Halted {
        /// Failed attempts.
        attempts: u32,
    },
    /// The processor finishes: the shard ended, the lease is lost or handed over, or the worker stops.
    Finishing,
}

/// Where one shard task writes what it does.
#[derive(Debug)]
pub(crate) struct ShardBoard {
    checkpointer: Checkpointer,
    progress: Arc<Notify>,
    paused: watch::Sender<bool>,
    /// How often it was resumed.
    resumes: watch::Sender<u64>,
    notes: Mutex<Notes>,
}

#[derive(Debug)]
struct Notes {
    phase: ShardPhase,
    millis_behind: Option<u64>,
    records_behind: Option<u64>,
    /// When the batch under way arrived.
    since: Option<Instant>,
    caught_up: bool,
    records: u64,
    skipped: u64,
    dead_lettered: u64,
    trouble: Option<String>,
}

impl Notes {
    fn went_well(&mut self, millis_behind: u64, records_behind: Option<u64>) {
        self.trouble = None;
        self.since = None;
        self.millis_behind = Some(millis_behind);
        self.records_behind = records_behind;
    }
}

impl ShardBoard {
    /// `progress` is notified when the shard has caught up.
    pub(crate) fn new(checkpointer: Checkpointer, progress: Arc<Notify>) -> Self {
        let notes = Notes {
            phase: ShardPhase::Initializing,
            millis_behind: None,
            records_behind: None,
            since: None,
            caught_up: false,
            records: 0,
            skipped: 0,
            dead_lettered: 0,
            trouble: None,
        };
        let (paused, resumes) = (watch::Sender::new(false), watch::Sender::new(0));
        Self { checkpointer, progress, paused, resumes, notes: Mutex::new(notes) }
    }
    pub(crate) fn watch_paused(&self) -> watch::Receiver<bool> {
        self.paused.subscribe()
    }
    /// Gives nothing more to the processor, or goes on.
    pub(crate) fn pause(&self, paused: bool) {
        self.paused.send_replace(paused);
        if !paused {
            self.resumes.send_modify(|times| *times += 1);
        }
    }
    /// Changes when the shard is resumed.
    pub(crate) fn watch_resumes(&self) -> watch::Receiver<u64> {
        self.resumes.subscribe()
    }
    pub(crate) fn phase(&self, phase: ShardPhase) {
        self.notes.lock().phase = phase;
    }
    pub(crate) fn troubled(&self, trouble: String) {
        self.notes.lock().trouble = Some(trouble);
    }
    /// A batch is about to be processed; its end was so far behind when it arrived, and so much is left with it.
    pub(crate) fn began(&self, millis_behind: u64, records_left: Option<u64>, arrived: Instant) {
        let mut notes = self.notes.lock();
        notes.millis_behind = Some(millis_behind);
        notes.records_behind = records_left;
        notes.since = Some(arrived);
    }
    /// So many records more are processed.
    pub(crate) fn counted(&self, records: usize) {
        let mut notes = self.notes.lock();
        notes.records += records as u64;
        if matches!(notes.phase, ShardPhase::Retrying { .. } | ShardPhase::Halted { .. }) {
            notes.phase = ShardPhase::Processing;
        }
    }
    pub(crate) fn skipped(&self) {
        self.notes.lock().skipped += 1;
    }
    pub(crate) fn dead_lettered(&self) {
        self.notes.lock().dead_lettered += 1;
    }
    /// Everything that had come is processed.
    pub(crate) fn processed(&self, millis_behind: u64, records_behind: Option<u64>) {
        let mut notes = self.notes.lock();
        notes.phase = ShardPhase::Processing;
        notes.went_well(millis_behind, records_behind);
        if millis_behind == 0 && !notes.caught_up {
            notes.caught_up = true;
            self.progress.notify_one();
        }
    }
    /// The whole of a closed shard is processed. It counts as caught up only when it is gone from the board and its
    /// children are known.
    pub(crate) fn processed_to_end(&self) {
        let mut notes = self.notes.lock();
        notes.phase = ShardPhase::Finishing;
        notes.went_well(0, Some(0));
        notes.caught_up = false;
    }
    /// Whether the newest record was reached once.
    pub(crate) fn is_caught_up(&self) -> bool {
        self.notes.lock().caught_up
    }

    fn status(&self, shard: &ShardRef) -> ShardStatus {
        let checkpoint = self.checkpointer.stored();
        let notes = self.notes.lock();
        let waited =
            notes.since.map_or(0, |since| u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX));
        ShardStatus {
            shard: shard.clone(),
            phase: notes.phase,
            lag_ms: notes.millis_behind.map(|behind| behind.saturating_add(waited)),
            lag_records: notes.records_behind,
            epoch: self.checkpointer.lease_epoch(),
            paused: *self.paused.borrow(),
            checkpoint,
            records: notes.records,
            skipped: notes.skipped,
            dead_lettered: notes.dead_lettered,
            trouble: notes.trouble.clone(),
        }
    }
}

/// The boards of all shards under work, and what concerns the worker as a whole.
#[derive(Debug)]
pub(crate) struct WorkerBoard {
    worker: WorkerId,
    shards: Mutex<BTreeMap<ShardRef, Arc<ShardBoard>>>,
    /// Shards that are to be paused also when they are taken up later.
    paused: Mutex<BTreeSet<ShardRef>>,
    trouble: Mutex<Option<String>>,
    caught_up: watch::Sender<bool>,
}

impl WorkerBoard {
    pub(crate) fn new(worker: WorkerId) -> Self {
        Self {
            worker,
            shards: Mutex::default(),
            paused: Mutex::default(),
            trouble: Mutex::default(),
            caught_up: watch::Sender::new(false),
        }
    }
    pub(crate) fn add(&self, shard: ShardRef, board: Arc<ShardBoard>) {
        board.pause(self.paused.lock().contains(&shard));
        self.shards.lock().insert(shard, board);
    }
    pub(crate) fn pause(&self, shard: &ShardRef, paused: bool) {
        let mut all = self.paused.lock();
        if paused {
            all.insert(shard.clone())
        } else {
            all.remove(shard)
        };
        if let Some(board) = self.shards.lock().get(shard) {
            board.pause(paused);
        }
    }
    pub(crate) fn remove(&self, shard: &ShardRef) {
        self.shards.lock().remove(shard);
    }
    pub(crate) fn trouble(&self, trouble: Option<String>) {
        *self.trouble.lock() = trouble;
    }
    pub(crate) fn caught_up(&self) {
        self.caught_up.send_replace(true);
    }
    pub(crate) fn watch_caught_up(&self) -> watch::Receiver<bool> {
        self.caught_up.subscribe()
    }
    pub(crate) fn all_caught_up(&self) -> bool {
        self.shards.lock().values().all(|board| board.is_caught_up())
    }
    pub(crate) fn status(&self) -> WorkerStatus {
        WorkerStatus {
            worker: self.worker.clone(),
            shards: self.shards.lock().iter().map(|(shard, board)| board.status(shard)).collect(),
            caught_up: *self.caught_up.borrow(),
            trouble: self.trouble.lock().clone(),
        }
    }
}
