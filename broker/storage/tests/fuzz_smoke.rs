//! The fuzz targets with the inputs that earlier fuzzing has kept, then with random and with mutated input, on the stable
//! toolchain. Longer runs: `fuzz/README.md`.

#![allow(clippy::unwrap_used)] // the whole crate is tests

mod fuzz_targets;

use proptest::test_runner::{RngAlgorithm, TestRng};
use rand::{Rng, RngExt};
use std::path::Path;
use tidemill_types::{Clock, MonotonicMs, SystemClock};

const INPUTS: usize = 1500;

/// For longer than so many inputs take: seconds from the environment.
fn duration() -> MonotonicMs {
    let seconds = std::env::var("TIDEMILL_FUZZ_SECONDS").ok();
    let seconds: u64 = seconds.map_or(0, |text| text.parse().expect("TIDEMILL_FUZZ_SECONDS is a number"));
    MonotonicMs::new(seconds * 1000)
}

/// Gives a target what is kept for it, then pure chance, and examples with bytes changed, inserted, cut out and repeated.
fn smoke(name: &str, target: fn(&[u8]), salt: u8) {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    for file in kept.read_dir().unwrap_or_else(|error| panic!("{}: {error}", kept.display())) {
        target(&std::fs::read(file.unwrap().path()).unwrap());
    }
    let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[salt; 32]);
    let (examples, clock, duration) = (fuzz_targets::examples(), SystemClock::new(), duration());
    for round in (0..).take_while(|round| *round < INPUTS || clock.monotonic() < duration) {
        let mut input = match round % 3 {
            0 => {
                let mut bytes = vec![0; rng.random_range(0..400)];
                rng.fill_bytes(&mut bytes);
                bytes
            }
            _ => examples[rng.random_range(0..examples.len())].clone(),
        };
        for _ in 0..rng.random_range(0..6) {
            if input.is_empty() {
                break;
            }
            let at = rng.random_range(0..input.len());
            match rng.random_range(0..4) {
                0 => input[at] = rng.random(),
                1 => input.insert(at, rng.random()),
                2 => input.truncate(at),
                _ => input.extend_from_within(at..),
            }
            input.truncate(200_000);
        }
        target(&input);
    }
}

#[test]
fn arbitrary_bytes_as_frames_neither_panic_nor_lie() {
    smoke("frame", fuzz_targets::frame, 1);
}

#[test]
fn arbitrary_bytes_as_a_journal_neither_panic_nor_come_back_as_records() {
    smoke("journal", fuzz_targets::journal, 2);
}

#[test]
fn a_data_directory_changed_at_will_neither_panics_nor_gives_wrong_records() {
    smoke("recovery", fuzz_targets::recovery, 3);
}
