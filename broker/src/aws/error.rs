//! Exceptions of the Kinesis API: the one table from engine error kinds to names and statuses, and the exact wordings.
//!
//! What it does not do: rendering. `http` puts an [`ApiError`] on the wire.

use http::StatusCode;
use tidemill_engine::{Error as EngineError, ErrorKind};
use tidemill_types::{ShardId, StreamKey};

/// An exception of the API, or one of the errors common to all AWS services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    Serialization,
    AccessDenied,
    InvalidSignature,
    IncompleteSignature,
    MissingAuthenticationToken,
    UnrecognizedClient,
    ExpiredToken,
    UnknownOperation,
    Validation,
    InvalidArgument,
    ResourceNotFound,
    ResourceInUse,
    LimitExceeded,
    ProvisionedThroughputExceeded,
    ExpiredIterator,
    ExpiredNextToken,
    KmsNotFound,
    KmsInvalidState,
    KmsDisabled,
    KmsAccessDenied,
    DryRunOperation,
    RequestTimeout,
    RequestEntityTooLarge,
    InternalFailure,
    ServiceUnavailable,
}

impl Code {
    /// Name on the wire, and HTTP status.
    const fn wire(self) -> (&'static str, StatusCode) {
        const BAD: StatusCode = StatusCode::BAD_REQUEST;
        match self {
            Self::Serialization => ("SerializationException", BAD),
            Self::AccessDenied => ("AccessDeniedException", BAD),
            Self::InvalidSignature => ("InvalidSignatureException", BAD),
            Self::IncompleteSignature => ("IncompleteSignatureException", BAD),
            Self::MissingAuthenticationToken => ("MissingAuthenticationTokenException", BAD),
            Self::UnrecognizedClient => ("UnrecognizedClientException", BAD),
            Self::ExpiredToken => ("ExpiredTokenException", BAD),
            Self::UnknownOperation => ("UnknownOperationException", BAD),
            Self::Validation => ("ValidationException", BAD),
            Self::InvalidArgument => ("InvalidArgumentException", BAD),
            Self::ResourceNotFound => ("ResourceNotFoundException", BAD),
            Self::ResourceInUse => ("ResourceInUseException", BAD),
            Self::LimitExceeded => ("LimitExceededException", BAD),
            Self::ProvisionedThroughputExceeded => ("ProvisionedThroughputExceededException", BAD),
            Self::ExpiredIterator => ("ExpiredIteratorException", BAD),
            Self::ExpiredNextToken => ("ExpiredNextTokenException", BAD),
            Self::KmsNotFound => ("KMSNotFoundException", BAD),
            Self::KmsInvalidState => ("KMSInvalidStateException", BAD),
            Self::KmsDisabled => ("KMSDisabledException", BAD),
            Self::KmsAccessDenied => ("KMSAccessDeniedException", BAD),
            Self::DryRunOperation => ("DryRunOperationException", BAD),
            Self::RequestTimeout => ("RequestTimeoutException", StatusCode::REQUEST_TIMEOUT),
            Self::RequestEntityTooLarge => ("RequestEntityTooLargeException", StatusCode::PAYLOAD_TOO_LARGE),
            Self::InternalFailure => ("InternalFailure", StatusCode::INTERNAL_SERVER_ERROR),
            Self::ServiceUnavailable => ("ServiceUnavailable", StatusCode::SERVICE_UNAVAILABLE),
        }
    }
    /// Name on the wire.
    pub(crate) const fn name(self) -> &'static str {
        self.wire().0
    }
    /// HTTP status.
    pub(crate) const fn status(self) -> StatusCode {
        self.wire().1
    }
}

/// Whether an operation manages streams or moves records: throttling has another name in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plane {
    Control,
    Data,
}

