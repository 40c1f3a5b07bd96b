//! Reads one shard of a Kinesis by asking for records again and again, on a task of its own.
//!
//! ```text
//!  ─► GetShardIterator ─► GetRecords ─► wait for room ─► hand over ─► (nothing new: idle) ─► GetRecords …
//!        ▲                    │                                                        │
//!        └── iterator expired ┤                                                        └─► end of shard; stream gone
//!                             └─► throttled, broken: back off, and on with the same iterator
//! ```
//!
//! After a break it goes on behind the last record handed over. A full buffer stops the asking.

use super::kinesis::{KinesisApi, children, stored};
use super::pages::{Came, Pages};
use super::{Fetched, Outlet, Reading};
use crate::aws::tell;
use crate::place::ReadFrom;
use aws_sdk_kinesis::operation::get_records::{GetRecordsError, GetRecordsOutput};
use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types::ShardIteratorType;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::time::Duration;
use tidemill_proto::client::Backoff;
use tidemill_proto::{Error, ErrorKind};
use tidemill_types::{AnySequenceNumber, Clock, SystemClock, TimestampMs};
use tokio::time::{Instant, sleep, timeout};

/// Longest a request may take.
const REQUEST_DEADLINE: Duration = Duration::from_secs(30);
/// Between two answers without records of a shard that is behind: Amazon allows five reads a second.
const EMPTY_PAUSE: Duration = Duration::from_millis(200);
const BACKOFF: Backoff =
    Backoff { base: Duration::from_millis(250), cap: Duration::from_secs(5), attempts_max: u32::MAX };

/// How to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Polling {
    /// Between two requests once the newest record was reached.
    pub(crate) idle: Duration,
    /// Most records in an answer.
    pub(crate) records_max: i32,
}

/// Where to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Start(ReadFrom),
    /// A read that began at the newest record, at this time, and has seen none yet.
    Since(TimestampMs),
    After(AnySequenceNumber),
}

/// Why a step failed.
enum Trouble {
    /// The iterator is of no use any more.
    Iterator,
    Gone(Error),
    Failed(Error),
}

enum Step {
    More(Duration),
    /// Nothing more is to be read, or nobody reads any more.
    Finished,
}

struct Poll {
    api: KinesisApi,
    polling: Polling,
    reading: Reading,
    pages: Pages,
    next: Next,
    /// Whether the first iterator was had, and told of.
    has_begun: bool,
    iterator: Option<String>,
}

/// Reads until the end of the shard, or until nobody reads any more.
pub(super) async fn run(api: KinesisApi, polling: Polling, reading: Reading, outlet: Outlet) {
    let pages = Pages::new(&reading, outlet);
    let next = Next::Start(reading.from);
    Poll { api, polling, reading, pages, next, has_begun: false, iterator: None }.run().await;
}

impl Poll {
    async fn run(mut self) {
        let mut rng = StdRng::seed_from_u64(self.reading.seed);
        let mut failures = 0;
        loop {
            let error = match self.step().await {
                Ok(Step::Finished) => return,
                Ok(Step::More(pause)) => {
                    failures = 0;
                    sleep(pause).await;
                    continue;
                }
                Err(Trouble::Gone(error)) => {
                    let _ = self.pages.put(Fetched::Gone(error)).await; // nobody reads: nobody needs to know
                    return;
                }
                Err(Trouble::Iterator) => {
                    self.iterator = None;
                    Error::new(ErrorKind::Unavailable, "the iterator has expired")
                }
                Err(Trouble::Failed(error)) => error,
            };
            failures += 1;
            self.pages.failed(failures, &error);
            sleep(BACKOFF.wait(failures, &mut rng)).await;
        }
    }

    async fn step(&mut self) -> Result<Step, Trouble> {
        let iterator = match self.iterator.take() {
            Some(iterator) => iterator,
            None => {
                let iterator = self.iterator().await?;
                if !std::mem::replace(&mut self.has_begun, true) {
                    self.next = begun(self.reading.from);
                    if self.pages.put(Fetched::Begun(None)).await.is_err() {
                        return Ok(Step::Finished);
                    }
                }
                iterator
            }
        };
        let get = self.api.client.get_records().shard_iterator(&iterator).limit(self.polling.records_max);
        let answer = timeout(REQUEST_DEADLINE, get.send()).await;
        // what failed of the way is asked for again by the same iterator
        self.iterator = Some(iterator);
        let answer = match answer {
            Err(_) => return Err(Trouble::Failed(silent())),
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(trouble(error.as_service_error(), tell(&error))),
        };
        self.hand_over(answer).await
    }

