//! The crash model: random operations on storage over a disk that fails, against a plain model in memory.
//!
//! Why: what is acknowledged must survive everything that is promised, and nothing may be read that was never written.
//! How it lives: a seed decides the settings, the operations, the faults and what a power cut takes; after each reopening
//! everything is read back and compared. A failure is repeated with its trace and tells how to run it again.
//!
//! ```text
//! TIDEMILL_SEEDS=100000 cargo test --release -p tidemill-storage --test model
//! TIDEMILL_SEED_FIRST=4711 TIDEMILL_SEEDS=1 cargo test -p tidemill-storage --test model
//! ```

#![allow(clippy::unwrap_used)] // the whole crate is tests

mod chance;
mod expected;
mod run;

use std::panic::{AssertUnwindSafe, catch_unwind};

const SEEDS_DEFAULT: u64 = 2000;
/// Lines of the trace shown for a failure.
const TRACE_LINES: usize = 400;

fn number_from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

/// Runs every second seed, so that two tests use two cores.
fn run_seeds(remainder: u64) {
    let first = number_from_environment("TIDEMILL_SEED_FIRST", 0);
    let seeds = number_from_environment("TIDEMILL_SEEDS", SEEDS_DEFAULT);
    let mut failed = Vec::new();
    for seed in (first..first + seeds).filter(|seed| seed % 2 == remainder) {
        if catch_unwind(|| run::run(seed, &mut run::Trace::default())).is_err() {
            failed.push(seed);
            if failed.len() >= 5 {
                break;
            }
        }
    }
    let Some(seed) = failed.first() else { return };
    let mut trace = run::Trace::recording();
    let again = catch_unwind(AssertUnwindSafe(|| run::run(*seed, &mut trace)));
    let lines = trace.lines();
    for line in &lines[lines.len().saturating_sub(TRACE_LINES)..] {
        eprintln!("{line}");
    }
    let repeats =
        if again.is_err() { "fails again when repeated" } else { "DOES NOT FAIL AGAIN when repeated" };
    panic!(
        "seeds {failed:?} failed, the first {repeats} (trace above); run it alone with\n  \
         TIDEMILL_SEED_FIRST={seed} TIDEMILL_SEEDS=1 cargo test -p tidemill-storage --test model"
    );
}

#[test]
fn storage_keeps_its_promises_for_every_even_seed() {
    run_seeds(0);
}

#[test]
fn storage_keeps_its_promises_for_every_odd_seed() {
    run_seeds(1);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..20 {
        let traces = [(); 2].map(|()| {
            let mut trace = run::Trace::recording();
            run::run(seed, &mut trace);
            trace.lines().to_vec()
        });
        assert_eq!(traces[0], traces[1], "seed {seed}");
    }
}
