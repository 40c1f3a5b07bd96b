//! The threads that drive storage: the one that commits, those that write large frames, one that writes back, one that gives
//! room back, one that keeps house (checkpoints, journal files ahead of need, timed syncs). No other thread is started in this crate.
//!
//! They end when the queue is closed and empty; joining waits for that.

use crate::commit::{DirectGroup, round};
use crate::error::{Error, ErrorKind, Result};
use crate::settings::Durability;
use crate::shared::Shared;
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Condvar, Mutex};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// The housekeeper looks so often whether a checkpoint or a journal file is due.
const HOUSEKEEPING: Duration = Duration::from_millis(50);
/// A directory that is written to gets a checkpoint so often even if little has come, in housekeeping turns (30 s).
const CHECKPOINT_TURNS: u32 = 600;
/// Segments that nobody has used for so many turns are closed (10 s).
const IDLE_TURNS: u32 = 200;
/// After a failure to prepare a journal file, so many turns pass before the next try (5 s).
const PAUSE_TURNS: u32 = 100;

/// The running threads.
pub(crate) struct Threads {
    committer: JoinHandle<()>,
    writers: Vec<JoinHandle<()>>,
    others: Vec<JoinHandle<()>>,
    direct: Arc<DirectQueue>,
    stop: Arc<Stop>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct DirectQueue {
    state: Mutex<(VecDeque<DirectGroup>, bool)>,
    filled: Condvar,
}

impl DirectQueue {
    /// Bounded by the number of logs: each has one group in flight.
    fn push(&self, group: DirectGroup) {
        self.state.lock().0.push_back(group);
        self.filled.notify_one();
    }
    fn next(&self) -> Option<DirectGroup> {
        let mut state = self.state.lock();
        loop {
            if let Some(group) = state.0.pop_front() {
                return Some(group);
            }
            if state.1 {
                return None;
            }
            self.filled.wait(&mut state);
        }
    }
    fn close(&self) {
        self.state.lock().1 = true;
        self.filled.notify_all();
    }
}

#[derive(Default)]
struct Stop {
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    /// Waits; `true` when it is time to end.
    fn wait(&self, most: Duration) -> bool {
        let mut stopped = self.stopped.lock();
        if !*stopped {
            self.changed.wait_for(&mut stopped, most);
        }
        *stopped
    }
    fn set(&self) {
        *self.stopped.lock() = true;
        self.changed.notify_all();
    }
}

impl Threads {
    pub(crate) fn start(shared: &Arc<Shared>) -> Result<Self> {
        let direct = Arc::new(DirectQueue::default());
        let stop = Arc::new(Stop::default());
        let committer = {
            let (shared, direct) = (shared.clone(), direct.clone());
            spawn(
                "tidemill-commit",
                move || while round(&shared, true, |group| direct.push(group)).is_some() {},
            )?
        };
        let writers = (0..shared.settings.direct_threads)
            .map(|_| {
                let (shared, direct) = (shared.clone(), direct.clone());
                spawn("tidemill-write", move || {
                    while let Some(group) = direct.next() {
                        group.write(&shared);
                    }
                })
            })
            .collect::<Result<_>>()?;
        let mut others = Vec::new();
        {
            let shared = shared.clone();
            others.push(spawn("tidemill-back", move || write_back(&shared))?);
        }
        {
            let shared = shared.clone();
            shared.leaving.begin();
            others.push(spawn("tidemill-leave", move || shared.leaving.run())?);
        }
        {
            let (shared, stop) = (shared.clone(), stop.clone());
            others.push(spawn("tidemill-house", move || keep_house(&shared, &stop))?);
        }
        if let Durability::Interval { ms } = shared.settings.durability {
            let (shared, stop) = (shared.clone(), stop.clone());
            others.push(spawn("tidemill-sync", move || {
                sync_on_time(&shared, &stop, Duration::from_millis(ms))
            })?);
        }
        Ok(Self { committer, writers, others, direct, stop, shared: shared.clone() })
    }

    /// Waits for the queue, which is closed, to drain; then ends all threads.
    pub(crate) fn join(self) {
        let ended = |thread: JoinHandle<()>| {
            if thread.join().is_err() {
                tracing::error!("a storage thread panicked");
            }
        };
        ended(self.committer);
        self.direct.close();
        self.writers.into_iter().for_each(ended);
        self.stop.set();
        self.shared.write_back.close();
        self.shared.leaving.close();
        self.others.into_iter().for_each(ended);
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let _end = AbortOnPanic;
            work();
        })
        .map_err(|e| Error::io(format!("cannot start the thread {name}"), e).with_kind(ErrorKind::Refused))
}

/// A storage thread that panics has broken an invariant: what it held is unknown, and others would wait for it for ever.
/// A restart recovers.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            tracing::error!("a storage thread panicked; the process ends, a restart recovers");
            std::process::abort();
        }
    }
}

/// Asks for write-back of what has been copied to its place, a stretch at a time.
fn write_back(shared: &Shared) {
    while let Some(stretch) = shared.write_back.next() {
        let Ok(open) = shared.open_segments.get(stretch.id) else { continue }; // trimmed meanwhile
        if let Err(error) = open.file.start_write_back(stretch.from, stretch.to - stretch.from) {
            tracing::debug!(%error, file = %stretch.id.file(), "write-back was not begun; the checkpoint will wait for it");
        }
    }
}

fn keep_house(shared: &Shared, stop: &Stop) {
    let mut turns = 0;
    let mut pause = 0;
    let mut until_idle = IDLE_TURNS;
    while !stop.wait(HOUSEKEEPING) {
        turns += 1;
        until_idle -= 1;
        if until_idle == 0 {
            until_idle = IDLE_TURNS;
            shared.open_segments.close_idle();
        }
        // a full disk is not asked for all that is left of it twenty times a second
        if pause > 0 {
            pause -= 1;
        } else if shared.check_writable().is_ok() && prepare_spare(shared).is_err() {
            pause = PAUSE_TURNS;
        }
        let due = shared.checkpoint_due() || (turns >= CHECKPOINT_TURNS && shared.checkpoint_useful());
        if turns >= CHECKPOINT_TURNS || due {
            turns = 0;
        }
        if due && let Err(error) = shared.checkpoint() {
            tracing::warn!(%error, "no checkpoint was written");
        }
    }
}

fn prepare_spare(shared: &Shared) -> std::io::Result<()> {
    let plan = shared.committer.lock().journal.plan_spare();
    let Some(plan) = plan else { return Ok(()) };
    let (file, made) = match plan.run(&*shared.disk) {
        Ok(file) => (Some(file), Ok(())),
        Err(error) => {
            tracing::debug!(%error, "no journal file could be prepared ahead");
            (None, Err(error))
        }
    };
    shared.committer.lock().journal.prepared(&plan, file);
    made
}

fn sync_on_time(shared: &Shared, stop: &Stop, every: Duration) {
    while !stop.wait(every) {
        if let Err(error) = shared.timed_sync() {
            shared.poison("timed sync", &error);
        }
    }
}
