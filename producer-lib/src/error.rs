//! Why a record is not in its stream: a kind for the program, a message for a person, and what was tried.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use tidemill_proto::ErrorKind;
use tidemill_types::{Record, TimestampMs};

/// Attempts whose causes are kept; of more, the newest.
const ATTEMPTS_KEPT: usize = 16;

/// `std::result::Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// A failed put, ticket or call of the producer. Cheap to clone: all records of a batch share it.
///
/// After [`ErrorKind::UnknownOutcome`] or [`ErrorKind::Internal`] the record may be in the stream; after every other kind it
/// is not.
#[derive(Clone)]
pub struct Error(Arc<Failure>);

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
        Self(Arc::new(Failure { kind, message: message.into(), attempts_made: log.made, attempts }))
    }
    /// What to do about it.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }
    /// What happened, for a person; names the last cause.
    pub fn message(&self) -> &str {
        &self.0.message
    }
    /// How often the record was sent.
    pub fn attempts_made(&self) -> u32 {
        self.0.attempts_made
    }
    /// The attempts that failed, oldest first; of more than 16, the newest.
    pub fn attempts(&self) -> &[Attempt] {
        &self.0.attempts
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("message", &self.0.message)
            .field("attempts_made", &self.0.attempts_made)
            .field("attempts", &self.0.attempts)
            .finish()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
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
}

impl AttemptLog {
    /// Notes that it is sent.
    pub(crate) fn sent(&mut self) {
        self.made = self.made.saturating_add(1);
    }
    /// Notes that sending it failed.
    pub(crate) fn failed(&mut self, at: TimestampMs, cause: &tidemill_proto::Error) {
        if self.failed.len() == ATTEMPTS_KEPT {
            self.failed.pop_front();
        }
        self.failed.push_back(Attempt { at, kind: cause.kind(), cause: cause.message().to_owned() });
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