    async fn hand_over(&mut self, mut answer: GetRecordsOutput) -> Result<Step, Trouble> {
        let received = Instant::now();
        let children = children(answer.child_shards()).map_err(Trouble::Failed)?;
        let records = stored(std::mem::take(&mut answer.records)).map_err(Trouble::Failed)?;
        let millis_behind = answer.millis_behind_latest.and_then(|ms| u64::try_from(ms).ok()).unwrap_or(0);
        let (last, is_empty) = (records.last().map(|record| record.number), records.is_empty());
        let ended = answer.next_shard_iterator.is_none();
        if ended {
            self.api.forget(self.reading.at.stream());
        }
        let end_of_shard = ended.then_some(children);
        let handed = self.pages.hand_over(Came { records, millis_behind, received, end_of_shard }).await;
        if ended || handed.is_err() {
            return Ok(Step::Finished);
        }
        if let Some(last) = last {
            self.next = Next::After(last);
        }
        self.iterator = answer.next_shard_iterator;
        Ok(Step::More(match millis_behind {
            0 => self.polling.idle,
            _ if is_empty => EMPTY_PAUSE,
            _ => Duration::ZERO,
        }))
    }

    async fn iterator(&self) -> Result<String, Trouble> {
        let get = self.api.client.get_shard_iterator().stream_name(self.reading.at.stream().as_str());
        let get = get.shard_id(self.reading.at.shard().to_string());
        let (kind, number, time) = position(self.next);
        let get = get
            .shard_iterator_type(kind)
            .set_starting_sequence_number(number.map(|number| number.to_string()))
            .set_timestamp(time.map(|time| DateTime::from_millis(time.get().try_into().unwrap_or(i64::MAX))));
        match timeout(REQUEST_DEADLINE, get.send()).await {
            Err(_) => Err(Trouble::Failed(silent())),
            Ok(Ok(answer)) => answer.shard_iterator.ok_or_else(|| {
                Trouble::Failed(Error::new(ErrorKind::Internal, "an answer without an iterator"))
            }),
            Ok(Err(error)) => Err(gone_or_failed(tell(&error))),
        }
    }
}

fn silent() -> Error {
    Error::new(ErrorKind::UnknownOutcome, format!("no answer came within {REQUEST_DEADLINE:?}"))
}

fn gone_or_failed(error: Error) -> Trouble {
    if error.kind() == ErrorKind::NotFound { Trouble::Gone(error) } else { Trouble::Failed(error) }
}

fn trouble(refused: Option<&GetRecordsError>, told: Error) -> Trouble {
    match refused {
        Some(GetRecordsError::ExpiredIteratorException(_) | GetRecordsError::InvalidArgumentException(_)) => {
            Trouble::Iterator
        }
        _ => gone_or_failed(told),
    }
}

/// Where a read goes on that has begun and brought nothing yet.
fn begun(from: ReadFrom) -> Next {
    match from {
        // the same word would now mean a later place
        ReadFrom::Latest => Next::Since(SystemClock::new().now()),
        from => Next::Start(from),
    }
}

fn position(next: Next) -> (ShardIteratorType, Option<AnySequenceNumber>, Option<TimestampMs>) {
    match next {
        Next::Start(ReadFrom::TrimHorizon) => (ShardIteratorType::TrimHorizon, None, None),
        Next::Start(ReadFrom::Latest) => (ShardIteratorType::Latest, None, None),
        Next::Start(ReadFrom::AtTime(time)) | Next::Since(time) => {
            (ShardIteratorType::AtTimestamp, None, Some(time))
        }
        // the record itself again: of an aggregated one there may be more
        Next::Start(ReadFrom::Behind { number, .. }) => {
            (ShardIteratorType::AtSequenceNumber, Some(number), None)
        }
        Next::After(number) => (ShardIteratorType::AfterSequenceNumber, Some(number), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_at_the_newest_record_that_lost_its_iterator_goes_on_where_it_began() {
        let before = SystemClock::new().now();
        let (kind, number, time) = position(begun(ReadFrom::Latest));
        assert_eq!((kind, number), (ShardIteratorType::AtTimestamp, None));
        assert!(time.is_some_and(|time| time >= before));
        assert_eq!(begun(ReadFrom::TrimHorizon), Next::Start(ReadFrom::TrimHorizon));
    }

    #[test]
    fn a_read_begins_at_the_last_record_processed_and_goes_on_behind_those_it_brought() {
        let number: AnySequenceNumber = "7".parse().unwrap();
        let start = Next::Start(ReadFrom::Behind { number, sub: 2 });
        assert_eq!(position(start), (ShardIteratorType::AtSequenceNumber, Some(number), None));
        assert_eq!(
            position(Next::After(number)),
            (ShardIteratorType::AfterSequenceNumber, Some(number), None)
        );
    }
}
