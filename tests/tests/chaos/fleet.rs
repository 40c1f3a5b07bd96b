//! The processes that are struck: workers and producers in seats, each run of one under a name of its own.
//!
//! ```text
//!  worker:  Up ──kill, stop──► Down ──time──► Up (another run)       Up ──SIGSTOP──► Paused ──time, SIGCONT──► Up
//! ```

use crate::{APP, LEASE, STREAM};
use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tidemill_tests::chaos::{Pause, monotonic_ns};
use tidemill_tests::{Running, Until, until};
use tokio::time::Instant;

const WORKER: &str = env!("CARGO_BIN_EXE_chaos_worker");
const PRODUCER: &str = env!("CARGO_BIN_EXE_chaos_producer");
/// Partition keys of each producer.
const KEYS: usize = 16;
/// A process has made its log within this time.
const START_DEADLINE: Duration = Duration::from_secs(30);
/// A process that was sent SIGSTOP stands within this time.
const STAND_DEADLINE: Duration = Duration::from_secs(5);

/// Where processes find the broker, and where they log.
pub(crate) struct Post {
    pub(crate) endpoint: String,
    pub(crate) logs: PathBuf,
}

impl Post {
    fn log(&self, name: &str) -> Result<String> {
        let path = self.logs.join(format!("{name}.log"));
        Ok(path.to_str().context("a temporary directory has a plain name")?.to_owned())
    }

    fn start(&self, program: &str, name: String, args: &[&str]) -> Result<Process> {
        let log = self.log(&name)?;
        let running = Running::spawn_program(Path::new(program), &[args, &[&log]].concat())?;
        Ok(Process { name, log, running })
    }
}

/// A run of a worker or producer.
pub(crate) struct Process {
    /// Its name, and that of its log.
    pub(crate) name: String,
    log: String,
    pub(crate) running: Running,
}

impl Process {
    /// Fails if it has ended by itself.
    pub(crate) fn must_run(&mut self) -> Result<()> {
        ensure!(self.running.is_running(), "{} ended by itself:\n{}", self.name, self.running.stderr());
        Ok(())
    }

    /// SIGTERM; it must end in order. One that has just been started is first waited for until it listens to signals.
    pub(crate) async fn stop(self) -> Result<()> {
        let begun = until(START_DEADLINE, || std::future::ready(Path::new(&self.log).exists())).await;
        ensure!(begun != Until::Late, "{} has no log {START_DEADLINE:?} after its start", self.name);
        let finished = self.running.terminate().await.with_context(|| format!("stopping {}", self.name))?;
        ensure!(finished.code == Some(0), "{} did not stop in order: {finished:?}", self.name);
        Ok(())
    }
}

/// Starts a run of a worker.
pub(crate) fn worker(post: &Post, seat: usize, run: u32) -> Result<Process> {
    let name = format!("worker-{seat}-{run}");
    let lease = LEASE.as_millis().to_string();
    // an automatic checkpoint that is due after a pause tells of a lost lease early; without, the own clock must
    let checkpointing = if run.is_multiple_of(2) { "automatic" } else { "manual" };
    post.start(WORKER, name.clone(), &[&post.endpoint, STREAM, APP, &name, &lease, checkpointing])
}

/// Starts a run of a producer; `run` rises from run to run of a seat.
pub(crate) fn producer(post: &Post, seat: usize, run: u32) -> Result<Process> {
    let name = format!("producer-{seat}-{run}");
    let (first_key, run) = ((seat * KEYS).to_string(), run.to_string());
    post.start(PRODUCER, name, &[&post.endpoint, STREAM, &first_key, &run])
}

/// A worker's place.
pub(crate) enum Seat {
    Up(Process),
    Paused { process: Process, from: u64, until: Instant },
    Down { until: Instant },
}

impl Seat {
    pub(crate) fn is_up(&self) -> bool {
        matches!(self, Self::Up(_))
    }

    /// Lets a paused worker go on whose time has come, or who is wanted `now`. Tells of the pause.
    pub(crate) fn resume(&mut self, now: Instant) -> Result<Option<Pause>> {
        let due = matches!(self, Self::Paused { until, .. } if *until <= now);
        if !due {
            if let Self::Up(process) = self {
                process.must_run()?;
            }
            return Ok(None);
        }
        let Self::Paused { process, from, .. } = std::mem::replace(self, Self::Down { until: now }) else {
            return Ok(None);
        };
        let pause = Pause { worker: process.name.clone(), from, until: monotonic_ns() };
        process.running.signal(Signal::CONT)?;
        *self = Self::Up(process);
        Ok(Some(pause))
    }

    /// Whether a run is due to begin here.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        matches!(self, Self::Down { until } if *until <= now)
    }

    /// Takes the process that is up, to be ended.
    pub(crate) fn vacate(&mut self, until: Instant) -> Option<Process> {
        match std::mem::replace(self, Self::Down { until }) {
            Self::Up(process) => Some(process),
            other => {
                *self = other;
                None
            }
        }
    }

    /// SIGSTOP until then.
    pub(crate) async fn pause(&mut self, until: Instant) -> Result<()> {
        let Some(process) = self.vacate(until) else { return Ok(()) };
        process.running.signal(Signal::STOP)?;
        stands(process.running.pid()?).await?;
        *self = Self::Paused { process, from: monotonic_ns(), until };
        Ok(())
    }
}

/// Waits until a process that was sent SIGSTOP stands: all its threads.
async fn stands(pid: Pid) -> Result<()> {
    let tasks = format!("/proc/{}/task", pid.as_raw_nonzero());
    let stood = until(STAND_DEADLINE, || std::future::ready(all_stand(Path::new(&tasks)))).await;
    ensure!(stood != Until::Late, "a process does not stand {STAND_DEADLINE:?} after SIGSTOP");
    Ok(())
}

fn all_stand(tasks: &Path) -> bool {
    let Ok(tasks) = std::fs::read_dir(tasks) else { return false };
    // "pid (name) state …": the name may hold anything
    let stands = |stat: String| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'));
    tasks.flatten().all(|task| std::fs::read_to_string(task.path().join("stat")).is_ok_and(stands))
}
