//! Reads of what is damaged: the records that were hit are told, all others come as ever, and nothing changed is given.

use crate::{BEGINNING, FLIPS, LOGS, closed, end, names, open, read_all};
use std::sync::Arc;
use tidemill_storage::LogId;
use tidemill_types::TimestampMs;

/// The log that a segment's file belongs to.
fn log_of(file: &str) -> LogId {
    let name = file.strip_prefix("segments/").unwrap();
    LogId::new(u64::from_str_radix(&name[..16], 16).unwrap())
}

#[test]
fn a_flipped_bit_costs_the_records_it_hit_and_no_others() {
    let disk = closed(100);
    let storage = open(Arc::new(disk.clone()), 2);
    let intact: Vec<_> = LOGS.into_iter().map(|log| read_all(&storage, log).records).collect();
    assert!(intact.iter().all(|records| records.len() == 100));
    let mut told = 0;
    for file in names(&disk, |name| name.ends_with(".segment")) {
        // behind the header, which nobody reads while the broker runs
        let span = end(&disk, &file) - 64;
        for turn in 0..FLIPS {
            let (offset, bit) = (64 + turn * 7919 % span, (turn % 8) as u8);
            disk.flip_bit(&file, offset, bit).unwrap();
            for (log, intact) in LOGS.into_iter().zip(&intact) {
                let given = read_all(&storage, log);
                let missing = intact.len() - given.records.len();
                assert!(given.records.iter().all(|record| intact.contains(record)), "{file} at {offset}");
                assert_eq!(missing, given.lost.len(), "{file} at {offset}: one record, and it is told");
                assert_eq!(missing > 0, log == log_of(&file), "{file} at {offset}");
                told += missing;
            }
            disk.flip_bit(&file, offset, bit).unwrap();
        }
    }
    assert!(told as u64 >= FLIPS, "{told} flips were told");
}

/// Retention must not stand still behind damage.
#[test]
fn a_damaged_frame_keeps_neither_a_search_by_time_nor_trimming_from_what_lies_behind() {
    let disk = closed(100);
    for file in names(&disk, |name| name.ends_with("00000000.segment")) {
        disk.flip_bit(&file, 64 + 9, 0).unwrap();
    }
    let storage = open(Arc::new(disk), 2);
    for log in LOGS {
        let log = storage.log(log).unwrap();
        assert!(log.seek_time(BEGINNING).unwrap() > log.marks().horizon(), "the first frame is bad");
        let before = log.marks().horizon();
        let horizon = log.trim(TimestampMs::new(BEGINNING.get() + 1)).unwrap();
        assert!(horizon > before, "{horizon} after {before}");
        assert_eq!(horizon, log.marks().durable(), "all are older");
    }
}
