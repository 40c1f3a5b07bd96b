//! How far an application is behind the newest record of a shard.

use crate::error::{Error, Result};
use crate::shard::handle::ShardHandle;
use tidemill_types::{Checkpoint, SequenceIndex, TimestampMs};

/// What of a shard an application has not processed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lag {
    /// Stored records behind the checkpoint; exact.
    pub records: u64,
    /// How old the first of them is; 0 if there is none, else at least 1.
    pub millis: u64,
}

impl Lag {
    /// Behind `checkpoint`; none where nobody can tell, as what comes next is found out by the first read. May read the
    /// disk, a few pages.
    pub(super) fn behind(
        handle: &ShardHandle,
        checkpoint: Checkpoint,
        now: TimestampMs,
    ) -> Result<Option<Self>> {
        let from = match checkpoint {
            Checkpoint::Latest => return Ok(None),
            Checkpoint::TrimHorizon => SequenceIndex::ZERO,
            Checkpoint::At { number, .. } => number.index().next(),
            Checkpoint::ShardEnd => SequenceIndex::MAX,
        };
        let failed = |e| Error::from_storage("could not count the records behind a checkpoint", e);
        let log = handle.log();
        let records = log.records_from(from).map_err(failed)?;
        let first = if records == 0 { None } else { log.arrival_from(from).map_err(failed)? };
        let millis = first.map_or(0, |arrival| now.get().saturating_sub(arrival.get()).max(1));
        Ok(Some(Self { records, millis }))
    }
}
