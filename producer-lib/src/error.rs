//! Why a record is not in its stream: a kind for the program, a message for a person, and what was tried.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tidemill_proto::ErrorKind;
use tidemill_types::{Record, TimestampMs};
use tokio::time::Instant;

/// Attempts whose causes are kept; of more, the newest.
const ATTEMPTS_KEPT: usize = 16;

/// `std::result::Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// A failed put, ticket or call of the producer. Cheap to clone: all records of a batch share what it tells.
///
/// After [`ErrorKind::UnknownOutcome`] or [`ErrorKind::Internal`] the record may be in the stream; after every other kind it
/// is not.
#[derive(Clone)]
pub struct Error {
    failure: Arc<Failure>,
    record: Option<Arc<Record>>,
}

struct Failure {
    kind: ErrorKind,
    message: String,
    attempts_made: u32,
    attempts: Vec<Attempt>,
}

/// One attempt that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempt {
    /// When its failure was noticed, wall clock.
    pub at: TimestampMs,
    /// How long after the attempt before it was begun; of the first, after its batch was begun.
    pub delay: Duration,
    /// How long it took to fail.
    pub duration: Duration,
    /// What kind of failure it was.
    pub kind: ErrorKind,
    /// What the broker or the connection said.
    pub cause: String,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self::with_history(kind, message, &AttemptLog::default())
    }
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }
    pub(crate) fn with_history(kind: ErrorKind, message: impl Into<String>, log: &AttemptLog) -> Self {
        let attempts = log.failed.iter().cloned().collect();
        let failure = Failure { kind, message: message.into(), attempts_made: log.made, attempts };
        Self { failure: Arc::new(failure), record: None }
    }
    /// The same failure, with the record that it happened to.
    pub(crate) fn of_record(&self, record: Record) -> Self {
        Self { failure: self.failure.clone(), record: Some(Arc::new(record)) }
    }
    /// What to do about it.
    pub fn kind(&self) -> ErrorKind {
        self.failure.kind
    }
    /// What happened, for a person; names the last cause.
    pub fn message(&self) -> &str {
        &self.failure.message
    }
    /// How often the record was sent.
    pub fn attempts_made(&self) -> u32 {
        self.failure.attempts_made
    }
    /// The attempts that failed, oldest first; of more than 16, the newest.
    pub fn attempts(&self) -> &[Attempt] {
        &self.failure.attempts
    }
    /// The record that is not stored, or not surely, to be put again or kept elsewhere: of a failed ticket or put, if
    /// [`Config::return_failed`](crate::Config::return_failed) asks for it.
    pub fn record(&self) -> Option<&Record> {
        self.record.as_deref()
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.failure.kind)
            .field("message", &self.failure.message)
            .field("attempts_made", &self.failure.attempts_made)
            .field("attempts", &self.failure.attempts)
            .finish()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.failure.message)
    }
}

impl std::error::Error for Error {}

impl From<tidemill_proto::Error> for Error {
    fn from(error: tidemill_proto::Error) -> Self {
        Self::new(error.kind(), error.message())
    }
}

impl From<tidemill_types::Error> for Error {
    fn from(error: tidemill_types::Error) -> Self {
        Self::invalid(error.to_string())
    }
}

/// A record that [`Producer::try_put`](crate::Producer::try_put) did not take, with why.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{error}")]
pub struct TryPutError {
    error: Error,
    record: Box<Record>,
}

impl TryPutError {
    pub(crate) fn new(error: Error, record: Record) -> Self {
        Self { error, record: Box::new(record) }
    }
    /// Why: [`ErrorKind::Throttled`] when memory is full, [`ErrorKind::Unavailable`] when the stream was not opened yet.
    pub fn error(&self) -> &Error {
        &self.error
    }
    /// The record, to be put again.
    pub fn into_record(self) -> Record {
        *self.record
    }
}

/// What was tried with a batch so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct AttemptLog {
    made: u32,
    failed: VecDeque<Attempt>,
    /// When the attempt that is under way, or the last one, was begun.
    begun: Option<Instant>,
    /// When the attempt before ended; at first, when the batch was begun.
    idle_since: Option<Instant>,
}

impl AttemptLog {
    /// Nothing tried yet with what was begun at that moment.
    pub(crate) fn new(since: Instant) -> Self {
        Self { idle_since: Some(since), ..Self::default() }
    }
    /// Notes that it is sent.
    pub(crate) fn sent(&mut self, now: Instant) {
        self.made = self.made.saturating_add(1);
        self.begun = Some(now);
    }
    /// Notes that sending it failed.
    pub(crate) fn failed(&mut self, (at, now): (TimestampMs, Instant), cause: &tidemill_proto::Error) {
        if self.failed.len() == ATTEMPTS_KEPT {
            self.failed.pop_front();
        }
        let between = |from: Option<Instant>, to: Option<Instant>| {
            from.zip(to).map_or(Duration::ZERO, |(from, to)| to.saturating_duration_since(from))
        };
        self.failed.push_back(Attempt {
            at,
            delay: between(self.idle_since, self.begun),
            duration: between(self.begun, Some(now)),
            kind: cause.kind(),
            cause: cause.message().to_owned(),
        });
        self.idle_since = Some(now);
    }
    /// How often it was sent.
    pub(crate) fn made(&self) -> u32 {
        self.made
    }
    /// How the last attempt failed.
    pub(crate) fn last(&self) -> Option<&Attempt> {
        self.failed.back()
    }
}
