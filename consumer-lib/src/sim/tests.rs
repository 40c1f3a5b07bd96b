//! Many seeds are clean, one seed is one trace, and bugs that are planted are found.

use super::bugs::{BUGS, Bug, plant};
use super::run::{Outcome, run};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// Seeds with every run of the tests.
const SEEDS: u64 = 200;
/// Seeds within which a planted bug must be found.
const SEEDS_FOR_BUGS: u64 = 400;
/// Lines of the trace that are shown of a seed that failed.
const TAIL: usize = 60;

/// Numbers that a variable of the environment tells: `from..to`, or so many from 0 on.
fn told(name: &str) -> Option<Range<u64>> {
    let text = std::env::var(name).ok()?;
    let (from, to) = text.split_once("..").unwrap_or(("0", &text));
    Some(from.parse().expect(name)..to.parse().expect(name))
}

fn show(seed: u64, outcome: &Outcome, lines: usize) {
    let skipped = outcome.trace.len().saturating_sub(lines);
    outcome.trace[skipped..].iter().for_each(|line| eprintln!("{line}"));
    let verdict = outcome.verdict.as_deref().unwrap_or("clean");
    eprintln!("seed {seed}: {verdict}");
}

/// Runs seeds on all processors; the outcomes that are not clean, and sums.
fn explore(seeds: Range<u64>) -> (Vec<(u64, Outcome)>, [u64; 3]) {
    let next = AtomicU64::new(seeds.start);
    let sums = [const { AtomicU64::new(0) }; 3];
    let work = || {
        let mut failed = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end || failed.len() >= 10 {
                return failed;
            }
            let outcome = run(seed);
            let told = [outcome.records as u64, outcome.moves, outcome.redelivered];
            sums.iter().zip(told).for_each(|(sum, more)| _ = sum.fetch_add(more, Ordering::Relaxed));
            if let Some(verdict) = &outcome.verdict {
                eprintln!("TIDEMILL_SIM_SEED={seed}: {verdict}");
                failed.push((seed, outcome));
            }
        }
    };
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let failed = thread::scope(|scope| {
        let all: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        all.into_iter().flat_map(|one| one.join().unwrap()).collect()
    });
    (failed, sums.map(AtomicU64::into_inner))
}

#[test]
fn every_seed_is_clean() {
    if let Some(Range { end: seed, .. }) = told("TIDEMILL_SIM_SEED") {
        let outcome = run(seed);
        show(seed, &outcome, usize::MAX);
        assert!(outcome.verdict.is_none());
        return;
    }
    let seeds = told("TIDEMILL_SIM_SEEDS").unwrap_or(0..SEEDS);
    let (mut failed, [records, moves, redelivered]) = explore(seeds.clone());
    eprintln!("seeds {seeds:?}: {records} records, {moves} leases moved, {redelivered} records came again");
    failed.sort_by_key(|(seed, _)| *seed);
    if let Some((seed, outcome)) = failed.first() {
        show(*seed, outcome, TAIL);
        panic!("{} seeds failed", failed.len());
    }
    // a calm world would prove little
    assert!(records > 0 && moves > 0 && (redelivered > 0 || seeds.end - seeds.start < SEEDS));
}

#[test]
fn one_seed_is_one_trace() {
    for seed in 0..12 {
        let (one, two) = (run(seed), run(seed));
        let differ = one.trace.iter().zip(&two.trace).position(|(one, two)| one != two);
        assert_eq!(differ.map(|at| (&one.trace[at], &two.trace[at])), None, "seed {seed}");
        assert_eq!((one.hash, one.virtual_time), (two.hash, two.virtual_time), "seed {seed}");
    }
}

#[test]
fn bugs_that_are_planted_are_found() {
    let found = BUGS.map(|bug| {
        plant(Some(bug));
        let found =
            (0..SEEDS_FOR_BUGS).map(|seed| (seed, run(seed))).find(|(_, outcome)| outcome.verdict.is_some());
        plant(None);
        match &found {
            Some((seed, outcome)) => {
                eprintln!("{bug:?}: seed {seed}: {}", outcome.verdict.as_deref().unwrap_or_default())
            }
            None => eprintln!("{bug:?}: not found"),
        }
        found.is_some().then_some(bug)
    });
    let found: Vec<Bug> = found.into_iter().flatten().collect();
    assert_eq!(found, BUGS);
}
