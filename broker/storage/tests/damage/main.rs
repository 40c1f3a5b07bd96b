//! Damage on disk: found by verification, fenced by reads, mended by repair. On the disk in memory, bit by bit.

#![allow(clippy::unwrap_used)] // the whole crate is tests

mod chance;
mod copy;
mod read;
mod repair;
mod unreadable;
mod verify;

use std::sync::{Arc, mpsc};
use tidemill_storage::disk::Disk;
use tidemill_storage::disk::fault::FaultDisk;
use tidemill_storage::verify::Report;
use tidemill_storage::{Durability, ErrorKind, LogId, Result, Settings, Storage};
use tidemill_types::{Epoch, FrameWriter, ManualClock, ProducerId, SequenceIndex, TimestampMs};

pub(crate) const LOGS: [LogId; 3] = [LogId::new(1), LogId::new(2), LogId::new(3)];
/// Sizes of records: those of the journal, and one that goes straight to its segment.
const SIZES: [usize; 5] = [10, 300, 900, 6000, 40];
/// Bits that are flipped in each kind of file, one at a time.
pub(crate) const FLIPS: u64 = 60;
pub(crate) const BEGINNING: TimestampMs = TimestampMs::new(1_700_000_000_000);

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

pub(crate) fn open(disk: Arc<dyn Disk>, epoch: u32) -> Arc<Storage> {
    open_with(disk, epoch, Durability::Device)
}

pub(crate) fn open_with(disk: Arc<dyn Disk>, epoch: u32, durability: Durability) -> Arc<Storage> {
    try_open(disk, epoch, durability).unwrap()
}

pub(crate) fn try_open(disk: Arc<dyn Disk>, epoch: u32, durability: Durability) -> Result<Arc<Storage>> {
    try_open_of(disk, epoch, durability, &LOGS)
}

/// With these logs alone in the catalog.
pub(crate) fn try_open_of(
    disk: Arc<dyn Disk>,
    epoch: u32,
    durability: Durability,
    live: &[LogId],
) -> Result<Arc<Storage>> {
    let clock = Arc::new(ManualClock::new(BEGINNING));
    let settings = Settings { durability, ..settings() };
    Storage::open(disk, clock, settings, live, Epoch::new(epoch).unwrap())
}

/// Appends so many records to each log, of all sizes in turn, in the name of this producer.
pub(crate) fn fill(storage: &Storage, producer: u64, records: usize) {
    let sizes: Vec<usize> = SIZES.into_iter().cycle().take(records).collect();
    fill_sizes(storage, producer, &sizes);
}

/// Appends records of these sizes to each log, in the name of this producer; gives them log by log.
pub(crate) fn fill_sizes(
    storage: &Storage,
    producer: u64,
    sizes: &[usize],
) -> [Vec<(SequenceIndex, Vec<u8>)>; 3] {
    let mut put = [const { Vec::new() }; 3];
    for (number, size) in sizes.iter().enumerate() {
        for (log, put) in LOGS.into_iter().zip(&mut put) {
            let data = vec![number as u8; *size];
            let mut writer = FrameWriter::with_capacity(8 << 10);
            writer.push("key", &data);
            let (tell, told) = mpsc::channel();
            let frame = writer.finish(ProducerId::new(producer), number as u64 + 1);
            storage.log(log).unwrap().append(frame, move |result| tell.send(result).unwrap());
            while storage.step() > 0 {}
            put.push((told.recv().unwrap().unwrap().first, data));
        }
    }
    put
}

pub(crate) fn closed(records: usize) -> FaultDisk {
    let disk = FaultDisk::new(1);
    let storage = open(Arc::new(disk.clone()), 1);
    fill(&storage, 7, records);
    storage.close().unwrap();
    disk
}

pub(crate) fn verified(disk: &FaultDisk) -> Report {
    tidemill_storage::verify::verify(disk, &mut |done, total| assert!(done <= total)).unwrap()
}

pub(crate) fn names(disk: &FaultDisk, of: impl Fn(&str) -> bool) -> Vec<String> {
    disk.files().into_iter().map(|(name, _)| name).filter(|name| of(name)).collect()
}

/// Where the frames of a segment end: it is filled with zeros behind.
pub(crate) fn end(disk: &FaultDisk, file: &str) -> u64 {
    let bytes = disk.read_file(file).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1)
}

/// What a log gives from its beginning to its tip: the records, and the stretches of indexes that are told as damaged.
pub(crate) struct Given {
    pub(crate) records: Vec<(SequenceIndex, Vec<u8>)>,
    pub(crate) lost: Vec<(SequenceIndex, SequenceIndex)>,
}

pub(crate) fn read_all(storage: &Storage, log: LogId) -> Given {
    let log = storage.log(log).unwrap();
    let mut given = Given { records: Vec::new(), lost: Vec::new() };
    let mut from = log.marks().horizon();
    while from < log.marks().durable() {
        from = match log.read(from, 4 << 10) {
            Ok(chunk) => {
                let records = chunk.frames.iter().flat_map(|frame| frame.records());
                given.records.extend(records.map(|record| (record.index, record.data.to_vec())));
                assert!(chunk.next > from, "a read goes on");
                chunk.next
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
                let (first, next) = error.lost().expect("which records are hit is told");
                assert!(first >= from && next > first, "{first} {next} from {from}");
                given.lost.push((first, next));
                next
            }
        };
    }
    given
}
