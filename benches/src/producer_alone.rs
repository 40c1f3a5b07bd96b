//! The producer library with a sink that keeps nothing, on one core: what a put costs before anything is sent.
//!
//! ```text
//!  put ─► ticket ─► queue of tickets ─► awaited, oldest first
//! ```
//!
//! Putting, sealing, answering and awaiting share one thread, so the rate is that of a whole record. The clock is looked at
//! once for many records; nothing of the driver's own allocates while it is measured.

use crate::figure::{Figure, Name};
use crate::libraries::RECORD_BYTES;
use crate::libraries::append::Load;
use anyhow::{Context, Result};
use std::collections::VecDeque;
use std::time::Duration;
use tidemill_producer::{Config, Producer, Ticket};
use tokio::time::Instant;

pub(crate) const PUT_ALONE: Name<'_> = Name::new("put, awaited", "producer, nothing sent");

const SHARDS: u32 = 8;
/// Tickets that are not awaited yet. Their records fit the memory of a producer, so that putting never waits.
const WAITING_MAX: usize = 32 << 10;
/// Records between two looks at the clock.
const STRIDE: u64 = 4096;
/// What is put before allocations are counted: every queue has its size by then.
const SETTLING_RECORDS: u64 = 500_000;
const COUNTED_RECORDS: u64 = 1_000_000;

/// Puts for `time`, behind a warm-up.
pub(crate) fn rate(warmup: Duration, time: Duration) -> Result<Figure> {
    alone(async |mut driver| {
        driver.put_for(warmup).await?;
        let began = Instant::now();
        let records = driver.put_for(time).await?;
        let records_per_s = records as f64 / began.elapsed().as_secs_f64();
        let mb_per_s = records_per_s * RECORD_BYTES as f64 / 1e6;
        Ok(Figure { records_per_s, mb_per_s, ..Figure::default() }.named(PUT_ALONE))
    })
}

/// Allocations for a record, by a counter of those of this process.
pub(crate) fn allocations(count: impl Fn() -> usize) -> Result<f64> {
    alone(async |mut driver| {
        driver.put(SETTLING_RECORDS).await?;
        let before = count();
        driver.put(COUNTED_RECORDS).await?;
        Ok((count() - before) as f64 / COUNTED_RECORDS as f64)
    })
}

fn alone<T>(run: impl AsyncFnOnce(Driver) -> Result<T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { run(Driver::new().await?).await })
}

struct Driver {
    producer: Producer,
    load: Load,
    waiting: VecDeque<Ticket>,
}

impl Driver {
    async fn new() -> Result<Self> {
        let producer = Producer::new(Config::discard(SHARDS)?).await?;
        Ok(Self { producer, load: Load::new()?, waiting: VecDeque::with_capacity(WAITING_MAX) })
    }

    async fn put(&mut self, records: u64) -> Result<()> {
        for _ in 0..records {
            if self.waiting.len() == WAITING_MAX {
                let oldest = self.waiting.pop_front().context("the queue is full")?;
                oldest.await?;
            }
            let ticket = self.producer.put("alone", self.load.next()?).await?;
            self.waiting.push_back(ticket);
        }
        Ok(())
    }

    async fn put_for(&mut self, time: Duration) -> Result<u64> {
        let (until, mut records) = (Instant::now() + time, 0);
        while Instant::now() < until {
            self.put(STRIDE).await?;
            records += STRIDE;
        }
        Ok(records)
    }
}
