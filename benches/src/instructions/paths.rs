//! The work whose instructions are counted: on one thread, so many records, nothing else that grows with them.
//!
//! Storage is driven by hand (`Storage::step`) in mode `os`, so no other thread's waiting is counted.

use crate::limits::raw_disk::noise;
use anyhow::{Result, ensure};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tidemill_storage::disk::real::RealDisk;
use tidemill_storage::{Durability, LogId, Settings, ShardLog, Storage};
use tidemill_types::{Epoch, Frame, FrameWriter, ProducerId, SystemClock};

pub(super) const RECORD_BYTES: usize = 1024;
/// Records of a frame.
pub(super) const FRAME_RECORDS: u64 = 64;
/// Frames of the log that is read again and again.
const HELD_FRAMES: u64 = 32;
/// Of one read.
const PAGE_BYTES: usize = 1 << 20;

/// A stretch of a record's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Stretch {
    Encode,
    Check,
    Append,
    Read,
    Walk,
}

impl Stretch {
    pub(super) const ALL: [Self; 5] = [Self::Encode, Self::Check, Self::Append, Self::Read, Self::Walk];

    /// As it is written on the command line.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Encode => "encode",
            Self::Check => "check",
            Self::Append => "append",
            Self::Read => "read",
            Self::Walk => "walk",
        }
    }

    pub(super) const fn what(self) -> &'static str {
        match self {
            Self::Encode => "records into a frame, as a producer does",
            Self::Check => "a frame from the network: both checksums, every record",
            Self::Append => "a checked frame through the log, mode os: number, place, write, publish",
            Self::Read => "frames of the log out of the page cache, both checksums",
            Self::Walk => "records of a frame, one by one, as a consumer does",
        }
    }

    /// Does it for so many frames, in an empty directory.
    pub(super) fn run(self, frames: u64, dir: &Path) -> Result<()> {
        match self {
            Self::Encode => {
                let data = noise(RECORD_BYTES);
                (0..frames).for_each(|_| drop(std::hint::black_box(frame(&data))));
            }
            Self::Check => {
                let bytes = one_frame().bytes().clone();
                for _ in 0..frames {
                    std::hint::black_box(Frame::decode_untrusted(&bytes)?);
                }
            }
            Self::Append => {
                let (storage, log) = open(dir)?;
                append(&storage, &log, frames)?;
            }
            Self::Read => read(frames, dir)?,
            Self::Walk => {
                let frame = one_frame();
                for _ in 0..frames {
                    let bytes: usize = frame.records().map(|record| record.data.len()).sum();
                    ensure!(std::hint::black_box(bytes) > 0, "records have data");
                }
            }
        }
        Ok(())
    }
}

fn frame(data: &[u8]) -> Frame {
    let mut frame = FrameWriter::with_capacity(FRAME_RECORDS as usize * (RECORD_BYTES + 32));
    (0..FRAME_RECORDS).for_each(|_| frame.push("some-partition-key", data));
    frame.finish(ProducerId::NONE, 0)
}

fn one_frame() -> Frame {
    frame(&noise(RECORD_BYTES))
}

fn open(dir: &Path) -> Result<(Arc<Storage>, ShardLog)> {
    let settings = Settings { durability: Durability::Os, ..Settings::default() };
    let disk = Arc::new(RealDisk::new(dir)?);
    let storage = Storage::open(disk, Arc::new(SystemClock::new()), settings, &[], Epoch::new(1)?)?;
    let log = storage.create_log(LogId::new(1));
    Ok((storage, log))
}

/// Appends frame by frame, each committed before the next.
fn append(storage: &Storage, log: &ShardLog, frames: u64) -> Result<()> {
    let frame = one_frame();
    let stored = Arc::new(AtomicU64::new(0));
    for _ in 0..frames {
        let stored = stored.clone();
        log.append(frame.clone(), move |result| {
            stored.fetch_add(u64::from(result.is_ok()), Ordering::Relaxed);
        });
        storage.step();
    }
    ensure!(stored.load(Ordering::Relaxed) == frames, "an append failed");
    Ok(())
}

/// Reads the same log from its beginning again and again.
fn read(frames: u64, dir: &Path) -> Result<()> {
    let (storage, log) = open(dir)?;
    append(&storage, &log, HELD_FRAMES)?;
    let first = log.marks().horizon();
    let (mut left, mut from) = (frames, first);
    while left > 0 {
        let chunk = log.read(from, PAGE_BYTES)?;
        left = left.saturating_sub(chunk.frames.len() as u64);
        from = if chunk.next == log.marks().durable() { first } else { chunk.next };
        std::hint::black_box(&chunk.frames);
    }
    Ok(())
}
