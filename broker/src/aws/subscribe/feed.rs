//! The body of a subscription: one frame after the other, made as the connection takes them.
//!
//! ```text
//!  initial-response ─► event, event, … ─┬─ five minutes, or the broker stops ─► end
//!                       (an empty one   ├─ credentials changed or expired, no longer permitted ─► end
//!                       after 5 s       ├─ end of a closed shard: an event that names its children ─► end
//!                       without         └─ seat taken, consumer or stream gone, a failed read: exception ─► end
//!                       records)
//! ```
//!
//! Nothing is read before the reader asks for it, see `outlet`: one that does not read delays nobody else. A page and the
//! event made of it count against a room of their own, until the event was sent.
//! Where the caller may no longer read, the stream ends without an error: its reader subscribes again, and is then told.
//! Payloads are JSON whatever the request was encoded in.

use super::outlet::{Outlet, outlet};
use super::seats::Seat;
use crate::aws::Call;
use crate::aws::codec::Encoding;
use crate::aws::error::{self, ApiError, Code};
use crate::aws::eventstream;
use crate::aws::shape::{ChildShard, SubscribeToShardEvent};
use axum::body::Body;
use bytes::Bytes;
use std::collections::VecDeque;
use std::time::Duration;
use tidemill_engine::{ConsumerInfo, ReadRecord, Stream, Subscription};
use tidemill_types::{ConsumerArn, Frame, SequenceIndex, SequenceNumber, Shard, StreamKey, TimestampMs};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long a subscription lasts (Kinesis).
const LIFE: Duration = Duration::from_secs(300);
/// Without records an empty event follows after so long.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// What the caller was permitted is asked about again after so long.
const PERMITTED_FOR: Duration = Duration::from_secs(1);
/// Frames that are fetched at a time, and about the size of an event on the wire. A larger frame or record comes alone.
const EVENT_BYTES_MAX: usize = 1 << 20;
/// A frame that is under way at the end may take so long.
const GRACE: Duration = Duration::from_secs(1);
/// What a byte of a page takes until it is sent: itself, and again in base64 as payload and as frame.
const ROOM_FACTOR: usize = 4;
/// What a record takes on the wire besides its data and key.
const RECORD_OVERHEAD_BYTES: usize = 192;

/// Whose subscription it is, and at which shard.
pub(super) struct Subject {
    pub(super) consumer: ConsumerArn,
    pub(super) key: StreamKey,
    pub(super) stream: Stream,
    pub(super) shard: Shard,
}

/// What is being followed, and how far it was sent.
pub(super) struct Feed {
    call: Call,
    permitted_until: Instant,
    subject: Subject,
    subscription: Subscription,
    seat: Seat,
    ends_at: Instant,
    stopping: CancellationToken,
    phase: Phase,
    page: Page,
    /// The last record that was sent.
    last: Option<SequenceNumber>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Opening,
    /// Nothing was read yet: where the reader stands is told at once.
    Placing,
    Following,
    Ended,
}

/// What was read and not sent yet.
struct Page {
    /// Each with whether it lies encrypted.
    frames: VecDeque<(Frame, bool)>,
    /// The next record to send.
    next: SequenceIndex,
    /// Where the page ends.
    end: SequenceIndex,
    millis_behind: u64,
    /// The children, if the shard ends with this page.
    children: Option<Vec<Shard>>,
    /// What it and the event made of it take.
    room: Option<OwnedSemaphorePermit>,
}

impl Page {
    /// The records of the next event.
    fn take(&mut self, shard: &Shard) -> Vec<ReadRecord> {
        let (mut records, mut bytes) = (Vec::new(), 0);
        while let Some((frame, encrypted)) = self.frames.front() {
            let (arrival, from) = (frame.header().arrival, self.next);
            for record in frame.records().filter(|record| record.index >= from) {
                bytes += record.data.len().div_ceil(3) * 4 + record.key.len() + RECORD_OVERHEAD_BYTES;
                if bytes > EVENT_BYTES_MAX && !records.is_empty() {
                    return records;
                }
                let number = shard.number(record.index, arrival);
                let (key, data) = (record.key.to_owned(), record.data_bytes());
                records.push(ReadRecord { number, arrival, key, data, encrypted: *encrypted });
                self.next = record.index.next();
            }
            self.frames.pop_front();
        }
        self.next = self.end;
        records
    }
}

