//! Commands of the binary: run to their end, or running beside the test with their lines collected.

use crate::binary::tidemill;
use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::future::Future;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

/// A command that is to end by itself ends within this time.
const RUN_DEADLINE: Duration = Duration::from_secs(60);
/// A process that was asked to end ends within this time.
const END_DEADLINE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(10);
/// Lines of stderr that are shown beside a failure.
const SHOWN: usize = 40;

/// A process that has ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Its exit code; nothing when a signal ended it.
    pub code: Option<i32>,
    /// Lines of its stdout.
    pub stdout: Vec<String>,
    /// What it wrote to stderr.
    pub stderr: String,
}

/// Runs `tidemill` with `args` to its end.
pub async fn run(args: &[&str]) -> Result<Finished> {
    run_with_input(args, b"").await
}

/// Runs `tidemill` with `args` and `input` as stdin to its end.
pub async fn run_with_input(args: &[&str], input: &[u8]) -> Result<Finished> {
    let mut running = Running::spawn(args)?;
    let mut stdin = running.child.stdin.take().context("stdin is piped")?;
    let input = input.to_vec();
    let feeding = tokio::spawn(async move {
        // a command that refuses its arguments does not read
        let _ = stdin.write_all(&input).await;
        drop(stdin);
    });
    let finished = running.ended(RUN_DEADLINE).await;
    feeding.abort();
    finished
}

/// What [`until`] came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// The condition held, after so long.
    Held(Duration),
    /// It did not hold in time.
    Late,
}

/// Looks again and again whether `condition` holds, at most for `limit`.
pub async fn until<F: Future<Output = bool>>(limit: Duration, mut condition: impl FnMut() -> F) -> Until {
    let started = Instant::now();
    loop {
        if condition().await {
            return Until::Held(started.elapsed());
        }
        if started.elapsed() > limit {
            return Until::Late;
        }
        tokio::time::sleep(POLL).await;
    }
}

type Lines = Arc<Mutex<Vec<(Instant, String)>>>;

/// A process under way. Dropping it kills it; what it wrote to stderr is then shown if the test fails.
#[derive(Debug)]
pub struct Running {
    name: String,
    child: Child,
    stdout: Lines,
    stderr: Lines,
    readers: Vec<JoinHandle<()>>,
}

impl Running {
    /// Starts `tidemill` with `args`. Its environment is that of the test without the broker's own variables.
    pub fn spawn(args: &[&str]) -> Result<Self> {
        Self::spawn_program(tidemill()?, args)
    }

    /// Starts another program with `args`, otherwise as [`Running::spawn`].
    pub fn spawn_program(program: &Path, args: &[&str]) -> Result<Self> {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("TIDEMILL_") || name == "RUST_LOG") {
                command.env_remove(name);
            }
        }
        let mut child = command
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let (stdout, stderr) = (Lines::default(), Lines::default());
        let readers = vec![
            tokio::spawn(collect(child.stdout.take().context("stdout is piped")?, Arc::clone(&stdout))),
            tokio::spawn(collect(child.stderr.take().context("stderr is piped")?, Arc::clone(&stderr))),
        ];
        Ok(Self { name: args.join(" "), child, stdout, stderr, readers })
    }

    /// The lines of stdout so far, each with when it was read.
    pub fn timed_lines(&self) -> Vec<(Instant, String)> {
        self.stdout.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The lines of stdout so far.
    pub fn lines(&self) -> Vec<String> {
        self.timed_lines().into_iter().map(|(_, line)| line).collect()
    }

    /// What it wrote to stderr so far.
    pub fn stderr(&self) -> String {
        let lines = self.stderr.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().map(|(_, line)| format!("{line}\n")).collect()
    }

    /// Its process id.
    pub fn pid(&self) -> Result<Pid> {
        let id = self.child.id().context("the process has ended")?;
        Pid::from_raw(i32::try_from(id)?).context("a process id is positive")
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(self.pid()?, signal).with_context(|| format!("cannot signal `{}`", self.name))
    }

    /// SIGKILL: no warning, no clean-up. Returns once the process is gone.
    pub async fn kill_9(&mut self) -> Result<()> {
        self.child.start_kill()?;
        timeout(END_DEADLINE, self.child.wait()).await.context("a killed process did not go away")??;
        Ok(())
    }

    /// SIGTERM; waits for the end.
    pub async fn terminate(mut self) -> Result<Finished> {
        self.signal(Signal::TERM)?;
        self.ended(END_DEADLINE).await
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits at most `limit` for it to end by itself.
    pub async fn ended(&mut self, limit: Duration) -> Result<Finished> {
        let waited = timeout(limit, self.child.wait()).await;
        let Ok(status) = waited else {
            let shown = self.shown();
            bail!("`{}` did not end within {limit:?}; stderr:\n{shown}", self.name);
        };
        let code = status?.code();
        for reader in self.readers.drain(..) {
            timeout(END_DEADLINE, reader).await.context("the output did not end")??;
        }
        Ok(Finished { code, stdout: self.lines(), stderr: self.stderr() })
    }

    fn shown(&self) -> String {
        let text = self.stderr();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(SHOWN)..].join("\n")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let shown = self.shown();
        if !shown.is_empty() {
            // the test runner shows it only when the test fails
            eprintln!("--- stderr of `{}` ---\n{shown}", self.name);
        }
    }
}

async fn collect(from: impl AsyncRead + Unpin, into: Lines) {
    let mut reader = BufReader::new(from);
    let mut line = Vec::new();
    while matches!(reader.read_until(b'\n', &mut line).await, Ok(bytes) if bytes > 0) {
        let text = String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(&line)).into_owned();
        into.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), text));
        line.clear();
    }
}
