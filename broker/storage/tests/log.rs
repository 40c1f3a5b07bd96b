//! The log on a real directory, driven by its threads: append, read, seek, trim, reopen.

#![allow(clippy::unwrap_used)]

use std::sync::{Arc, mpsc};
use tidemill_storage::disk::real::RealDisk;
use tidemill_storage::{Appended, Durability, LogId, Settings, ShardLog, Storage};
use tidemill_types::{Clock, Epoch, Frame, FrameWriter, ManualClock, ProducerId, SequenceIndex, TimestampMs};

fn frame(data: &[&[u8]]) -> Frame {
    let mut writer = FrameWriter::with_capacity(64);
    for data in data {
        writer.push("key", data);
    }
    writer.finish(ProducerId::NONE, 0)
}

fn append(log: &ShardLog, frame: Frame) -> tidemill_storage::Result<Appended> {
    let (tx, rx) = mpsc::channel();
    log.append(frame, move |result| tx.send(result).unwrap());
    rx.recv().unwrap()
}

fn records(log: &ShardLog) -> Vec<(SequenceIndex, Vec<u8>)> {
    let mut from = SequenceIndex::ZERO;
    let mut all = Vec::new();
    loop {
        let chunk = log.read(from, 100_000).unwrap();
        if chunk.frames.is_empty() {
            return all;
        }
        for frame in &chunk.frames {
            all.extend(frame.records().map(|record| (record.index, record.data.to_vec())));
        }
        from = chunk.next;
    }
}

struct Place {
    dir: tempfile::TempDir,
    clock: Arc<ManualClock>,
    epoch: u32,
}

impl Place {
    fn new(dir: tempfile::TempDir) -> Self {
        Self { dir, clock: Arc::new(ManualClock::new(TimestampMs::new(1_000_000))), epoch: 0 }
    }
    fn open(&mut self, durability: Durability, logs: &[u64]) -> Arc<Storage> {
        self.epoch += 1;
        let disk = Arc::new(RealDisk::new(self.dir.path()).unwrap());
        let live: Vec<_> = logs.iter().map(|id| LogId::new(*id)).collect();
        let settings = Settings { durability, ..Settings::default() };
        let storage =
            Storage::open(disk, self.clock.clone(), settings, &live, Epoch::new(self.epoch).unwrap())
                .unwrap();
        storage.start().unwrap();
        storage
    }
}

fn write_reopen_read(dir: tempfile::TempDir, durability: Durability) {
    let mut place = Place::new(dir);
    let storage = place.open(durability, &[1, 2]);
    let big = vec![7u8; 10 * 1024 * 1024];
    let mut expected = [Vec::new(), Vec::new()];
    for round in 0..200u32 {
        for id in [1, 2] {
            let log = storage.log(LogId::new(id)).unwrap();
            let data = vec![round as u8; (round as usize * 977) % 90_000];
            let data = if round == 77 { big.clone() } else { data };
            let placed = append(&log, frame(&[&data, b""])).unwrap();
            assert_eq!(placed.count, 2);
            expected[id as usize - 1].push((placed.first, data));
            expected[id as usize - 1].push((placed.first.next(), Vec::new()));
        }
    }
    for id in [1, 2] {
        assert!(
            records(&storage.log(LogId::new(id)).unwrap()) == expected[id as usize - 1],
            "log {id} before closing"
        );
    }
    storage.close().unwrap();
    drop(storage);
    let storage = place.open(durability, &[1, 2]);
    for id in [1, 2] {
        let log = storage.log(LogId::new(id)).unwrap();
        assert!(records(&log) == expected[id as usize - 1], "log {id} after closing");
        let placed = append(&log, frame(&[b"more"])).unwrap();
        assert!(placed.first > expected[id as usize - 1].last().unwrap().0);
        assert_eq!(placed.first.epoch().get(), 2);
    }
}

#[test]
fn what_was_written_is_read_after_a_restart() {
    write_reopen_read(tempfile::tempdir().unwrap(), Durability::Device);
    write_reopen_read(tempfile::tempdir().unwrap(), Durability::Interval { ms: 5 });
    write_reopen_read(tempfile::tempdir().unwrap(), Durability::Os);
}