/// The table: what each kind of engine error is called.
const fn code_of(kind: ErrorKind, plane: Plane) -> Code {
    match kind {
        ErrorKind::Invalid => Code::InvalidArgument,
        ErrorKind::NotFound => Code::ResourceNotFound,
        ErrorKind::AlreadyExists | ErrorKind::Conflict => Code::ResourceInUse,
        ErrorKind::Precondition => Code::Validation,
        ErrorKind::KeyNotFound => Code::KmsNotFound,
        ErrorKind::KeyUnusable => Code::KmsInvalidState,
        ErrorKind::KeyDisabled => Code::KmsDisabled,
        ErrorKind::KeyDenied => Code::KmsAccessDenied,
        ErrorKind::Throttled => match plane {
            Plane::Control => Code::LimitExceeded,
            Plane::Data => Code::ProvisionedThroughputExceeded,
        },
        // retried by the SDKs, against the new shard map
        ErrorKind::ShardClosed | ErrorKind::Unavailable => Code::ServiceUnavailable,
        ErrorKind::UnknownOutcome | ErrorKind::Damaged | ErrorKind::Internal => Code::InternalFailure,
    }
}

/// What a caller is told: an exception and its message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    code: Code,
    message: String,
}

impl ApiError {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
    /// An exception that AWS sends without a message.
    pub(crate) const fn bare(code: Code) -> Self {
        Self { code, message: String::new() }
    }
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }
    pub(crate) fn serialization(message: impl Into<String>) -> Self {
        Self::new(Code::Serialization, message)
    }
    pub(crate) const fn code(&self) -> Code {
        self.code
    }
    pub(crate) fn message(&self) -> &str {
        &self.message
    }
}

/// What a request names is no noun of this system.
impl From<tidemill_types::Error> for ApiError {
    fn from(error: tidemill_types::Error) -> Self {
        Self::invalid(error.to_string())
    }
}

fn of_engine(error: &EngineError, plane: Plane) -> ApiError {
    let code = code_of(error.kind(), plane);
    if code == Code::InternalFailure {
        tracing::error!(kind = ?error.kind(), %error, "kinesis request failed");
    }
    ApiError::new(code, error.to_string())
}

/// An error of an operation that manages streams, consumers or accounts. The engine's words are those of the service.
pub(crate) fn of_control(error: &EngineError) -> ApiError {
    of_engine(error, Plane::Control)
}

/// An error of an operation on the records of one shard.
pub(crate) fn of_shard(error: &EngineError, shard: ShardId, key: &StreamKey) -> ApiError {
    match error.kind() {
        ErrorKind::NotFound => shard_gone(shard, key),
        ErrorKind::Throttled => ApiError::new(Code::ProvisionedThroughputExceeded, rate_exceeded(shard, key)),
        _ => of_engine(error, Plane::Data),
    }
}

/// An error of a put that was routed to `shard`.
pub(crate) fn of_put(error: &EngineError, shard: ShardId, key: &StreamKey) -> ApiError {
    match error.kind() {
        ErrorKind::NotFound => stream_not_found(key),
        _ => of_shard(error, shard, key),
    }
}

pub(crate) fn stream_not_found(key: &StreamKey) -> ApiError {
    ApiError::new(Code::ResourceNotFound, format!("Stream {key} not found."))
}

/// The text names a shard as the caller spelled it, which may be no shard id at all.
pub(crate) fn shard_not_found(shard: &str, key: &StreamKey) -> ApiError {
    ApiError::new(Code::ResourceNotFound, format!("Could not find shard {shard} in stream {key}."))
}

/// The shard was there, or may have been, under an iterator's stream.
pub(crate) fn shard_gone(shard: ShardId, key: &StreamKey) -> ApiError {
    ApiError::new(Code::ResourceNotFound, format!("Shard {shard} in stream {key} does not exist"))
}

pub(crate) fn rate_exceeded(shard: ShardId, key: &StreamKey) -> String {
    format!("Rate exceeded for shard {shard} in stream {key}.")
}
