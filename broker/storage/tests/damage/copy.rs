//! Copies of a running storage: an earlier one may be gone on with only if it is a beginning of what is there now.

use crate::repair::{all, read_logs};
use crate::{LOGS, fill_sizes, open_with, verified};
use std::sync::Arc;
use tidemill_storage::backup::{Receiver, held};
use tidemill_storage::disk::Disk;
use tidemill_storage::disk::fault::FaultDisk;
use tidemill_storage::{Durability, Storage};

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
            let copied = FaultDisk::new(seed);
            for (name, _) in dest.files() {
                copied.write_file(&name, &dest.read_file(&name).unwrap()).unwrap();
            }
            assert_eq!(all(&copied, 3), read_logs(&storage), "seed {seed}");
        }
    }
    assert!(cuts > 5, "only {cuts} of 60 power losses took anything");
}
