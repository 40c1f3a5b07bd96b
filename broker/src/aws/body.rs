//! Request and reply bodies: how many bytes of them the front end takes into memory, and for how long.
//!
//! Why: a body is memory that a stranger asks for. One body is capped, reading it has a deadline, and all bodies
//! together draw on one [`Budget`]; past it the answer is a retryable error at once. A reply carries its share of the
//! budget until its last byte has been handed to the socket. A client that takes none of its reply for a minute is cut
//! off, however lively its connection is otherwise: over HTTP/2 it may answer every ping and leave the reply's window
//! shut, so the socket alone does not tell.

use super::error::{ApiError, Code};
use crate::server::Cut;
use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Largest request body: the largest PutRecords in base64, with room.
pub(crate) const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of a too large body that are read and thrown away, so that the client gets to read the refusal.
const DISCARD_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long a client may take to send a body.
const READ_DEADLINE: Duration = Duration::from_secs(30);
/// Bytes of all bodies in memory at one time.
const BUDGET_BYTES: usize = 512 * 1024 * 1024;
/// Largest reply that is not charged to the budget: above that of the longest PutRecords.
const FREE_REPLY_BYTES_MAX: usize = 256 * 1024;
/// Replies up to this size go whole into what the connection buffers, and are not watched.
const UNWATCHED_REPLY_BYTES_MAX: usize = 16 * 1024;
/// What the connection is handed at a time of a watched reply: the least it must take within [`REPLY_DEADLINE`].
const REPLY_PIECE_BYTES: usize = 128 * 1024;
/// How long a client may take nothing of a reply.
const REPLY_DEADLINE: Duration = Duration::from_secs(60);
/// Room taken at first for a body whose length is announced: its sender has sent nothing yet.
const FIRST_ROOM_BYTES_MAX: usize = 1024 * 1024;

/// What is left of the memory for bodies.
#[derive(Clone)]
pub(crate) struct Budget(Arc<Semaphore>);

impl Default for Budget {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(BUDGET_BYTES)))
    }
}

impl Budget {
    fn take(&self, bytes: usize) -> Result<OwnedSemaphorePermit, ApiError> {
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.0.clone().try_acquire_many_owned(permits).map_err(|_| {
            ApiError::new(
                Code::ServiceUnavailable,
                "The broker has no memory left for requests in flight. Retry with back-off.",
            )
        })
    }
    /// A reply whose client is watched by [`Cut`], if it has a connection that can be cut.
    pub(crate) fn reply(&self, reply: Vec<u8>, cut: Option<&Cut>) -> Result<Body, ApiError> {
        if reply.len() <= UNWATCHED_REPLY_BYTES_MAX {
            return Ok(Body::from(reply));
        }
        let bytes = self.charge(reply)?;
        Ok(match cut {
            Some(cut) => Body::new(Pieces::watched(bytes, cut.clone(), REPLY_DEADLINE)),
            None => Body::from(bytes),
        })
    }
    /// Bytes to send that give back their share once sent. Small replies are free: they tell what was done, which must
    /// not fail for lack of room to say so.
    pub(crate) fn charge(&self, reply: Vec<u8>) -> Result<Bytes, ApiError> {
        if reply.len() <= FREE_REPLY_BYTES_MAX {
            return Ok(reply.into());
        }
        let share = self.take(reply.len())?;
        Ok(Bytes::from_owner(Charged { bytes: reply, _share: share }))
    }
}

