//! What calls to Amazon's services failed of, in the kinds of this library: one table.

use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use std::error::Error as StdError;
use tidemill_proto::{Error, ErrorKind};

/// Codes of services and what to do about them; any other code is a request that is wrong.
const CODES: [(&str, ErrorKind); 17] = [
    ("ConditionalCheckFailedException", ErrorKind::Conflict),
    ("ResourceNotFoundException", ErrorKind::NotFound),
    ("ResourceInUseException", ErrorKind::Unavailable),
    ("ProvisionedThroughputExceededException", ErrorKind::Throttled),
    ("ThrottlingException", ErrorKind::Throttled),
    ("RequestLimitExceeded", ErrorKind::Throttled),
    ("LimitExceededException", ErrorKind::Throttled),
    ("KMSThrottlingException", ErrorKind::Throttled),
    ("SlowDown", ErrorKind::Throttled),
    ("TransactionConflictException", ErrorKind::Throttled),
    ("InternalFailure", ErrorKind::UnknownOutcome),
    ("InternalFailureException", ErrorKind::UnknownOutcome),
    ("InternalServerError", ErrorKind::UnknownOutcome),
    ("ServiceUnavailable", ErrorKind::Unavailable),
    // credentials that are renewed while the worker runs
    ("ExpiredTokenException", ErrorKind::Unavailable),
    ("ExpiredToken", ErrorKind::Unavailable),
    ("RequestExpired", ErrorKind::Unavailable),
];

/// The failure of a call.
pub(crate) fn tell<E, R>(error: &SdkError<E, R>) -> Error
where
    E: ProvideErrorMetadata + StdError + 'static,
    R: std::fmt::Debug,
{
    let kind = match error {
        SdkError::ConstructionFailure(_) => ErrorKind::Invalid,
        SdkError::DispatchFailure(failed) if failed.is_user() => ErrorKind::Invalid,
        // before it was sent: no credentials, no connection
        SdkError::DispatchFailure(failed) if failed.is_other() => ErrorKind::Unavailable,
        SdkError::ServiceError(refused) => kind_of(refused.err().code()),
        _ => ErrorKind::UnknownOutcome,
    };
    let told = match error.as_service_error() {
        Some(refused) => {
            let message = refused.message().unwrap_or("no reason was told");
            format!("{}: {message}", refused.code().unwrap_or("refused"))
        }
        None => chain(error),
    };
    Error::new(kind, told)
}

fn kind_of(code: Option<&str>) -> ErrorKind {
    // without a code it was not the service that answered
    let Some(code) = code else { return ErrorKind::UnknownOutcome };
    CODES.iter().find(|(known, _)| *known == code).map_or(ErrorKind::Invalid, |(_, kind)| *kind)
}

/// An error and its causes, each said once.
fn chain(error: &dyn StdError) -> String {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !told.ends_with(&next) {
            told.push_str(": ");
            told.push_str(&next);
        }
        cause = error.source();
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_say_what_to_do_and_unknown_ones_are_wrong_requests() {
        assert_eq!(kind_of(Some("ProvisionedThroughputExceededException")), ErrorKind::Throttled);
        assert_eq!(kind_of(Some("AccessDeniedException")), ErrorKind::Invalid);
        assert_eq!(kind_of(None), ErrorKind::UnknownOutcome);
    }
}
