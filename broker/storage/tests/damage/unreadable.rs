//! What the disk cannot give: an error of who reads it, for as long as it lasts; told by verification; mended by repair, at the
//! cost of what lay there.

use crate::repair::{Records, all, repaired_in};
use crate::{BEGINNING, LOGS, closed, end, fill_sizes, names, open, read_all, try_open, verified};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use tidemill_storage::disk::Disk;
use tidemill_storage::disk::fault::FaultDisk;
use tidemill_storage::disk::real::RealDisk;
use tidemill_storage::{Durability, ErrorKind, ShardLog};
use tidemill_types::{SequenceIndex, TimestampMs};

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
                // who looks for a time or counts is told so, or need not look there
                for done in [log.seek_time(BEGINNING).map(drop), log.records_from(intact[0].0).map(drop)] {
                    assert!(done.is_ok() || unreadable > 0, "{file} at {at}");
                }
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

/// Between moving the old file and putting the new one in its place.
#[test]
fn a_repair_that_was_cut_short_is_gone_on_with() {
    let intact = all(&closed(100), 2);
    let file = names(&closed(100), |name| name.ends_with(".segment")).remove(0);
    let (disk, at) = spoiled(&file, 1);
    disk.rename(&file, &format!("{file}.unreadable")).unwrap();
    let done = repaired_in(&disk, 1);
    assert!(!done.mended.is_empty() && done.left.is_empty(), "{at}: {done:?}");
    let left: usize = all(&disk, 2).iter().map(Vec::len).sum();
    let before: usize = intact.iter().map(Vec::len).sum();
    // what lay in the page
    assert!((1..=12).contains(&(before - left)), "{left} of {before} records");
    assert!(disk.files().iter().any(|(name, _)| name.ends_with(".unreadable")), "it is kept");
}

/// After a kill, segments are there that no checkpoint knows.
#[test]
fn a_start_on_a_sector_that_cannot_be_read_is_refused_and_repair_makes_it_start() {
    let killed = || {
        let disk = FaultDisk::new(3);
        let storage = open(Arc::new(disk.clone()), 1);
        let put = fill_sizes(&storage, 7, &[6000; 12]);
        (disk.process_crash(), put)
    };
    let (mut lost, mut refused) = (0, 0);
    for file in names(&killed().0, |name| name.ends_with(".segment")) {
        for turn in 0..4 {
            let (disk, put) = killed();
            let at = turn * 4096;
            disk.spoil(&file, at..at + SECTOR).unwrap();
            match try_open(Arc::new(disk.clone()), 2, Durability::Device) {
                Ok(_) => continue, // nothing was written there
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
                    assert!(error.to_string().contains(&file), "{error}");
                    refused += 1;
                }
            }
            let done = repaired_in(&disk, 1);
            assert!(!done.mended.is_empty() && done.left.is_empty(), "{file} at {at}: {done:?}");
            let left = all(&disk, 2);
            for (put, left) in put.iter().zip(left) {
                assert!(left.iter().all(|record| put.contains(record)), "{file} at {at}");
                lost += put.len() - left.len();
            }
        }
    }
    assert!(refused > 0 && lost <= refused * 2, "{lost} records by {refused} sectors");
}

/// Somebody cuts a file that is mapped: to touch what is gone would end this process.
#[test]
fn a_file_that_becomes_shorter_while_it_is_mapped_does_not_end_the_process() {
    for bytes in [8192, 5000] {
        let dir = tempfile::tempdir().unwrap();
        let storage = open(Arc::new(RealDisk::new(dir.path()).unwrap()), 1);
        let put = fill_sizes(&storage, 7, &[900; 40]);
        assert_eq!(read_all(&storage, LOGS[0]).records, put[0]);
        let entries = std::fs::read_dir(dir.path().join("segments")).unwrap();
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        let file = std::fs::OpenOptions::new().write(true).open(&files[0]).unwrap();
        let whole = std::fs::read(&files[0]).unwrap();
        file.set_len(bytes).unwrap();
        let log = storage.log(LOGS[0]).unwrap();
        let told = |index: &SequenceIndex| log.read(*index, 1).err().map(|error| error.kind());
        let kinds: Vec<_> = put[0].iter().filter_map(|(index, _)| told(index)).collect();
        assert!(kinds.contains(&ErrorKind::Io), "{kinds:?}");
        let torn = kinds.iter().filter(|kind| **kind == ErrorKind::Damaged).count();
        assert!(
            torn <= usize::from(!bytes.is_multiple_of(4096)),
            "at most a frame that is there in part: {kinds:?}"
        );
        let _ = log.seek_time(TimestampMs::new(BEGINNING.get() + 1)); // walks over all of it
        assert_eq!(read_all(&storage, LOGS[1]).records, put[1], "other logs are read");
        file.write_all_at(&whole[bytes as usize..], bytes).unwrap();
        assert_eq!(
            read_all(&storage, LOGS[0]).records,
            put[0],
            "it can be read again, and nothing was passed over"
        );
    }
}
