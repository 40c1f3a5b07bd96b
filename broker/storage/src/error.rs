//! The error of this crate: what happened, and by its kind what the caller can do.

use std::fmt;
use std::io;
use std::sync::Arc;
use tidemill_types::SequenceIndex;

/// What the caller can do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The disk has no room. Nothing was written; repeat later.
    Full,
    /// Storage is shutting down or overloaded. Nothing was written; repeat later.
    Unavailable,
    /// The log was sealed or deleted. Nothing was written; look at the catalog.
    Closed,
    /// A producer's batch number lies further back than storage remembers. Whether it was stored is not known.
    Stale,
    /// The write may or may not be on disk; only a restart can tell.
    Unknown,
    /// Storage is poisoned by an earlier failure. Nothing was written; a restart recovers.
    Poisoned,
    /// Bytes on disk are not what was written there.
    Damaged,
    /// Another process has the directory, it was written by a later version, or it may not be used.
    Refused,
    /// The disk answered with an error on a read or on a change of the directory.
    Io,
}

/// `std::result::Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What happened, told so that a person can act on it. Cheap to clone: one failure may answer many appends.
#[derive(Debug, Clone)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Arc<io::Error>>,
    /// The file that is damaged, and where.
    place: Option<Arc<(String, u64)>>,
    lost: Option<(SequenceIndex, SequenceIndex)>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None, place: None, lost: None }
    }
    /// What was under way is not wanted any more.
    pub fn stopped(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }
    /// An error of the disk while doing `what`; a full disk is told apart.
    pub(crate) fn io(what: impl Into<String>, source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Full,
            _ => ErrorKind::Io,
        };
        Self { kind, message: what.into(), source: Some(Arc::new(source)), place: None, lost: None }
    }
    /// The same failure, seen as another kind.
    pub(crate) fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.kind = kind;
        self
    }
    /// The same failure, which is damage of this file at this offset.
    pub(crate) fn at(mut self, file: &str, offset: u64) -> Self {
        self.place = Some(Arc::new((file.to_owned(), offset)));
        self
    }
    /// The same failure, which keeps records from `first` up to before `next` from being read.
    pub(crate) fn losing(mut self, first: SequenceIndex, next: SequenceIndex) -> Self {
        self.lost = Some((first, next));
        self
    }
    /// Where damage keeps records from being read: the index of the first of them, and the one from which reading goes on.
    pub fn lost(&self) -> Option<(SequenceIndex, SequenceIndex)> {
        self.lost
    }
    /// The file that is damaged, and where, if that was told.
    pub(crate) fn place(&self) -> Option<(&str, u64)> {
        self.place.as_ref().map(|place| (place.0.as_str(), place.1))
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
