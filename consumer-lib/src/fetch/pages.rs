//! From stored records to pages of bounded size: what polling and fan-out have in common.

use super::{Fetched, NobodyReads, Outlet, Page, Reading};
use crate::place::ReadFrom;
use crate::record::{Batch, Lens, StoredRecord};
use crate::shard::{ShardInfo, ShardRef};
use crate::status::ShardBoard;
use metrics::{Counter, counter};
use std::sync::Arc;
use tidemill_proto::{Error, ErrorKind};
use tidemill_types::AnySequenceNumber;
use tokio::time::Instant;
use tracing::{debug, warn};

/// Failures in a row before a person is told.
const QUIET_FAILURES: u32 = 3;

/// What came in one answer.
#[derive(Debug)]
pub(super) struct Came {
    pub(super) records: Vec<StoredRecord>,
    pub(super) millis_behind: u64,
    pub(super) received: Instant,
    /// Nothing follows but these shards.
    pub(super) end_of_shard: Option<Vec<ShardInfo>>,
}

/// Cuts answers into pages and hands them over; tells of what fails.
pub(super) struct Pages {
    at: ShardRef,
    board: Arc<ShardBoard>,
    throttled: Counter,
    lens: Lens,
    /// What was processed before this read began.
    after: Option<(AnySequenceNumber, u64)>,
    bytes_max: usize,
    outlet: Outlet,
}

impl Pages {
    pub(super) fn new(reading: &Reading, outlet: Outlet) -> Self {
        let after = match reading.from {
            ReadFrom::Behind { number, sub } => Some((number, sub)),
            _ => None,
        };
        let lens = Lens::new(reading.at.clone(), &reading.shard, reading.misrouted);
        let labels = [("stream", reading.at.stream().to_string()), ("shard", reading.at.shard().to_string())];
        Self {
            at: reading.at.clone(),
            board: Arc::clone(&reading.board),
            throttled: counter!("ReadsThrottled", &labels),
            lens,
            after,
            bytes_max: reading.batch_bytes as usize,
            outlet,
        }
    }

    /// Asking failed, so many times in a row; it will be tried again.
    pub(super) fn failed(&self, failures: u32, error: &Error) {
        let shard = &self.at;
        if error.kind() == ErrorKind::Throttled {
            self.throttled.increment(1);
        }
        if failures == QUIET_FAILURES {
            warn!(%shard, failures, %error, "cannot read the shard, trying again");
        } else {
            debug!(%shard, failures, %error, "read failed, trying again");
        }
        if failures >= QUIET_FAILURES {
            self.board.troubled(format!("reading: {error}"));
        }
    }

    pub(super) async fn put(&self, fetched: Fetched) -> Result<(), NobodyReads> {
        self.outlet.put(fetched).await
    }

    /// Hands an answer over, page by page, as there is room. One without records is news all the same.
    pub(super) async fn hand_over(&self, came: Came) -> Result<(), NobodyReads> {
        let Came { records, millis_behind, received, mut end_of_shard } = came;
        let mut parts = cut(records, self.bytes_max).into_iter().peekable();
        loop {
            let part = parts.next().unwrap_or_default();
            let is_last = parts.peek().is_none();
            let room = self.outlet.room(bytes(&part)).await;
            let page = Page {
                batch: Batch::of_stored(self.lens.clone(), part, self.after),
                // what follows is waiting already
                millis_behind: if is_last { millis_behind } else { millis_behind.max(1) },
                records_behind: None,
                received,
                room,
                end_of_shard: if is_last { end_of_shard.take() } else { None },
            };
            self.put(Fetched::Page(page)).await?;
            if is_last {
                return Ok(());
            }
        }
    }
}

fn bytes(records: &[StoredRecord]) -> usize {
    records.iter().map(|record| record.key.len() + record.data.len()).sum()
}

/// In parts of at most `bytes_max`; a larger record is a part of its own.
fn cut(records: Vec<StoredRecord>, bytes_max: usize) -> Vec<Vec<StoredRecord>> {
    let mut parts: Vec<Vec<StoredRecord>> = Vec::new();
    let mut filled = 0;
    for record in records {
        let size = record.key.len() + record.data.len();
        match parts.last_mut() {
            Some(part) if filled + size <= bytes_max => {
                filled += size;
                part.push(record);
            }
            _ => {
                filled = size;
                parts.push(vec![record]);
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use tidemill_types::TimestampMs;

    fn record(size: usize) -> StoredRecord {
        StoredRecord {
            number: AnySequenceNumber::ZERO,
            arrival: TimestampMs::new(1),
            key: Bytes::new(),
            data: vec![0; size].into(),
        }
    }

    #[test]
    fn answers_are_cut_into_pages_and_a_record_larger_than_a_page_stands_alone() {
        let sizes = |sizes: &[usize]| {
            let parts = cut(sizes.iter().map(|size| record(*size)).collect(), 10);
            parts.iter().map(|part| part.iter().map(|r| r.data.len()).collect()).collect::<Vec<Vec<_>>>()
        };
        assert_eq!(sizes(&[]), [[0; 0]; 0]);
        assert_eq!(sizes(&[4, 6, 1]), [vec![4, 6], vec![1]]);
        assert_eq!(sizes(&[4, 20, 1]), [vec![4], vec![20], vec![1]]);
    }
}