/// A reader that had read everything before a restart is at the tip after it: the numbers skipped by the new epoch are no
/// records, and a reader that is told to go on below the tip waits for records that do not exist.
#[test]
fn reading_to_the_end_leads_to_the_tip_also_across_epochs() {
    let mut place = Place::new(tempfile::tempdir().unwrap());
    let storage = place.open(Durability::Device, &[1]);
    append(&storage.log(LogId::new(1)).unwrap(), frame(&[b"one"])).unwrap();
    storage.close().unwrap();
    drop(storage);
    let storage = place.open(Durability::Device, &[1]);
    let log = storage.log(LogId::new(1)).unwrap();
    let chunk = log.read(SequenceIndex::ZERO, 1000).unwrap();
    assert_eq!((chunk.frames.len(), chunk.next), (1, log.marks().durable()));
}

/// Numbers are skipped with each opening; records are counted all the same.
#[test]
fn what_lies_behind_a_place_is_counted_exactly_over_many_openings() {
    let mut place = Place::new(tempfile::tempdir().unwrap());
    let mut written = Vec::new();
    for epoch in 1..=6u64 {
        let storage = place.open(Durability::Device, &[1]);
        let log = storage.log(LogId::new(1)).unwrap();
        let total = written.len() as u64;
        if epoch > 1 {
            assert_eq!(log.records_from(SequenceIndex::ZERO).unwrap(), total, "epoch {epoch}");
        }
        for round in 0..40u64 {
            place.clock.advance_ms(10);
            let placed = append(&log, frame(&[&vec![round as u8; 9_000], b"", b"x"])).unwrap();
            written.extend((0..3).map(|n| (placed.first.plus(n), placed.arrival)));
        }
        // some openings write nothing
        storage.close().unwrap();
        drop(storage);
        drop(log);
        place.open(Durability::Device, &[1]).close().unwrap();
    }
    let storage = place.open(Durability::Device, &[1]);
    let log = storage.log(LogId::new(1)).unwrap();
    for (at, (index, arrival)) in written.iter().enumerate() {
        assert_eq!(log.records_from(*index).unwrap(), (written.len() - at) as u64, "from {index}");
        assert_eq!(log.arrival_from(*index).unwrap(), Some(*arrival), "from {index}");
    }
    for tip in [log.marks().durable(), SequenceIndex::MAX, written.last().unwrap().0.next()] {
        assert_eq!((log.records_from(tip).unwrap(), log.arrival_from(tip).unwrap()), (0, None), "from {tip}");
    }
    // a closing entry has a number and is no record; what is trimmed is not behind either
    let (tx, rx) = mpsc::channel();
    log.seal(move |result| tx.send(result).unwrap());
    rx.recv().unwrap().unwrap();
    let horizon = log.trim(written[written.len() / 2].1).unwrap();
    let kept = written.iter().filter(|(index, _)| *index >= horizon).count() as u64;
    assert!(kept > 0 && kept < written.len() as u64);
    assert_eq!(log.records_from(SequenceIndex::ZERO).unwrap(), kept);
    assert_eq!(log.records_from(written.last().unwrap().0).unwrap(), 1);
    assert_eq!(log.arrival_from(written.last().unwrap().0.next()).unwrap(), None);
}

#[test]
fn a_memory_file_system_without_direct_writes_works() {
    write_reopen_read(tempfile::tempdir_in("/dev/shm").unwrap(), Durability::Device);
}

#[test]
fn a_log_is_trimmed_by_time_and_its_files_go() {
    let mut place = Place::new(tempfile::tempdir().unwrap());
    let storage = place.open(Durability::Device, &[1]);
    let log = storage.log(LogId::new(1)).unwrap();
    let mut firsts = Vec::new();
    for _ in 0..100 {
        firsts.push(append(&log, frame(&[&[1; 10_000]])).unwrap());
        place.clock.advance_ms(10);
    }
    let before = log.segment_bytes();
    let cut = firsts[50].arrival;
    assert_eq!(log.seek_time(cut).unwrap(), firsts[50].first);
    assert_eq!(log.trim(cut).unwrap(), firsts[50].first);
    assert_eq!(records(&log).len(), 50);
    assert!(log.segment_bytes() < before);
    assert_eq!(log.trim(place.clock.now()).unwrap(), log.marks().durable());
    assert_eq!((records(&log).len(), log.segment_bytes(), log.newest()), (0, 0, None));
    storage.checkpoint().unwrap();
    let left = std::fs::read_dir(place.dir.path().join("segments")).unwrap().count();
    assert_eq!(left, 0, "segments were left behind");
    append(&log, frame(&[b"after"])).unwrap();
    assert_eq!(records(&log).len(), 1);
}

