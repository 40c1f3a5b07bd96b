//! A peer's server, from its start to its end: on a free port, with a directory of its own on the disk, alone.

use super::install::Installed;
use super::load::WARMUP;
use super::peer::{Measure, Peer, Program, Sync};
use crate::process::tidemill;
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A server is asked so often, so many times, whether it listens: for a minute.
const START_POLL: Duration = Duration::from_millis(50);
const START_TRIES: u32 = 1200;
/// What clients sign with; Tidemill alone verifies it.
pub(super) const ACCESS_KEY_ID: &str = "COMPARE";
pub(super) const SECRET_ACCESS_KEY: &str = "compares-what-is-signed";

/// Killed when dropped, its data removed.
pub(super) struct Running {
    child: Child,
    port: u16,
    data: tempfile::TempDir,
}

impl Running {
    /// Starts a server for a measurement, with its data in a fresh directory within `dir`.
    pub(super) fn start(
        peer: &Peer,
        measure: Measure,
        installed: Option<&Installed>,
        dir: &Path,
    ) -> Result<Self> {
        let data = tempfile::Builder::new().prefix("peer-").tempdir_in(dir)?;
        let port = free_port()?;
        let place = Place { program: installed.map(|i| i.dir.as_path()), data: data.path(), port };
        let mut command = place.command(peer.program, measure)?;
        let log = File::create(data.path().join("log"))?;
        let child = command
            .current_dir(data.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let mut server = Self { child, port, data };
        server.wait()?;
        Ok(server)
    }

    fn wait(&mut self) -> Result<()> {
        for _ in 0..START_TRIES {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok() {
                // what a server does behind its first bind is not measured
                std::thread::sleep(WARMUP / 2);
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended with {status}: {}", self.last_words());
            }
            std::thread::sleep(START_POLL);
        }
        bail!("it does not listen: {}", self.last_words())
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// The last line of its log.
    pub(super) fn last_words(&self) -> String {
        let log = std::fs::read(self.data.path().join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log).into_owned();
        log.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("nothing").trim().to_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // it may have ended by itself
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Where a server is and listens.
struct Place<'a> {
    /// The folder it was installed in.
    program: Option<&'a Path>,
    data: &'a Path,
    port: u16,
}

impl Place<'_> {
    fn command(&self, program: Program, measure: Measure) -> Result<Command> {
        Ok(match program {
            Program::Tidemill(sync) => self.tidemill(sync, measure)?,
            Program::FerrokinesisInMemory => self.ferrokinesis()?,
            Program::FerrokinesisOnDisk => {
                let mut command = self.ferrokinesis()?;
                command.arg("--state-dir").arg(self.data.join("state"));
                command
            }
            Program::Kinesalite => {
                let mut command = self.installed("node_modules/.bin/kinesalite")?;
                command.args(["--port", &self.port(), "--shardLimit", "100", "--path"]);
                command.arg(self.data.join("leveldb"));
                command
            }
            Program::KinesisLocal => {
                let mut command = Command::new("node");
                let folder = self.folder()?.join("node_modules/kinesis-local");
                command.arg(folder.join("main.js")).env("KINESIS_MOCK_CERT_PATH", folder.join("server.json"));
                command.env("KINESIS_MOCK_PLAIN_PORT", self.port()).env("LOG_LEVEL", "ERROR");
                command.env("KINESIS_MOCK_TLS_PORT", free_port()?.to_string());
                command
            }
            Program::Moto => {
                let mut command = self.installed("bin/moto_server")?;
                command.args(["-H", "127.0.0.1", "-p", &self.port()]);
                command
            }
            Program::Redis(sync) => self.redis(sync)?,
            Program::Nats(sync, _) => self.nats(sync)?,
        })
    }

    fn port(&self) -> String {
        self.port.to_string()
    }
    fn folder(&self) -> Result<&Path> {
        self.program.context("it is not installed")
    }
    fn installed(&self, path: &str) -> Result<Command> {
        Ok(Command::new(self.folder()?.join(path)))
    }

    /// Signatures are verified where they are made: on the Kinesis API. The gRPC load carries none.
    fn tidemill(&self, sync: Sync, measure: Measure) -> Result<Command> {
        let mut command = Command::new(tidemill()?);
        let durability = if sync == Sync::Always { "device" } else { "os" };
        command.args(["serve", "--durability", durability, "--log", "warn"]);
        command.arg("--listen").arg(format!("127.0.0.1:{}", self.port));
        command.arg("--data-dir").arg(self.data.join("data"));
        if !matches!(measure, Measure::Produce | Measure::Consume) {
            let config = self.write(
                "tidemill.toml",
                &format!(
                    "[[credentials]]\naccess_key_id = \"{ACCESS_KEY_ID}\"\nsecret_access_key = \"{SECRET_ACCESS_KEY}\"\n\
                     policies = [\"all\"]\n[[policies]]\nname = \"all\"\n[[policies.statements]]\neffect = \"allow\"\n\
                     actions = [\"kinesis:*\"]\nstreams = [\"*\"]\n"
                ),
            )?;
            command.arg("--config").arg(config);
        }
        Ok(command)
    }

    fn ferrokinesis(&self) -> Result<Command> {
        let mut command = self.installed("bin/ferrokinesis")?;
        command.args(["--port", &self.port(), "--create-stream-ms", "0", "--log-level", "off"]);
        command.args(["--shard-limit", "100"]);
        Ok(command)
    }

    /// No snapshots, and no log written anew: only what durability costs.
    fn redis(&self, sync: Sync) -> Result<Command> {
        let folder = self.folder()?.join("root/usr");
        let mut command = Command::new(folder.join("bin/redis-server"));
        command.env("LD_LIBRARY_PATH", library_folder(&folder.join("lib"))?);
        let fsync = if sync == Sync::Always { "always" } else { "everysec" };
        command.args(["--port", &self.port(), "--bind", "127.0.0.1", "--save", "", "--dir"]).arg(self.data);
        command.args(["--appendonly", "yes", "--appendfsync", fsync, "--auto-aof-rewrite-percentage", "0"]);
        Ok(command)
    }

    fn nats(&self, sync: Sync) -> Result<Command> {
        let sync = if sync == Sync::Always { "sync_interval: always" } else { "" };
        let config = self.write(
            "nats.conf",
            &format!(
                "listen: \"127.0.0.1:{}\"\nping_interval: \"1h\"\njetstream {{ store_dir: {:?}\n{sync}\n}}\n",
                self.port,
                self.data.join("jetstream")
            ),
        )?;
        let mut command = self.installed("bin/nats-server")?;
        command.arg("--config").arg(config);
        Ok(command)
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.data.join(name);
        std::fs::write(&path, text)?;
        Ok(path)
    }
}

/// The only folder in `lib`, which is named after the processor.
fn library_folder(lib: &Path) -> Result<PathBuf> {
    let first = std::fs::read_dir(lib)?.next().context("it has no libraries")?;
    Ok(first?.path())
}
