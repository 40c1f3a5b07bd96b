//! What the disk cannot give: an error of who reads it, for as long as it lasts; told by verification; mended by repair, at the
//! cost of what lay there.

use crate::repair::{Records, all, repaired_in};
use crate::{LOGS, closed, end, fill_sizes, names, open, read_all, verified};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use tidemill_storage::disk::fault::FaultDisk;
use tidemill_storage::disk::real::RealDisk;
use tidemill_storage::{ErrorKind, ShardLog};
use tidemill_types::SequenceIndex;

/// What a device loses at a time.
const SECTOR: u64 = 512;

/// What is given of these records, each asked for alone, and how many are told as unreadable.
fn given(log: &ShardLog, records: &Records) -> (Records, usize) {
    let (mut given, mut unreadable): (Records, _) = (Vec::new(), 0);
    for (index, _) in records {
        match log.read(*index, 1) {
            Ok(chunk) => {
                let all = chunk.frames.iter().flat_map(|frame| frame.records());
                given.extend(all.map(|record| (record.index, record.data.to_vec())));
            }
            Err(error) => {
                assert_eq!((error.kind(), error.lost()), (ErrorKind::Io, None), "{error}");
                assert!(error.to_string().contains(".segment"), "{error}");
                unreadable += 1;
            }
        }
    }
    (given, unreadable)
}

/// All that is given from the front on until something cannot be read.
fn front(log: &ShardLog) -> Records {
    let mut from = SequenceIndex::ZERO;
    let mut given = Vec::new();
    while let Ok(chunk) = log.read(from, 4 << 10) {
        if chunk.next <= from {
            break;
        }
        let all = chunk.frames.iter().flat_map(|frame| frame.records());
        given.extend(all.map(|record| (record.index, record.data.to_vec())));
        from = chunk.next;
    }
    given
}

fn spoiled(file: &str, turn: u64) -> (FaultDisk, u64) {
    let disk = closed(100);
    let at = (64 + turn * 7919 % (end(&disk, file) - 64)) / SECTOR * SECTOR;
    disk.spoil(file, at..at + SECTOR).unwrap();
    (disk, at)
}

#[test]
fn a_sector_that_cannot_be_read_is_an_error_of_its_records_and_nothing_is_passed_over() {
    let intact = all(&closed(100), 2);
    let mut hit = 0;
    for file in names(&closed(100), |name| name.ends_with(".segment")) {
        for turn in 1..6 {
            let (disk, at) = spoiled(&file, turn);
            let storage = open(Arc::new(disk), 2);
            for (log, intact) in LOGS.into_iter().zip(&intact) {
                let log = storage.log(log).unwrap();
                let (given, unreadable) = given(&log, intact);
                assert!(given.iter().all(|record| intact.contains(record)), "{file} at {at}");
                assert_eq!(given.len() + unreadable, intact.len(), "{file} at {at}");
                let front = front(&log);
                assert_eq!(front, intact[..front.len()], "{file} at {at}");
                assert_eq!(front.len() < intact.len(), unreadable > 0, "{file} at {at}");
                hit += unreadable;
            }
        }
    }
    assert!(hit > 0, "a sector held records");
}

#[test]
fn verification_tells_what_cannot_be_read_and_repair_costs_what_lay_there() {
    let intact = all(&closed(100), 2);
    let (mut lost, mut spoils) = (0, 0);
    for file in names(&closed(100), |name| name.ends_with(".segment")) {
        for turn in 0..6 {
            let (disk, at) = spoiled(&file, turn);
            let told = verified(&disk).findings;
            let finding = told.iter().find(|finding| finding.file == file).expect("it is told");
            assert!(finding.what.contains("cannot be read"), "{finding:?}");
            assert_eq!(finding.offset, at / 4096 * 4096, "the page: {finding:?}");
            let done = repaired_in(&disk, 1);
            assert!(!done.mended.is_empty() && done.left.is_empty(), "{file} at {at}: {done:?}");
            assert_eq!(verified(&disk).findings, [], "{file} at {at}");
            let left = all(&disk, 2);
            for (intact, left) in intact.iter().zip(left) {
                assert!(left.iter().all(|record| intact.contains(record)), "{file} at {at}");
                lost += intact.len() - left.len();
            }
            spoils += 1;
        }
    }
    assert!(lost > 0 && lost <= spoils * 4, "{lost} records by {spoils} sectors");
}

/// Somebody cuts a file that is mapped: to touch what is gone would end this process.
#[test]
fn a_file_that_becomes_shorter_while_it_is_mapped_does_not_end_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(Arc::new(RealDisk::new(dir.path()).unwrap()), 1);
    let put = fill_sizes(&storage, 7, &[900; 40]);
    assert_eq!(read_all(&storage, LOGS[0]).records, put[0]);
    let first = std::fs::read_dir(dir.path().join("segments")).unwrap();
    let mut files: Vec<_> = first.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let file = std::fs::OpenOptions::new().write(true).read(true).open(&files[0]).unwrap();
    let (bytes, mut whole) = (file.metadata().unwrap().len(), Vec::new());
    whole.resize(bytes as usize, 0);
    file.read_exact_at(&mut whole, 0).unwrap();
    file.set_len(8192).unwrap();
    let log = storage.log(LOGS[0]).unwrap();
    let (left, unreadable) = given(&log, &put[0]);
    assert!(unreadable > 0 && left.len() + unreadable == put[0].len(), "{unreadable} of {}", put[0].len());
    assert_eq!(read_all(&storage, LOGS[1]).records, put[1], "other logs are read");
    file.write_all_at(&whole[8192..], 8192).unwrap();
    assert_eq!(
        read_all(&storage, LOGS[0]).records,
        put[0],
        "it can be read again, and nothing was passed over"
    );
}
