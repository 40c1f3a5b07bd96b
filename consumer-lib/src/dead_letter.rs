//! Dead letters in a stream of a broker: one record each, as JSON, under the partition key of the record that failed.
//!
//! A letter is numbered like a producer's batch, so one that is sent again after a lost answer is stored once.
//! Not here: when a record is given up (failure).

use crate::error::{Error, Result};
use crate::failure::DeadLetter;
use crate::processor::ProcessError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tidemill_proto::client::{Backoff, Channel, Control, Endpoint};
use tidemill_proto::convert::required;
use tidemill_proto::{Error as WireError, ErrorKind as WireKind, v1};
use tidemill_types::limits::RECORD_BYTES_DEFAULT;
use tidemill_types::{FrameWriter, HashKey, ProducerId, StreamName};
use tokio::sync::Mutex;
use tokio::time::timeout;

/// One attempt may take this long.
const ATTEMPT_DEADLINE: Duration = Duration::from_secs(10);
/// Within one call; whoever has a letter to put calls again.
const BACKOFF: Backoff =
    Backoff { base: Duration::from_millis(50), cap: Duration::from_secs(1), attempts_max: 5 };

/// Keeps dead letters in a stream: `OnFailure::dead_letter_after(5, stream.put())`. Clones share the connection.
#[derive(Clone)]
pub struct DeadLetterStream(Arc<Inner>);

struct Inner {
    channel: Channel,
    control: Control,
    stream: StreamName,
    producer: ProducerId,
    /// The number of the next letter; letters go one at a time.
    next: Mutex<u64>,
}

impl DeadLetterStream {
    /// In this stream of a broker, which must exist when the first letter is put. Needs a tokio runtime; nothing is
    /// connected yet. An error if address or name are none. Errors of later calls are told by the worker that puts.
    pub fn new(endpoint: &Endpoint, stream: &str) -> Result<Self> {
        let stream = StreamName::new(stream)?;
        let channel = Channel::lazy(endpoint);
        let control = Control::new(channel.clone(), rand::random());
        let producer = ProducerId::new(rand::random_range(1..=u64::MAX));
        Ok(Self(Arc::new(Inner { channel, control, stream, producer, next: Mutex::new(1) })))
    }

    /// Puts each letter; for [`OnFailure::dead_letter_after`](crate::OnFailure::dead_letter_after).
    pub fn put(
        &self,
    ) -> impl Fn(DeadLetter) -> std::pin::Pin<Box<dyn Future<Output = Result<(), ProcessError>> + Send>>
    + Send
    + Sync
    + 'static {
        let inner = Arc::clone(&self.0);
        move |letter| {
            let inner = Arc::clone(&inner);
            Box::pin(async move { inner.put(&letter).await.map_err(ProcessError::from) })
        }
    }
}

impl fmt::Debug for DeadLetterStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetterStream").field("stream", &self.0.stream).finish_non_exhaustive()
    }
}

impl Inner {
    async fn put(&self, letter: &DeadLetter) -> Result<()> {
        let mut next = self.next.lock().await;
        let number = *next;
        // a number is never used for another letter, also when this call is given up
        *next += 1;
        let (key, data) = (letter.record.partition_key(), letter.to_json());
        debug_assert!(data.len() + key.len() <= RECORD_BYTES_DEFAULT);
        let mut writer = FrameWriter::with_capacity(FrameWriter::record_bytes(key.len(), data.len()));
        writer.push(key, data.as_bytes());
        let frame = writer.finish(self.producer, number);
        for attempt in 1.. {
            let tried = timeout(ATTEMPT_DEADLINE, self.append(key, frame.bytes().clone())).await;
            let error = match tried {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => error,
                Err(_) => WireError::new(WireKind::UnknownOutcome, "no answer in time"),
            };
            let again = error.kind().is_retryable() || error.kind() == WireKind::ShardClosed;
            let wait = BACKOFF.after(attempt, &mut rand::rng());
            match wait.filter(|_| again) {
                Some(wait) => tokio::time::sleep(wait).await,
                None => return Err(Error::from(error.during("putting a dead letter"))),
            }
        }
        unreachable!("attempts are bounded above")
    }

    async fn append(&self, key: &str, frame: bytes::Bytes) -> tidemill_proto::Result<()> {
        let list = self.control.list_shards(&self.stream).await?;
        let hash = if key.is_empty() { HashKey::new(0) } else { HashKey::of(key) };
        let request = v1::AppendRequest {
            request_id: 1,
            stream: self.stream.to_string(),
            shard: list.map.route(hash).id.get(),
            map_version: list.map.version().get(),
            frame,
            stream_incarnation: list.incarnation.get(),
        };
        let mut answers = self.channel.append(tokio_stream::once(request)).await?;
        let broken =
            || WireError::new(WireKind::UnknownOutcome, "the broker ended the call without an answer");
        let answer = answers.message().await?.ok_or_else(broken)?;
        match required(answer.outcome, "outcome")? {
            v1::append_response::Outcome::Appended(_) => Ok(()),
            v1::append_response::Outcome::Failed(failed) => Err(failed.into()),
        }
    }
}
