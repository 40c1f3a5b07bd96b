//! Request bodies: how many bytes of them the front end takes into memory, and for how long.
//!
//! Why: a body is memory that a stranger asks for. One body is capped, and all bodies together draw on one [`Budget`];
//! past it the answer is a retryable error, behind the rest of the body, or its sender would not get to read it. A part of the
//! budget is out of reach of large bodies, so that the small calls of everybody go on when large ones have used up theirs. Reading has a deadline, and a body that pauses for
//! long is given up sooner. Who names no known key is read no further than a small body goes. Replies draw on the same
//! budget: they carry their share until the last byte has been handed to the socket.

use super::error::{ApiError, Code};
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// Largest request body: the largest PutRecords in base64, with room.
pub(crate) const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of a too large body that are read and thrown away, so that the client gets to read the refusal.
const DISCARD_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How much of a body is kept before its sender must have named a known key.
const STRANGER_BYTES_MAX: usize = 64 * 1024;
/// How long a client may take to send a body.
const READ_DEADLINE: Duration = Duration::from_secs(30);
/// How long a body may pause. What was sent since earns the time back, at [`BYTES_PER_S_MIN`].
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// The slowest that a body may come for long.
const BYTES_PER_S_MIN: u64 = 64 * 1024;
/// Bytes of all bodies in memory at one time.
const BUDGET_BYTES: usize = 512 * 1024 * 1024;
/// Of those, what bodies past [`SMALL_BYTES_MAX`] cannot take.
const RESERVED_BYTES: usize = 64 * 1024 * 1024;
/// Largest body that may draw on the whole budget.
const SMALL_BYTES_MAX: usize = 1024 * 1024;
/// Largest reply that is not charged to the budget: above that of the longest PutRecords.
const FREE_REPLY_BYTES_MAX: usize = 256 * 1024;
/// Bytes of replies that one client may leave unread before its small ones are charged, too.
const UNREAD_FREE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Room taken at first for a body whose length is announced: its sender has sent nothing yet.
const FIRST_ROOM_BYTES_MAX: usize = 1024 * 1024;

/// What is left of the memory for bodies. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Budget {
    all: Arc<Semaphore>,
    /// Drawn on in addition by what is large.
    large: Arc<Semaphore>,
}

impl Default for Budget {
    fn default() -> Self {
        Self::of(BUDGET_BYTES, RESERVED_BYTES)
    }
}

/// A part of the budget, given back when dropped.
struct Share {
    all: OwnedSemaphorePermit,
    large: Option<OwnedSemaphorePermit>,
}

fn take(from: &Arc<Semaphore>, bytes: usize) -> Result<OwnedSemaphorePermit, ApiError> {
    let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
    from.clone().try_acquire_many_owned(permits).map_err(|_| {
        ApiError::new(
            Code::ServiceUnavailable,
            "The broker has no memory left for requests in flight. Retry with back-off.",
        )
    })
}

impl Budget {
    /// So many bytes, some of which are for what is small.
    fn of(bytes: usize, reserved: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(bytes)), large: Arc::new(Semaphore::new(bytes - reserved)) }
    }
    fn share(&self, bytes: usize) -> Result<Share, ApiError> {
        let mut share = Share { all: take(&self.all, 0)?, large: None };
        self.grow(&mut share, bytes)?;
        Ok(share)
    }
    fn grow(&self, share: &mut Share, bytes: usize) -> Result<(), ApiError> {
        share.all.merge(take(&self.all, bytes)?);
        match &mut share.large {
            Some(large) => large.merge(take(&self.large, bytes)?),
            None if share.all.num_permits() > SMALL_BYTES_MAX => {
                share.large = Some(take(&self.large, share.all.num_permits())?);
            }
            None => {}
        }
        Ok(())
    }
    /// Bytes of a reply that give back their share once sent. Small ones are free: they tell what was done, which must
    /// not fail for lack of room to say so. But not once the client has left many of them
    /// unread.
    pub(crate) fn charge(&self, reply: Vec<u8>, unread: usize) -> Result<Bytes, ApiError> {
        if reply.len() <= FREE_REPLY_BYTES_MAX && unread <= UNREAD_FREE_BYTES_MAX {
            return Ok(reply.into());
        }
        let share = self.share(reply.len())?;
        Ok(Bytes::from_owner(Charged { bytes: reply, share }))
    }
}

