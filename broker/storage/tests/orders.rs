//! A model check of who goes on when: queue → commit → publish → wake, and closing. The code is that of the broker with all of its
//! threads; `shuttle` chooses at each lock, condition and atomic number which thread runs.
//!
//! `cargo test -p tidemill-storage --features shuttle --test orders`; `TIDEMILL_ORDERS=20000` for more orders. A failure prints a
//! schedule with which `shuttle::replay` shows it again.

#![allow(clippy::unwrap_used)] // the whole crate is tests

use shuttle::sync::mpsc::{Receiver, channel};
use shuttle::thread;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemill_storage::disk::fault::FaultDisk;
use tidemill_storage::{Appended, Durability, ErrorKind, LogId, Result, Settings, Storage};
use tidemill_types::{Epoch, FrameWriter, ManualClock, ProducerId, SequenceIndex, TimestampMs};

const LOGS: [LogId; 2] = [LogId::new(1), LogId::new(2)];
/// Threads that append, frames of each, and how large each third one is: that one goes straight to its segment.
const WRITERS: u64 = 2;
const FRAMES: u64 = 3;
const LARGE: usize = 70_000;

fn orders() -> usize {
    let text = std::env::var("TIDEMILL_ORDERS").ok();
    text.map_or(300, |text| text.parse().expect("TIDEMILL_ORDERS is a number"))
}

fn open(disk: &FaultDisk, durability: Durability, epoch: u32) -> Arc<Storage> {
    let clock = Arc::new(ManualClock::new(TimestampMs::new(1_700_000_000_000)));
    let settings = Settings { durability, direct_threads: 1, ..Settings::default() };
    Storage::open(Arc::new(disk.clone()), clock, settings, &LOGS, Epoch::new(epoch).unwrap()).unwrap()
}

type Answers = Receiver<Result<Appended>>;

/// Appends, alternately to each log; gives where each answer comes.
fn write(storage: &Storage, writer: u64) -> Vec<(LogId, Vec<u8>, Answers)> {
    let append = |number: u64| {
        let log = LOGS[(number % 2) as usize];
        let bytes = if number % 3 == 2 { LARGE } else { 10 };
        let data = vec![(writer * FRAMES + number) as u8; bytes];
        let mut frame = FrameWriter::with_capacity(bytes);
        frame.push("key", &data);
        let (tell, told) = channel();
        let frame = frame.finish(ProducerId::new(writer + 1), number + 1);
        storage.log(log).unwrap().append(frame, move |outcome| tell.send(outcome).expect("the writer waits"));
        (log, data, told)
    };
    (0..FRAMES).map(append).collect()
}

/// Every record of a log as it can be read.
fn read(storage: &Storage, log: LogId) -> Vec<(SequenceIndex, Vec<u8>)> {
    let log = storage.log(log).unwrap();
    let (mut records, mut from) = (Vec::new(), SequenceIndex::ZERO);
    while from < log.marks().durable() {
        let chunk = log.read(from, 1 << 20).unwrap();
        let found = chunk.frames.iter().flat_map(|frame| frame.records());
        records.extend(found.map(|record| (record.index, record.data.to_vec())));
        from = chunk.next;
    }
    records
}

/// Appends of several threads and a reader that is woken: every append is answered once, what is acknowledged can be read at
/// once, and the reader has been woken up to the last of it.
fn appends_are_answered_and_wake(durability: Durability) {
    let disk = FaultDisk::new(1);
    let storage = open(&disk, durability, 1);
    storage.start().unwrap();
    let (wake, woken) = channel();
    for log in LOGS {
        let wake = wake.clone();
        let watcher = move |mark| wake.send((log, mark)).unwrap_or_default(); // at the end nobody listens
        storage.log(log).unwrap().watch(Arc::new(watcher));
    }
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let storage = Arc::clone(&storage);
            thread::spawn(move || {
                let mut placed = Vec::new();
                for (log, data, told) in write(&storage, writer) {
                    let appended = told.recv().expect("every append is answered").unwrap();
                    assert!(
                        read(&storage, log).contains(&(appended.first, data)),
                        "acknowledged, and not there"
                    );
                    assert!(told.recv().is_err(), "an append is answered once");
                    placed.push((log, appended.first));
                }
                placed
            })
        })
        .collect();
    let placed: Vec<_> = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
    let last =
        |log: LogId| placed.iter().filter(|(of, _)| *of == log).map(|(_, index)| *index).max().unwrap();
    let mut left: BTreeMap<LogId, SequenceIndex> = LOGS.into_iter().map(|log| (log, last(log))).collect();
    while !left.is_empty() {
        // comes without anything else happening
        let (log, mark) = woken.recv().expect("the reader is woken");
        if left.get(&log).is_some_and(|last| mark > *last) {
            left.remove(&log);
        }
    }
    storage.close().unwrap();
}

/// Closing while threads append: what was acknowledged is there after a start, the rest was refused, nothing hangs.
fn closing_drains(durability: Durability) {
    let disk = FaultDisk::new(1);
    let storage = open(&disk, durability, 1);
    storage.start().unwrap();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let storage = Arc::clone(&storage);
            thread::spawn(move || {
                let mut acknowledged = Vec::new();
                for (log, data, told) in write(&storage, writer) {
                    match told.recv().expect("every append is answered") {
                        Ok(appended) => acknowledged.push((log, appended.first, data)),
                        Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
                    }
                }
                acknowledged
            })
        })
        .collect();
    storage.close().unwrap();
    let acknowledged: Vec<_> = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
    drop(storage);
    let storage = open(&disk, durability, 2);
    let there: Vec<_> = LOGS.into_iter().map(|log| (log, read(&storage, log))).collect();
    let stored: usize = there.iter().map(|(_, records)| records.len()).sum();
    assert_eq!(stored, acknowledged.len(), "what was refused is not stored");
    for (log, index, data) in acknowledged {
        let (_, records) = there.iter().find(|(of, _)| *of == log).unwrap();
        assert!(records.contains(&(index, data)), "acknowledged, and gone after a start");
    }
}

#[test]
fn every_append_is_answered_once_and_wakes_its_reader_in_any_order_of_threads() {
    shuttle::check_random(|| appends_are_answered_and_wake(Durability::Device), orders());
    shuttle::check_pct(|| appends_are_answered_and_wake(Durability::Device), orders(), 3);
}

#[test]
fn closing_drains_in_any_order_of_threads() {
    shuttle::check_random(|| closing_drains(Durability::Device), orders());
    shuttle::check_pct(|| closing_drains(Durability::Os), orders(), 3);
}
