//! The fuzz targets with random and with mutated input, on the stable toolchain. Longer runs: `fuzz/README.md`.

#![allow(clippy::unwrap_used)] // the whole crate is tests

mod fuzz_targets;

use proptest::test_runner::{RngAlgorithm, TestRng};
use rand::{Rng, RngExt};

const INPUTS: usize = 1500;

/// Gives a target pure chance, and examples with bytes changed, inserted, cut out and repeated.
fn smoke(target: fn(&[u8]), salt: u8) {
    let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[salt; 32]);
    let examples = fuzz_targets::examples();
    for round in 0..INPUTS {
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
    smoke(fuzz_targets::frame, 1);
}

#[test]
fn arbitrary_bytes_as_a_journal_neither_panic_nor_come_back_as_records() {
    smoke(fuzz_targets::journal, 2);
}

#[test]
fn a_data_directory_changed_at_will_neither_panics_nor_gives_wrong_records() {
    smoke(fuzz_targets::recovery, 3);
}
