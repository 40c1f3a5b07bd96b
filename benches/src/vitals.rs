//! What the kernel tells of a running process: memory, processor time, bytes written, descriptors, maps.

use anyhow::{Context, Result};
use std::time::Duration;

/// A process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Vitals(u32);

impl Vitals {
    pub(crate) fn of(pid: u32) -> Self {
        Self(pid)
    }

    /// All memory that is resident, with what it has mapped of files.
    pub(crate) fn resident_bytes(self) -> Result<u64> {
        Ok(self.number("status", "VmRSS:")? << 10)
    }
    /// Memory that is not of files: the page cache does not count.
    pub(crate) fn anonymous_bytes(self) -> Result<u64> {
        Ok(self.number("status", "RssAnon:")? << 10)
    }
    /// What it has caused to be written to devices, counted when pages become dirty.
    pub(crate) fn written_bytes(self) -> Result<u64> {
        self.number("io", "write_bytes:")
    }
    /// Processor time of all its threads.
    pub(crate) fn cpu_time(self) -> Result<Duration> {
        let text = self.read("stat")?;
        // the name of the program, in parentheses, may hold anything
        let (_, fields) = text.rsplit_once(')').context("no line of a process")?;
        let fields: Vec<_> = fields.split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
        let used = ticks(11).zip(ticks(12)).map(|(user, system)| user + system);
        let used = used.context("no times of a process")?;
        Ok(Duration::from_secs_f64(used as f64 / rustix::param::clock_ticks_per_second() as f64))
    }
    pub(crate) fn descriptors(self) -> Result<usize> {
        let path = format!("/proc/{}/fd", self.0);
        Ok(std::fs::read_dir(&path).with_context(|| format!("cannot list {path}"))?.count())
    }
    pub(crate) fn maps(self) -> Result<usize> {
        Ok(self.read("maps")?.lines().count())
    }

    fn read(self, file: &str) -> Result<String> {
        let path = format!("/proc/{}/{file}", self.0);
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
    }
    fn number(self, file: &str, field: &str) -> Result<u64> {
        let text = self.read(file)?;
        let line = text.lines().find_map(|line| line.strip_prefix(field));
        let number = line.and_then(|line| line.split_whitespace().next());
        number.and_then(|number| number.parse().ok()).with_context(|| format!("no {field} of the process"))
    }
}
