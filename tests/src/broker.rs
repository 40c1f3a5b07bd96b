//! A broker as users run it: `tidemill serve` on a directory, killed and started again at will.

use crate::http::Connection;
use crate::kinesis::Kinesis;
use crate::process::{Finished, Running, Until, until};
use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tidemill_proto::client::Endpoint;
use tokio::time::Instant;

/// A broker that is not ready after this long is given up.
const READY_DEADLINE: Duration = Duration::from_secs(20);
const READY: &str = "tidemill ready on http://";

/// A running `tidemill serve`. Dropping it kills it.
#[derive(Debug)]
pub struct Broker {
    running: Running,
    addr: SocketAddr,
    dir: PathBuf,
    /// Program and arguments in front of the command, such as `env LD_PRELOAD=…`.
    under: Vec<String>,
    args: Vec<String>,
    ready_after: Duration,
}

impl Broker {
    /// Starts a broker on `dir`, on a port of its own that it keeps over restarts, with more arguments for `serve`.
    pub async fn start(dir: &Path, args: &[&str]) -> Result<Self> {
        Self::start_under(&[], dir, args).await
    }

    /// Starts a broker by another program, which must become it: `env`, `sh -c 'ulimit …; exec "$@"' sh`, `strace -D`.
    pub async fn start_under(under: &[&str], dir: &Path, args: &[&str]) -> Result<Self> {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let owned = |all: &[&str]| all.iter().map(ToString::to_string).collect();
        Self::start_on(addr, dir, owned(under), owned(args)).await
    }

    async fn start_on(addr: SocketAddr, dir: &Path, under: Vec<String>, args: Vec<String>) -> Result<Self> {
        // the build must not count as starting
        let program = crate::tidemill()?;
        let started = Instant::now();
        let serve = serve_args(addr, dir, &args)?;
        let mut running = match under.split_first() {
            None => Running::spawn(&serve)?,
            Some((first, rest)) => {
                let program = program.to_str().context("the program has a plain name")?;
                let rest = rest.iter().map(String::as_str).chain([program]).chain(serve);
                Running::spawn_program(Path::new(first), &rest.collect::<Vec<_>>())?
            }
        };
        let mut ready = None;
        let mut ended = false;
        let waited = until(READY_DEADLINE, || {
            ready = running.timed_lines().into_iter().find(|(_, line)| line.starts_with(READY));
            ended = ready.is_none() && !running.is_running();
            std::future::ready(ready.is_some() || ended)
        })
        .await;
        let (Until::Held(_), Some((at, line))) = (waited, ready) else {
            let told = running.stderr();
            bail!("the broker on {} is not ready (ended: {ended}):\n{told}", dir.display());
        };
        let addr =
            line.strip_prefix(READY).unwrap_or_default().parse().context("the address in the ready line")?;
        Ok(Self { running, addr, dir: dir.to_owned(), under, args, ready_after: at - started })
    }

    /// Starts the same broker again, on the same directory and port, after it was killed.
    pub async fn restart(self) -> Result<Self> {
        let Self { running, addr, dir, under, args, .. } = self;
        drop(running);
        Self::start_on(addr, &dir, under, args).await
    }

    /// The same without the program it was started by.
    pub async fn restart_plainly(mut self) -> Result<Self> {
        self.under.clear();
        self.restart().await
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.running.signal(signal)
    }

    /// Its process id.
    pub fn pid(&self) -> Result<Pid> {
        self.running.pid()
    }

    /// What it wrote to stderr so far.
    pub fn stderr(&self) -> String {
        self.running.stderr()
    }

    /// The status of `/health/ready`, and the word in it: `ready`, `degraded`, `not ready`, `stopping`.
    pub async fn readiness(&self) -> Result<(u16, String)> {
        let reply = self.connect().await?.get("/health/ready").await?;
        let word = reply.json()?["status"].as_str().context("a status")?.to_owned();
        Ok((reply.status, word))
    }

    /// SIGKILL: no warning, no clean-up.
    pub async fn kill_9(&mut self) -> Result<()> {
        self.running.kill_9().await
    }

    /// SIGTERM; the broker must drain and exit with 0.
    pub async fn terminate(self) -> Result<Finished> {
        let finished = self.running.terminate().await?;
        ensure!(finished.code == Some(0), "a broker that was asked to stop exits with 0: {finished:?}");
        Ok(finished)
    }

    /// SIGTERM, a clean end, and the start of another one in its place.
    pub async fn roll(mut self) -> Result<Self> {
        self.running.signal(Signal::TERM)?;
        let finished = self.running.ended(READY_DEADLINE).await?;
        ensure!(finished.code == Some(0), "a broker that was asked to stop exits with 0: {finished:?}");
        self.restart().await
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://` and the address.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The address for the native clients.
    pub fn endpoint(&self) -> Result<Endpoint> {
        Ok(Endpoint::new(&self.url())?)
    }

    /// From the start of the process to its ready line.
    pub fn ready_after(&self) -> Duration {
        self.ready_after
    }

    /// Its data directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A client of its Kinesis API.
    pub fn kinesis(&self) -> Kinesis {
        Kinesis::new(self.addr)
    }

    /// A raw connection to it.
    pub async fn connect(&self) -> Result<Connection> {
        Connection::open(self.addr).await
    }

    /// Memory of the process that is in use, in KiB. Linux only.
    pub fn resident_kib(&self) -> Result<u64> {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.running.pid()?.as_raw_nonzero()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()).context("no VmRSS")?;
        Ok(kib.parse()?)
    }

    /// Fails unless it still runs and says that it is ready.
    pub async fn assert_alive(&mut self) -> Result<()> {
        ensure!(self.running.is_running(), "the broker is gone");
        let reply = self.connect().await?.get("/health/ready").await?;
        ensure!(reply.status == 200, "the broker is not ready: {reply:?}");
        Ok(())
    }
}

fn serve_args<'a>(addr: SocketAddr, dir: &'a Path, args: &'a [String]) -> Result<Vec<&'a str>> {
    // leaked once per start of a broker in a test
    let addr: &'static str = addr.to_string().leak();
    let dir = dir.to_str().context("a temporary directory has a plain name")?;
    let mut all = vec!["serve", "--listen", addr, "--data-dir", dir];
    all.extend(args.iter().map(String::as_str));
    Ok(all)
}

/// A free port below the range from which the system takes ports for outgoing connections: there, a client that keeps
/// trying while the broker is down could take the broker's port itself.
pub fn free_port() -> Result<u16> {
    for _ in 0..200 {
        let port = rand::random_range(10_000..32_000);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("found no free port in 200 attempts")
}
