//! All logs of one data directory: opening, closing, checkpoints, health.
//!
//! [`Storage::open`] recovers and is ready to be driven: by threads ([`Storage::start`]) or, in tests, step by step
//! ([`Storage::step`]) with the same code and no thread at all.

use crate::background::Threads;
use crate::commit::{Committer, DirectGroup, Queue, round};
use crate::disk::Disk;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::{Durable, Journal, Preparation};
use crate::leaving::Leaving;
use crate::log_state::LogState;
use crate::metrics::Metrics;
use crate::recovery::{Recovery, recover};
use crate::segment::{OpenSegments, Pool};
use crate::settings::{Durability, Settings};
use crate::shard_log::{LogInner, ShardLog};
use crate::shared::Shared;
use crate::sync::atomic::AtomicU64;
use crate::sync::{Mutex, RwLock};
use crate::write_back::WriteBack;
use crate::{Health, LogId, Opening, Usage};
use std::cell::RefCell;
use std::sync::Arc;
use tidemill_types::Clock;

/// All logs of one data directory.
pub struct Storage {
    pub(crate) shared: Arc<Shared>,
    threads: Mutex<Option<Threads>>,
}

impl Storage {
    /// Opens the directory behind `disk` and recovers. `live` are the logs that the catalog knows: what is found of
    /// others is removed, those not found are empty. The epoch of `opening` is above every epoch used before.
    ///
    /// Nothing runs yet: [`Storage::start`] starts the threads, or [`Storage::step`] drives it by hand.
    ///
    /// Errors: [`ErrorKind::Refused`] when another process has the directory or a later version wrote it,
    /// [`ErrorKind::Damaged`] (naming file and offset), [`ErrorKind::Full`], [`ErrorKind::Io`].
    pub fn open(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        settings: Settings,
        live: &[LogId],
        opening: impl Into<Opening>,
    ) -> Result<Arc<Self>> {
        let Opening { epoch, directory } = opening.into();
        settings.check()?;
        disk.lock()
            .map_err(|e| Error::io(format!("cannot use {}", disk.path()), e).with_kind(ErrorKind::Refused))?;
        let pool = Pool::new(disk.clone(), settings.segment_bytes_max, settings.pool_segments_max);
        let open_segments = OpenSegments::new(disk.clone(), settings.open_segments_max);
        let work = Recovery {
            disk: &disk,
            pool: &pool,
            open: &open_segments,
            epoch,
            now: clock.monotonic(),
            leaving: RefCell::default(),
        };
        let recovered = recover(&work, live)?;
        let durable = match settings.durability {
            Durability::Device => Durable::EachGroup,
            Durability::Interval { .. } | Durability::Os => Durable::Later,
        };
        let first_start = recovered.journal.files.is_empty();
        let mut journal =
            Journal::new(disk.clone(), &settings, durable, recovered.journal, recovered.next_group);
        if first_start {
            prepare_first(&*disk, &mut journal)?;
        }
        let logs = recovered.logs.into_iter().map(|(id, state)| (id, LogInner::new(id, state))).collect();
        let shared = Arc::new(Shared {
            disk,
            clock,
            epoch,
            directory,
            queue: Queue::default(),
            committer: Mutex::new(Committer::new(journal)),
            open_segments,
            pool,
            write_back: WriteBack::default(),
            leaving: Leaving::default(),
            metrics: Metrics::new(),
            logs: RwLock::new(logs),
            retired: Mutex::default(),
            checkpointed: Mutex::new(0),
            syncing: Mutex::new(()),
            bytes_since: AtomicU64::new(0),
            checkpoints: AtomicU64::new(0),
            poisoned: RwLock::new(None),
            full_at: AtomicU64::new(0),
            settings,
        });
        // from here on the old journal is not needed, and what follows is known to be written in this mode; on a full disk
        // the old checkpoint stands and nothing is appended before the next one
        match shared.checkpoint() {
            Err(error) if error.kind() == ErrorKind::Full && !first_start => {}
            other => other?,
        }
        Ok(Arc::new(Self { shared, threads: Mutex::new(None) }))
    }

    /// Starts the threads that commit, write large frames, write back and checkpoint. Once.
    pub fn start(&self) -> Result<()> {
        let mut threads = self.threads.lock();
        if threads.is_none() {
            *threads = Some(Threads::start(&self.shared)?);
        }
        Ok(())
    }

    /// Commits what is queued, on this thread: for tests that want no other. Returns how many groups were taken.
    pub fn step(&self) -> usize {
        let mut direct = Vec::new();
        let taken = round(&self.shared, false, |group| direct.push(group)).unwrap_or(0);
        for group in direct {
            DirectGroup::write(group, &self.shared);
        }
        taken
    }

    /// Writes a checkpoint now. The threads do so by themselves.
    pub fn checkpoint(&self) -> Result<()> {
        self.shared.checkpoint()
    }

