//! Log files that survive kill -9, and the clock that all processes of a machine share.

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

/// Nanoseconds of the monotonic clock: comparable between processes of one machine, going on while one is stopped.
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let part = |value: i64| u64::try_from(value).expect("the monotonic clock counts from zero up");
    part(now.tv_sec) * 1_000_000_000 + part(now.tv_nsec)
}

/// A file of lines. Each call is one write of the system: what it took stays when the process is killed.
#[derive(Debug)]
pub struct EventLog(File);

impl EventLog {
    /// A new file; an error if there is one.
    pub fn create(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().append(true).create_new(true).open(path);
        Ok(Self(file.with_context(|| format!("cannot make {}", path.display()))?))
    }

    /// Adds a line. Others may add theirs at the same time.
    pub fn add(&self, line: &impl std::fmt::Display) -> Result<()> {
        (&self.0).write_all(format!("{line}\n").as_bytes()).context("cannot write the log")
    }
}

/// The whole lines of a file; a last one that was cut off by a kill is left out.
pub(super) fn whole_lines(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'))
}
