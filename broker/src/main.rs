//! The one binary: everything it does is a command of `tidemill::cli`.

use mimalloc::MiMalloc;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    tidemill::cli::run()
}
