//! Group commit: one thread owns the store; what callers send while a commit is under way goes into the next one.
//!
//! A commit costs milliseconds whatever its size, so a thousand lease changes a second must share a few of them. Each
//! batch is judged on its own, in the order in which it was sent, and each caller gets its own verdict. The queue is
//! bounded; [`Metadata::reserve`] waits for room, and what follows it neither waits nor fails, so that an owner can
//! change its memory and send the matching batch under one lock, in one order.

use super::{Batch, Store, Verdict};
use crate::backup::Row;
use crate::error::{Error, ErrorKind, Result};
use std::ops::ControlFlow;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Batches that may wait for a commit.
const QUEUE_MAX: usize = 4096;
/// Changed keys after which a group is full. One batch may be larger than that alone.
const GROUP_CHANGES_MAX: usize = 4096;

type Answer = oneshot::Sender<Result<Verdict>>;

enum Request {
    Commit(Batch, Answer),
    Rows(oneshot::Sender<Result<Vec<Row>>>),
    Stop,
}

/// Sends batches to the writer. Cheap to clone; the writer ends when the last one is gone, or was told to stop.
#[derive(Clone)]
pub(crate) struct Metadata {
    queue: mpsc::Sender<Request>,
}

/// A place in the queue.
pub(crate) struct Slot {
    permit: mpsc::OwnedPermit<Request>,
}

/// A batch on its way. Dropping it does not take the batch back.
pub(crate) struct Commit {
    done: oneshot::Receiver<Result<Verdict>>,
}

/// The thread's side.
pub(crate) struct Writer {
    store: Box<dyn Store>,
    queue: mpsc::Receiver<Request>,
}

fn stopped() -> Error {
    Error::new(ErrorKind::Unavailable, "the broker is shutting down")
}

impl Metadata {
    /// A queue in front of `store`; somebody must run the [`Writer`].
    pub(crate) fn new(store: Box<dyn Store>) -> (Self, Writer) {
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        (Self { queue: sender }, Writer { store, queue: receiver })
    }

    /// Waits for room in the queue.
    pub(crate) async fn reserve(&self) -> Result<Slot> {
        let permit = self.queue.clone().reserve_owned().await.map_err(|_| stopped())?;
        Ok(Slot { permit })
    }

    /// Sends a batch and waits until it is durable. Once sent, it happens even if nobody waits any more.
    pub(crate) async fn commit(&self, batch: Batch) -> Result<Verdict> {
        self.reserve().await?.send(batch).wait().await
    }

    /// Every row, behind all that was sent before.
    pub(crate) async fn rows(&self) -> Result<Vec<Row>> {
        let (sender, rows) = oneshot::channel();
        self.queue.send(Request::Rows(sender)).await.map_err(|_| stopped())?;
        rows.await.map_err(|_| stopped())?
    }

    /// Ends the writer behind everything sent before. What comes later is refused.
    pub(crate) async fn stop(&self) {
        let _ = self.queue.send(Request::Stop).await; // an error: it has ended already
    }
}

impl Slot {
    /// Puts the batch behind all those sent before.
    pub(crate) fn send(self, batch: Batch) -> Commit {
        let (sender, receiver) = oneshot::channel();
        self.permit.send(Request::Commit(batch, sender));
        Commit { done: receiver }
    }
}

impl Commit {
    /// Waits until the batch is durable or has failed.
    pub(crate) async fn wait(self) -> Result<Verdict> {
        self.done.await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::UnknownOutcome, "the broker stopped before the change was confirmed"))
        })
    }
}

impl Writer {
    /// Commits group after group until every sender is gone, or one has said stop. Blocks its thread.
    pub(crate) fn run(mut self) {
        loop {
            let request = self.queue.blocking_recv();
            if self.round(request).is_break() {
                return;
            }
        }
    }

    /// The same as a task, for a store that does not block; each group takes so long.
    pub(crate) async fn run_on_task(mut self, commit_takes: Duration) {
        loop {
            let request = self.queue.recv().await;
            tokio::time::sleep(commit_takes).await;
            if self.round(request).is_break() {
                return;
            }
        }
    }

    /// Commits `request` and what waits behind it, as far as one group takes it.
    fn round(&mut self, mut request: Option<Request>) -> ControlFlow<()> {
        let (mut batches, mut waiting, mut changes) = (Vec::new(), Vec::new(), 0);
        let mut asked = Vec::new();
        let mut stopping = request.is_none();
        while let Some(next) = request {
            match next {
                Request::Commit(batch, done) => {
                    changes += batch.changes.len();
                    batches.push(batch);
                    waiting.push(done);
                }
                Request::Rows(rows) => asked.push(rows),
                Request::Stop => stopping = true,
            }
            let full = stopping || changes >= GROUP_CHANGES_MAX;
            request = if full { None } else { self.queue.try_recv().ok() };
        }
        if !batches.is_empty() {
            self.commit(&batches, waiting);
        }
        for rows in asked {
            let _ = rows.send(self.store.scan(b"")); // a caller that went away does not mind
        }
        if stopping { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn commit(&mut self, batches: &[Batch], waiting: Vec<Answer>) {
        // a caller that went away does not mind
        match self.store.commit(batches) {
            Ok(verdicts) => {
                for (done, verdict) in waiting.into_iter().zip(verdicts) {
                    let _ = done.send(Ok(verdict));
                }
            }
            Err(error) => {
                for done in waiting {
                    let _ = done.send(Err(error.clone()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Expect;
    use crate::store::memory::MemoryStore;

    #[tokio::test]
    async fn writes_of_many_callers_share_a_commit_and_each_gets_its_own_verdict() {
        let store = MemoryStore::default();
        let (metadata, writer) = Metadata::new(Box::new(store.clone()));
        let mut commits = Vec::new();
        for n in 0..100u8 {
            // all claim the same key: the first one gets it
            let claim = Batch::compare_and_set(&b"owner"[..], Expect::Absent, vec![n]);
            commits.push(metadata.reserve().await.unwrap().send(claim));
        }
        let thread = std::thread::spawn(move || writer.run());
        let mut verdicts = Vec::new();
        for commit in commits {
            verdicts.push(commit.wait().await.unwrap());
        }
        assert_eq!(verdicts[0], Verdict::Done);
        assert!(verdicts[1..].iter().all(|v| *v == Verdict::Refused));
        assert_eq!(store.commits(), 1);
        assert_eq!(store.get(b"owner").unwrap().unwrap().as_ref(), [0]);
        drop(metadata);
        thread.join().unwrap();
    }

    #[tokio::test]
    async fn a_failed_group_is_told_to_everyone_and_the_next_one_works() {
        let store = MemoryStore::default();
        let (metadata, writer) = Metadata::new(Box::new(store.clone()));
        std::thread::spawn(move || writer.run());
        store.set_failing(true);
        let error = metadata.commit(Batch::put(&b"a"[..], &b"1"[..])).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        store.set_failing(false);
        assert_eq!(metadata.commit(Batch::put(&b"a"[..], &b"2"[..])).await.unwrap(), Verdict::Done);
    }
}
