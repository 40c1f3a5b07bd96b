//! Records that are damaged on disk, met by who reads: told, or passed over.
//!
//! ```text
//!   native read, subscription ─► error Damaged: stream, shard, which sequence numbers; a read from behind them succeeds
//!   Kinesis API               ─► passed over, as AWS does with what was trimmed; counted and logged
//! ```
//!
//! Why two ways: a native reader can be told what is lost and decide; a KCL cannot, it would ask for the same page for ever
//! and its shard would stand still behind one flipped bit. Neither gets a byte that is not what was written.

use crate::error::{Error, ErrorKind};
use crate::shard::handle::ShardHandle;
use crate::stream::StreamCore;
use tidemill_storage as storage;
use tidemill_types::SequenceIndex;
use tracing::error;

/// What a reader is told when storage could not read.
pub(crate) fn told(core: &StreamCore, handle: &ShardHandle, error: storage::Error) -> Error {
    let shard = handle.shard();
    let reading = format!("could not read {} of stream {}", shard.id, core.key());
    let Some(lost) = error.lost() else { return Error::from_storage(&reading, error) };
    let now = handle.shared().clock().now();
    let (first, behind) = (shard.number(lost.0, now), shard.number(lost.1, now));
    let message = format!(
        "{reading}: its records from sequence number {first} to before {behind} are damaged; reading goes on at {behind}"
    );
    Error::caused(ErrorKind::Damaged, message, error).losing(lost)
}

/// Where a reader goes on that passes over what is damaged; none if the error is another one.
pub(crate) fn pass_over(handle: &ShardHandle, error: &Error) -> Option<SequenceIndex> {
    let (first, next) = error.lost()?;
    handle.shared().metrics().damaged_passed.increment(indexes(first, next));
    error!(%error, "damaged records were passed over");
    Some(next)
}

/// How many records these indexes stand for; where they lie in two epochs the least that it can be.
pub(crate) fn indexes(first: SequenceIndex, next: SequenceIndex) -> u64 {
    if first.epoch() == next.epoch() { next.get().saturating_sub(first.get()) } else { 1 }
}