/// A body and its share of the budget.
pub(crate) struct Charged {
    bytes: Vec<u8>,
    share: Share,
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn too_large() -> ApiError {
    let message = format!("The request body is larger than {BODY_BYTES_MAX} bytes.");
    ApiError::new(Code::RequestEntityTooLarge, message)
}

fn late(message: String) -> ApiError {
    ApiError::new(Code::RequestTimeout, message)
}

/// Reads a request body whole. `known` tells whether the head names a key that could have signed it; it is asked when
/// the body turns out not to be small. Cancelling it drops what was read.
pub(crate) async fn read(
    headers: &HeaderMap,
    body: Body,
    budget: &Budget,
    known: impl Fn() -> Result<(), ApiError>,
) -> Result<Charged, ApiError> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    let waits_for_leave = headers.contains_key(header::EXPECT);
    match announced {
        Some(bytes) if bytes > DISCARD_BYTES_MAX || (bytes > BODY_BYTES_MAX && waits_for_leave) => {
            return Err(too_large());
        }
        Some(bytes) if bytes > STRANGER_BYTES_MAX && waits_for_leave => known()?,
        _ => {}
    }
    let collecting = collect(announced, body, budget, known);
    match tokio::time::timeout(READ_DEADLINE, collecting).await {
        Ok(result) => result,
        Err(_) => {
            Err(late(format!("The request body did not arrive within {} seconds.", READ_DEADLINE.as_secs())))
        }
    }
}

async fn collect(
    announced: Option<usize>,
    mut body: Body,
    budget: &Budget,
    known: impl Fn() -> Result<(), ApiError>,
) -> Result<Charged, ApiError> {
    let mut kept = Charged {
        bytes: Vec::with_capacity(announced.unwrap_or(0).min(FIRST_ROOM_BYTES_MAX)),
        share: budget.share(0)?,
    };
    let (mut seen, mut refused) = (0usize, None);
    let mut due = Instant::now() + PAUSE_MAX;
    loop {
        let frame = match next_frame(&mut body, due).await {
            Ok(Some(frame)) => frame,
            Ok(None) => break,
            Err(error) => return Err(refused.unwrap_or(error)),
        };
        let Ok(data) = frame.into_data() else { continue };
        due = earned(due, data.len());
        let was_small = seen <= STRANGER_BYTES_MAX;
        seen += data.len();
        if seen > DISCARD_BYTES_MAX {
            break;
        }
        if was_small && seen > STRANGER_BYTES_MAX {
            refused = known().err();
        }
        if seen > BODY_BYTES_MAX {
            refused = refused.or_else(|| Some(too_large()));
        }
        refused = refused.or_else(|| budget.grow(&mut kept.share, data.len()).err());
        if refused.is_some() {
            // what is thrown away takes no room
            kept = Charged { bytes: Vec::new(), share: budget.share(0)? };
            continue;
        }
        kept.bytes.extend_from_slice(&data);
    }
    refused.map_or(Ok(kept), Err)
}

type BodyFrame = hyper::body::Frame<Bytes>;

async fn next_frame(body: &mut Body, due: Instant) -> Result<Option<BodyFrame>, ApiError> {
    let Ok(frame) = tokio::time::timeout_at(due, body.frame()).await else {
        let message =
            "The request body came too slowly: less than 64 KiB a second, after a pause of 5 seconds.";
        return Err(late(message.to_owned()));
    };
    let broken =
        |error| ApiError::new(Code::Serialization, format!("The request body could not be read: {error}"));
    frame.transpose().map_err(broken)
}

