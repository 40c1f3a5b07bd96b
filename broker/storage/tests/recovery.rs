//! Directed tests of opening a data directory: damage is told by file and offset, never skipped; foreign directories are
//! refused; real disks of two kinds work from end to end.

#![allow(clippy::unwrap_used)] // the whole crate is tests

use std::sync::{Arc, mpsc};
use std::time::Duration;
use tidemill_storage::disk::Disk;
use tidemill_storage::disk::fault::FaultDisk;
use tidemill_storage::disk::real::RealDisk;
use tidemill_storage::{Appended, Error, ErrorKind, LogId, Settings, ShardLog, Storage};
use tidemill_types::{
    Epoch, Frame, FrameWriter, ManualClock, ProducerId, SequenceIndex, SystemClock, TimestampMs,
};

const LOG: LogId = LogId::new(1);
/// A size that goes straight to the segment under [`settings`].
const LARGE: usize = 5000;

fn settings() -> Settings {
    Settings {
        journal_bytes_max: 1 << 20,
        journal_file_bytes: 64 << 10,
        direct_bytes_min: 4 << 10,
        segment_bytes_min: 16 << 10,
        segment_bytes_max: 16 << 10,
        pool_segments_max: 1,
        ..Settings::default()
    }
}

fn try_open(disk: &FaultDisk, epoch: u32) -> Result<Arc<Storage>, Error> {
    let clock = Arc::new(ManualClock::new(TimestampMs::new(1_700_000_000_000)));
    Storage::open(Arc::new(disk.clone()), clock, settings(), &[LOG], Epoch::new(epoch).unwrap())
}

fn open(disk: &FaultDisk, epoch: u32) -> (Arc<Storage>, ShardLog) {
    let storage = try_open(disk, epoch).unwrap();
    let log = storage.log(LOG).unwrap();
    (storage, log)
}

fn frame(data: &[u8]) -> Frame {
    frame_of(data, ProducerId::NONE)
}

fn frame_of(data: &[u8], producer: ProducerId) -> Frame {
    let mut writer = FrameWriter::with_capacity(data.len() + 64);
    writer.push("key", data);
    writer.finish(producer, 0)
}

/// Appends and commits one record that occurs once: `number` repeated.
fn append(storage: &Storage, log: &ShardLog, number: u8, bytes: usize) -> Appended {
    append_frame(storage, log, frame(&vec![number; bytes]))
}

fn append_frame(storage: &Storage, log: &ShardLog, frame: Frame) -> Appended {
    let (tell, told) = mpsc::channel();
    log.append(frame, move |result| tell.send(result).unwrap());
    while storage.step() > 0 {}
    told.try_recv().expect("answered by the step").unwrap()
}

fn read_all(log: &ShardLog) -> Result<Vec<Vec<u8>>, Error> {
    let mut found = Vec::new();
    let mut from = SequenceIndex::ZERO;
    while from < log.marks().durable() {
        let chunk = log.read(from, 1 << 20)?;
        from = chunk.next;
        found.extend(
            chunk
                .frames
                .iter()
                .flat_map(|frame| frame.records().map(|r| r.data.to_vec()).collect::<Vec<_>>()),
        );
    }
    Ok(found)
}

/// Where the record `number` of `append` begins in the files whose names begin so.
fn find(disk: &FaultDisk, prefix: &str, number: u8, bytes: usize) -> (String, u64) {
    let wanted = vec![number; bytes];
    for (name, _) in disk.files().into_iter().filter(|(name, _)| name.starts_with(prefix)) {
        let content = disk.read_file(&name).unwrap();
        if let Some(at) = content.windows(bytes).position(|window| window == wanted) {
            return (name, at as u64);
        }
    }
    panic!("record {number} is in no file {prefix}…");
}

fn is_told(error: &Error, kind: ErrorKind, name: &str) {
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(name), "{error} names {name}");
}

#[test]
fn damage_of_an_acknowledged_journal_group_is_told_by_file_and_offset() {
    let disk = FaultDisk::new(1);
    let (storage, log) = open(&disk, 1);
    for number in 1..6 {
        append(&storage, &log, number, 100);
    }
    let disk = disk.process_crash();
    let (name, offset) = find(&disk, "journal", 2, 100);
    disk.flip_bit(&name, offset + 10, 3).unwrap();
    let error = try_open(&disk, 2).err().expect("damage is not passed over");
    is_told(&error, ErrorKind::Damaged, &name);
    is_told(&error, ErrorKind::Damaged, &format!("offset {}", offset / 4096 * 4096));
    disk.flip_bit(&name, offset + 10, 3).unwrap();
    assert_eq!(read_all(&open(&disk, 3).1).unwrap().len(), 5, "the bit turned back, everything is there");
}

