//! Instructions of the processor per record: what a change of the code costs, free of the machine's mood.
//!
//! ```text
//!  each stretch:  this program under callgrind with N records ─► Ir(N)
//!                                             with 2N records ─► Ir(2N)      per record: (Ir(2N) − Ir(N)) / N
//! ```
//!
//! Start and end cancel. What it does not count: what the kernel does, and waiting. Valgrind shows the program a processor
//! without the newest vector instructions, so the figures are for comparing with each other, not for computing times.

mod paths;

use crate::report::markdown;
use crate::{machine, process};
use anyhow::{Context, Result, bail, ensure};
use paths::{FRAME_RECORDS, RECORD_BYTES, Stretch};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Growth that has to be explained.
const RISE_PERCENT: u32 = 3;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    directory: crate::Directory,
    /// Records of the shorter run of each stretch; rounded to whole frames
    #[arg(long, default_value_t = 16_384, value_parser = clap::value_parser!(u64).range(64..=10_000_000))]
    records: u64,
    /// Where to write the results
    #[arg(long, value_name = "FILE", default_value = "benches/INSTRUCTIONS.md")]
    results: PathBuf,
    /// Does the work of one stretch and counts nothing: what is run under valgrind
    #[arg(long, value_enum, hide = true)]
    work: Option<Stretch>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let dir = args.directory.make()?;
    let frames = (args.records / FRAME_RECORDS).max(1);
    if let Some(stretch) = args.work {
        return stretch.run(frames, dir.path());
    }
    let facts = machine::facts(dir.path());
    let valgrind = version()?;
    let mut rows = vec![["stretch", "what is counted", "per record", "per byte"].map(str::to_owned)];
    for stretch in Stretch::ALL {
        let (once, twice) = (count(stretch, frames, dir.path())?, count(stretch, 2 * frames, dir.path())?);
        let grown = twice.checked_sub(once).context("more records took fewer instructions")?;
        let each = grown as f64 / (frames * FRAME_RECORDS) as f64;
        eprintln!("  {}: {each:.1} instructions per record", stretch.name());
        rows.push([
            stretch.name().to_owned(),
            stretch.what().to_owned(),
            format!("{each:.1}"),
            format!("{:.3}", each / RECORD_BYTES as f64),
        ]);
    }
    let text = page(frames, &valgrind, &facts, &markdown(&rows))?;
    println!("{text}");
    std::fs::write(&args.results, text).with_context(|| format!("cannot write {}", args.results.display()))
}

fn version() -> Result<String> {
    let output = Command::new("valgrind").arg("--version").output();
    let output = output.context("valgrind is missing: install it (Debian: apt-get install valgrind)")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Instructions of a whole run.
fn count(stretch: Stretch, frames: u64, dir: &Path) -> Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args(["instructions", "--work", stretch.name()])
        .args(["--records", &(frames * FRAME_RECORDS).to_string(), "--dir"])
        .arg(dir)
        .stdin(Stdio::null())
        .output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} under valgrind: {}\n{told}", stretch.name(), output.status);
    match collected(&told) {
        Some(count) => Ok(count),
        None => bail!("callgrind does not tell what it collected:\n{told}"),
    }
}

/// Of the line `==PID== Collected : COUNT`.
fn collected(told: &str) -> Option<u64> {
    let (_, count) = told.lines().find_map(|line| line.split_once("Collected : "))?;
    count.trim().parse().ok()
}

fn page(frames: u64, valgrind: &str, facts: &[(&str, String)], table: &str) -> Result<String> {
    let mut page = String::from("# Instructions per record\n\n");
    let profile = process::program_folder()?.file_name().map(|name| name.to_string_lossy().into_owned());
    writeln!(
        page,
        "Written by `cargo run --release -p tidemill-benches -- instructions` (here: profile {}): instructions that {valgrind} \
         (callgrind) counts for {} and for twice as many records of {RECORD_BYTES} bytes, {FRAME_RECORDS} in a frame; the \
         difference over the number of records, so that start and end cancel. The kernel is not counted.\n",
        profile.as_deref().unwrap_or("unknown"),
        frames * FRAME_RECORDS,
    )?;
    writeln!(
        page,
        "**The rule:** a rise of more than {RISE_PERCENT} % in a row is a regression, to be explained in the commit that brings \
         it, or taken back. Compare only figures of the same profile, compiler and processor.\n"
    )?;
    for (name, value) in facts.iter().filter(|(name, _)| *name == "processor" || *name == "kernel") {
        writeln!(page, "- {name}: {value}")?;
    }
    write!(page, "\n{table}")?;
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_callgrind_collected_is_found() {
        let told = "==12== Events    : Ir\n==12== Collected : 3456789\n==12==\n";
        assert_eq!(collected(told), Some(3_456_789));
        assert_eq!(collected("==12== Events    : Ir\n"), None);
    }

    #[test]
    fn every_stretch_does_its_work() {
        for stretch in Stretch::ALL {
            let dir = tempfile::tempdir().unwrap();
            stretch.run(2, dir.path()).unwrap_or_else(|error| panic!("{}: {error}", stretch.name()));
        }
    }
}
