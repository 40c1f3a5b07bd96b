//! What waits to be committed: per log in order, and the list of logs that have something.
//!
//! A log is *idle*, *ready* (on the list) or *busy* (a group of it is in flight); it is on the list at most once.

use crate::Appended;
use crate::error::{Error, ErrorKind, Result};
use crate::shard_log::LogInner;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Condvar, Mutex};
use std::collections::VecDeque;
use std::sync::Arc;
use tidemill_types::Frame;

/// Frames that may wait for one log; the engine bounds bytes long before.
const LOG_FRAMES_MAX: usize = 65_536;

type Answer = Box<dyn FnOnce(Result<Appended>) + Send>;

/// Who waits for an append. Dropped without an answer, it answers that the outcome is unknown.
pub(crate) struct Done(Option<Answer>);

impl Done {
    pub(crate) fn new(answer: impl FnOnce(Result<Appended>) + Send + 'static) -> Self {
        Self(Some(Box::new(answer)))
    }
    pub(crate) fn call(mut self, result: Result<Appended>) {
        if let Some(answer) = self.0.take() {
            answer(result);
        }
    }
}

impl Drop for Done {
    fn drop(&mut self) {
        if let Some(answer) = self.0.take() {
            answer(Err(Error::new(
                ErrorKind::Unknown,
                "the append was given up; whether it is stored is not known",
            )));
        }
    }
}

/// A frame that waits, and who waits for it.
pub(crate) struct Item {
    pub frame: Frame,
    pub done: Done,
}

impl Item {
    fn bytes(&self) -> usize {
        self.frame.bytes().len()
    }
}

#[derive(Default, PartialEq, Eq, Clone, Copy)]
enum Turn {
    #[default]
    Idle,
    Ready,
    Busy,
}

/// What waits for one log.
#[derive(Default)]
pub(crate) struct LogQueue {
    items: VecDeque<Item>,
    bytes: usize,
    turn: Turn,
}

impl LogQueue {
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
    /// Whether a group of the log is in flight.
    pub(crate) fn is_busy(&self) -> bool {
        self.turn == Turn::Busy
    }
    /// Takes items from the front, up to `max_bytes` but at least one. An empty queue keeps no memory: a shard that was
    /// busy once is to cost nothing when it is idle.
    pub(crate) fn take(&mut self, max_bytes: usize) -> Vec<Item> {
        if self.bytes <= max_bytes {
            self.bytes = 0;
            return std::mem::take(&mut self.items).into();
        }
        let mut taken = Vec::new();
        let mut bytes = 0;
        while let Some(item) = self.items.front() {
            if !taken.is_empty() && bytes + item.bytes() > max_bytes {
                break;
            }
            bytes += item.bytes();
            taken.extend(self.items.pop_front());
        }
        self.bytes -= bytes;
        taken
    }
}

/// The logs that have something to commit.
#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
    /// Nothing is taken any more, also of logs that are never idle.
    down: AtomicBool,
}

#[derive(Default)]
struct State {
    ready: VecDeque<Arc<LogInner>>,
    closed: bool,
    /// Logs with a group in flight outside the committer.
    busy: usize,
}

impl Queue {
    /// Puts an item behind those of its log; answers it at once when the queue is full or closed.
    pub(crate) fn push(&self, log: &Arc<LogInner>, item: Item) {
        if self.down.load(Ordering::Relaxed) {
            return item.done.call(Err(shutting_down()));
        }
        let mut queue = log.queue.lock();
        if queue.items.len() >= LOG_FRAMES_MAX {
            drop(queue);
            let full = Error::new(ErrorKind::Unavailable, "too many frames wait for this shard; try again");
            return item.done.call(Err(full));
        }
        if queue.turn == Turn::Idle {
            let mut state = self.state.lock();
            if state.closed {
                drop((state, queue));
                return item.done.call(Err(shutting_down()));
            }
            state.ready.push_back(log.clone());
            queue.turn = Turn::Ready;
            self.filled.notify_one();
        }
        queue.bytes += item.bytes();
        queue.items.push_back(item);
    }

    /// The logs that are ready, at most `most`, each now busy. Waits for the first if `wait`; `None` once the queue is
    /// closed and nothing is left to wait for.
    pub(crate) fn take_ready(&self, most: usize, wait: bool) -> Option<Vec<Arc<LogInner>>> {
        let mut state = self.state.lock();
        while wait && state.ready.is_empty() {
            if state.closed && state.busy == 0 {
                return None;
            }
            self.filled.wait(&mut state);
        }
        let count = state.ready.len().min(most);
        let logs: Vec<_> = state.ready.drain(..count).collect();
        state.busy += logs.len();
        drop(state);
        for log in &logs {
            log.queue.lock().turn = Turn::Busy;
        }
        Some(logs)
    }

    /// The group of this log is done with: it is ready again if more has come, and goes to the back of the list.
    pub(crate) fn finished(&self, log: &Arc<LogInner>) {
        let mut queue = log.queue.lock();
        let mut state = self.state.lock();
        state.busy -= 1;
        if queue.items.is_empty() {
            queue.turn = Turn::Idle;
        } else {
            queue.turn = Turn::Ready;
            state.ready.push_back(log.clone());
        }
        self.filled.notify_all();
    }

    /// No log becomes ready from here on but those that have items already.
    pub(crate) fn close(&self) {
        self.down.store(true, Ordering::Relaxed);
        self.state.lock().closed = true;
        self.filled.notify_all();
    }
}

fn shutting_down() -> Error {
    Error::new(ErrorKind::Unavailable, "the broker is shutting down; try again when it is back")
}