#[test]
fn damage_of_a_large_frame_written_since_the_checkpoint_is_told_by_file_and_offset() {
    let disk = FaultDisk::new(1);
    let (storage, log) = open(&disk, 1);
    for number in 1..3 {
        append(&storage, &log, number, LARGE);
    }
    let disk = disk.process_crash();
    let (name, offset) = find(&disk, "segments/", 1, LARGE);
    disk.flip_bit(&name, offset + 10, 3).unwrap();
    let error = try_open(&disk, 2).err().expect("damage before intact frames is not passed over");
    is_told(&error, ErrorKind::Damaged, &name);
    is_told(&error, ErrorKind::Damaged, "offset 64");
}

/// A journal file whose header is gone was once taken for an unused one, and its groups were dropped without a word.
#[test]
fn a_damaged_journal_header_before_acknowledged_groups_is_told() {
    let disk = FaultDisk::new(1);
    let (storage, log) = open(&disk, 1);
    append(&storage, &log, 1, 100);
    let disk = disk.process_crash();
    let (name, _) = find(&disk, "journal", 1, 100);
    disk.flip_bit(&name, 20, 3).unwrap();
    let error = try_open(&disk, 2).err().expect("acknowledged groups are not dropped");
    is_told(&error, ErrorKind::Damaged, &name);
    is_told(&error, ErrorKind::Damaged, "offset 0");
    disk.flip_bit(&name, 20, 3).unwrap();
    assert_eq!(read_all(&open(&disk, 3).1).unwrap().len(), 1);
}

/// A segment that is newer than the checkpoint and whose header is gone was once removed with all its frames.
#[test]
fn a_damaged_header_of_a_new_segment_is_told() {
    let disk = FaultDisk::new(1);
    let (storage, log) = open(&disk, 1);
    for number in 1..6 {
        append(&storage, &log, number, LARGE);
    }
    let disk = disk.process_crash();
    let (name, _) = find(&disk, "segments/", 5, LARGE);
    assert!(name.contains("-00000001"), "the second segment");
    disk.flip_bit(&name, 20, 3).unwrap();
    let error = try_open(&disk, 2).err().expect("acknowledged frames are not dropped");
    is_told(&error, ErrorKind::Damaged, &name);
    disk.flip_bit(&name, 20, 3).unwrap();
    assert_eq!(read_all(&open(&disk, 3).1).unwrap().len(), 5);
}

/// A write that the device lost or put elsewhere leaves an intact frame of another time in its place.
#[test]
fn an_intact_frame_that_does_not_belong_there_is_not_served() {
    let disk = FaultDisk::new(1);
    let (storage, log) = open(&disk, 1);
    let appended: Vec<_> = (1..6).map(|number| append(&storage, &log, number, 100)).collect();
    storage.close().unwrap();
    drop((storage, log));
    let (name, second) = find(&disk, "segments/", 2, 100);
    let (_, third) = find(&disk, "segments/", 3, 100);
    let mut content = disk.read_file(&name).unwrap();
    let (from, length) = (second as usize - 75, (third - second) as usize); // header, record head, key
    content.copy_within(from..from + length, from + length);
    disk.write_file(&name, &content).unwrap();
    let (_storage, log) = open(&disk, 2);
    let error = log.read(appended[2].first, 1).expect_err("the second record is not the third");
    is_told(&error, ErrorKind::Damaged, &name);
}

/// An older catalog begins an epoch again: numbers that a lost tail carried could be given out a second time.
#[test]
fn an_epoch_that_was_used_before_is_refused() {
    let disk = FaultDisk::new(1);
    let (storage, log) = open(&disk, 5);
    storage.close().unwrap();
    drop((storage, log));
    for epoch in [4, 5] {
        is_told(&try_open(&disk, epoch).err().expect("a used epoch"), ErrorKind::Refused, "older catalog");
    }
    open(&disk, 6);
}

#[test]
fn a_damaged_copy_of_what_the_journal_holds_is_mended() {
    let disk = FaultDisk::new(1);
    let (storage, log) = open(&disk, 1);
    for number in 1..6 {
        append(&storage, &log, number, 100);
    }
    let disk = disk.process_crash();
    let (name, offset) = find(&disk, "segments/", 2, 100);
    disk.flip_bit(&name, offset, 0).unwrap();
    let (_storage, log) = open(&disk, 2);
    assert_eq!(read_all(&log).unwrap(), (1..6).map(|number| vec![number; 100]).collect::<Vec<_>>());
}