#[test]
fn an_empty_directory_is_small_and_private() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let mut place = Place::new(tempfile::tempdir().unwrap());
    let storage = place.open(Durability::Device, &[]);
    let mut blocks = 0;
    for entry in std::fs::read_dir(place.dir.path()).unwrap() {
        let meta = entry.unwrap().metadata().unwrap();
        blocks += meta.blocks() * 512;
        assert_eq!(meta.permissions().mode() & 0o077, 0);
    }
    assert!(blocks < 100 << 20, "{blocks} bytes");
    assert!(storage.usage().journal_bytes < 100 << 20);
}

/// What a start has read of the journal is no memory of the broker: it may be a GiB.
#[test]
#[cfg(target_os = "linux")]
fn a_start_leaves_no_map_of_the_journal() {
    let mut place = Place::new(tempfile::tempdir().unwrap());
    for more in [b"one", b"two"] {
        let storage = place.open(Durability::Device, &[1]);
        append(&storage.log(LogId::new(1)).unwrap(), frame(&[more])).unwrap();
        drop(storage); // as after a crash
    }
    let storage = place.open(Durability::Device, &[1]);
    let log = storage.log(LogId::new(1)).unwrap();
    assert_eq!(records(&log).len(), 2);
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let of_ours: Vec<_> =
        maps.lines().filter(|map| map.contains(place.dir.path().to_str().unwrap())).collect();
    assert!(of_ours.iter().any(|map| map.contains("/segments/")), "what is read is mapped: {of_ours:?}");
    assert!(!of_ours.iter().any(|map| map.contains("/journal-")), "{of_ours:?}");
}

#[test]
fn a_second_process_is_refused_with_its_reason() {
    let mut place = Place::new(tempfile::tempdir().unwrap());
    let _first = place.open(Durability::Device, &[]);
    let disk = Arc::new(RealDisk::new(place.dir.path()).unwrap());
    let second = Storage::open(disk, place.clock.clone(), Settings::default(), &[], Epoch::new(9).unwrap());
    let error = second.err().expect("two owners of one directory");
    assert_eq!(error.kind(), tidemill_storage::ErrorKind::Refused);
}

#[test]
fn a_log_that_never_had_a_frame_is_ended_without_a_file() {
    let mut place = Place::new(tempfile::tempdir().unwrap());
    let storage = place.open(Durability::Device, &[1, 2]);
    let seal = |log: &ShardLog| {
        let (tx, rx) = mpsc::channel();
        log.seal(move |result| tx.send(result).unwrap());
        rx.recv().unwrap()
    };
    let (unwritten, written) = (storage.log(LogId::new(1)).unwrap(), storage.log(LogId::new(2)).unwrap());
    append(&written, frame(&[b"data"])).unwrap();
    for log in [&unwritten, &written] {
        seal(log).unwrap();
        assert!(log.is_sealed());
        assert_eq!(seal(log).unwrap_err().kind(), tidemill_storage::ErrorKind::Closed);
        assert_eq!(append(log, frame(&[b"late"])).unwrap_err().kind(), tidemill_storage::ErrorKind::Closed);
    }
    assert_eq!(unwritten.segment_bytes(), 0);
    assert_eq!(unwritten.marks().durable(), unwritten.marks().horizon());
    assert!(written.segment_bytes() > 0);
    drop((unwritten, written));
    drop(storage); // as after a crash
    let storage = place.open(Durability::Device, &[1, 2]);
    assert!(!storage.log(LogId::new(1)).unwrap().is_sealed(), "nothing was written");
    assert!(storage.log(LogId::new(2)).unwrap().is_sealed());
}
