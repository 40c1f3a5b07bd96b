//! How a call is made: with a deadline, and repeated where that is safe.
//!
//! Looking is repeated after every retryable failure. What changes something is repeated only when nothing was done: after
//! an unknown outcome the caller gets that, and looks.

use super::retry::Backoff;
use crate::{Error, ErrorKind, Outcome, Result};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// One attempt may take this long.
const ATTEMPT_DEADLINE: Duration = Duration::from_secs(10);
/// All attempts of a call and the waits between them may take this long.
const CALL_DEADLINE: Duration = Duration::from_secs(30);

/// Whether a call may be done twice.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    Freely,
    OnlyIfNotDone,
}

/// Makes calls. Shared by its clones.
#[derive(Debug, Clone)]
pub(super) struct Calls {
    backoff: Backoff,
    seed: Arc<AtomicU64>,
}

impl Calls {
    /// `seed` feeds the jitter of repetitions.
    pub(super) fn new(seed: u64) -> Self {
        Self { backoff: Backoff::default(), seed: Arc::new(AtomicU64::new(seed)) }
    }

    /// The answer to what `attempt` asks; `what` is told in the error.
    pub(super) async fn call<T, F>(&self, what: &str, repeat: Repeat, attempt: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = std::result::Result<tonic::Response<T>, tonic::Status>>,
    {
        let give_up = Instant::now() + CALL_DEADLINE;
        let mut rng = StdRng::seed_from_u64(self.seed.fetch_add(1, Ordering::Relaxed));
        let mut attempts = 0;
        loop {
            attempts += 1;
            // the broker is asked to keep the deadline; a broker that hangs is not waited for
            let error = match tokio::time::timeout(ATTEMPT_DEADLINE, attempt()).await {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) => Error::from(status),
                Err(_) => {
                    Error::new(ErrorKind::UnknownOutcome, format!("no answer within {ATTEMPT_DEADLINE:?}"))
                }
            };
            let repeatable = error.kind().is_retryable()
                && (repeat == Repeat::Freely || error.kind().outcome() == Outcome::NotDone);
            let wait = if repeatable { self.backoff.after(attempts, &mut rng) } else { None };
            match wait.filter(|wait| Instant::now() + *wait < give_up) {
                Some(wait) => {
                    tracing::debug!(what, attempts, %error, "trying again");
                    tokio::time::sleep(wait).await;
                }
                None if attempts > 1 => return Err(error.during(&format!("{what}, attempt {attempts}"))),
                None => return Err(error),
            }
        }
    }
}

/// A request that the broker is to answer within the deadline of an attempt.
pub(super) fn bounded<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(ATTEMPT_DEADLINE);
    request
}
