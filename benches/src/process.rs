//! Other programs of a run: the broker, its load generator, the bare server. None outlives the run.

use crate::vitals::Vitals;
use anyhow::{Context, Result, bail, ensure};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use tokio::time::Instant;

const START_DEADLINE: Duration = Duration::from_secs(30);

/// The folder of this program.
pub(crate) fn program_folder() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    Ok(program.parent().context("a program lies in a folder")?.to_owned())
}

/// The program `tidemill`.
pub(crate) fn tidemill() -> Result<PathBuf> {
    beside("tidemill")
}

/// A program that was built beside this one.
pub(crate) fn beside(name: &str) -> Result<PathBuf> {
    let path = program_folder()?.join(name);
    ensure!(path.is_file(), "{} is missing; build it first, see CONTRIBUTING.md", path.display());
    Ok(path)
}

/// A server that tells where it listens by the end of its first line. Killed when dropped.
pub(crate) struct Server {
    child: Child,
    /// Servers of ours end with it.
    _stdin: Option<ChildStdin>,
    pub(crate) endpoint: String,
    /// From its start until it told.
    pub(crate) ready_in: Duration,
}

impl Server {
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let (shown, began) = (format!("{command:?}"), Instant::now());
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {shown}"))?;
        let stdout = child.stdout.take().context("its output is a pipe")?;
        let stdin = child.stdin.take();
        let mut server = Self { _stdin: stdin, child, endpoint: String::new(), ready_in: Duration::ZERO };
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
        server.ready_in = began.elapsed();
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
        Self::start(&mut serve(data_dir, durability)?)
    }

    /// A broker that verifies signatures, every acknowledgement on the device; whose, says a file of settings.
    pub(crate) fn broker_with_settings(data_dir: &Path, settings: &Path) -> Result<Self> {
        Self::start(serve(data_dir, "device")?.arg("--config").arg(settings))
    }

    /// A bare server, of this program.
    pub(crate) fn peer(which: &str) -> Result<Self> {
        Self::start(Command::new(std::env::current_exe()?).args(["peer", which]))
    }

    pub(crate) fn vitals(&self) -> Vitals {
        Vitals::of(self.child.id())
    }
}

fn serve(data_dir: &Path, durability: &str) -> Result<Command> {
    let mut command = Command::new(tidemill()?);
    command.args(["serve", "--listen", "127.0.0.1:0", "--durability", durability, "--log", "warn"]);
    command.arg("--data-dir").arg(data_dir);
    Ok(command)
}

impl Drop for Server {
    fn drop(&mut self) {
        // it may have ended by itself
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
