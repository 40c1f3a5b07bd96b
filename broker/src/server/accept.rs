//! The accept loop: connections up to a number, each in a task of its own, and an orderly end.

use super::connection::{self, Door, Speaks};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};

/// Requests under way may take so long once the broker is stopping.
const REQUESTS_DRAIN: Duration = Duration::from_secs(5);
/// After a failed accept (no file descriptors left, mostly) wait before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Tells when a time begins in which connections have to wait; it is over once an eighth of the slots is free.
pub(super) struct Crowd {
    pub(super) slots: usize,
    pub(super) is_full: bool,
}

impl Crowd {
    pub(super) fn begins(&mut self, free: usize) -> bool {
        let was_full = self.is_full;
        self.is_full = free == 0 || (was_full && free < (self.slots / 8).max(1));
        self.is_full && !was_full
    }
}

/// Where connections come from: one listener, or one more for TLS alone.
pub(super) struct Listeners {
    open: Vec<(TcpListener, Speaks)>,
    /// The one asked first next time, so that a busy one does not shut out the other.
    first: usize,
}

impl Listeners {
    pub(super) fn new(open: Vec<(TcpListener, Speaks)>) -> Self {
        Self { open, first: 0 }
    }

    /// The next connection, and what its listener speaks. Cancelling loses none.
    async fn accept(&mut self) -> io::Result<(TcpStream, Speaks)> {
        std::future::poll_fn(|cx| {
            for turn in 0..self.open.len() {
                let at = (self.first + turn) % self.open.len();
                let (listener, speaks) = &self.open[at];
                if let Poll::Ready(accepted) = listener.poll_accept(cx) {
                    self.first = at + 1;
                    return Poll::Ready(
                        accepted.map(|(socket, _): (_, SocketAddr)| (socket, speaks.clone())),
                    );
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// Takes connections until told to stop, then waits for those there are, and cuts those that take too long.
pub(super) async fn accept(mut listeners: Listeners, door: Door, connections_max: usize) {
    let slots = Arc::new(Semaphore::new(connections_max));
    let mut crowd = Crowd { slots: connections_max, is_full: false };
    let open = metrics::gauge!("tidemill_connections");
    let mut connections = JoinSet::new();
    loop {
        if crowd.begins(slots.available_permits()) {
            tracing::warn!(connections_max, "all connections are taken, more wait to be accepted");
        }
        let next = async {
            let slot = Arc::clone(&slots).acquire_owned().await.expect("the semaphore is never closed");
            (listeners.accept().await, slot)
        };
        tokio::select! {
            () = door.stopping.cancelled() => break,
            Some(ended) = connections.join_next() => note_end(ended),
            (accepted, slot) = next => match accepted {
                Ok((socket, speaks)) => {
                    connections.spawn(connection::serve(socket, speaks, door.clone(), slot));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
        open.set(connections.len() as f64);
    }
    drop(listeners);
    let drained = async {
        while let Some(ended) = connections.join_next().await {
            note_end(ended);
        }
    };
    if tokio::time::timeout(REQUESTS_DRAIN, drained).await.is_err() {
        tracing::warn!(connections = connections.len(), "cutting connections that did not finish in time");
    }
    connections.shutdown().await;
    open.set(0.0);
}

fn note_end(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection broke off");
    }
}
