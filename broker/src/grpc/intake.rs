//! Messages on their way in: how much of what is not whole yet is held, and for how long.
//!
//! Why: a caller that announces large messages and stops just short of their ends would hold memory for as long as its
//! connection lives. So a message, once begun, must go on coming; and all large ones that are not whole yet draw on one
//! room, in which they wait for each other. What it does not do: look into messages, or time how long one may be waited
//! for, or may lie unread because the broker has no room for it.

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use bytes::Bytes;
use hyper::body::Frame;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::PollSemaphore;
use tonic::Status;

/// Compressed or not, and the length.
const PREFIX_BYTES: usize = 5;
/// How long a message may pause. What comes earns the time back, at [`BYTES_PER_S_MIN`].
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// The slowest that a message may come for long.
const BYTES_PER_S_MIN: u64 = 16 * 1024;
/// Bytes of all large messages that have begun and are not whole.
const ROOM_BYTES: usize = 256 << 20;
/// Largest message that needs no room.
const SMALL_BYTES_MAX: usize = 64 << 10;

/// Memory for what is not whole yet. Cheap to clone.
#[derive(Clone)]
pub(super) struct IntakeRoom(Arc<Semaphore>);

impl Default for IntakeRoom {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(ROOM_BYTES)))
    }
}

impl IntakeRoom {
    /// The call, its messages watched.
    pub(super) fn watch(&self, call: Request) -> Request {
        call.map(|whole| Body::new(Watched::new(whole, self)))
    }
}

/// How far the message at hand has come.
#[derive(Default)]
struct Message {
    prefix: [u8; PREFIX_BYTES],
    prefix_bytes: usize,
    left: usize,
}

impl Message {
    /// Goes on by some of the bytes; how many, and how many are to come if they begin a message.
    fn advance(&mut self, bytes: &[u8]) -> (usize, Option<usize>) {
        if self.left > 0 {
            let taken = self.left.min(bytes.len());
            self.left -= taken;
            self.prefix_bytes *= usize::from(self.left > 0);
            return (taken, None);
        }
        let taken = (PREFIX_BYTES - self.prefix_bytes).min(bytes.len());
        self.prefix[self.prefix_bytes..][..taken].copy_from_slice(&bytes[..taken]);
        self.prefix_bytes += taken;
        if self.prefix_bytes < PREFIX_BYTES {
            return (taken, None);
        }
        let [_, length @ ..] = self.prefix;
        self.left = u32::from_be_bytes(length) as usize;
        self.prefix_bytes *= usize::from(self.left > 0);
        (taken, Some(self.left))
    }
    /// Whether one has begun and is not whole.
    fn is_open(&self) -> bool {
        self.prefix_bytes > 0
    }
}

