//! Damage by chance, on directories by chance: what `verify` calls intact starts; what `repair` calls mended starts, gives nothing
//! that was not put, and has lost no more than the damage hit.

use crate::repair::{Records, all, repaired_in};
use crate::{fill_sizes, names, open_with, verified};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::sync::Arc;
use tidemill_storage::Durability;
use tidemill_storage::disk::fault::FaultDisk;

const SEEDS: u64 = 400;
const SIZES: [usize; 5] = [10, 300, 900, 6000, 40];

fn durability(seed: u64) -> Durability {
    if seed.is_multiple_of(4) { Durability::Os } else { Durability::Device }
}

/// A directory that some epochs have left, the epoch that comes next, and all that was ever put, log by log.
fn left(seed: u64) -> (FaultDisk, u32, [Records; 3]) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut disk = FaultDisk::new(seed);
    let mut put = [const { Vec::new() }; 3];
    let epochs = rng.random_range(1..4);
    for epoch in 1..=epochs {
        let storage = open_with(Arc::new(disk.clone()), epoch, durability(seed));
        for step in 0..rng.random_range(1..8u64) {
            match rng.random_range(0..4) {
                0 => storage.checkpoint().unwrap(),
                _ => {
                    let sizes: Vec<usize> = (0..rng.random_range(1..12))
                        .map(|_| SIZES[rng.random_range(0..SIZES.len())])
                        .collect();
                    let more = fill_sizes(&storage, u64::from(epoch) * 100 + step, &sizes);
                    put.iter_mut().zip(more).for_each(|(put, more)| put.extend(more));
                }
            }
        }
        match rng.random_range(0..3) {
            0 => {
                storage.close().unwrap();
                drop(storage);
            }
            1 => disk = disk.process_crash(),
            _ => disk = disk.crash(),
        }
    }
    (disk, epochs + 1, put)
}

/// Damages one file; tells what was done, and to how many records at most.
fn damage(disk: &FaultDisk, seed: u64) -> (String, usize) {
    let mut rng = StdRng::seed_from_u64(!seed);
    let files = names(disk, |name| {
        name.starts_with("journal-") || name == "checkpoint" || name.starts_with("segments/")
    });
    let file = &files[rng.random_range(0..files.len())];
    let mut bytes = disk.read_file(file).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1).max(1);
    let kind = rng.random_range(0..4);
    match kind {
        0 | 1 => {
            let (at, bit) = (rng.random_range(0..used), rng.random_range(0..8u8));
            disk.flip_bit(file, at as u64, bit).unwrap();
            let most = usize::from(file != "checkpoint"); // no record is in it
            (format!("bit {bit} at {at} of {used} of {file}"), most)
        }
        2 => {
            let at = rng.random_range(0..used) / 4096 * 4096;
            let end = bytes.len().min(at + 4096);
            bytes[at..end].fill(if rng.random() { 0 } else { 0xA5 });
            disk.write_file(file, &bytes).unwrap();
            (format!("block at {at} of {file}"), usize::MAX)
        }
        _ => {
            disk.remove_file(file).unwrap();
            (format!("{file} is missing"), usize::MAX)
        }
    }
}

/// How many of the records there were are not given any more; what is given was put.
fn lost_of(left: &[Records], intact: &[Records], put: &[Records], told: &str) -> usize {
    let mut lost = 0;
    for ((left, intact), put) in left.iter().zip(intact).zip(put) {
        assert!(left.iter().all(|record| put.contains(record)), "{told}: what was not put is given");
        assert!(left.is_sorted_by(|a, b| a.0 < b.0), "{told}: not in order");
        lost += intact.iter().filter(|record| !left.contains(record)).count();
    }
    lost
}

fn one(seed: u64) {
    let (disk, epoch, put) = left(seed);
    let found = verified(&disk); // an index is made anew where a power loss took it
    assert!(!found.is_damaged(), "seed {seed}: nothing is damaged, but {:?}", found.findings);
    let intact = all(&disk, epoch);
    let (disk, ..) = left(seed);
    let (what, most) = damage(&disk, seed);
    // where groups are not durable one by one, a bad one voids what lies behind it
    let most = if durability(seed) == Durability::Device { most } else { usize::MAX };
    let told = format!("seed {seed}, {:?}, epoch {epoch}: {what}", durability(seed));
    println!("{told}"); // of a test that fails the last one is seen
    if verified(&disk).findings.is_empty() {
        let lost = lost_of(&all(&disk, epoch), &intact, &put, &told);
        assert!(lost <= most, "{told}: {lost} lost, and nothing was found");
        return;
    }
    let done = repaired_in(&disk, epoch - 1);
    let short: Vec<_> = done.mended.iter().map(|f| (&f.file, f.offset, &f.what, f.records)).collect();
    assert!(done.left.is_empty(), "{told}: mended {short:?}, left {:?}", done.left);
    assert_eq!(verified(&disk).findings, [], "{told}: mended {short:?}");
    let lost = lost_of(&all(&disk, epoch), &intact, &put, &told);
    assert!(lost <= most, "{told}: {lost} lost, {short:?}");
}

/// `TIDEMILL_DAMAGES` for more of them, or `TIDEMILL_DAMAGES=n..m` for these.
#[test]
fn what_is_called_intact_or_mended_starts_and_has_lost_what_was_hit() {
    let seeds = match std::env::var("TIDEMILL_DAMAGES").ok() {
        None => 0..SEEDS,
        Some(text) => match text.split_once("..") {
            Some((from, to)) => from.parse().unwrap()..to.parse().unwrap(),
            None => 0..text.parse().unwrap(),
        },
    };
    seeds.for_each(one);
}
