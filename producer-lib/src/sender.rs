//! The sender: who sends what next. Each connection has a task of its sink, which takes lanes from here, a batch at a time.
//!
//! ```text
//!  lane has something to send ─► Connection (queue) ─► task of the sink ─► lane.next() ─► wire ─► lane.answer()
//!                                    ▲                      │ not yet
//!                                    └──── HeldLanes ◄──────┘
//! ```
//!
//! A lane stands in the queue or is held back, and only once: so both are bounded by the shards. What this does not do: talk
//! to anybody; that differs by sink (`sink/grpc/session`, `sink/aws/session`).

use crate::lane::Lane;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use tidemill_proto::Error;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The lanes that have something to send over one connection, each once; and what last went wrong there.
#[derive(Default)]
pub(crate) struct Connection {
    lanes: Mutex<VecDeque<Arc<Lane>>>,
    work: Notify,
    last_error: Mutex<Option<Error>>,
}

impl Connection {
    /// Called by a lane that is not in the queue yet.
    pub(crate) fn enqueue(&self, lane: Arc<Lane>) {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner).push_back(lane);
        self.work.notify_one();
    }
    pub(crate) fn has_work(&self) -> bool {
        !self.lanes.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
    /// Waits until there is something to send. For the one task of the connection; cancelling is safe.
    pub(crate) async fn has_work_at_last(&self) {
        while !self.has_work() {
            self.work.notified().await;
        }
    }
    pub(crate) fn take(&self) -> Option<Arc<Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
    /// Why the connection does not work at the moment; nothing while it does.
    pub(crate) fn last_error(&self) -> Option<Error> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    pub(crate) fn note(&self, error: Option<Error>) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }
    /// Lets go of the lanes, which hold this.
    pub(crate) fn end(&self) {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Lanes that may not send before a moment.
#[derive(Default)]
pub(crate) struct HeldLanes(BinaryHeap<Held>);

impl HeldLanes {
    pub(crate) fn add(&mut self, until: Instant, lane: Arc<Lane>) {
        self.0.push(Held { until: Reverse(until), lane });
    }
    /// When the first of them may send.
    pub(crate) fn soonest(&self) -> Option<Instant> {
        self.0.peek().map(|held| held.until.0)
    }
    /// Gives back those that may send now.
    pub(crate) fn let_go(&mut self, now: Instant, connection: &Connection) {
        while self.0.peek().is_some_and(|held| held.until.0 <= now) {
            if let Some(held) = self.0.pop() {
                connection.enqueue(held.lane);
            }
        }
    }
    /// Gives back all.
    pub(crate) fn let_all_go(&mut self, connection: &Connection) {
        self.0.drain().for_each(|held| connection.enqueue(held.lane));
    }
}

/// A lane that must wait, soonest first.
struct Held {
    until: Reverse<Instant>,
    lane: Arc<Lane>,
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        self.until == other.until
    }
}
impl Eq for Held {}
impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Held {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.until.cmp(&other.until)
    }
}
