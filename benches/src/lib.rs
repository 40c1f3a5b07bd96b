//! Benchmarks of Tidemill beside the limits of the machine, measured in one run so that they can be compared.
//!
//! ```text
//!  suite      limits, and the broker in a process of its own under every load, interleaved ─► RESULTS.md, plots/
//!  storage    the log alone, without engine and wire, beside the raw disk                  ─► table
//!  libraries  each library beside the bare call it stands on                               ─► table, LIBRARIES.md
//!  compare    the broker beside its peers, installed and started for it                      ─► PEERS.md
//!  instructions  this program under valgrind: instructions per record                         ─► INSTRUCTIONS.md
//!  peer       the bare servers of the limits, gRPC and HTTP; `suite` starts them
//! ```
//!
//! The load on the broker comes from `tidemill bench`, which is its own program with its own options. What is not here:
//! tests. A figure is reported and judged, never asserted: it depends on the machine. This is a library so that the two
//! programs can differ in their allocator alone.

mod compare;
mod figure;
mod instructions;
mod libraries;
mod limits;
mod machine;
mod memory;
mod plot;
mod process;
mod producer_alone;
mod report;
mod storage_log;
mod suite;
mod vitals;
mod window;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};

/// Benchmarks of Tidemill beside the limits of the machine
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The broker under every load, beside the limits of the machine, with targets
    Suite(suite::Args),
    /// The consumer and the producer library, each beside the bare call it stands on
    Libraries(libraries::Args),
    /// Tidemill beside its peers, which are installed and started for it
    Compare(compare::Args),
    /// Instructions of the processor per record, counted by valgrind
    Instructions(instructions::Args),
    /// The log alone, beside the raw disk
    Storage(storage_log::Args),
    /// Serve a bare server until standard input ends
    Peer {
        /// Which
        #[arg(value_enum)]
        server: limits::Peer,
    },
}

/// How much of a run there is.
#[derive(clap::Args)]
struct Rounds {
    /// Seconds of each measurement
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Repetitions, interleaved
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    repetitions: u32,
}

/// Where the files of a run go: on a disk, removed at the end.
#[derive(clap::Args)]
struct Directory {
    /// Directory for the files of the run; a fresh one within is used, and removed. Default: beside this program
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Fill the page cache before each measurement, so that a virtual machine does not measure how its host provides memory
    #[arg(long)]
    warm_memory: bool,
}

impl Directory {
    fn make(&self) -> Result<tempfile::TempDir> {
        let parent = match &self.dir {
            Some(dir) => dir.clone(),
            None => process::program_folder()?,
        };
        let dir = tempfile::Builder::new().prefix("bench-").tempdir_in(parent)?;
        machine::refuse_memory(dir.path())?;
        Ok(dir)
    }

    fn ballast(&self, dir: &Path) -> Result<Option<memory::Ballast>> {
        self.warm_memory.then(|| memory::Ballast::new(dir)).transpose()
    }
}

/// The command line of `tidemill-benches`.
///
/// # Errors
/// When a measurement that the others need cannot be taken.
pub fn run() -> Result<()> {
    match Cli::parse().command {
        Command::Suite(args) => suite::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Instructions(args) => instructions::run(&args),
        Command::Libraries(args) => libraries::run(&args),
        Command::Storage(args) => storage_log::run(&args),
        Command::Peer { server } => limits::serve(server),
    }
}

/// Prints how often the producer library allocates for a record, by a counter of the allocations of this process.
///
/// # Errors
/// When the producer fails.
pub fn allocations_per_record(allocations: impl Fn() -> usize) -> Result<()> {
    println!("{:.4}", producer_alone::allocations(allocations)?);
    Ok(())
}
