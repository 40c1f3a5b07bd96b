//! Micro benchmarks of the log, driven by hand in one thread: a commit, and finding where to read.
//!
//! Files go beside the other build products, on the disk, and are removed.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::sync::Arc;
use tempfile::TempDir;
use tidemill_storage::disk::real::RealDisk;
use tidemill_storage::{Durability, LogId, Settings, ShardLog, Storage};
use tidemill_types::{
    Epoch, Frame, FrameWriter, ManualClock, ProducerId, SequenceIndex, SystemClock, TimestampMs,
};

const RECORD_BYTES: usize = 1024;
/// Frames of the log that is searched.
const HELD_FRAMES: u64 = 4096;
const BEGAN: TimestampMs = TimestampMs::new(1_700_000_000_000);

fn frame(records: usize) -> Frame {
    let data = vec![7; RECORD_BYTES];
    let mut frame = FrameWriter::with_capacity(records * (RECORD_BYTES + 32));
    (0..records).for_each(|_| frame.push("some-partition-key", &data));
    frame.finish(ProducerId::NONE, 0)
}

fn directory() -> TempDir {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory beside the build products")
}

fn open(dir: &TempDir, durability: Durability, clock: Arc<dyn tidemill_types::Clock>) -> Arc<Storage> {
    let disk = Arc::new(RealDisk::new(dir.path()).expect("a fresh directory"));
    let settings = Settings { durability, ..Settings::default() };
    let epoch = Epoch::new(1).expect("a small number");
    Storage::open(disk, clock, settings, &[], epoch).expect("nothing to recover")
}

fn append(storage: &Storage, log: &ShardLog, frame: Frame) {
    log.append(frame, |result| assert!(result.is_ok(), "{result:?}"));
    storage.step();
}

fn commit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("commit");
    for (mode, durability) in [("device", Durability::Device), ("os", Durability::Os)] {
        for records in [1, 16] {
            let dir = directory();
            let storage = open(&dir, durability, Arc::new(SystemClock::new()));
            let log = storage.create_log(LogId::new(1));
            let frame = frame(records);
            group.throughput(Throughput::Elements(records as u64));
            group.bench_function(format!("{records} × 1 KiB, {mode}"), |bencher| {
                bencher.iter(|| append(&storage, &log, frame.clone()));
            });
        }
    }
    group.finish();
}

fn seek(criterion: &mut Criterion) {
    let dir = directory();
    let clock = Arc::new(ManualClock::new(BEGAN));
    let storage = open(&dir, Durability::Os, clock.clone());
    let log = storage.create_log(LogId::new(1));
    let frame = frame(16);
    for _ in 0..HELD_FRAMES {
        clock.advance_ms(10);
        append(&storage, &log, frame.clone());
    }
    let marks = log.marks();
    let (first, held) = (marks.horizon().get(), marks.durable().get() - marks.horizon().get());
    let mut turn = 0_u64;
    // far apart, and never the same for long
    let mut next = move || {
        turn = turn.wrapping_add(0x9e37_79b9_7f4a_7c15);
        turn
    };
    let mut group = criterion.benchmark_group("log of 64 MiB");
    group.bench_function("where a time begins", |bencher| {
        bencher.iter(|| {
            let time = TimestampMs::new(BEGAN.get() + next() % (HELD_FRAMES * 10));
            black_box(log.seek_time(time).expect("a readable log"))
        });
    });
    group.bench_function("one frame at an index", |bencher| {
        bencher.iter(|| {
            let index = SequenceIndex::new(first + next() % held).expect("within the log");
            black_box(log.read(index, 1).expect("a readable log"))
        });
    });
    group.finish();
}

criterion_group!(benches, commit, seek);
criterion_main!(benches);