struct Watched {
    whole: Body,
    message: Message,
    room: PollSemaphore,
    /// Of the message at hand, if it is large.
    share: Option<OwnedSemaphorePermit>,
    /// What came and waits for the room that it announced, and how much that is.
    held: Option<(Bytes, usize, u32)>,
    /// How long the message may still pause.
    patience: Duration,
    /// Since when nothing has come.
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl Watched {
    fn new(whole: Body, room: &IntakeRoom) -> Self {
        Self {
            whole,
            message: Message::default(),
            room: PollSemaphore::new(Arc::clone(&room.0)),
            share: None,
            held: None,
            patience: PAUSE_MAX,
            waiting: None,
        }
    }

    /// Notes what came; all of it goes on once there is room for what it announces.
    fn pass(&mut self, bytes: Bytes, mut seen: usize, cx: &mut Context<'_>) -> Poll<Bytes> {
        while seen < bytes.len() {
            let (taken, begins) = self.message.advance(&bytes[seen..]);
            seen += taken;
            if !self.message.is_open() {
                self.share = None;
                self.patience = PAUSE_MAX;
            }
            // what is here already is in memory as it is
            let to_come = begins.unwrap_or_default().saturating_sub(bytes.len() - seen).min(ROOM_BYTES);
            if to_come > SMALL_BYTES_MAX {
                let permits = u32::try_from(to_come).expect("room is far below 4 GiB");
                self.held = Some((bytes, seen, permits));
                return self.resume(cx);
            }
        }
        Poll::Ready(bytes)
    }

    /// Goes on with what waits for room.
    fn resume(&mut self, cx: &mut Context<'_>) -> Poll<Bytes> {
        let permits = self.held.as_ref().map_or(0, |held| held.2);
        self.share = ready!(self.room.poll_acquire_many(cx, permits));
        let (bytes, seen, _) = self.held.take().unwrap_or_default();
        self.pass(bytes, seen, cx)
    }

    /// That bytes came, so many after a pause.
    fn earn(&mut self, bytes: usize) {
        let paused = self.waiting.take().map_or(Duration::ZERO, |(since, _)| since.elapsed());
        let earned = Duration::from_micros(bytes as u64 * 1_000_000 / BYTES_PER_S_MIN);
        self.patience = (self.patience.saturating_sub(paused) + earned).min(PAUSE_MAX);
    }

    /// Whether nothing has come for too long.
    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.message.is_open() {
            return false;
        }
        let patience = self.patience;
        let (_, sleep) =
            self.waiting.get_or_insert_with(|| (Instant::now(), Box::pin(tokio::time::sleep(patience))));
        sleep.as_mut().poll(cx).is_ready()
    }
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        if self.held.is_some() {
            return self.resume(cx).map(|bytes| Some(Ok(Frame::data(bytes))));
        }
        let frame = match Pin::new(&mut self.whole).poll_frame(cx) {
            Poll::Pending if self.is_late(cx) => {
                let message = "a message stopped within, or came too slowly: begin the call again";
                return Poll::Ready(Some(Err(Status::deadline_exceeded(message).into())));
            }
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(end) => return Poll::Ready(end.map(|end| end.map_err(Into::into))),
        };
        match frame.into_data() {
            Ok(bytes) => {
                self.earn(bytes.len());
                self.pass(bytes, 0, cx).map(|bytes| Some(Ok(Frame::data(bytes))))
            }
            Err(other) => Poll::Ready(Some(Ok(other))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use tokio_stream::StreamExt;

    fn message(bytes: usize) -> Vec<u8> {
        let length = u32::try_from(bytes).unwrap().to_be_bytes();
        [&[0][..], &length, &vec![7; bytes]].concat()
    }

    fn watched(pieces: Vec<Vec<u8>>, every: Duration, room: &IntakeRoom) -> Watched {
        let pieces = tokio_stream::iter(pieces).map(|piece| Ok::<_, std::io::Error>(Bytes::from(piece)));
        let rest = tokio_stream::pending::<Result<Bytes, std::io::Error>>();
        Watched::new(Body::from_stream(pieces.throttle(every).chain(rest)), room)
    }

    /// All that comes, until it is an error, and whether there is one within ten minutes.
    async fn come(body: &mut Watched) -> (Vec<u8>, bool) {
        let (mut bytes, mut late) = (Vec::new(), false);
        let reading = async {
            while let Some(frame) = body.frame().await {
                match frame {
                    Ok(frame) => bytes.extend_from_slice(&frame.into_data().unwrap()),
                    Err(_) => late = true,
                }
                if late {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(600), reading).await;
        (bytes, late)
    }

    #[tokio::test(start_paused = true)]
    async fn messages_pass_whole_however_they_are_cut_and_may_be_waited_for() {
        let room = IntakeRoom::default();
        let sent =
            [message(0), message(3), message(200_000), message(0), message(70_000), message(1)].concat();
        for size in [1000, 4096, 100_000, 1 << 20] {
            let pieces = sent.chunks(size).map(<[u8]>::to_vec).collect();
            let mut body = watched(pieces, Duration::from_millis(1), &room);
            assert!(come(&mut body).await == (sent.clone(), false), "pieces of {size}");
            assert_eq!(room.0.available_permits(), ROOM_BYTES);
        }
        let pieces = sent[..20].chunks(1).map(<[u8]>::to_vec).collect();
        assert_eq!(come(&mut watched(pieces, Duration::ZERO, &room)).await.0, &sent[..20]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_stops_short_or_comes_by_drops_ends_the_call_and_gives_its_room_back() {
        let room = IntakeRoom::default();
        let large = message(12 << 20);
        let (short, drops) =
            (large[..1 << 20].to_vec(), large[..2000].chunks(1).map(<[u8]>::to_vec).collect());
        for (pieces, every) in [(vec![short], Duration::ZERO), (drops, Duration::from_secs(1))] {
            let mut body = watched(pieces, every, &room);
            let began = Instant::now();
            assert!(come(&mut body).await.1);
            assert!(began.elapsed() < 2 * PAUSE_MAX, "{:?}", began.elapsed());
            assert!(room.0.available_permits() < ROOM_BYTES);
            drop(body);
            assert_eq!(room.0.available_permits(), ROOM_BYTES);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn large_messages_wait_for_each_other_and_small_ones_do_not() {
        let room = IntakeRoom::default();
        let held = room.0.clone().acquire_many_owned(ROOM_BYTES as u32).await.unwrap();
        let (large, small) = (message(1 << 20), message(SMALL_BYTES_MAX));
        let pieces = large.chunks(1000).map(<[u8]>::to_vec).collect();
        let mut waits = watched(pieces, Duration::ZERO, &room);
        assert_eq!(come(&mut waits).await, (Vec::new(), false));
        let pieces = small.chunks(1000).map(<[u8]>::to_vec).collect();
        assert_eq!(come(&mut watched(pieces, Duration::ZERO, &room)).await.0.len(), small.len());
        drop(held);
        assert_eq!(come(&mut waits).await.0.len(), large.len());
    }
}
