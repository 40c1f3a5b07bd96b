//! What a worker is doing, for people and dashboards: a snapshot taken on demand.
//!
//! Each shard task writes its own [`ShardBoard`]; nothing waits for a reader.

use crate::checkpoint::Checkpointer;
use crate::record::ShardRef;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemill_types::{Checkpoint, WorkerId};
use tokio::sync::Notify;
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
    /// How far behind the newest record processing is, in milliseconds; 0 at the newest. Nothing before the broker's
    /// first answer.
    pub lag_ms: Option<u64>,
    /// The last checkpoint stored.
    pub checkpoint: Checkpoint,
    /// Records processed under this lease.
    pub records: u64,
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
    /// The processor finishes: the shard ended, the lease is lost, or the worker stops.
    Finishing,
}

/// Where one shard task writes what it does.
#[derive(Debug)]
pub(crate) struct ShardBoard {
    checkpointer: Checkpointer,
    progress: Arc<Notify>,
    notes: Mutex<Notes>,
}

#[derive(Debug)]
struct Notes {
    phase: ShardPhase,
    millis_behind: Option<u64>,
    /// When the batch under way arrived.
    since: Option<Instant>,
    caught_up: bool,
    records: u64,
    trouble: Option<String>,
}

impl Notes {
    fn went_well(&mut self, millis_behind: u64, records: usize) {
        self.trouble = None;
        self.since = None;
        self.millis_behind = Some(millis_behind);
        self.records += records as u64;
    }
}

impl ShardBoard {
    /// `progress` is notified when the shard has caught up.
    pub(crate) fn new(checkpointer: Checkpointer, progress: Arc<Notify>) -> Self {
        let notes = Notes {
            phase: ShardPhase::Initializing,
            millis_behind: None,
            since: None,
            caught_up: false,
            records: 0,
            trouble: None,
        };
        Self { checkpointer, progress, notes: Mutex::new(notes) }
    }
    pub(crate) fn phase(&self, phase: ShardPhase) {
        self.notes.lock().phase = phase;
    }
    pub(crate) fn troubled(&self, trouble: String) {
        self.notes.lock().trouble = Some(trouble);
    }
    /// A batch is about to be processed; its end was so far behind when it arrived.
    pub(crate) fn began(&self, millis_behind: u64, arrived: Instant) {
        let mut notes = self.notes.lock();
        notes.millis_behind = Some(millis_behind);
        notes.since = Some(arrived);
    }
    /// Everything that had come is processed, `records` more.
    pub(crate) fn processed(&self, millis_behind: u64, records: usize) {
        let mut notes = self.notes.lock();
        notes.phase = ShardPhase::Processing;
        notes.went_well(millis_behind, records);
        if millis_behind == 0 && !notes.caught_up {
            notes.caught_up = true;
            self.progress.notify_one();
        }
    }
    /// The whole of a closed shard is processed, `records` more. It counts as caught up only when it is gone from the
    /// board and its children are known.
    pub(crate) fn processed_to_end(&self, records: usize) {
        let mut notes = self.notes.lock();
        notes.phase = ShardPhase::Finishing;
        notes.went_well(0, records);
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
            checkpoint,
            records: notes.records,
            trouble: notes.trouble.clone(),
        }
    }
}

/// The boards of all shards under work, and what concerns the worker as a whole.
#[derive(Debug)]
pub(crate) struct WorkerBoard {
    worker: WorkerId,
    shards: Mutex<BTreeMap<ShardRef, Arc<ShardBoard>>>,
    trouble: Mutex<Option<String>>,
    caught_up: tokio::sync::watch::Sender<bool>,
}

impl WorkerBoard {
    pub(crate) fn new(worker: WorkerId) -> Self {
        Self {
            worker,
            shards: Mutex::default(),
            trouble: Mutex::default(),
            caught_up: tokio::sync::watch::Sender::new(false),
        }
    }
    pub(crate) fn add(&self, shard: ShardRef, board: Arc<ShardBoard>) {
        self.shards.lock().insert(shard, board);
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
    pub(crate) fn watch_caught_up(&self) -> tokio::sync::watch::Receiver<bool> {
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