#[test]
fn damage_of_what_a_checkpoint_covers_is_told_by_the_read_and_only_by_that() {
    let disk = FaultDisk::new(1);
    let (storage, log) = open(&disk, 1);
    let appended: Vec<_> = (1..6).map(|number| append(&storage, &log, number, 100)).collect();
    storage.close().unwrap();
    drop((storage, log));
    let (name, offset) = find(&disk, "segments/", 3, 100);
    disk.flip_bit(&name, offset, 0).unwrap();
    let (storage, log) = open(&disk, 2);
    let read = |at: usize| log.read(appended[at].first, 1);
    assert_eq!(read(1).unwrap().frames.len(), 1);
    is_told(&read(2).expect_err("damaged bytes are not served"), ErrorKind::Damaged, &name);
    assert_eq!(read(3).unwrap().frames[0].records().next().unwrap().data, [4; 100]);
    append(&storage, &log, 9, 100);
}

#[test]
fn a_damaged_checkpoint_is_told() {
    let disk = FaultDisk::new(1);
    let (storage, log) = open(&disk, 1);
    append(&storage, &log, 1, 100);
    storage.close().unwrap();
    drop((storage, log));
    let bytes = disk.read_file("checkpoint").unwrap().len() as u64;
    for offset in [0, 9, 20, bytes / 2, bytes - 1] {
        disk.flip_bit("checkpoint", offset, 5).unwrap();
        let error = try_open(&disk, 2).err().expect("a damaged checkpoint is not used");
        is_told(&error, ErrorKind::Damaged, "checkpoint");
        disk.flip_bit("checkpoint", offset, 5).unwrap();
    }
    open(&disk, 3);
}

#[test]
fn a_directory_of_a_later_version_is_refused_and_left_alone() {
    let disk = FaultDisk::new(1);
    let (storage, log) = open(&disk, 1);
    append(&storage, &log, 1, 100);
    storage.close().unwrap();
    drop((storage, log));
    let mut checkpoint = disk.read_file("checkpoint").unwrap();
    checkpoint[12] += 1;
    let checksum = crc32fast::hash(&checkpoint[12..]);
    checkpoint[8..12].copy_from_slice(&checksum.to_le_bytes());
    disk.write_file("checkpoint", &checkpoint).unwrap();
    let before = disk.files();
    let error = try_open(&disk, 2).err().expect("a later version is not read");
    is_told(&error, ErrorKind::Refused, "version");
    assert_eq!(disk.files(), before);
}

#[test]
fn a_missing_segment_is_told_by_name() {
    let disk = FaultDisk::new(1);
    let (storage, log) = open(&disk, 1);
    for number in 1..10 {
        append(&storage, &log, number, LARGE);
    }
    storage.close().unwrap();
    drop((storage, log));
    let (name, _) = find(&disk, "segments/", 5, LARGE);
    disk.remove_file(&name).unwrap();
    let error = match try_open(&disk, 2) {
        Err(error) => error,
        Ok(storage) => read_all(&storage.log(LOG).unwrap()).expect_err("records are missing"),
    };
    is_told(&error, ErrorKind::Damaged, &name);
}

#[test]
fn a_journal_that_lacks_a_file_is_told() {
    let disk = FaultDisk::new(1);
    let (storage, log) = open(&disk, 1);
    for number in 1..60 {
        append(&storage, &log, number, 3000);
    }
    let disk = disk.process_crash();
    let (name, _) = find(&disk, "journal", 30, 3000);
    let journals = disk.files().iter().filter(|(name, _)| name.starts_with("journal")).count();
    assert!(journals >= 3, "{journals}");
    disk.remove_file(&name).unwrap();
    let error = try_open(&disk, 2).err().expect("groups are missing");
    is_told(&error, ErrorKind::Damaged, "journal");
}

#[test]
fn deleting_every_log_gives_the_disk_back() {
    let disk = FaultDisk::new(1);
    let (storage, log) = open(&disk, 1);
    for number in 1..30 {
        append(&storage, &log, number, LARGE);
    }
    drop(log);
    storage.delete_log(LOG);
    storage.checkpoint().unwrap();
    storage.checkpoint().unwrap();
    let segments: Vec<_> =
        disk.files().into_iter().filter(|(name, _)| name.starts_with("segments/")).collect();
    assert!(segments.len() <= settings().pool_segments_max, "{segments:?}");
    assert_eq!(storage.usage().segment_bytes, segments.iter().map(|(_, bytes)| bytes).sum::<u64>());
}

