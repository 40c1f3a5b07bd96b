//! Pages of one read call on their way to the connection.
//!
//! ```text
//!  engine ─► room for the page ─► slot in the queue ─► taken by the connection, the room is free
//!                                     └─ lies there for a minute while others wait for room ─► taken back, the call ends
//! ```
//!
//! Why: a reader that takes nothing may wait as long as it likes, but not at the cost of those that read. What it does
//! not do: hold pages that the connection has taken; those are bounded by its calls and windows.

use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tidemill_proto::v1::ReadResponse;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

/// Bytes of all pages that wait for their connections.
const ROOM_BYTES: usize = 256 << 20;
/// Pages of one call that wait for the connection.
const WAITING_MAX: usize = 2;
/// How long a page may lie there when room is short.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Memory for pages that wait. Cheap to clone.
#[derive(Clone)]
pub(super) struct PageRoom(Arc<Semaphore>);

impl Default for PageRoom {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(ROOM_BYTES)))
    }
}

impl PageRoom {
    async fn take(&self, bytes: usize) -> OwnedSemaphorePermit {
        let permits = u32::try_from(bytes.min(ROOM_BYTES)).expect("room is far below 4 GiB");
        self.0.clone().acquire_many_owned(permits).await.expect("the semaphore is never closed")
    }
    fn is_short(&self) -> bool {
        self.0.available_permits() < ROOM_BYTES / 4
    }
}

/// A page in the queue, until it is taken, or taken back.
type Slot = Arc<Mutex<Option<(ReadResponse, OwnedSemaphorePermit)>>>;

enum Answer {
    Page(Slot),
    End(Status),
}

/// Where a read call puts its pages.
pub(super) struct Pages {
    answers: mpsc::Sender<Answer>,
    room: PageRoom,
    /// Those in the queue, oldest first, and since when.
    waiting: Mutex<VecDeque<(Slot, Instant)>>,
}

/// The reader is gone.
pub(super) struct Gone;

/// The answers of a read call.
pub(super) fn pages(
    room: PageRoom,
) -> (Pages, impl Stream<Item = Result<ReadResponse, Status>> + Send + use<>) {
    let (answers, queue) = mpsc::channel(WAITING_MAX);
    let taken = ReceiverStream::new(queue).map(|answer| match answer {
        Answer::Page(slot) => {
            let page = slot.lock().take();
            page.map(|(page, _room)| page).ok_or_else(|| {
                Status::unavailable("the reader took nothing for a minute while others waited: read again")
            })
        }
        Answer::End(status) => Err(status),
    });
    (Pages { answers, room, waiting: Mutex::default() }, taken)
}

impl Pages {
    /// Puts a page in the queue, once there is room for it.
    pub(super) async fn send(&self, page: ReadResponse) -> Result<(), Gone> {
        let room = self.room.take(page.frames.len()).await;
        let place = self.answers.reserve().await.map_err(|_| Gone)?;
        let slot: Slot = Arc::new(Mutex::new(Some((page, room))));
        {
            let mut waiting = self.waiting.lock();
            waiting.retain(|(slot, _)| slot.lock().is_some());
            waiting.push_back((Arc::clone(&slot), Instant::now()));
        }
        place.send(Answer::Page(slot));
        Ok(())
    }

    /// Says why the call ends.
    pub(super) async fn end(&self, status: Status) {
        // a reader that has gone in this moment needs no status
        let _ = self.answers.send(Answer::End(status)).await;
    }

    /// Waits until the reader is gone.
    pub(super) async fn closed(&self) {
        self.answers.closed().await;
    }

    /// Waits until the reader takes nothing and others wait for room; then what is in the queue is taken back, and the
    /// reader finds out why.
    pub(super) async fn taken_back(&self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if !self.room.is_short() {
                continue;
            }
            let mut waiting = self.waiting.lock();
            waiting.retain(|(slot, _)| slot.lock().is_some());
            if waiting.front().is_some_and(|(_, since)| since.elapsed() >= PATIENCE) {
                for (slot, _) in waiting.drain(..) {
                    drop(slot.lock().take());
                }
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn page(bytes: usize) -> ReadResponse {
        ReadResponse { frames: Bytes::from(vec![7; bytes]), ..ReadResponse::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_is_ended_when_others_wait_for_room_and_not_before() {
        let room = PageRoom::default();
        let (idle, answers) = pages(room.clone());
        tokio::pin!(answers);
        for _ in 0..WAITING_MAX {
            assert!(idle.send(page(1 << 20)).await.is_ok());
        }
        let third = tokio::time::timeout(10 * PATIENCE, idle.send(page(1 << 20))).await;
        assert!(third.is_err(), "the queue is full");
        let watched = tokio::time::timeout(10 * PATIENCE, idle.taken_back()).await;
        assert!(watched.is_err(), "nobody needs the room");
        let others = room.take(ROOM_BYTES - (2 << 20)).await;
        let (other, taken) = pages(room.clone());
        tokio::pin!(taken);
        let sending = other.send(page(1 << 20));
        let (sent, ()) = tokio::join!(sending, idle.taken_back());
        assert!(sent.is_ok(), "the room came back");
        assert_eq!(taken.next().await.unwrap().unwrap().frames.len(), 1 << 20);
        drop(idle);
        assert_eq!(answers.next().await.unwrap().unwrap_err().code(), tonic::Code::Unavailable);
        drop(others);
        assert_eq!(room.0.available_permits(), ROOM_BYTES);
    }

    #[tokio::test(start_paused = true)]
    async fn pages_and_the_end_come_in_order() {
        let (out, answers) = pages(PageRoom::default());
        tokio::pin!(answers);
        let sending = async {
            for bytes in 0..5 {
                assert!(out.send(page(bytes)).await.is_ok());
            }
            out.end(Status::aborted("over")).await;
        };
        let reading = async {
            for bytes in 0..5 {
                assert_eq!(answers.next().await.unwrap().unwrap().frames.len(), bytes);
            }
            assert_eq!(answers.next().await.unwrap().unwrap_err().code(), tonic::Code::Aborted);
        };
        tokio::join!(sending, reading);
    }
}
