//! Deterministic simulation: the broker and both libraries in one process, over a simulated network, clock and disk.
//!
//! ```text
//!   seed ─► plan ─► run: drives turmoil step by step ─┬─► broker: engine on a fault disk, wire on a simulated listener
//!                    │  and breaks what the plan says  ├─► producers, workers: the libraries as they are, dialing there
//!                    │                                 └─► operator: splits and merges
//!                    └─► judge: what clients were told against what is stored after the last power cut
//! ```
//!
//! Everything follows from the seed; what the machine adds of its own is what the operating system gives for random numbers, and
//! `chance.c` stands in front of that. So every seed runs in a process of its own. Some seeds run with every `cargo test`. More of them,
//! others, and one alone with its trace:
//!
//! ```text
//! TIDEMILL_SIM_SEEDS=10000 cargo test --release -p tidemill-tests --test simulation every_seed -- --nocapture
//! TIDEMILL_SIM_SEEDS=7000..8000 cargo test --release -p tidemill-tests --test simulation every_seed -- --nocapture
//! TIDEMILL_SIM_SEED=17 cargo test -p tidemill-tests --test simulation every_seed -- --nocapture
//! ```

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // the whole crate is tests

mod hosts;
mod judge;
mod plan;
mod run;
mod world;

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// Seeds with every run of the tests.
const SEEDS: u64 = 200;
/// Seeds that are run twice.
const SEEDS_TWICE: u64 = 8;
/// Lines of the trace that are shown of a seed that failed.
const TAIL: usize = 80;

/// Seeds that a variable of the environment tells: `from..to`, or so many from 0 on.
fn told(name: &str) -> Option<Range<u64>> {
    let text = std::env::var(name).ok()?;
    let (from, to) = text.split_once("..").unwrap_or(("0", &text));
    Some(from.parse().expect(name)..to.parse().expect(name))
}

/// The library that gives random numbers from the seed.
fn chance() -> &'static PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/simulation/chance.c");
        let library =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("chance-{}.so", std::process::id()));
        let built =
            Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).status();
        assert!(built.expect("a C compiler, as `cc`").success(), "chance.c was not compiled");
        library
    })
}

/// Runs a seed in a process of its own; the lines of its trace, and the last line, which says what came of it.
fn play(seed: u64) -> (Vec<String>, Value) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "one_seed", "--ignored", "--nocapture", "--test-threads", "1"])
        .env("LD_PRELOAD", chance())
        .env("TIDEMILL_SIM_SEED", seed.to_string())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines: Vec<String> =
        text.lines().filter_map(|line| line.strip_prefix("| ")).map(str::to_owned).collect();
    let last = lines.pop().and_then(|line| serde_json::from_str(&line).ok());
    let broke = || json!({ "verdict": format!("the process broke off: {}", String::from_utf8_lossy(&output.stderr)) });
    (lines, last.unwrap_or_else(broke))
}

#[test]
#[ignore = "is what the other tests run, a process for each seed"]
fn one_seed() {
    let seed = told("TIDEMILL_SIM_SEED").expect("a seed").end;
    let outcome = run::run(seed);
    let facts = outcome.world.facts();
    facts.trace().iter().for_each(|line| println!("| {line}"));
    let last = json!({
        "verdict": outcome.verdict.err(), "acknowledged": outcome.acknowledged, "unknown": outcome.unknown,
        "stored": outcome.stored, "processed": outcome.processed, "simulated_ms": outcome.simulated_ms, "faults": facts.faults,
    });
    println!("| {last}");
}

/// Sums over seeds.
#[derive(Default)]
struct Sums {
    figures: BTreeMap<String, u64>,
    failed: Vec<(u64, String)>,
}

impl Sums {
    fn add(&mut self, seed: u64, last: &Value) {
        if let Some(verdict) = last["verdict"].as_str() {
            eprintln!("TIDEMILL_SIM_SEED={seed}: {verdict}");
            self.failed.push((seed, verdict.to_owned()));
        }
        let faults = last["faults"].as_object().into_iter().flatten();
        let figures = last.as_object().into_iter().flatten().chain(faults);
        for (name, figure) in figures.filter_map(|(name, value)| Some((name, value.as_u64()?))) {
            *self.figures.entry(name.clone()).or_default() += figure;
        }
    }
}

/// Runs seeds on all processors.
fn explore(seeds: Range<u64>) -> Sums {
    let (next, sums) = (AtomicU64::new(seeds.start), std::sync::Mutex::new(Sums::default()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end || sums.lock().unwrap().failed.len() >= 10 {
                return;
            }
            let (_, last) = play(seed);
            sums.lock().unwrap().add(seed, &last);
        }
    };
    chance();
    thread::scope(|scope| {
        (0..thread::available_parallelism().map_or(1, usize::from)).for_each(|_| drop(scope.spawn(work)));
    });
    sums.into_inner().unwrap()
}

#[test]
fn every_seed_is_clean() {
    if let Some(Range { end: seed, .. }) = told("TIDEMILL_SIM_SEED") {
        let (trace, last) = play(seed);
        trace.iter().for_each(|line| eprintln!("{line}"));
        eprintln!("{last}");
        assert_eq!(last["verdict"], Value::Null);
        return;
    }
    let seeds = told("TIDEMILL_SIM_SEEDS").unwrap_or(0..SEEDS);
    let mut sums = explore(seeds.clone());
    eprintln!("seeds {seeds:?}: {:?}", sums.figures);
    sums.failed.sort();
    if let Some((seed, verdict)) = sums.failed.first() {
        let (trace, _) = play(*seed);
        trace[trace.len().saturating_sub(TAIL)..].iter().for_each(|line| eprintln!("{line}"));
        panic!("{} seeds failed; the first is {seed}: {verdict}", sums.failed.len());
    }
    // a calm world would prove little
    let figure = |name: &str| sums.figures.get(name).copied().unwrap_or_default();
    assert!(figure("acknowledged") > 0 && figure("processed") > 0);
    assert!(seeds.end - seeds.start < SEEDS || (figure("power cut") > 0 && figure("unknown") > 0));
}

#[test]
fn one_seed_is_one_trace() {
    for seed in 0..SEEDS_TWICE {
        let (one, two) = (play(seed), play(seed));
        let differ = one.0.iter().zip(&two.0).position(|(one, two)| one != two);
        assert_eq!(differ.map(|at| (&one.0[at], &two.0[at])), None, "seed {seed}");
        assert_eq!((one.0.len(), one.1), (two.0.len(), two.1), "seed {seed}");
    }
}
