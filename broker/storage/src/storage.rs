//! All logs of one data directory: opening, closing, checkpoints, health.
//!
//! [`Storage::open`] recovers and is ready to be driven: by threads ([`Storage::start`]) or, in tests, step by step
//! ([`Storage::step`]) with the same code and no thread at all.

use crate::background::Threads;
use crate::checkpoint::{Checkpoint, LogEntry, SegmentEntry};
use crate::commit::{Committer, DirectGroup, Queue, round};
use crate::disk::{Disk, Sync};
use crate::error::{Error, ErrorKind, Result};
use crate::journal::{Durable, Journal, Preparation};
use crate::log_state::{Closing, LogState, Segment};
use crate::metrics::Metrics;
use crate::recovery::{Recovery, recover};
use crate::segment::{FOLDER, OpenSegments, Pool, Retired, SegmentHeader, SegmentId};
use crate::settings::{Durability, Settings};
use crate::shard_log::{LogInner, ShardLog};
use crate::write_back::WriteBack;
use crate::{Health, LogId, Usage};
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tidemill_types::{Clock, Epoch, MonotonicMs};

/// So long after the last refusal for lack of room, storage counts as healthy again.
const FULL_FOR_MS: u64 = 5_000;

/// What all parts share.
pub(crate) struct Shared {
    pub disk: Arc<dyn Disk>,
    pub clock: Arc<dyn Clock>,
    pub settings: Settings,
    pub epoch: Epoch,
    pub queue: Queue,
    pub committer: Mutex<Committer>,
    pub open_segments: OpenSegments,
    pub pool: Pool,
    pub write_back: WriteBack,
    pub metrics: Metrics,
    logs: RwLock<HashMap<LogId, Arc<LogInner>>>,
    retired: Mutex<Vec<Retired>>,
    /// Held while a checkpoint is written: the group number the last one covers.
    checkpointed: Mutex<u64>,
    journal_bytes_since: AtomicU64,
    poisoned: RwLock<Option<Error>>,
    /// Monotonic milliseconds of the last refusal for lack of room, plus one; 0: none.
    full_at: AtomicU64,
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

    /// Remembers that the disk had no room.
    pub(crate) fn note_full(&self, error: &Error) {
        if error.kind() != ErrorKind::Full {
            return;
        }
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
    fn drop_if_deleted(&self, log: &Arc<LogInner>) {
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
                Retired { id, capacity: segment.capacity, open: self.open_segments.take(id) }
            })
            .collect();
        if !gone.is_empty() {
            self.retired.lock().extend(gone);
        }
    }

    pub(crate) fn count_journal_bytes(&self, bytes: u64) {
        self.journal_bytes_since.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whether a checkpoint would pay by now.
    pub(crate) fn checkpoint_due(&self) -> bool {
        self.journal_bytes_since.load(Ordering::Relaxed) >= self.settings.checkpoint_bytes
    }

    /// Whether a checkpoint would do anything.
    pub(crate) fn checkpoint_useful(&self) -> bool {
        let covered = *self.checkpointed.lock();
        !self.retired.lock().is_empty()
            || self.committer.lock().journal.next_group() != covered
            || self.write_back.any()
    }

    /// Makes every log safe without the journal groups so far, then frees them. One at a time; a failure poisons.
    pub(crate) fn checkpoint(&self) -> Result<()> {
        let mut covered = self.checkpointed.lock();
        self.check_writable()?;
        let started = self.clock.monotonic_us();
        self.write_sidecars();
        let (checkpoint, to_sync, retired) = self.snapshot();
        let written = self.sync_segments(&to_sync).and_then(|()| checkpoint.write(&*self.disk));
        if let Err(error) = written {
            if error.kind() == ErrorKind::Full {
                // nothing was taken away: the old checkpoint stands, its segments must be synced by the next
                self.write_back.put_back(to_sync);
                self.retired.lock().extend(retired);
                self.note_full(&error);
                return Err(error);
            }
            self.poison("checkpoint", &error);
            return Err(error);
        }
        *covered = checkpoint.next_group;
        self.committer.lock().journal.release(checkpoint.next_group);
        for gone in &retired {
            if let Err(error) = self.pool.release(gone, &self.open_segments) {
                tracing::warn!(%error, "a trimmed segment could not be removed; the next start removes it");
            }
        }
        self.metrics.checkpoint(self.clock.monotonic_us() - started);
        Ok(())
    }

    /// All logs at a moment at which every journal group is settled.
    fn snapshot(&self) -> (Checkpoint, BTreeSet<SegmentId>, Vec<Retired>) {
        let committer = self.committer.lock();
        let retired = std::mem::take(&mut *self.retired.lock());
        let to_sync = self.write_back.take_to_sync();
        self.journal_bytes_since.store(0, Ordering::Relaxed);
        let now = self.clock.now();
        let mut logs: Vec<_> = self.logs.read().values().map(|log| log_entry(log, now)).collect();
        logs.sort_unstable_by_key(|log| log.id);
        let checkpoint = Checkpoint {
            next_group: committer.journal.next_group(),
            epoch: self.epoch,
            durable: self.journal_durable(),
            direct_bytes_min: u32::try_from(self.settings.direct_bytes_min).unwrap_or(u32::MAX),
            logs,
        };
        (checkpoint, to_sync, retired)
    }

    fn journal_durable(&self) -> Durable {
        match self.ack_sync() {
            Sync::Data => Durable::EachGroup,
            Sync::None => Durable::Later,
        }
    }

    /// Syncs segments and their names. One that is gone meanwhile needs no sync.
    pub(crate) fn sync_segments(&self, segments: &BTreeSet<SegmentId>) -> Result<()> {
        for &id in segments {
            let open = match self.open_segments.get(id) {
                Ok(open) => open,
                Err(_) if !self.holds(id) => continue,
                Err(error) => return Err(error),
            };
            open.file.sync().map_err(|e| Error::io(format!("cannot sync {}", id.file()), e))?;
        }
        if !segments.is_empty() {
            self.disk.sync_dir(FOLDER).map_err(|e| Error::io(format!("cannot sync {FOLDER}"), e))?;
        }
        Ok(())
    }

    fn holds(&self, id: SegmentId) -> bool {
        let log = self.logs.read().get(&id.log).cloned();
        log.is_some_and(|log| log.state.read().segments.iter().any(|segment| segment.number == id.number))
    }

    /// Writes the indexes of segments that have been filled since the last checkpoint, and lets go of them in memory.
    fn write_sidecars(&self) {
        let logs: Vec<_> = self.logs.read().values().cloned().collect();
        for log in logs {
            let full: Vec<_> = {
                let state = log.state.read();
                let filled = state.segments.len().saturating_sub(1);
                let done =
                    |segment: &&Segment| segment.index.is_some() && segment.placed_end == segment.durable_end;
                state.segments.iter().take(filled).filter(done).cloned().collect()
            };
            for segment in full {
                self.write_sidecar(&log, &segment);
            }
        }
    }

    fn write_sidecar(&self, log: &LogInner, segment: &Segment) {
        let id = SegmentId { log: log.id, number: segment.number };
        let Some(index) = &segment.index else { return };
        let bytes = index.encode(id);
        let written = self
            .disk
            .create(&id.index_file(), bytes.len() as u64, crate::disk::WriteMode::Buffered)
            .and_then(|file| file.write(0, &[&bytes], Sync::None));
        if let Err(error) = written
            && error.kind() != std::io::ErrorKind::AlreadyExists
        {
            tracing::debug!(%error, file = %id.index_file(), "an index was not written; it will be made from the segment");
        }
        let mut state = log.state.write();
        if let Some(segment) = state.segments.iter_mut().find(|s| s.number == id.number) {
            segment.index = None;
        }
    }

    /// Syncs what mode `interval` has acknowledged since the last time.
    pub(crate) fn timed_sync(&self) -> Result<()> {
        let journal = self.committer.lock().journal.current_file();
        let direct = self.write_back.take_direct();
        if let Some(journal) = journal {
            journal.sync().map_err(|e| Error::io("cannot sync the journal", e))?;
        }
        self.sync_segments(&direct)
    }
}