impl Feed {
    pub(super) fn new(
        call: Call,
        subject: Subject,
        subscription: Subscription,
        from: SequenceIndex,
        seat: Seat,
    ) -> Self {
        let (frames, next, end) = (VecDeque::new(), from, from);
        let page = Page { frames, next, end, millis_behind: 0, children: None, room: None };
        let stopping = call.state.stopping().clone();
        let left = call.caller.left(call.state.now()).unwrap_or(LIFE);
        let ends_at = Instant::now() + left.min(LIFE);
        Self {
            permitted_until: Instant::now() + PERMITTED_FOR,
            call,
            subject,
            subscription,
            seat,
            ends_at,
            stopping,
            phase: Phase::Opening,
            page,
            last: None,
        }
    }

    /// The body of the reply. Dropping it ends the subscription.
    pub(super) fn into_body(self) -> Body {
        let (outlet, body) = outlet(self.call.state.event_room().clone());
        tokio::spawn(self.serve(outlet));
        body
    }

    /// Sends frames until the end: the reader's, that of its time or of its credentials.
    async fn serve(mut self, outlet: Outlet) {
        let (ends_at, valid) = (self.ends_at, self.call.valid.clone());
        let sending = async {
            while outlet.asked().await.is_ok() {
                let Some(frame) = self.frame().await else { return };
                if outlet.put(frame).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = sending => {}
            () = outlet.closed() => {}
            () = async {
                valid.cancelled().await;
                tokio::time::sleep(GRACE).await;
            } => {}
            // where the reader does ask, `event` has told the end by then
            () = tokio::time::sleep_until(ends_at + GRACE) => {}
        }
    }

    /// The next frame, or the end.
    async fn frame(&mut self) -> Option<Bytes> {
        match self.phase {
            Phase::Ended => return None,
            Phase::Opening => {
                self.phase = Phase::Placing;
                return Some(eventstream::event("initial-response", b"{}").into());
            }
            Phase::Placing | Phase::Following => {}
        }
        let event = self.event().await.transpose()?;
        let frame = event.map(|event| framed(&event));
        Some(frame.unwrap_or_else(|error| {
            self.phase = Phase::Ended;
            exception(&error)
        }))
    }

    async fn event(&mut self) -> Result<Option<SubscribeToShardEvent>, ApiError> {
        if self.page.frames.is_empty() && self.page.children.is_none() {
            self.page.room = None;
            let idle = if self.phase == Phase::Placing { Duration::ZERO } else { HEARTBEAT };
            let page = tokio::select! {
                biased;
                () = self.seat.ousted() => return Err(seat_taken(&self.subject)),
                () = self.stopping.cancelled() => return Ok(None),
                () = self.call.valid.cancelled() => return Ok(None),
                () = tokio::time::sleep_until(self.ends_at) => return Ok(None),
                page = self.subscription.next_or_idle(EVENT_BYTES_MAX, idle) => page,
            };
            self.phase = Phase::Following;
            let shard = self.subject.shard.id;
            let Some(page) = page.map_err(|e| error::of_shard(&e, shard, &self.subject.key))? else {
                return Ok(None);
            };
            let bytes = page.frames.iter().map(|frame| frame.bytes().len()).sum::<usize>() * ROOM_FACTOR;
            let room = tokio::select! {
                biased;
                () = self.stopping.cancelled() => return Ok(None),
                () = tokio::time::sleep_until(self.ends_at) => return Ok(None),
                room = self.call.state.event_room().take(bytes) => room,
            };
            self.page = Page {
                frames: page.frames.into_iter().zip(page.encrypted).collect(),
                next: page.from,
                end: page.next,
                millis_behind: page.millis_behind,
                children: page.end,
                room: Some(room),
            };
        }
        let consumer = self.subject.consumer()?;
        if self.call.valid.is_cancelled() {
            return Ok(None);
        }
        let now = Instant::now();
        if now >= self.permitted_until {
            let (arn, stream) = (&self.subject.consumer, &self.subject.stream);
            if self.call.permit_consumer(arn, Some(&consumer), Some(stream)).is_err() {
                return Ok(None);
            }
            self.permitted_until = now + PERMITTED_FOR;
        }
        Ok(Some(self.next_event()))
    }

    fn next_event(&mut self) -> SubscribeToShardEvent {
        let records = self.page.take(&self.subject.shard);
        let now = self.call.state.now();
        if records.is_empty() && self.page.children.is_some() {
            self.phase = Phase::Ended;
            let children = self.page.children.take().unwrap_or_default();
            let children = children.into_iter().map(ChildShard::from).collect();
            return SubscribeToShardEvent { records, continuation: None, millis_behind: 0, children };
        }
        let millis_behind = match records.last() {
            Some(last) if !self.page.frames.is_empty() => now.get().saturating_sub(last.arrival.get()).max(1),
            _ => self.page.millis_behind,
        };
        self.last = records.last().map(|last| last.number).or(self.last);
        let continuation = Some(self.continuation(now));
        SubscribeToShardEvent { records, continuation, millis_behind, children: Vec::new() }
    }

    /// A number after which the reader can go on: that of the last record or, if there was none or numbers were skipped
    /// since, the one right before the next.
    fn continuation(&self, now: TimestampMs) -> SequenceNumber {
        match self.last {
            Some(last) if last.index().next() == self.page.next => last,
            _ => {
                let before = self.page.next.get().saturating_sub(1);
                let before = SequenceIndex::new(before).expect("all below an index are indexes");
                self.subject.shard.number(before, now)
            }
        }
    }
}

impl Subject {
    /// The consumer, if it is still registered, and no other of its name.
    fn consumer(&self) -> Result<ConsumerInfo, ApiError> {
        let found = self.stream.consumer(&self.consumer.consumer).ok();
        let same = found.filter(|info| info.created.seconds() == self.consumer.created_s);
        same.filter(|_| !self.stream.is_deleted()).ok_or_else(|| {
            let message = format!("Consumer {} was deregistered.", self.consumer);
            ApiError::new(Code::ResourceNotFound, message)
        })
    }
}

/// Told before the stream as a refusal, and within it to the older subscriber.
pub(super) fn seat_taken(subject: &Subject) -> ApiError {
    let (consumer, shard) = (&subject.consumer, subject.shard.id);
    let message = format!("Another active subscription exists for consumer {consumer} at shard {shard}.");
    ApiError::new(Code::ResourceInUse, message)
}

fn framed(event: &SubscribeToShardEvent) -> Bytes {
    let payload = Encoding::Json.encode(event);
    eventstream::event("SubscribeToShardEvent", &payload).into()
}

/// The model of the stream has no exception for what AWS calls common errors: those are internal failures there.
fn exception(error: &ApiError) -> Bytes {
    let name = match error.code() {
        Code::ResourceNotFound
        | Code::ResourceInUse
        | Code::KmsNotFound
        | Code::KmsInvalidState
        | Code::KmsDisabled
        | Code::KmsAccessDenied => error.code().name(),
        _ => "InternalFailureException",
    };
    let payload = serde_json::json!({ "message": error.message() }).to_string();
    eventstream::exception(name, payload.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_smithy_eventstream::frame::read_message_from;

    /// The names that the model of the event stream knows, and no others.
    #[test]
    fn exceptions_within_the_stream_have_the_names_of_its_model() {
        let cases = [
            (Code::ResourceNotFound, "ResourceNotFoundException"),
            (Code::ResourceInUse, "ResourceInUseException"),
            (Code::KmsNotFound, "KMSNotFoundException"),
            (Code::KmsInvalidState, "KMSInvalidStateException"),
            (Code::KmsDisabled, "KMSDisabledException"),
            (Code::KmsAccessDenied, "KMSAccessDeniedException"),
            (Code::InternalFailure, "InternalFailureException"),
            (Code::ServiceUnavailable, "InternalFailureException"),
        ];
        for (code, name) in cases {
            let frame = exception(&ApiError::new(code, "told \"why\""));
            let message = read_message_from(&mut &frame[..]).unwrap();
            let headers: Vec<&str> =
                message.headers().iter().map(|header| header.value().as_string().unwrap().as_str()).collect();
            assert_eq!(headers, ["exception", name, "application/json"]);
            assert_eq!(&message.payload()[..], br#"{"message":"told \"why\""}"#);
        }
    }
}
