//! The error of this crate: what happened, and by its kind what the caller can do.
//!
//! The kinds are those that both front ends tell apart; each maps them to its own wire in one table. What storage says
//! is translated here, in [`Error::from_storage`], and nowhere else.

use std::fmt;
use std::sync::Arc;
use tidemill_storage as storage;
use tidemill_types::SequenceIndex;

/// What the caller can do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request breaks a rule; repeating it changes nothing.
    Invalid,
    /// There is no such stream or shard.
    NotFound,
    /// There is such a stream already.
    AlreadyExists,
    /// Someone else was faster: look again, then decide.
    Conflict,
    /// What the stream is set to forbids it; change that first.
    Precondition,
    /// The shard was split or merged and takes no more records; route by the new shard map.
    ShardClosed,
    /// A limit was reached. Nothing was done; repeat after a pause.
    Throttled,
    /// The broker cannot do it now (shutting down, disk full, disk failed). Nothing was done; repeat after a pause.
    Unavailable,
    /// It may or may not have happened; a numbered batch can be repeated without harm.
    UnknownOutcome,
    /// Bytes on disk are not what was written there.
    Damaged,
    /// The key that wraps the stream's data key is not configured.
    KeyNotFound,
    /// The key is configured but does not fit: it is not the one that wrapped the data key.
    KeyUnusable,
    /// The key is configured and switched off.
    KeyDisabled,
    /// The key is configured but cannot be read.
    KeyDenied,
    /// Something that should not happen.
    Internal,
}

impl ErrorKind {
    /// Its name in metrics, in lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::Conflict => "conflict",
            Self::Precondition => "precondition",
            Self::ShardClosed => "shard_closed",
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
            Self::UnknownOutcome => "unknown_outcome",
            Self::Damaged => "damaged",
            Self::KeyNotFound => "key_not_found",
            Self::KeyUnusable => "key_unusable",
            Self::KeyDisabled => "key_disabled",
            Self::KeyDenied => "key_denied",
            Self::Internal => "internal",
        }
    }
}

/// `std::result::Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

type Source = Arc<dyn std::error::Error + Send + Sync>;

/// What happened, told so that a person can act on it. Cheap to clone: one failure may answer many calls.
#[derive(Debug, Clone)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Source>,
    /// Records that damage keeps from being read.
    lost: Option<(SequenceIndex, SequenceIndex)>,
}

impl Error {
    /// An error without an underlying one.
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None, lost: None }
    }
    /// An error that another one led to; its text is shown behind the message.
    pub(crate) fn caused(
        kind: ErrorKind,
        message: impl Into<String>,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self { kind, message: message.into(), source: Some(Arc::new(source)), lost: None }
    }
    /// What the storage said while doing `what`: the one table of its kinds.
    pub(crate) fn from_storage(what: &str, error: storage::Error) -> Self {
        use storage::ErrorKind as From;
        let kind = match error.kind() {
            From::Full | From::Unavailable | From::Poisoned => ErrorKind::Unavailable,
            From::Closed => ErrorKind::ShardClosed,
            From::Stale => ErrorKind::Conflict,
            From::Unknown => ErrorKind::UnknownOutcome,
            From::Damaged => ErrorKind::Damaged,
            From::Refused => ErrorKind::Invalid,
            // reads and directory changes; also what a later storage may add
            _ => ErrorKind::Internal,
        };
        Self::caused(kind, what, error)
    }
    /// The same failure, which keeps records from being read: the index of the first, and the one from which reading goes on.
    pub(crate) fn losing(self, lost: (SequenceIndex, SequenceIndex)) -> Self {
        Self { lost: Some(lost), ..self }
    }
    /// Records that cannot be read, if that is what happened: the index of the first, and the one from which reading goes on.
    pub(crate) fn lost(&self) -> Option<(SequenceIndex, SequenceIndex)> {
        self.lost
    }
    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as _)
    }
}
