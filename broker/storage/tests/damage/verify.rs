//! Verification: nothing is found in what is intact, every flipped bit that means something is, and no byte is changed.

use crate::{FLIPS, closed, end, fill, names, open, verified};
use std::sync::Arc;
use tidemill_storage::disk::fault::FaultDisk;
use tidemill_storage::disk::read_only::ReadOnlyDisk;
use tidemill_storage::disk::real::RealDisk;
use tidemill_storage::disk::{Disk, WriteMode};
use tidemill_storage::verify::{Severity, verify};

/// Flips bits spread over `bytes` of the file, one at a time; each must be told as this, with the file.
fn every_flip_is_told(disk: &FaultDisk, file: &str, bytes: std::ops::Range<u64>, severity: Severity) {
    let span = bytes.end - bytes.start;
    assert!(span > 0, "{file} holds nothing");
    for turn in 0..FLIPS {
        // every part of it, and not the same bit of each byte
        let (offset, bit) = (bytes.start + turn * 7919 % span, (turn % 8) as u8);
        disk.flip_bit(file, offset, bit).unwrap();
        let report = verified(disk);
        let told = report.findings.iter().any(|found| found.file == file && found.severity == severity);
        assert!(told, "bit {bit} at {offset} of {file}: {:?}", report.findings);
        disk.flip_bit(file, offset, bit).unwrap();
    }
    assert_eq!(verified(disk).findings, [], "{file} is as it was");
}

#[test]
fn an_intact_directory_has_no_findings_and_all_its_records() {
    let disk = closed(100);
    let report = verified(&disk);
    assert_eq!(report.findings, []);
    assert_eq!((report.frames, report.records), (300, 300));
    assert!(!report.is_damaged());
    // one that was not closed has its newest records in the journal
    let disk = FaultDisk::new(2);
    let storage = open(Arc::new(disk.clone()), 1);
    fill(&storage, 7, 40);
    let left = disk.crash();
    let report = verified(&left);
    assert_eq!(report.findings, []);
    assert_eq!((report.frames, report.records), (120, 120), "as recovery would find them");
}

#[test]
fn every_flipped_bit_of_a_segment_is_found_and_the_records_behind_it_still_count() {
    let disk = closed(100);
    for file in names(&disk, |name| name.ends_with(".segment")).into_iter().take(4) {
        let frames = end(&disk, &file);
        every_flip_is_told(&disk, &file, 0..frames, Severity::Damage);
        // in the middle: what is hit is one frame, the others are there
        disk.flip_bit(&file, frames / 2, 3).unwrap();
        let report = verified(&disk);
        assert_eq!(report.frames, 299, "{:?}", report.findings);
        let damage = report.findings.iter().find(|found| found.severity == Severity::Damage).unwrap();
        let (first, last) = damage.records.expect("which records are hit is known");
        assert!(first <= last && damage.log.is_some(), "{damage:?}");
        disk.flip_bit(&file, frames / 2, 3).unwrap();
    }
}

#[test]
fn every_flipped_bit_of_the_checkpoint_and_of_indexes_is_found() {
    let disk = closed(100);
    let bytes = disk.read_file("checkpoint").unwrap().len() as u64;
    every_flip_is_told(&disk, "checkpoint", 0..bytes, Severity::Damage);
    let indexes = names(&disk, |name| name.ends_with(".index"));
    assert!(!indexes.is_empty(), "full segments have indexes");
    for file in indexes.into_iter().take(2) {
        let bytes = disk.read_file(&file).unwrap().len() as u64;
        every_flip_is_told(&disk, &file, 0..bytes, Severity::Aid);
    }
}

#[test]
fn every_flipped_bit_of_a_needed_journal_is_found_but_in_its_newest_group() {
    let disk = FaultDisk::new(3);
    let storage = open(Arc::new(disk.clone()), 1);
    fill(&storage, 7, 12);
    let disk = disk.crash();
    let file = names(&disk, |name| name.starts_with("journal-") && end(&disk, name) > 8192).remove(0);
    let content = disk.read_file(&file).unwrap();
    let groups: Vec<usize> =
        (4096..content.len()).step_by(4096).filter(|at| content[*at..].starts_with(b"TMGR")).collect();
    // a bad newest group cannot be told from one that was torn before it was acknowledged
    let (_, needed) = groups.split_last().expect("the journal holds groups");
    for &group in needed.iter().take(8) {
        let used = content[group..group + 4096].iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1;
        every_flip_is_told(&disk, &file, group as u64..group as u64 + used, Severity::Damage);
    }
}

#[test]
fn missing_and_cut_files_are_told_by_name() {
    let disk = closed(100);
    let segments = names(&disk, |name| name.ends_with(".segment"));
    let (gone, cut) = (&segments[1], &segments[2]);
    disk.remove_file(gone).unwrap();
    let bytes = disk.read_file(cut).unwrap();
    disk.write_file(cut, &bytes[..bytes.len() / 2]).unwrap();
    let report = verified(&disk);
    for file in [gone, cut] {
        assert!(report.findings.iter().any(|found| found.file == *file), "{file}: {:?}", report.findings);
    }
    assert!(report.is_damaged());
}

#[test]
fn a_directory_is_only_read_and_one_that_a_broker_has_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let storage = open(Arc::new(RealDisk::new(home.path()).unwrap()), 1);
    fill(&storage, 7, 30);
    let refused = ReadOnlyDisk::open(home.path()).unwrap().lock().unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::WouldBlock, "{refused}");
    storage.close().unwrap();
    drop(storage);
    let before = listing(home.path());
    let disk = ReadOnlyDisk::open(home.path()).unwrap();
    disk.lock().unwrap();
    let report = verify(&disk, &mut |_, _| {}).unwrap();
    assert_eq!((report.records, report.findings), (90, Vec::new()));
    assert_eq!(listing(home.path()), before, "nothing was changed");
    assert!(disk.create("new", 1, WriteMode::Buffered).is_err());
    assert!(disk.remove("checkpoint").is_err());
    let missing = ReadOnlyDisk::open(&home.path().join("nowhere")).unwrap_err();
    assert!(missing.to_string().contains("nowhere"), "{missing}");
}

/// Every file with its content.
fn listing(dir: &std::path::Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(listing(&path));
        } else {
            let bytes = std::fs::read(&path).unwrap();
            found.push((path, bytes));
        }
    }
    found.sort();
    found
}