/// Not only segments: whatever finds no room is refused once, and finds it then.
#[test]
fn a_full_disk_takes_recycled_segments_back_for_a_checkpoint() {
    let disk = FaultDisk::new(1);
    let (storage, log) = open(&disk, 1);
    for number in 1..30 {
        append(&storage, &log, number, LARGE);
    }
    drop(log);
    storage.delete_log(LOG);
    storage.checkpoint().unwrap();
    let recycled = || disk.files().iter().filter(|(name, _)| name.ends_with(".recycled")).count();
    assert_eq!(recycled(), 1);
    disk.set_capacity(disk.files().iter().map(|(_, bytes)| bytes).sum());
    assert_eq!(storage.checkpoint().unwrap_err().kind(), ErrorKind::Full);
    assert_eq!(recycled(), 0);
    storage.checkpoint().unwrap();
}

fn open_real(dir: &std::path::Path, epoch: u32) -> Result<Arc<Storage>, Error> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(dir).unwrap());
    let settings = Settings { journal_file_bytes: 1 << 20, ..Settings::default() };
    Storage::open(disk, Arc::new(SystemClock::new()), settings, &[LOG], Epoch::new(epoch).unwrap())
}

/// An empty record, one of the maximum size, and many others, through the threads of storage; twice.
fn works_from_end_to_end(dir: &std::path::Path) {
    let sizes = [0, 10 << 20, 1, 70_000, 300, 0, 2 << 20];
    let mut expected = Vec::new();
    for epoch in 1..4 {
        let storage = open_real(dir, epoch).unwrap();
        storage.start().unwrap();
        let log = storage.log(LOG).unwrap();
        assert!(read_all(&log).unwrap() == expected, "epoch {epoch}: not what was written");
        let (tell, told) = mpsc::channel();
        for (number, size) in sizes.into_iter().enumerate() {
            let data = vec![number as u8 + 10 * epoch as u8; size];
            let tell = tell.clone();
            log.append(frame(&data), move |result| tell.send(result.unwrap().first).unwrap());
            expected.push(data);
        }
        let firsts: Vec<_> = sizes
            .iter()
            .map(|_| told.recv_timeout(Duration::from_secs(20)).expect("answered in time"))
            .collect();
        assert!(firsts.is_sorted() && firsts[0] >= Epoch::new(epoch).unwrap().first_index());
        assert!(read_all(&log).unwrap() == expected, "epoch {epoch}: not what was appended");
        if epoch != 2 {
            storage.close().unwrap();
        }
    }
}

#[test]
fn a_real_directory_works_from_end_to_end() {
    let dir = tempfile::tempdir().unwrap();
    works_from_end_to_end(dir.path());
}

#[test]
fn a_file_system_in_memory_works_from_end_to_end() {
    if let Ok(dir) = tempfile::tempdir_in("/dev/shm") {
        works_from_end_to_end(dir.path());
    }
}

#[test]
fn a_second_storage_on_the_same_directory_is_refused_by_naming_the_holder() {
    let dir = tempfile::tempdir().unwrap();
    let first = open_real(dir.path(), 1).unwrap();
    let error = open_real(dir.path(), 2).err().expect("two would destroy each other's files");
    is_told(&error, ErrorKind::Refused, &format!("process {}", std::process::id()));
    first.close().unwrap();
    drop(first);
    open_real(dir.path(), 3).unwrap();
}

/// Found by the simulation: producers were taken for silent by the wall clock.
#[test]
fn a_batch_that_comes_again_after_the_clock_was_set_forward_is_stored_once() {
    let (disk, clock) = (FaultDisk::new(1), Arc::new(ManualClock::new(TimestampMs::new(1_700_000_000_000))));
    let open = |disk: &FaultDisk, epoch| {
        let epoch = Epoch::new(epoch).unwrap();
        Storage::open(Arc::new(disk.clone()), clock.clone(), settings(), &[LOG], epoch).unwrap()
    };
    let batch = frame_of(b"once", ProducerId::new(5));
    let storage = open(&disk, 1);
    let first = append_frame(&storage, &storage.log(LOG).unwrap(), batch.clone());
    clock.set_wall(TimestampMs::new(1_700_000_000_000 + 3_600_000));
    storage.checkpoint().unwrap();
    let again = append_frame(&storage, &storage.log(LOG).unwrap(), batch.clone());
    assert_eq!((again.first, again.duplicate), (first.first, true));
    let storage = open(&disk.process_crash(), 2);
    let again = append_frame(&storage, &storage.log(LOG).unwrap(), batch);
    assert_eq!((again.first, again.duplicate), (first.first, true));
}
