//! Copies of a running storage: an earlier one may be gone on with only if it is a beginning of what is there now.

use crate::repair::{Records, all, read_logs, repaired_in};
use crate::{LOGS, fill_sizes, open_with, try_open, verified};
use std::sync::Arc;
use tidemill_storage::backup::{Receiver, held};
use tidemill_storage::disk::Disk;
use tidemill_storage::disk::fault::FaultDisk;
use tidemill_storage::{Durability, Error, ErrorKind, Storage};

/// Copies into `dest`, whatever it holds; tells how many bytes travelled.
fn copy(storage: &Arc<Storage>, dest: &FaultDisk) -> u64 {
    let known = held(dest).unwrap();
    let mut receiver = Receiver::new(dest);
    let checkpoint = storage.snapshot().copy(&known, &mut |part| receiver.take(&part)).unwrap();
    let bytes = receiver.bytes();
    receiver.finish(&checkpoint).unwrap();
    bytes
}

#[test]
fn a_copy_goes_on_where_it_ended_and_not_after_a_power_loss_took_its_end_from_the_original() {
    let mut cuts = 0;
    for seed in 0..60 {
        let dest = FaultDisk::new(seed);
        dest.lock().unwrap();
        let disk = FaultDisk::new(seed);
        let storage = open_with(Arc::new(disk.clone()), 1, Durability::Os);
        fill_sizes(&storage, 7, &[300; 6]);
        storage.checkpoint().unwrap();
        fill_sizes(&storage, 8, &[6000; 1]); // these take their way past the journal
        fill_sizes(&storage, 9, &[300; 3]);
        let whole = copy(&storage, &dest);
        fill_sizes(&storage, 10, &[300; 1]);
        let more = copy(&storage, &dest);
        assert!(more < whole / 6, "{more} of {whole}: only what is new");
        assert_eq!(copy(&storage, &dest), 0, "nothing is new");

        // what was never synced may be gone; then other records come where it was
        let disk = disk.crash();
        let storage = open_with(Arc::new(disk.clone()), 2, Durability::Os);
        let there = read_logs(&storage).iter().map(Vec::len).sum::<usize>();
        cuts += usize::from(there < 11 * LOGS.len());
        for sizes in [&[900; 12][..], &[40; 1]] {
            fill_sizes(&storage, 20 + sizes.len() as u64, sizes);
            copy(&storage, &dest);
            assert_eq!(verified(&dest).findings, [], "seed {seed}");
            assert_eq!(all(&as_left(&dest, seed), 3), read_logs(&storage), "seed {seed}");
        }
    }
    assert!(cuts > 5, "only {cuts} of 60 power losses took anything");
}

/// A copy that breaks off after so many parts; tells whether it did.
fn broken_off(storage: &Arc<Storage>, dest: &FaultDisk, mut parts: u32) -> bool {
    let mut receiver = Receiver::new(dest);
    let copied = storage.snapshot().copy(&held(dest).unwrap(), &mut |part| {
        parts = parts.checked_sub(1).ok_or_else(|| Error::stopped("nobody takes it"))?;
        receiver.take(&part)
    });
    copied.is_err()
}

fn as_left(dest: &FaultDisk, seed: u64) -> FaultDisk {
    let left = FaultDisk::new(seed);
    for (name, _) in dest.files() {
        left.write_file(&name, &dest.read_file(&name).unwrap()).unwrap();
    }
    left
}

/// A storage that has gone on since it was copied, the copy, and what was in it then.
fn gone_on(seed: u64) -> (Arc<Storage>, FaultDisk, Vec<Records>) {
    let dest = FaultDisk::new(seed);
    dest.lock().unwrap();
    let storage = open_with(Arc::new(FaultDisk::new(seed)), 1, Durability::Device);
    fill_sizes(&storage, 7, &[300; 6]);
    copy(&storage, &dest);
    let then = read_logs(&storage);
    fill_sizes(&storage, 8, &[300, 6000, 900, 6000, 6000, 40]);
    (storage, dest, then)
}

#[test]
fn a_copy_is_whole_also_behind_a_later_one_that_broke_off_and_a_power_loss() {
    let mut most = 0;
    for (seed, cut) in (0..30).flat_map(|seed| [(seed, false), (seed, true)]) {
        for parts in 0.. {
            let (storage, dest, then) = gone_on(seed);
            let is_broken = broken_off(&storage, &dest, parts);
            let left = if cut { dest.crash() } else { as_left(&dest, seed) };
            let told = format!("seed {seed}, {parts} parts, {cut}");
            assert_eq!(verified(&left).findings, [], "{told}");
            assert!(all(&left, 2) == then, "{told}: other records");
            if !is_broken {
                most = most.max(parts);
                break;
            }
        }
    }
    assert!(most > 3, "only {most} parts");
}

#[test]
fn the_checkpoint_of_a_copy_is_not_taken_for_that_of_a_directory_with_a_journal() {
    for durability in [Durability::Device, Durability::Os] {
        let (disk, dest) = (FaultDisk::new(1), FaultDisk::new(1));
        dest.lock().unwrap();
        let storage = open_with(Arc::new(disk.clone()), 1, durability);
        fill_sizes(&storage, 7, &[300; 6]);
        copy(&storage, &dest);
        fill_sizes(&storage, 8, &[300, 6000, 6000, 6000, 40]);
        let there = read_logs(&storage);
        let disk = disk.process_crash();
        disk.write_file("checkpoint", &dest.read_file("checkpoint").unwrap()).unwrap();
        assert!(verified(&disk).is_damaged(), "{durability:?}");
        for _ in 0..2 {
            let opened = try_open(Arc::new(disk.clone()), 2, durability);
            assert_eq!(opened.err().map(|e| e.kind()), Some(ErrorKind::Damaged), "{durability:?}");
        }
        assert!(repaired_in(&disk, 1).left.is_empty(), "{durability:?}");
        assert!(all(&disk, 2) == there, "{durability:?}: other records than before");
    }
}
