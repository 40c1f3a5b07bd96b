//! Other programs of a run: the broker, its load generator, the bare server. None outlives the run.

use anyhow::{Context, Result, bail, ensure};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

const START_DEADLINE: Duration = Duration::from_secs(30);

/// The folder of this program.
pub(crate) fn program_folder() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    Ok(program.parent().context("a program lies in a folder")?.to_owned())
}

/// The program `tidemill`, built beside this one.
pub(crate) fn tidemill() -> Result<PathBuf> {
    let path = program_folder()?.join("tidemill");
    ensure!(path.is_file(), "{} is missing; build it first: cargo build --release", path.display());
    Ok(path)
}

/// A server that tells where it listens by the end of its first line. Killed when dropped.
pub(crate) struct Server {
    child: Child,
    /// Servers of ours end with it.
    _stdin: Option<ChildStdin>,
    pub(crate) endpoint: String,
}

impl Server {
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let shown = format!("{command:?}");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {shown}"))?;
        let stdout = child.stdout.take().context("its output is a pipe")?;
        let mut server = Self { _stdin: child.stdin.take(), child, endpoint: String::new() };
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(stdout);
            let mut line = String::new();
            if lines.read_line(&mut line).is_ok() {
                let _ = tell.send(line);
            }
            // a server must not meet a closed pipe
            let _ = lines.read_to_end(&mut Vec::new());
        });
        let line =
            told.recv_timeout(START_DEADLINE).with_context(|| format!("{shown} does not get ready"))?;
        match line.trim().rsplit_once(" on ") {
            Some((_, endpoint)) => server.endpoint = endpoint.to_owned(),
            None => bail!("{shown} says {line:?} instead of where it listens"),
        }
        Ok(server)
    }

    /// A broker on a directory, every acknowledgement on the device.
    pub(crate) fn broker(data_dir: &Path) -> Result<Self> {
        Self::broker_with(data_dir, "device")
    }

    /// A broker on a directory that acknowledges what is so durable.
    pub(crate) fn broker_with(data_dir: &Path, durability: &str) -> Result<Self> {
        let mut command = Command::new(tidemill()?);
        command.args(["serve", "--listen", "127.0.0.1:0", "--durability", durability, "--log", "warn"]);
        Self::start(command.arg("--data-dir").arg(data_dir))
    }

    /// The bare gRPC server.
    pub(crate) fn peer() -> Result<Self> {
        Self::start(Command::new(std::env::current_exe()?).arg("peer"))
    }

    /// Memory in use now that is not of files, in MiB.
    pub(crate) fn anonymous_mib(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find(|line| line.starts_with("RssAnon:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib >> 10)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // it may have ended by itself
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