/// A body and its share of the budget.
pub(crate) struct Charged {
    bytes: Vec<u8>,
    _share: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A reply in pieces, so that it shows whether its client takes any.
struct Pieces {
    rest: Bytes,
    taken: Arc<AtomicUsize>,
}

/// The bytes of a watched reply; the watch ends with the last of them.
struct Watched {
    bytes: Bytes,
    _ended: DropGuard,
}

impl AsRef<[u8]> for Watched {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Pieces {
    fn watched(bytes: Bytes, cut: Cut, deadline: Duration) -> Self {
        let (taken, ended) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
        let rest = Bytes::from_owner(Watched { bytes, _ended: ended.clone().drop_guard() });
        tokio::spawn(watch(Arc::clone(&taken), ended, cut, deadline));
        Self { rest, taken }
    }
}

/// Cuts the connection when within a deadline nothing was taken, until the reply has ended.
async fn watch(taken: Arc<AtomicUsize>, ended: CancellationToken, cut: Cut, deadline: Duration) {
    let mut before = 0;
    while tokio::time::timeout(deadline, ended.cancelled()).await.is_err() {
        let now = taken.load(Ordering::Relaxed);
        if now == before {
            return cut.now();
        }
        before = now;
    }
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let bytes = self.rest.len().min(REPLY_PIECE_BYTES);
        let piece = self.rest.split_to(bytes);
        self.taken.fetch_add(bytes, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }
    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

fn too_large() -> ApiError {
    let message = format!("The request body is larger than {BODY_BYTES_MAX} bytes.");
    ApiError::new(Code::RequestEntityTooLarge, message)
}

/// Reads a request body whole. Cancelling it drops what was read.
pub(crate) async fn read(headers: &HeaderMap, body: Body, budget: &Budget) -> Result<Charged, ApiError> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    let waits_for_leave = headers.contains_key(header::EXPECT);
    match announced {
        Some(bytes) if bytes > DISCARD_BYTES_MAX || (bytes > BODY_BYTES_MAX && waits_for_leave) => {
            Err(too_large())
        }
        _ => match tokio::time::timeout(READ_DEADLINE, collect(announced, body, budget)).await {
            Ok(result) => result,
            Err(_) => Err(ApiError::new(
                Code::RequestTimeout,
                format!("The request body did not arrive within {} seconds.", READ_DEADLINE.as_secs()),
            )),
        },
    }
}

async fn collect(announced: Option<usize>, mut body: Body, budget: &Budget) -> Result<Charged, ApiError> {
    let mut share = budget.take(0)?;
    let mut bytes = Vec::with_capacity(announced.unwrap_or(0).min(FIRST_ROOM_BYTES_MAX));
    let mut seen = 0usize;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            ApiError::new(Code::Serialization, format!("The request body could not be read: {error}"))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        seen += data.len();
        if seen > DISCARD_BYTES_MAX {
            break;
        }
        if seen > BODY_BYTES_MAX {
            // what is thrown away takes no room
            bytes = Vec::new();
            share = budget.take(0)?;
            continue;
        }
        share.merge(budget.take(data.len())?);
        bytes.extend_from_slice(&data);
    }
    if seen > BODY_BYTES_MAX {
        return Err(too_large());
    }
    Ok(Charged { bytes, _share: share })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_past_the_budget_is_refused_and_its_share_returns() {
        let whole = FREE_REPLY_BYTES_MAX + 1;
        let budget = Budget(Arc::new(Semaphore::new(whole)));
        let headers = HeaderMap::new();
        let body = || Body::from(vec![7; whole]);
        let held = read(&headers, body(), &budget).await.unwrap();
        let refused = read(&headers, body(), &budget).await.err().unwrap();
        assert_eq!(refused.code(), Code::ServiceUnavailable);
        drop(held);
        assert_eq!(read(&headers, body(), &budget).await.unwrap().as_ref(), vec![7; whole]);
        let reply = budget.charge(vec![0; whole]).unwrap();
        assert!(budget.charge(vec![0; whole]).is_err());
        assert!(budget.charge(vec![0; FREE_REPLY_BYTES_MAX]).is_ok());
        drop(reply);
        assert!(budget.charge(vec![0; whole]).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_reply_that_is_taken_slowly_is_left_alone_and_one_that_is_not_taken_is_cut() {
        let budget = Budget::default();
        let cut = Cut::new();
        let slow = || budget.reply(vec![7; 4 * REPLY_PIECE_BYTES], Some(&cut)).unwrap();
        let mut reply = slow();
        assert_eq!(HttpBody::size_hint(&reply).exact(), Some(4 * REPLY_PIECE_BYTES as u64));
        let mut pieces = Vec::new();
        while let Some(piece) = reply.frame().await {
            pieces.push(piece.unwrap().into_data().unwrap());
            tokio::time::sleep(REPLY_DEADLINE - Duration::from_secs(1)).await;
        }
        assert_eq!(pieces.concat(), vec![7; 4 * REPLY_PIECE_BYTES]);
        assert!(!cut.is_made());
        drop((pieces, reply));
        tokio::time::sleep(3 * REPLY_DEADLINE).await;
        assert!(!cut.is_made(), "a reply that was taken is over");
        let _untaken = slow();
        tokio::time::sleep(REPLY_DEADLINE + Duration::from_secs(1)).await;
        assert!(cut.is_made());
    }

    #[tokio::test]
    async fn a_body_past_the_cap_is_too_large_whether_announced_or_not() {
        let budget = Budget::default();
        let large = || Body::from(vec![0; BODY_BYTES_MAX + 1]);
        let refused = read(&HeaderMap::new(), large(), &budget).await.err().unwrap();
        assert_eq!(refused.code(), Code::RequestEntityTooLarge);
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_LENGTH, (DISCARD_BYTES_MAX + 1).to_string().parse().unwrap());
        let refused = read(&headers, Body::empty(), &budget).await.err().unwrap();
        assert_eq!(refused.code(), Code::RequestEntityTooLarge);
        assert_eq!(
            read(&HeaderMap::new(), Body::from(vec![0; BODY_BYTES_MAX]), &budget)
                .await
                .unwrap()
                .as_ref()
                .len(),
            BODY_BYTES_MAX
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_is_thrown_away_leaves_its_share_to_others() {
        use tokio_stream::StreamExt;
        let budget = Budget(Arc::new(Semaphore::new(BODY_BYTES_MAX)));
        let too_much = [vec![0; BODY_BYTES_MAX], vec![0; 1]].map(|part| Ok(Bytes::from(part)));
        let rest = tokio_stream::pending::<Result<Bytes, std::io::Error>>();
        let slow = Body::from_stream(tokio_stream::iter(too_much).chain(rest));
        let headers = HeaderMap::new();
        let reading = read(&headers, slow, &budget);
        tokio::pin!(reading);
        assert!(
            tokio::time::timeout(Duration::from_secs(1), &mut reading).await.is_err(),
            "there is more to come"
        );
        let other = read(&headers, Body::from(vec![7; BODY_BYTES_MAX]), &budget).await;
        assert_eq!(other.unwrap().as_ref().len(), BODY_BYTES_MAX);
        assert_eq!(reading.await.err().unwrap().code(), Code::RequestTimeout);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_times_out() {
        let never = Body::from_stream(tokio_stream::pending::<Result<Bytes, std::io::Error>>());
        let refused = read(&HeaderMap::new(), never, &Budget::default()).await.err().unwrap();
        assert_eq!(refused.code(), Code::RequestTimeout);
    }
}
