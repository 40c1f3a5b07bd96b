//! The one error of this crate: its kind says what the caller should do, its message tells a person what happened.

use std::fmt;

/// `std::result::Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller should do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting or an argument is wrong; change it.
    Invalid,
    /// There is no such stream; create it, or correct its name.
    NotFound,
    /// This worker no longer holds the shard's lease: stop working on it, another worker goes on from the last checkpoint.
    LeaseLost,
    /// The broker cannot be reached or cannot do it now; try again later.
    Unavailable,
    /// A fault of the broker or of this library.
    Internal,
}

/// A failure of the consumer library.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
    #[source]
    source: Option<tidemill_proto::Error>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }
    pub(crate) fn lease_lost(shard: &impl fmt::Display) -> Self {
        let told = format!("the lease of {shard} is lost; another worker goes on from the last checkpoint");
        Self::new(ErrorKind::LeaseLost, told)
    }
    /// What to do about it.
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }
    /// What happened, for a person.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl From<tidemill_proto::Error> for Error {
    fn from(error: tidemill_proto::Error) -> Self {
        use tidemill_proto::ErrorKind as Wire;
        let kind = match error.kind() {
            Wire::Invalid | Wire::AlreadyExists => ErrorKind::Invalid,
            Wire::NotFound => ErrorKind::NotFound,
            Wire::Throttled | Wire::Unavailable | Wire::UnknownOutcome | Wire::Conflict => {
                ErrorKind::Unavailable
            }
            _ => ErrorKind::Internal,
        };
        Self { kind, message: error.message().to_owned(), source: Some(error) }
    }
}

impl From<tidemill_types::Error> for Error {
    fn from(error: tidemill_types::Error) -> Self {
        Self::new(ErrorKind::Invalid, error.to_string())
    }
}
