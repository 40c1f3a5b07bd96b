//! From a subscription to its connection: the next piece is made when the connection asks for it.
//!
//! Why: over one connection come many subscriptions, and a reader may take some of them and not the others. What it does
//! not ask for is not read, not rendered and not held, so a slow reader keeps back nothing but its own records. One that
//! asks for nothing for a minute, in the middle of an event or before the next, is given up; sooner, when others wait
//! for the memory that its event takes.

use axum::body::Body;
use bytes::Bytes;
use futures_util::Stream;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};

/// What the connection is handed at a time.
const PIECE_BYTES: usize = 32 * 1024;
/// Pieces that wait for the connection: one, and word of the end.
const PIECES_WAITING_MAX: usize = 2;
/// How long a reader may ask for nothing.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long when memory is short.
const PATIENCE_WHEN_SHORT: Duration = Duration::from_secs(5);
/// Bytes of all pages and events that are being sent.
const ROOM_BYTES: usize = 256 << 20;

/// Memory for what is being sent to subscribers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct EventRoom(Arc<Semaphore>);

impl Default for EventRoom {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(ROOM_BYTES)))
    }
}

impl EventRoom {
    /// Waits for room.
    pub(super) async fn take(&self, bytes: usize) -> OwnedSemaphorePermit {
        let permits = u32::try_from(bytes.min(ROOM_BYTES)).expect("room is far below 4 GiB");
        self.0.clone().acquire_many_owned(permits).await.expect("the semaphore is never closed")
    }
    fn is_short(&self) -> bool {
        self.0.available_permits() < ROOM_BYTES / 4
    }
}

/// The reader takes nothing, or is gone.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stalled;

/// Where a subscription puts its frames.
pub(super) struct Outlet {
    pieces: mpsc::Sender<Result<Bytes, std::io::Error>>,
    asked: Arc<Notify>,
    room: EventRoom,
    /// Whether a frame was begun and is not whole yet.
    within: AtomicBool,
}

/// The body: what comes out.
struct Inlet {
    pieces: mpsc::Receiver<Result<Bytes, std::io::Error>>,
    asked: Arc<Notify>,
}

pub(super) fn outlet(room: EventRoom) -> (Outlet, Body) {
    let (sender, pieces) = mpsc::channel(PIECES_WAITING_MAX);
    let asked = Arc::new(Notify::new());
    let outlet = Outlet { pieces: sender, asked: Arc::clone(&asked), room, within: AtomicBool::new(false) };
    (outlet, Body::from_stream(Inlet { pieces, asked }))
}

impl Outlet {
    /// Waits until the reader asks for more.
    pub(super) async fn asked(&self) -> Result<(), Stalled> {
        let mut waited = Duration::ZERO;
        while waited < PATIENCE && !(waited > Duration::ZERO && self.room.is_short()) {
            tokio::select! {
                () = self.asked.notified() => return Ok(()),
                () = self.pieces.closed() => return Err(Stalled),
                () = tokio::time::sleep(PATIENCE_WHEN_SHORT) => waited += PATIENCE_WHEN_SHORT,
            }
        }
        Err(Stalled)
    }

    /// Puts out a frame for which the reader has asked.
    pub(super) async fn put(&self, mut frame: Bytes) -> Result<(), Stalled> {
        loop {
            // a copy: a piece that lies with the connection must not keep the whole frame in memory
            let piece = Bytes::copy_from_slice(&frame.split_to(frame.len().min(PIECE_BYTES)));
            self.within.store(!frame.is_empty(), Ordering::Relaxed);
            self.pieces.send(Ok(piece)).await.map_err(|_| Stalled)?;
            if frame.is_empty() {
                return Ok(());
            }
            self.asked().await?;
        }
    }

    /// Waits until the reader is gone.
    pub(super) async fn closed(&self) {
        self.pieces.closed().await;
    }
}

impl Drop for Outlet {
    /// A torn frame must not look like the end of the reply.
    fn drop(&mut self) {
        if self.within.load(Ordering::Relaxed) {
            let torn = std::io::Error::other("the subscription ended within an event");
            // without room for it the reader is gone, or finds the frame too short
            let _ = self.pieces.try_send(Err(torn));
        }
    }
}

impl Stream for Inlet {
    type Item = Result<Bytes, std::io::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.pieces.poll_recv(cx);
        if next.is_pending() {
            self.asked.notify_one();
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_frame_comes_whole_in_pieces_and_none_is_made_before_it_is_asked_for() {
        let (outlet, mut body) = outlet(EventRoom::default());
        let idle = tokio::time::timeout(PATIENCE / 2, outlet.asked()).await;
        assert!(idle.is_err(), "nobody has asked");
        let frame: Vec<u8> = (0..3 * PIECE_BYTES + 5).map(|at| at as u8).collect();
        let sent = frame.clone();
        let sending = tokio::spawn(async move {
            outlet.asked().await?;
            outlet.put(sent.into()).await
        });
        let mut pieces = Vec::new();
        while let Some(piece) = body.frame().await {
            pieces.push(piece.unwrap().into_data().unwrap());
            tokio::time::sleep(PATIENCE - Duration::from_secs(6)).await;
        }
        assert_eq!((pieces.len(), pieces.concat()), (4, frame));
        assert_eq!(sending.await.unwrap(), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_stops_within_a_frame_is_given_up_and_told() {
        let (outlet, mut body) = outlet(EventRoom::default());
        let sending = tokio::spawn(async move {
            outlet.asked().await?;
            outlet.put(vec![7; 4 * PIECE_BYTES].into()).await
        });
        let began = Instant::now();
        assert!(body.frame().await.unwrap().is_ok());
        assert_eq!(sending.await.unwrap(), Err(Stalled));
        assert_eq!(began.elapsed().as_secs(), PATIENCE.as_secs());
        assert!(body.frame().await.unwrap().is_err(), "the reply is torn");
        assert!(body.frame().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn when_memory_is_short_who_stalls_is_given_up_sooner() {
        let room = EventRoom::default();
        let _held = room.take(ROOM_BYTES).await;
        let (outlet, _body) = outlet(room.clone());
        let began = Instant::now();
        assert_eq!(outlet.asked().await, Err(Stalled));
        assert_eq!(began.elapsed().as_secs(), PATIENCE_WHEN_SHORT.as_secs());
    }
}
