//! A broker in a process of its own, which can be killed and looked at: `recovery` and `idle`.

use crate::config::DurabilityMode;
use crate::error::{Error, Result};
use clap::ValueEnum;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tidemill_proto::client::Endpoint;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{Instant, timeout};

/// A broker that is not ready in this time will not be.
const READY_PATIENCE: Duration = Duration::from_secs(120);
const READY: &str = "tidemill ready on ";
/// Of the times in `/proc`: an interface of the kernel that does not change.
const TICKS_PER_SECOND: f64 = 100.0;
/// Fields of `/proc/PID/stat` behind the name, counted from 0: time of the process and of the kernel for it, in ticks.
const STAT_FIELDS: [usize; 2] = [11, 12];

/// A running broker. Dropping it kills it.
pub(super) struct Process {
    child: Child,
    /// Kept open: a broker must not meet a closed pipe.
    _stdout: BufReader<ChildStdout>,
    pub(super) endpoint: Endpoint,
    /// From its start until it said that it is ready.
    pub(super) ready: Duration,
}

impl Process {
    /// Starts this program as a broker on a directory, on a free port, with nothing but its defaults.
    pub(super) async fn start(data_dir: &Path, durability: DurabilityMode) -> Result<Self> {
        let cannot = |e: std::io::Error| Error::because("cannot start a broker", e);
        let mut command = Command::new(std::env::current_exe().map_err(cannot)?);
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("TIDEMILL_") || name == "RUST_LOG") {
                command.env_remove(name);
            }
        }
        let durability = durability.to_possible_value().map_or_else(String::new, |v| v.get_name().to_owned());
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--log", "warn", "--durability", &durability])
            .arg("--data-dir")
            .arg(data_dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let began = Instant::now();
        let mut child = command.spawn().map_err(cannot)?;
        let stdout = child.stdout.take().ok_or_else(|| Error::failed("the broker has no output"))?;
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        let read = timeout(READY_PATIENCE, stdout.read_line(&mut line));
        read.await
            .map_err(|_| Error::failed(format!("the broker is not ready after {READY_PATIENCE:?}")))?
            .map_err(cannot)?;
        let ready = began.elapsed();
        let Some(endpoint) = line.trim().strip_prefix(READY) else {
            return Err(Error::failed("the broker ended before it was ready; what it logged tells why"));
        };
        Ok(Self { child, _stdout: stdout, endpoint: Endpoint::new(endpoint)?, ready })
    }

    /// SIGKILL: no warning, no clean-up. Returns once it is gone.
    pub(super) async fn kill_9(mut self) -> Result<()> {
        self.child.kill().await.map_err(|e| Error::because("cannot kill the broker", e))
    }

    /// Memory in use, in MB.
    pub(super) fn rss_mb(&self) -> Result<f64> {
        let status = self.proc("status")?;
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = kib.and_then(|line| line.split_whitespace().next()).and_then(|kib| kib.parse::<f64>().ok());
        kib.map(|kib| kib * 1024.0 / 1e6)
            .ok_or_else(|| Error::failed("/proc does not tell the memory of a process"))
    }

    /// Processor time used so far.
    pub(super) fn cpu_time(&self) -> Result<Duration> {
        let stat = self.proc("stat")?;
        cpu_time(&stat).ok_or_else(|| Error::failed("/proc does not tell the processor time of a process"))
    }

    fn proc(&self, file: &str) -> Result<String> {
        let id = self.child.id().ok_or_else(|| Error::failed("the broker has ended"))?;
        std::fs::read_to_string(format!("/proc/{id}/{file}"))
            .map_err(|e| Error::because("cannot look at the broker's process; this needs Linux", e))
    }
}

fn cpu_time(stat: &str) -> Option<Duration> {
    // the name is in parentheses and may hold anything
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks =
        STAT_FIELDS.iter().map(|&field| fields.get(field)?.parse::<u64>().ok()).sum::<Option<u64>>()?;
    Some(Duration::from_secs_f64(ticks as f64 / TICKS_PER_SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read_past_any_name() {
        let stat = "42 (a ) b) S 1 42 42 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 9 0 1 2 3";
        assert_eq!(cpu_time(stat), Some(Duration::from_secs(2)));
        assert_eq!(cpu_time("42 (x) S 1"), None);
        let own = std::fs::read_to_string("/proc/self/stat").unwrap();
        assert!(cpu_time(&own).is_some());
    }
}
