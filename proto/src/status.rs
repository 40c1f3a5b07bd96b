//! What went wrong, and what the caller should do: one list of kinds, one table between a kind and a gRPC status.
//!
//! A status code is coarser than a kind, so a status made here also names its kind in the metadata
//! ([`ERROR_KIND_METADATA`]). A status without it was not made by a broker but by the transport or something between:
//! then only a failed connect proves that nothing was done.

use crate::v1;
use std::fmt;
use tidemill_types::FrameError;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

/// The key in a status's metadata that names the kind.
pub const ERROR_KIND_METADATA: &str = "tidemill-error-kind";

/// `std::result::Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What the caller should do about a failure. The kinds of the schema's `ErrorKind`, one for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request is wrong; do not repeat it.
    Invalid,
    /// There is no such stream, shard or lease.
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// A condition did not hold (a lease was lost, a batch number is too old): look again before repeating.
    Conflict,
    /// The shard was split or merged: list the shards and route anew. Nothing was written.
    ShardClosed,
    /// Too much at once; nothing was done, repeat later.
    Throttled,
    /// The broker cannot do it now or cannot be reached; nothing was done, repeat later.
    Unavailable,
    /// It may or may not have been done. Repeat only what may be done twice, or what is numbered against that.
    UnknownOutcome,
    /// Stored bytes do not match their checksum.
    Damaged,
    /// A fault of the broker itself.
    Internal,
}

/// Whether a failed request may have been done all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Certainly not done.
    NotDone,
    /// Nobody knows.
    Unknown,
}

/// Every kind with its code, its number in the schema and its name in the metadata. The one table.
const TABLE: [(ErrorKind, Code, v1::ErrorKind, &str); 10] = [
    (ErrorKind::Invalid, Code::InvalidArgument, v1::ErrorKind::Invalid, "invalid"),
    (ErrorKind::NotFound, Code::NotFound, v1::ErrorKind::NotFound, "not-found"),
    (ErrorKind::AlreadyExists, Code::AlreadyExists, v1::ErrorKind::AlreadyExists, "already-exists"),
    (ErrorKind::Conflict, Code::Aborted, v1::ErrorKind::Conflict, "conflict"),
    (ErrorKind::ShardClosed, Code::FailedPrecondition, v1::ErrorKind::ShardClosed, "shard-closed"),
    (ErrorKind::Throttled, Code::ResourceExhausted, v1::ErrorKind::Throttled, "throttled"),
    (ErrorKind::Unavailable, Code::Unavailable, v1::ErrorKind::Unavailable, "unavailable"),
    (ErrorKind::UnknownOutcome, Code::Unknown, v1::ErrorKind::UnknownOutcome, "unknown-outcome"),
    (ErrorKind::Damaged, Code::DataLoss, v1::ErrorKind::Damaged, "damaged"),
    (ErrorKind::Internal, Code::Internal, v1::ErrorKind::Internal, "internal"),
];

impl ErrorKind {
    /// Whether the same request may succeed later. After [`ErrorKind::UnknownOutcome`] that is safe only for a request
    /// that may be done twice or is numbered against it ([`ErrorKind::outcome`]).
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::Throttled | Self::Unavailable | Self::UnknownOutcome)
    }
    /// Whether it may have been done all the same.
    pub const fn outcome(self) -> Outcome {
        match self {
            Self::UnknownOutcome | Self::Internal => Outcome::Unknown,
            _ => Outcome::NotDone,
        }
    }
    /// Its name, as in the metadata of a status and in labels of metrics: `shard-closed`.
    pub fn name(self) -> &'static str {
        self.row().3
    }
    fn row(self) -> &'static (Self, Code, v1::ErrorKind, &'static str) {
        TABLE.iter().find(|row| row.0 == self).expect("the table has a row for every kind")
    }
    fn of_name(name: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.3 == name).map(|row| row.0)
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl From<ErrorKind> for v1::ErrorKind {
    fn from(kind: ErrorKind) -> Self {
        kind.row().2
    }
}

impl From<v1::ErrorKind> for ErrorKind {
    /// A kind that is unknown here (a later broker's) says nothing about what was done: [`ErrorKind::UnknownOutcome`].
    fn from(wire: v1::ErrorKind) -> Self {
        TABLE.iter().find(|row| row.2 == wire).map_or(Self::UnknownOutcome, |row| row.0)
    }
}

/// A failure of either client library or of a front end: a kind for the program, a message for a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

