//! Where records come from: a source knows the shards of streams and reads one shard ahead of its processor, within a bound
//! of bytes. A broker of ours pushes (`push`); a Kinesis is asked (`poll`) or pushes in its own way
//! (`fan_out`).

mod connections;
#[cfg(feature = "aws")]
mod fan_out;
#[cfg(feature = "aws")]
mod kinesis;
#[cfg(feature = "aws")]
mod pages;
#[cfg(feature = "aws")]
mod poll;
mod push;

#[cfg(feature = "aws")]
pub(crate) use fan_out::{Consumer, Consumers};
#[cfg(feature = "aws")]
pub(crate) use kinesis::{KinesisApi, KinesisReads, KinesisSource};
#[cfg(feature = "aws")]
pub(crate) use poll::Polling;
pub(crate) use push::BrokerSource;

use crate::place::{Checkpoint, ReadFrom};
use crate::record::{Batch, Misrouted};
use crate::shard::{ShardInfo, ShardRef};
use crate::status::ShardBoard;
use crate::store::Answer;
use std::fmt::Debug;
use std::sync::Arc;
use tidemill_proto::{Error, ErrorKind};
use tidemill_types::StreamName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Pages waiting at most, however small.
const PAGES_MAX: usize = 64;

/// A service that has streams.
pub(crate) trait Source: Debug + Send + Sync {
    /// The shards of a stream that still hold or may take records. `NotFound` if there is no such stream.
    fn shards<'a>(&'a self, stream: &'a StreamName) -> Answer<'a, Vec<ShardInfo>>;

    /// Begins to read a shard. Must be called within a runtime.
    fn read(&self, reading: Reading) -> Reader;
}

/// What to read, and how.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) at: ShardRef,
    pub(crate) shard: ShardInfo,
    pub(crate) from: ReadFrom,
    /// What to do with user records of other shards.
    pub(crate) misrouted: Misrouted,
    /// Most bytes in a page.
    pub(crate) batch_bytes: u32,
    /// Most bytes read ahead.
    pub(crate) prefetch_bytes: usize,
    /// Where troubles are told.
    pub(crate) board: Arc<ShardBoard>,
    /// Feeds the pauses.
    pub(crate) seed: u64,
}

/// What came.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all of what comes is pages")]
pub(crate) enum Fetched {
    /// The read began. For one that began at the newest record: where that was, if the service tells.
    Begun(Option<Checkpoint>),
    /// Records, or none when there is only news of how far behind the end of what came is.
    Page(Page),
    /// There is no such stream or shard any more.
    Gone(Error),
}

/// Records that came together, and what was told with them.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) batch: Option<Batch>,
    /// How far the end of this page is behind the newest record.
    pub(crate) millis_behind: u64,
    /// The same in records, where the service tells.
    pub(crate) records_behind: Option<u64>,
    pub(crate) received: Instant,
    /// Its part of the buffer, given back when it is dropped.
    pub(crate) room: OwnedSemaphorePermit,
    /// The shard is closed and this was its end; nothing follows but these shards.
    pub(crate) end_of_shard: Option<Vec<ShardInfo>>,
}

/// The buffer of one shard. Dropping it ends the read.
#[derive(Debug)]
pub(crate) struct Reader {
    fetched: mpsc::Receiver<Fetched>,
    _task: JoinSet<()>,
}

/// Where a reading task puts what it reads.
#[derive(Debug)]
pub(crate) struct Outlet {
    tx: mpsc::Sender<Fetched>,
    room: Arc<Semaphore>,
    room_bytes: u32,
}

/// Nobody reads any more.
#[derive(Debug)]
pub(crate) struct NobodyReads;

impl Reader {
    /// Runs a reading task that may be `prefetch_bytes` ahead.
    pub(crate) fn start<F>(prefetch_bytes: usize, task: impl FnOnce(Outlet) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (tx, fetched) = mpsc::channel(PAGES_MAX);
        let room_bytes = u32::try_from(prefetch_bytes).unwrap_or(u32::MAX);
        let room = Arc::new(Semaphore::new(room_bytes as usize));
        let mut running = JoinSet::new();
        running.spawn(task(Outlet { tx, room, room_bytes }));
        Self { fetched, _task: running }
    }
    /// The next thing that came. Cancelling is safe: nothing is lost.
    pub(crate) async fn next(&mut self) -> Fetched {
        match self.fetched.recv().await {
            Some(fetched) => fetched,
            None => Fetched::Gone(Error::new(
                ErrorKind::Internal,
                "the reading task ended unasked; it is a fault",
            )),
        }
    }
}

impl Outlet {
    /// Waits for room in the buffer; a page larger than the whole buffer takes all of it.
    pub(crate) async fn room(&self, bytes: usize) -> OwnedSemaphorePermit {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).clamp(1, self.room_bytes);
        let room = Arc::clone(&self.room).acquire_many_owned(bytes).await;
        room.expect("the semaphore is never closed")
    }
    /// Hands something over.
    pub(crate) async fn put(&self, fetched: Fetched) -> Result<(), NobodyReads> {
        self.tx.send(fetched).await.map_err(|_| NobodyReads)
    }
}
