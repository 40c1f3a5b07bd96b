//! Benchmarks of Tidemill beside the limits of the machine, measured in one run so that they can be compared.
//!
//! ```text
//!  first         limits (raw disk, bare gRPC) and the broker in a process of its own, interleaved ─► table, RESULTS.md
//!  storage       the log alone, without engine and wire, beside the raw disk                       ─► table
//!  libraries     each library beside the bare call it stands on                                  ─► table, LIBRARIES.md
//!  compare       Tidemill beside its peers, installed and started for it                             ─► table, PEERS.md
//!  instructions  this program under valgrind: instructions per record                         ─► table, INSTRUCTIONS.md
//!  peer          the bare gRPC server of the limits; `first` starts it
//! ```
//!
//! The load on the broker comes from `tidemill bench`, which is its own program with its own options. What is not here:
//! tests. A figure is reported, never asserted: it depends on the machine.

mod bare_grpc;
mod compare;
mod figure;
mod first;
mod instructions;
mod libraries;
mod machine;
mod memory;
mod process;
mod raw_disk;
mod report;
mod storage_log;
mod window;

use anyhow::Result;
use clap::{Parser, Subcommand};
use mimalloc::MiMalloc;
use std::path::{Path, PathBuf};

// the same as the broker's, so that the limits and the broker differ in nothing but their work
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Benchmarks of Tidemill beside the limits of the machine
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    suite: Suite,
}

#[derive(Subcommand)]
enum Suite {
    /// Produce and consume over gRPC and Kinesis HTTP beside a bare gRPC server and the raw disk
    First(first::Args),
    /// The consumer and the producer library, each beside the bare call it stands on
    Libraries(libraries::Args),
    /// Tidemill beside its peers, which are installed and started for it
    Compare(compare::Args),
    /// Instructions of the processor per record, counted by valgrind
    Instructions(instructions::Args),
    /// The log alone, beside the raw disk
    Storage(storage_log::Args),
    /// Serve the bare gRPC server until standard input ends
    Peer,
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

fn main() -> Result<()> {
    match Cli::parse().suite {
        Suite::First(args) => first::run(&args),
        Suite::Compare(args) => compare::run(&args),
        Suite::Instructions(args) => instructions::run(&args),
        Suite::Libraries(args) => libraries::run(&args),
        Suite::Storage(args) => storage_log::run(&args),
        Suite::Peer => bare_grpc::serve(),
    }
}
