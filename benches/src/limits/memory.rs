//! The limit of memory, on one core: copying what no cache holds, and checking a page with CRC-32.

use super::raw_disk::noise;
use super::{CRC32, MEMCPY};
use crate::figure::Figure;
use crate::window::{Meter, Window};
use std::hint::black_box;
use tokio::time::Instant;

const COPIED_BYTES: usize = 64 << 20;
const CHECKED_BYTES: usize = 1 << 20;

pub(crate) fn copy(window: impl Fn() -> Window) -> Figure {
    let from = noise(COPIED_BYTES);
    let mut into = vec![0; COPIED_BYTES];
    let window = window();
    let mut meter = Meter::new(window);
    while !window.is_over() {
        let began = Instant::now();
        black_box(&mut into).copy_from_slice(black_box(&from));
        meter.done(began, 1, COPIED_BYTES as u64);
    }
    meter.figure(MEMCPY.workload, MEMCPY.target)
}

pub(crate) fn checksum(window: impl Fn() -> Window) -> Figure {
    let data = noise(CHECKED_BYTES);
    let window = window();
    let mut meter = Meter::new(window);
    while !window.is_over() {
        let began = Instant::now();
        black_box(crc32fast::hash(black_box(&data)));
        meter.done(began, 1, CHECKED_BYTES as u64);
    }
    meter.figure(CRC32.workload, CRC32.target)
}