fn log_entry(log: &LogInner, now: tidemill_types::TimestampMs) -> LogEntry {
    let state = log.state.read();
    let durable = state.marks.durable();
    let kept: Vec<&Segment> =
        state.segments.iter().filter(|segment| segment.durable_end > SegmentHeader::BYTES as u64).collect();
    LogEntry {
        id: log.id,
        horizon: state.marks.horizon(),
        durable,
        next_segment: kept.last().map_or_else(
            || state.segments.front().map_or(state.next_segment, |first| first.number),
            |last| last.number + 1,
        ),
        newest: state.newest,
        sealed: state.closing == Closing::Sealed,
        segments: kept
            .iter()
            .map(|segment| SegmentEntry {
                number: segment.number,
                base: segment.base,
                capacity: segment.capacity,
                end: segment.durable_end,
                first_arrival: segment.first_arrival,
                last_arrival: segment.last_arrival,
            })
            .collect(),
        index: kept
            .last()
            .and_then(|last| last.index.as_ref())
            .map_or_else(Vec::new, |index| index.entries().to_vec()),
        producers: state.producers.snapshot(now),
    }
}

/// All logs of one data directory.
pub struct Storage {
    shared: Arc<Shared>,
    threads: Mutex<Option<Threads>>,
}

impl Storage {
    /// Opens the directory behind `disk` and recovers. `live` are the logs that the catalog knows: what is found of
    /// others is removed, those not found are empty. `epoch` is above every epoch used before.
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
        epoch: Epoch,
    ) -> Result<Arc<Self>> {
        settings.check()?;
        disk.lock()
            .map_err(|e| Error::io(format!("cannot use {}", disk.path()), e).as_kind(ErrorKind::Refused))?;
        let pool = Pool::new(disk.clone(), settings.segment_bytes_max, settings.pool_segments_max);
        let open_segments = OpenSegments::new(disk.clone(), settings.open_segments_max);
        let work = Recovery { disk: &disk, pool: &pool, open: &open_segments, epoch };
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
            queue: Queue::default(),
            committer: Mutex::new(Committer::new(journal)),
            open_segments,
            pool,
            write_back: WriteBack::default(),
            metrics: Metrics::new(),
            logs: RwLock::new(logs),
            retired: Mutex::default(),
            checkpointed: Mutex::new(0),
            journal_bytes_since: AtomicU64::new(0),
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

    /// Syncs what mode `interval` has acknowledged. The threads do so by themselves.
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
        if let Some(error) = &*self.shared.poisoned.read() {
            return Health::Poisoned(error.to_string());
        }
        match self.shared.full_at.load(Ordering::Relaxed).checked_sub(1) {
            Some(at) if self.shared.clock.monotonic().since(MonotonicMs::new(at)) < FULL_FOR_MS => {
                Health::Full
            }
            _ => Health::Healthy,
        }
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