    /// Syncs what was acknowledged so far and may not be on the device yet. In mode `interval` the threads do so by
    /// themselves.
    pub fn sync(&self) -> Result<()> {
        let synced = self.shared.timed_sync();
        if let Err(error) = &synced {
            self.shared.poison("sync", error);
        }
        synced
    }

    /// The log, if there is one.
    pub fn log(&self, id: LogId) -> Option<ShardLog> {
        let inner = self.shared.logs.read().get(&id).cloned()?;
        Some(ShardLog { inner, shared: self.shared.clone() })
    }

    /// Makes an empty log, or gives the one there is. It takes no room on disk before its first frame.
    pub fn create_log(&self, id: LogId) -> ShardLog {
        let mut logs = self.shared.logs.write();
        let inner =
            logs.entry(id).or_insert_with(|| LogInner::new(id, LogState::empty(self.shared.epoch))).clone();
        ShardLog { inner, shared: self.shared.clone() }
    }

    /// Forgets a log; its files go once the last reader has gone. Appends that wait fail with [`ErrorKind::Closed`].
    pub fn delete_log(&self, id: LogId) {
        let Some(log) = self.shared.logs.write().remove(&id) else { return };
        log.state.write().deleted = true;
        self.shared.drop_if_deleted(&log);
        log.wake();
    }

    /// Whether writes are taken.
    pub fn health(&self) -> Health {
        self.shared.health()
    }

    /// Bytes on disk.
    pub fn usage(&self) -> Usage {
        let logs: Vec<_> = self.shared.logs.read().values().cloned().collect();
        let of_log = |log: &Arc<LogInner>| log.state.read().segments.iter().map(|s| s.capacity).sum::<u64>();
        Usage {
            journal_bytes: self.shared.committer.lock().journal.total_bytes(),
            segment_bytes: logs.iter().map(of_log).sum::<u64>() + self.shared.pool.bytes(),
        }
    }

    /// Takes no more appends ([`ErrorKind::Unavailable`]), commits what is queued, writes a checkpoint, ends the threads.
    pub fn close(&self) -> Result<()> {
        self.shared.queue.close();
        let threads = self.threads.lock().take();
        match threads {
            Some(threads) => threads.join(),
            None => while self.step() > 0 {},
        }
        self.shared.write_back.close();
        self.shared.checkpoint()
    }
}

impl Drop for Storage {
    /// Without [`Storage::close`], as after a crash: the threads end, nothing more is written than was under way.
    fn drop(&mut self) {
        self.shared.queue.close();
        self.shared.write_back.close();
        if let Some(threads) = self.threads.lock().take() {
            threads.join();
        }
    }
}

/// The first journal file of a directory is written once before the first append, so that it is fast from the start.
fn prepare_first(disk: &dyn Disk, journal: &mut Journal) -> Result<()> {
    let plan: Preparation = journal.plan_first();
    let made = plan.run(disk);
    let io = |e| Error::io("cannot make the journal", e);
    match made {
        Ok(file) => {
            journal.prepared(&plan, Some(file));
            Ok(())
        }
        Err(error) => {
            journal.prepared(&plan, None);
            Err(io(error))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::fault::FaultDisk;
    use tidemill_types::{Epoch, FrameWriter, ManualClock, ProducerId, SequenceIndex, TimestampMs};

    fn open(disk: &FaultDisk, epoch: u32) -> Arc<Storage> {
        let clock = Arc::new(ManualClock::new(TimestampMs::new(1_700_000_000_000)));
        let live = [LogId::new(1), LogId::new(2)];
        let epoch = Epoch::new(epoch).expect("a small number");
        Storage::open(Arc::new(disk.clone()), clock, Settings::default(), &live, epoch).expect("it opens")
    }

    fn append(storage: &Storage, log: u64, bytes: usize) {
        let mut writer = FrameWriter::with_capacity(bytes);
        writer.push("key", &vec![7; bytes]);
        let log = storage.log(LogId::new(log)).expect("a live log");
        log.append(writer.finish(ProducerId::NONE, 0), |outcome| assert!(outcome.is_ok()));
        while storage.step() > 0 {}
    }

    /// Recovery once looked behind the end of every large log on every start: its time grew with what was stored.
    #[test]
    fn a_start_opens_only_what_was_written_since_the_checkpoint() {
        let disk = FaultDisk::new(1);
        let storage = open(&disk, 1);
        append(&storage, 1, 300_000);
        append(&storage, 2, 300_000);
        storage.checkpoint().expect("room and power");
        append(&storage, 2, 300_000);
        let disk = disk.process_crash();
        let storage = open(&disk, 2);
        assert_eq!(storage.shared.open_segments.len(), 2, "the two segments of log 2, none of log 1");
        let end = |log| storage.log(LogId::new(log)).expect("a live log").read(SequenceIndex::ZERO, 1 << 20);
        assert_eq!(end(2).expect("intact").frames.len(), 1);
        storage.close().expect("room and power");
        drop(storage);
        assert_eq!(open(&disk, 3).shared.open_segments.len(), 0, "nothing was written");
    }
}
