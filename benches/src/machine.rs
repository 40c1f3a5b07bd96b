//! The machine that figures were taken on.

use anyhow::{Context, Result, ensure};
use std::path::Path;

/// Of a file system in memory.
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// Fails when `dir` is in memory: its figures would not be of a disk.
pub(crate) fn refuse_memory(dir: &Path) -> Result<()> {
    let kind = rustix::fs::statfs(dir).context("cannot tell the file system")?.f_type;
    ensure!(
        kind.cast_unsigned() != TMPFS_MAGIC,
        "{} lies in memory (tmpfs); choose a directory on a disk with --dir",
        dir.display()
    );
    Ok(())
}

/// Cores, kernel, memory, processor, file system, in one line each.
pub(crate) fn facts(dir: &Path) -> Vec<(&'static str, String)> {
    let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: String, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).map(str::to_owned);
        line.and_then(|line| line.split_once(':').map(|(_, value)| value.trim().to_owned()))
            .unwrap_or_else(|| "unknown".to_owned())
    };
    let uname = rustix::system::uname();
    vec![
        ("cores", std::thread::available_parallelism().map_or(0, usize::from).to_string()),
        ("processor", field(file("/proc/cpuinfo"), "model name")),
        ("memory", field(file("/proc/meminfo"), "MemTotal")),
        ("kernel", uname.release().to_string_lossy().into_owned()),
        ("file system", mounted(dir)),
        ("load at the start", file("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" ")),
    ]
}

/// Device and type of the mount that holds `dir`.
fn mounted(dir: &Path) -> String {
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut best = (0, "unknown".to_owned());
    for line in mounts.lines() {
        let mut words = line.split(' ');
        let (Some(device), Some(at), Some(kind), Some(options)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            continue;
        };
        if dir.starts_with(at) && at.len() >= best.0 {
            best = (at.len(), format!("{kind} on {device} ({options})"));
        }
    }
    best.1
}
