//! What a connection has to send: bytes that stand in line until its peer has taken them.
//!
//! ```text
//!  place ─► counted in this turn ─► dropped: sent, or given up
//!                    └─ still there when the next turn is over ─► the peer takes nothing: the connection is cut
//! ```
//!
//! Why turns: that something has stood for long is seen from two counters, without a timer for each reply.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio_util::sync::CancellationToken;

/// Ends the connection that a request came by, and with it all that waits to be sent there. A part of each request's
/// extensions.
#[derive(Clone)]
pub(crate) struct Cut(Arc<Line>);

struct Line {
    ended: CancellationToken,
    turn: AtomicUsize,
    /// How many stand there since this turn, and since the one before.
    standing: [AtomicUsize; 2],
    bytes: AtomicUsize,
}

/// Bytes that wait to be sent, until dropped.
pub(crate) struct Place {
    line: Arc<Line>,
    turn: usize,
    bytes: usize,
}

impl Cut {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Line {
            ended: CancellationToken::new(),
            turn: AtomicUsize::new(0),
            standing: Default::default(),
            bytes: AtomicUsize::new(0),
        }))
    }
    /// Ends the connection now.
    #[cfg(test)]
    pub(super) fn now(&self) {
        self.0.ended.cancel();
    }
    /// Waits until the connection is to end.
    pub(super) async fn made(&self) {
        self.0.ended.cancelled().await;
    }
    /// Bytes that the peer has not taken yet.
    pub(crate) fn unread(&self) -> usize {
        self.0.bytes.load(Ordering::Relaxed)
    }
    /// A place at the end of the line.
    pub(crate) fn place(&self, bytes: usize) -> Place {
        Place::new(&self.0, bytes)
    }
    /// Begins the next turn; whether something has stood in line for all of the one that ends.
    pub(crate) fn turn(&self) -> bool {
        let next = self.0.turn.fetch_add(1, Ordering::Relaxed) + 1;
        self.0.standing[next % 2].load(Ordering::Relaxed) > 0
    }
}

impl Place {
    fn new(line: &Arc<Line>, bytes: usize) -> Self {
        let turn = line.turn.load(Ordering::Relaxed) % 2;
        line.standing[turn].fetch_add(1, Ordering::Relaxed);
        line.bytes.fetch_add(bytes, Ordering::Relaxed);
        Self { line: Arc::clone(line), turn, bytes }
    }
    /// Another place in the same line, at its end.
    pub(crate) fn next(&self, bytes: usize) -> Self {
        Self::new(&self.line, bytes)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.line.standing[self.turn].fetch_sub(1, Ordering::Relaxed);
        self.line.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
