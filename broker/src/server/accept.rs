//! The accept loop: connections up to a number, each in a task of its own, and an orderly end.

use super::connection::{self, Door};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
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

/// Takes connections until told to stop, then waits for those there are, and cuts those that take too long.
pub(super) async fn accept(listener: TcpListener, door: Door, connections_max: usize) {
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
            (listener.accept().await, slot)
        };
        tokio::select! {
            () = door.stopping.cancelled() => break,
            Some(ended) = connections.join_next() => note_end(ended),
            (accepted, slot) = next => match accepted {
                Ok((socket, _)) => {
                    connections.spawn(connection::serve(socket, door.clone(), slot));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
        open.set(connections.len() as f64);
    }
    drop(listener);
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
