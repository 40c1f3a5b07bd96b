//! What the disk itself does: synchronous writes with nothing around them, in the ways storage uses.
//!
//! Each file is written once over before it is measured where "written" is said; "fresh" blocks are only allocated.

use crate::figure::Figure;
use crate::window::{Meter, Window};
use anyhow::{Context, Result};
use rustix::fs::{FallocateFlags, OFlags, fallocate};
use rustix::io::{ReadWriteFlags, pwritev2};
use std::fs::{File, OpenOptions};
use std::io::IoSlice;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use tidemill_storage::disk::AlignedBuffer;
use tokio::time::Instant;

const FILE_BYTES: u64 = 256 << 20;

/// Whether the blocks of a file have been written before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blocks {
    Fresh,
    Written,
}

/// One writer, `O_DIRECT | O_DSYNC`, `bytes` at a time, one behind the other into written blocks, from the front again at
/// the end: what the journal does.
pub(crate) fn direct(dir: &Path, bytes: usize, window: impl Fn() -> Window) -> Result<Figure> {
    let path = dir.join("raw-direct");
    make(&path, FILE_BYTES, Blocks::Written)?;
    let flags = (OFlags::DIRECT | OFlags::DSYNC).bits();
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(flags.cast_signed())
        .open(&path)
        .context("the file system refuses direct writes")?;
    let mut buffer = AlignedBuffer::with_capacity(bytes);
    buffer.extend_from_slice(&noise(bytes));
    let window = window();
    let mut meter = Meter::new(window);
    let mut at = 0;
    while !window.is_over() {
        let began = Instant::now();
        file.write_all_at(buffer.as_slice(), at)?;
        meter.done(began, 1, bytes as u64);
        at = (at + bytes as u64) % (FILE_BYTES / bytes as u64 * bytes as u64);
    }
    std::fs::remove_file(&path)?;
    Ok(meter.figure(&format!("write {} direct", size(bytes)), "raw disk"))
}

/// `writers` threads, each with files of its own, `RWF_DSYNC` through the page cache: what large frames do.
pub(crate) fn buffered(
    dir: &Path,
    bytes: usize,
    blocks: Blocks,
    writers: usize,
    window: impl Fn() -> Window,
) -> Result<Figure> {
    let paths: Vec<_> = (0..writers).map(|n| dir.join(format!("raw-buffered-{n}"))).collect();
    // fresh blocks are used up once: enough for some seconds at 4 GB/s together
    let file_bytes = if blocks == Blocks::Fresh { 4 << 30 } else { FILE_BYTES };
    for path in &paths {
        make(path, file_bytes, blocks)?;
    }
    let window = window();
    let mut meter = Meter::new(window);
    let parts: Vec<Result<Meter>> = std::thread::scope(|scope| {
        let threads: Vec<_> = paths
            .iter()
            .map(|path| scope.spawn(|| buffered_writer(path, file_bytes, bytes, window)))
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a writer does not panic")).collect()
    });
    for part in parts {
        meter.add(&part?);
    }
    for path in &paths {
        std::fs::remove_file(path)?;
    }
    let blocks = if blocks == Blocks::Fresh { "fresh" } else { "written" };
    Ok(meter.figure(&format!("write {} buffered+dsync, {blocks}", size(bytes)), "raw disk"))
}

fn buffered_writer(path: &Path, file_bytes: u64, bytes: usize, window: Window) -> Result<Meter> {
    let file = OpenOptions::new().write(true).open(path)?;
    let data = noise(bytes);
    let mut meter = Meter::new(window);
    let mut at = 0;
    while !window.is_over() {
        let began = Instant::now();
        let written = pwritev2(&file, &[IoSlice::new(&data)], at, ReadWriteFlags::DSYNC)?;
        anyhow::ensure!(written == bytes, "a short write of {written} bytes");
        meter.done(began, 1, bytes as u64);
        at = (at + bytes as u64) % (file_bytes / bytes as u64 * bytes as u64);
    }
    Ok(meter)
}

fn make(path: &Path, bytes: u64, blocks: Blocks) -> Result<()> {
    let file = File::create(path)?;
    fallocate(&file, FallocateFlags::empty(), 0, bytes).context("no room for the file to measure with")?;
    if blocks == Blocks::Written {
        let zeros = vec![0; 1 << 20];
        for at in (0..bytes).step_by(zeros.len()) {
            file.write_all_at(&zeros, at)?;
        }
    }
    file.sync_all()?;
    Ok(())
}

/// Bytes that nothing on the way can compress.
pub(crate) fn noise(bytes: usize) -> Vec<u8> {
    let mut data = vec![0; bytes];
    rand::Rng::fill_bytes(&mut rand::rng(), &mut data);
    data
}

pub(crate) fn size(bytes: usize) -> String {
    if bytes >= 1 << 20 { format!("{} MiB", bytes >> 20) } else { format!("{} KiB", bytes >> 10) }
}
