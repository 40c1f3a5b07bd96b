//! An append that was handed over and not yet answered.

use crate::error::{Error, ErrorKind, Result};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use tidemill_storage::Appended;
use tokio::sync::oneshot;

/// An append on its way: resolves when its records are durable or have failed. Dropping it does not cancel the append.
#[derive(Debug)]
#[must_use = "the outcome tells whether the records are stored"]
pub struct PendingAppend {
    outcome: oneshot::Receiver<Result<Appended>>,
    encrypted: bool,
}

impl PendingAppend {
    pub(crate) fn new(outcome: oneshot::Receiver<Result<Appended>>, encrypted: bool) -> Self {
        Self { outcome, encrypted }
    }
    /// One that was stored before.
    pub(crate) fn answered(first_outcome: Appended) -> Self {
        let (done, outcome) = oneshot::channel();
        let _ = done.send(Ok(first_outcome)); // the receiver is right here
        Self::new(outcome, false)
    }
    /// Whether its records lie encrypted; not known of a batch that was stored before.
    pub fn is_encrypted(&self) -> bool {
        self.encrypted
    }
}

impl Future for PendingAppend {
    type Output = Result<Appended>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.outcome).poll(context).map(|outcome| {
            outcome.unwrap_or_else(|_| {
                let message = "storage ended before it answered; whether the records are stored is not known";
                Err(Error::new(ErrorKind::UnknownOutcome, message))
            })
        })
    }
}