impl Error {
    /// From its parts. The message is lowercase, without a full stop, and says what to do next where that helps.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
    /// A request that is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }
    /// What to do about it.
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }
    /// What happened, for a person.
    pub fn message(&self) -> &str {
        &self.message
    }
    /// The same failure, told with where it happened: `while listing the shards of s: …`.
    #[must_use]
    pub fn during(self, what: &str) -> Self {
        Self { message: format!("while {what}: {}", self.message), ..self }
    }
}

impl From<tidemill_types::Error> for Error {
    fn from(error: tidemill_types::Error) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<FrameError> for Error {
    fn from(error: FrameError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let (_, code, _, name) = *error.kind.row();
        let mut status = Self::new(code, error.message);
        status.metadata_mut().insert(ERROR_KIND_METADATA, MetadataValue::from_static(name));
        status
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        let named = status.metadata().get(ERROR_KIND_METADATA).and_then(|value| value.to_str().ok());
        match named.and_then(ErrorKind::of_name) {
            Some(kind) => Self::new(kind, status.message()),
            None => Self::new(kind_of_foreign(&status), tell_foreign(&status)),
        }
    }
}

impl From<v1::AppendFailed> for Error {
    fn from(failed: v1::AppendFailed) -> Self {
        Self::new(failed.kind().into(), failed.message)
    }
}

impl From<Error> for v1::AppendFailed {
    fn from(error: Error) -> Self {
        Self { kind: v1::ErrorKind::from(error.kind).into(), message: error.message }
    }
}

/// The kind of a status that names none.
fn kind_of_foreign(status: &Status) -> ErrorKind {
    match status.code() {
        Code::InvalidArgument | Code::OutOfRange | Code::Unimplemented => ErrorKind::Invalid,
        Code::PermissionDenied | Code::Unauthenticated => ErrorKind::Invalid,
        Code::NotFound => ErrorKind::NotFound,
        Code::AlreadyExists => ErrorKind::AlreadyExists,
        Code::Aborted | Code::FailedPrecondition => ErrorKind::Conflict,
        Code::DataLoss => ErrorKind::Damaged,
        _ if has_cause::<tonic::ConnectError>(status) => ErrorKind::Unavailable,
        _ => ErrorKind::UnknownOutcome,
    }
}

fn has_cause<E: std::error::Error + 'static>(status: &Status) -> bool {
    causes(status).any(|cause| cause.is::<E>())
}

fn causes(status: &Status) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(std::error::Error::source(status), |error| error.source())
}

/// The transport's own messages say little ("transport error"); their causes say the rest.
fn tell_foreign(status: &Status) -> String {
    let mut told = status.message().to_owned();
    for cause in causes(status).take(8) {
        let cause = cause.to_string();
        if !told.contains(&cause) {
            told = if told.is_empty() { cause } else { format!("{told}: {cause}") };
        }
    }
    if told.is_empty() { format!("the call ended with {:?}", status.code()) } else { told }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_kind_survives_both_wires() {
        for (kind, ..) in TABLE {
            let error = Error::new(kind, "what happened");
            assert_eq!(Error::from(Status::from(error.clone())), error);
            assert_eq!(Error::from(v1::AppendFailed::from(error.clone())), error);
        }
        let codes: HashSet<_> = TABLE.iter().map(|row| row.1 as i32).collect();
        assert_eq!(codes.len(), TABLE.len(), "two kinds share a code");
    }

    #[test]
    fn the_schema_and_the_table_have_the_same_kinds() {
        for number in 1..=10 {
            let wire = v1::ErrorKind::try_from(number).expect("a number of the schema");
            assert_eq!(v1::ErrorKind::from(ErrorKind::from(wire)), wire);
        }
        assert!(v1::ErrorKind::try_from(11).is_err(), "the schema has a kind that the table lacks");
    }

    #[test]
    fn a_failure_of_the_transport_never_claims_that_nothing_was_done() {
        for code in
            [Code::Internal, Code::Unavailable, Code::Unknown, Code::Cancelled, Code::ResourceExhausted]
        {
            let error = Error::from(Status::new(code, "stream reset"));
            assert_eq!(error.kind(), ErrorKind::UnknownOutcome, "{code:?}");
            assert_eq!(error.kind().outcome(), Outcome::Unknown);
        }
    }

    #[test]
    fn a_later_brokers_kind_is_an_unknown_outcome() {
        let failed = v1::AppendFailed { kind: 99, message: "?".into() };
        assert_eq!(Error::from(failed).kind(), ErrorKind::UnknownOutcome);
    }
}
