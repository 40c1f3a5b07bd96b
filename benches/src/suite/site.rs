//! Where a run takes place: a directory on a disk, and the processes that are measured. None outlives it.

use super::load::{ACCESS_KEY_ID, Load, Pace, SECRET_ACCESS_KEY, Told};
use crate::figure::Figure;
use crate::memory::Ballast;
use crate::process::Server;
use crate::window::Window;
use anyhow::{Context, Result};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Seconds of every measurement that do not count.
pub(super) const WARMUP_SECONDS: u64 = 1;

pub(super) struct Site {
    pub(super) runtime: Runtime,
    pub(super) pace: Pace,
    /// Acknowledges what is on the device.
    pub(super) device: Server,
    /// Acknowledges what the operating system has.
    pub(super) os: Server,
    /// Verifies signatures.
    pub(super) signed: Server,
    pub(super) grpc_peer: Server,
    pub(super) http_peer: Server,
    ballast: Option<Ballast>,
    // the last to go: the others use it
    dir: TempDir,
}

impl Site {
    pub(super) fn prepare(directory: &crate::Directory, seconds: u64) -> Result<Self> {
        let dir = directory.make()?;
        let settings = dir.path().join("signed.toml");
        write_secret(&settings, &credentials()).context("cannot write the settings of a broker")?;
        Ok(Self {
            runtime: tokio::runtime::Builder::new_multi_thread().enable_all().build()?,
            pace: Pace { warmup_seconds: WARMUP_SECONDS, seconds },
            device: Server::broker(&dir.path().join("device"))?,
            os: Server::broker_with(&dir.path().join("os"), "os")?,
            signed: Server::broker_with_settings(&dir.path().join("signed"), &settings)?,
            grpc_peer: Server::peer("grpc")?,
            http_peer: Server::peer("http")?,
            ballast: directory.ballast(dir.path())?,
            dir,
        })
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }
    /// The window of a measurement that begins now.
    pub(super) fn window(&self) -> Window {
        Window::after(Duration::from_secs(WARMUP_SECONDS), Duration::from_secs(self.pace.seconds))
    }
    /// Fills the page cache, if that is wanted.
    pub(super) fn warm(&self) -> Result<()> {
        self.ballast.as_ref().map_or(Ok(()), Ballast::fill)
    }
    /// Loads a broker as long as every measurement takes.
    pub(super) fn load(&self, load: &Load, broker: &Server) -> Result<Figure> {
        Ok(self.load_told(load, broker)?.figure)
    }
    /// The same, with what the load generator tells of delivery.
    pub(super) fn load_told(&self, load: &Load, broker: &Server) -> Result<Told> {
        self.warm()?;
        load.run(broker, self.pace)
    }
    /// A broker with nothing stored, for one measurement.
    pub(super) fn fresh_broker(&self, name: &str) -> Result<FreshBroker> {
        let data = self.path().join(name);
        Ok(FreshBroker { server: Server::broker(&data)?, data: Data(data) })
    }
}

/// A broker whose data go with it.
pub(super) struct FreshBroker {
    pub(super) server: Server,
    // behind the server, which must have ended
    data: Data,
}

impl FreshBroker {
    /// Kills it and starts it again on its data.
    pub(super) fn restart(self) -> Result<Self> {
        let Self { server, data } = self;
        drop(server);
        Ok(Self { server: Server::broker(&data.0)?, data })
    }
}

struct Data(PathBuf);

impl Drop for Data {
    fn drop(&mut self) {
        // the directory of the run takes what is left
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Others may not read it, or the broker warns.
fn write_secret(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

/// Settings of a broker that knows one caller, who may do everything.
fn credentials() -> String {
    format!(
        "[[credentials]]\naccess_key_id = \"{ACCESS_KEY_ID}\"\nsecret_access_key = \"{SECRET_ACCESS_KEY}\"\n\
         name = \"benchmark\"\npolicies = [\"everything\"]\n\n\
         [[policies]]\nname = \"everything\"\n[[policies.statements]]\neffect = \"allow\"\n\
         actions = [\"kinesis:*\"]\nstreams = [\"*\"]\n"
    )
}
