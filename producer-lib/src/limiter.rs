//! The limiter: memory for records that are not acknowledged yet. At the limit, putting waits.
//!
//! One counter bounds bytes: each record is charged its bytes in a frame and its bookkeeping, so many empty records cannot
//! outgrow it either. A second one bounds the records themselves, if asked to. First come, first served: a large record is
//! not overtaken forever. What this does not do: pace what is sent (that is `rate`).

use crate::error::{Error, Result};
use std::ops::AddAssign;
use tidemill_proto::ErrorKind;
use tidemill_types::{FrameWriter, Record};
use tokio::sync::{Semaphore, SemaphorePermit, TryAcquireError};

/// Charged to each record beside its bytes: slots, wakers and the unused part of buffers.
const BOOKKEEPING_BYTES: usize = 56;

/// What records are charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Charge {
    bytes: usize,
    records: usize,
}

impl Charge {
    /// Of one record of this size.
    pub(crate) fn of(key_bytes: usize, data_bytes: usize) -> Self {
        Self { bytes: FrameWriter::record_bytes(key_bytes, data_bytes) + BOOKKEEPING_BYTES, records: 1 }
    }
    pub(crate) fn of_record(record: &Record) -> Self {
        Self::of(record.key().as_str().len(), record.data().len())
    }
    fn permits(self) -> u32 {
        u32::try_from(self.bytes).expect("a record is bounded by 10 MiB")
    }
}

impl AddAssign for Charge {
    fn add_assign(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.records += other.records;
    }
}

#[derive(Debug)]
pub(crate) struct Limiter {
    room: Semaphore,
    capacity: usize,
    slots: Option<Semaphore>,
}

impl Limiter {
    /// For so many bytes and, if told, records.
    pub(crate) fn new(capacity: usize, records: Option<usize>) -> Self {
        Self { room: Semaphore::new(capacity), capacity, slots: records.map(Semaphore::new) }
    }
    /// Waits for room. Cancelling gives back what was gathered. Pair it with [`Limiter::release`].
    pub(crate) async fn take(&self, record: &Record) -> Result<()> {
        let slot = match &self.slots {
            Some(slots) => Some(slots.acquire().await.map_err(|_| closed())?),
            None => None,
        };
        let permits = Charge::of_record(record).permits();
        self.room.acquire_many(permits).await.map_err(|_| closed())?.forget();
        slot.into_iter().for_each(SemaphorePermit::forget);
        Ok(())
    }
    /// Takes room, or fails as [`ErrorKind::Throttled`] when there is none.
    pub(crate) fn try_take(&self, record: &Record) -> Result<()> {
        self.take_now(record).map_err(|refused| self.refusal(&refused))
    }
    /// Takes room if there is some. As [`Limiter::try_take`] for who waits otherwise, and needs no error.
    pub(crate) fn has_taken(&self, record: &Record) -> bool {
        self.take_now(record).is_ok()
    }
    fn take_now(&self, record: &Record) -> std::result::Result<(), TryAcquireError> {
        let slot = self.slots.as_ref().map(Semaphore::try_acquire).transpose()?;
        self.room.try_acquire_many(Charge::of_record(record).permits())?.forget();
        slot.into_iter().for_each(SemaphorePermit::forget);
        Ok(())
    }
    /// Gives room back.
    pub(crate) fn release(&self, charge: Charge) {
        if charge.records > 0 {
            self.room.add_permits(charge.bytes);
            self.slots.iter().for_each(|slots| slots.add_permits(charge.records));
        }
    }
    /// Bytes charged now.
    pub(crate) fn used(&self) -> usize {
        self.capacity.saturating_sub(self.room.available_permits())
    }
    /// Fails everyone who waits, now and later.
    pub(crate) fn close(&self) {
        self.room.close();
        self.slots.iter().for_each(Semaphore::close);
    }

    fn refusal(&self, refused: &TryAcquireError) -> Error {
        match refused {
            TryAcquireError::Closed => closed(),
            TryAcquireError::NoPermits => Error::new(
                ErrorKind::Throttled,
                format!(
                    "the producer's memory of {} bytes is full, or it holds as many records as it may; wait for tickets, \
                     then put again",
                    self.capacity
                ),
            ),
        }
    }
}

fn closed() -> Error {
    Error::invalid("the producer is closed; make another")
}