/// Until when the next bytes may take, now that so many came.
fn earned(due: Instant, bytes: usize) -> Instant {
    let earned = Duration::from_micros(bytes as u64 * 1_000_000 / BYTES_PER_S_MIN);
    (due + earned).min(Instant::now() + PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_stream::StreamExt;

    fn anyone() -> Result<(), ApiError> {
        Ok(())
    }

    /// A body that stops short of its end.
    fn held_back(bytes: usize) -> Body {
        let begun = tokio_stream::iter([Ok(Bytes::from(vec![0; bytes]))]);
        Body::from_stream(begun.chain(tokio_stream::pending::<Result<Bytes, std::io::Error>>()))
    }

    /// Refused at once, a client that is still sending saw its connection break instead of an answer that it can repeat.
    #[tokio::test]
    async fn a_body_that_finds_no_room_is_read_to_its_end_and_then_refused() {
        let budget = Budget::of(100_000, 0);
        let taken = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counted = Arc::clone(&taken);
        let pieces = tokio_stream::iter(0..10).map(move |_| {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Ok::<_, std::io::Error>(Bytes::from(vec![0; 30_000]))
        });
        let refused =
            read(&HeaderMap::new(), Body::from_stream(pieces), &budget, anyone).await.err().unwrap();
        assert_eq!(refused.code(), Code::ServiceUnavailable);
        assert_eq!(taken.load(std::sync::atomic::Ordering::Relaxed), 10);
        assert_eq!(budget.all.available_permits(), 100_000, "what was thrown away takes no room");
    }

    #[tokio::test]
    async fn a_body_past_the_budget_is_refused_and_its_share_returns() {
        let whole = FREE_REPLY_BYTES_MAX + 1;
        let budget = Budget::of(whole, 0);
        let headers = HeaderMap::new();
        let body = || Body::from(vec![7; whole]);
        let held = read(&headers, body(), &budget, anyone).await.unwrap();
        let refused = read(&headers, body(), &budget, anyone).await.err().unwrap();
        assert_eq!(refused.code(), Code::ServiceUnavailable);
        drop(held);
        assert_eq!(read(&headers, body(), &budget, anyone).await.unwrap().as_ref(), vec![7; whole]);
        let reply = budget.charge(vec![0; whole], 0).unwrap();
        assert!(budget.charge(vec![0; whole], 0).is_err());
        assert!(budget.charge(vec![0; FREE_REPLY_BYTES_MAX], 0).is_ok());
        assert!(
            budget.charge(vec![0; 1], UNREAD_FREE_BYTES_MAX + 1).is_err(),
            "who reads nothing is charged"
        );
        drop(reply);
        assert!(budget.charge(vec![0; whole], 0).is_ok());
    }

    #[tokio::test]
    async fn a_body_past_the_cap_is_too_large_whether_announced_or_not() {
        let budget = Budget::default();
        let large = || Body::from(vec![0; BODY_BYTES_MAX + 1]);
        let refused = read(&HeaderMap::new(), large(), &budget, anyone).await.err().unwrap();
        assert_eq!(refused.code(), Code::RequestEntityTooLarge);
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_LENGTH, (DISCARD_BYTES_MAX + 1).to_string().parse().unwrap());
        let refused = read(&headers, Body::empty(), &budget, anyone).await.err().unwrap();
        assert_eq!(refused.code(), Code::RequestEntityTooLarge);
        assert_eq!(
            read(&HeaderMap::new(), Body::from(vec![0; BODY_BYTES_MAX]), &budget, anyone)
                .await
                .unwrap()
                .as_ref()
                .len(),
            BODY_BYTES_MAX
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_is_thrown_away_leaves_its_share_to_others() {
        let budget = Budget::of(BODY_BYTES_MAX, 0);
        let too_much = [vec![0; BODY_BYTES_MAX], vec![0; 1]].map(|part| Ok(Bytes::from(part)));
        let rest = tokio_stream::pending::<Result<Bytes, std::io::Error>>();
        let slow = Body::from_stream(tokio_stream::iter(too_much).chain(rest));
        let headers = HeaderMap::new();
        let reading = read(&headers, slow, &budget, anyone);
        tokio::pin!(reading);
        assert!(
            tokio::time::timeout(Duration::from_secs(1), &mut reading).await.is_err(),
            "there is more to come"
        );
        let other = read(&headers, Body::from(vec![7; BODY_BYTES_MAX]), &budget, anyone).await;
        assert_eq!(other.unwrap().as_ref().len(), BODY_BYTES_MAX);
        // that it then stops is no news
        assert_eq!(reading.await.err().unwrap().code(), Code::RequestEntityTooLarge);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_times_out() {
        let never = Body::from_stream(tokio_stream::pending::<Result<Bytes, std::io::Error>>());
        let refused = read(&HeaderMap::new(), never, &Budget::default(), anyone).await.err().unwrap();
        assert_eq!(refused.code(), Code::RequestTimeout);
    }

    /// Dozens of clients that held back the end of a large body once shut out everyone else.
    #[tokio::test(start_paused = true)]
    async fn small_bodies_pass_while_large_ones_hold_the_rest_and_those_that_pause_are_given_up() {
        let budget = Budget::of(8 * SMALL_BYTES_MAX, SMALL_BYTES_MAX);
        let large = |budget: Budget| async move {
            let body = held_back(SMALL_BYTES_MAX + 1);
            read(&HeaderMap::new(), body, &budget, anyone).await.err().unwrap().code()
        };
        let holding: Vec<_> = (0..40).map(|_| tokio::spawn(large(budget.clone()))).collect();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let small = Body::from(vec![7; SMALL_BYTES_MAX]);
        assert!(read(&HeaderMap::new(), small, &budget, anyone).await.is_ok());
        let one_more = Body::from(vec![7; 2 * SMALL_BYTES_MAX]);
        assert!(
            read(&HeaderMap::new(), one_more, &budget, anyone).await.is_err(),
            "large ones have their part"
        );
        tokio::time::sleep(PAUSE_MAX).await;
        let one_more = Body::from(vec![7; 2 * SMALL_BYTES_MAX]);
        assert!(read(&HeaderMap::new(), one_more, &budget, anyone).await.is_ok(), "who pauses is given up");
        let mut late = 0;
        for held in holding {
            late += usize::from(held.await.unwrap() == Code::RequestTimeout);
        }
        assert_eq!(late, 6);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_may_come_slowly_but_not_by_drops() {
        for (bytes, comes) in [(64 << 10, true), (1 << 10, false)] {
            let piece = move |_: u32| Ok::<_, std::io::Error>(Bytes::from(vec![0; bytes]));
            let pieces = tokio_stream::iter(0..20).map(piece).throttle(Duration::from_secs(1));
            let body = Body::from_stream(pieces);
            let read = read(&HeaderMap::new(), body, &Budget::default(), anyone).await;
            assert_eq!(read.is_ok(), comes, "{bytes} bytes a second");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_names_no_known_key_gets_no_room_for_a_large_body() {
        let budget = Budget::of(SMALL_BYTES_MAX, 0);
        let stranger = || Err(ApiError::bare(Code::UnrecognizedClient));
        let small = Body::from(vec![7; STRANGER_BYTES_MAX]);
        assert!(
            read(&HeaderMap::new(), small, &budget, stranger).await.is_ok(),
            "told later, when it is whole"
        );
        let large = Body::from(vec![7; BODY_BYTES_MAX]);
        let refused = read(&HeaderMap::new(), large, &budget, stranger).await.err().unwrap();
        assert_eq!(refused.code(), Code::UnrecognizedClient);
        let (headers, body) = (HeaderMap::new(), held_back(SMALL_BYTES_MAX));
        let reading = read(&headers, body, &budget, stranger);
        tokio::pin!(reading);
        assert!(tokio::time::timeout(Duration::from_secs(1), &mut reading).await.is_err());
        let other = read(&headers, Body::from(vec![7; SMALL_BYTES_MAX]), &budget, anyone).await;
        assert!(other.is_ok(), "what the stranger sent took no room");
        let mut asks = HeaderMap::new();
        asks.insert(header::EXPECT, "100-continue".parse().unwrap());
        asks.insert(header::CONTENT_LENGTH, "1000000".parse().unwrap());
        let refused = read(&asks, Body::empty(), &budget, stranger).await.err().unwrap();
        assert_eq!(refused.code(), Code::UnrecognizedClient, "who asks first is told first");
    }
}
