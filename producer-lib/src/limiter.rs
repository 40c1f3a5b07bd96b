//! The limiter: memory for records that are not acknowledged yet. At the limit, putting waits.
//!
//! One counter bounds bytes and records alike: each record is charged its bytes in a frame and its bookkeeping, so
//! many empty records cannot outgrow it either. First come, first served: a large record is not overtaken forever.

use crate::error::{Error, Result};
use tidemill_proto::ErrorKind;
use tidemill_types::{FrameWriter, Record};
use tokio::sync::{Semaphore, TryAcquireError};

/// Charged to each record beside its bytes: slots, wakers and the unused part of buffers.
const BOOKKEEPING_BYTES: usize = 56;

#[derive(Debug)]
pub(crate) struct Limiter {
    room: Semaphore,
    capacity: usize,
}

impl Limiter {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { room: Semaphore::new(capacity), capacity }
    }
    /// What a record of this size is charged.
    pub(crate) fn charge(key_bytes: usize, data_bytes: usize) -> usize {
        FrameWriter::record_bytes(key_bytes, data_bytes) + BOOKKEEPING_BYTES
    }
    /// Waits for room. Cancelling gives back what was gathered. Pair it with [`Limiter::release`].
    pub(crate) async fn take(&self, record: &Record) -> Result<()> {
        match self.try_take(record) {
            Err(error) if error.kind() == ErrorKind::Throttled => {
                self.room.acquire_many(permits(record)).await.map_err(|_| closed())?.forget();
                Ok(())
            }
            other => other,
        }
    }
    /// Takes room, or fails as [`ErrorKind::Throttled`] when there is none.
    pub(crate) fn try_take(&self, record: &Record) -> Result<()> {
        match self.room.try_acquire_many(permits(record)) {
            Ok(permit) => {
                permit.forget();
                Ok(())
            }
            Err(TryAcquireError::Closed) => Err(closed()),
            Err(TryAcquireError::NoPermits) => Err(Error::new(
                ErrorKind::Throttled,
                format!(
                    "the producer's memory of {} bytes is full; wait for tickets, then put again",
                    self.capacity
                ),
            )),
        }
    }
    /// Gives room back.
    pub(crate) fn release(&self, charge: usize) {
        if charge > 0 {
            self.room.add_permits(charge);
        }
    }
    /// Bytes charged now.
    pub(crate) fn used(&self) -> usize {
        self.capacity.saturating_sub(self.room.available_permits())
    }
    /// Fails everyone who waits, now and later.
    pub(crate) fn close(&self) {
        self.room.close();
    }
}

fn permits(record: &Record) -> u32 {
    let charge = Limiter::charge(record.key().as_str().len(), record.data().len());
    u32::try_from(charge).expect("a record is bounded by 10 MiB")
}

fn closed() -> Error {
    Error::invalid("the producer is closed; make another")
}
