//! What the service says, in the kinds of this crate: of a whole request, and of each of its entries. The one table.

use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::operation::put_records::PutRecordsOutput;
use aws_sdk_kinesis::types::PutRecordsResultEntry;
use std::io;
use tidemill_proto::{Error, ErrorKind, Result};
use tidemill_types::{AnySequenceNumber, ShardId};

/// Where an entry was stored.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) shard: ShardId,
    pub(super) number: AnySequenceNumber,
}

/// A response of HTTP, as far as it matters.
pub(super) trait Status {
    fn status(&self) -> u16;
}

impl Status for aws_sdk_kinesis::config::http::HttpResponse {
    fn status(&self) -> u16 {
        self.status().as_u16()
    }
}

/// The kind of a failure that the service names.
fn kind_of(code: &str) -> Option<ErrorKind> {
    // a code may come with the name of its service before it
    let name = code.rsplit(['#', '.']).next().unwrap_or(code);
    Some(match name {
        "ProvisionedThroughputExceededException"
        | "LimitExceededException"
        | "ThrottlingException"
        | "Throttling"
        | "RequestLimitExceeded"
        | "TooManyRequestsException"
        | "KMSThrottlingException"
        | "SlowDown" => ErrorKind::Throttled,
        "ResourceNotFoundException" => ErrorKind::NotFound,
        // credentials are fetched anew, clocks are set, streams become active
        "ResourceInUseException"
        | "ServiceUnavailable"
        | "ServiceUnavailableException"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "RequestExpired"
        | "RequestTimeTooSkewed" => ErrorKind::Unavailable,
        "InternalFailure" | "InternalFailureException" | "InternalServerError" => ErrorKind::UnknownOutcome,
        _ => return None,
    })
}

/// A request that failed as a whole.
pub(super) fn error_of<E, R>(failure: &SdkError<E, R>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    R: Status + std::fmt::Debug + Send + Sync + 'static,
{
    let (kind, code) = match failure {
        SdkError::ConstructionFailure(_) => (ErrorKind::Unavailable, None),
        SdkError::DispatchFailure(_) if was_refused(failure) => (ErrorKind::Unavailable, None),
        SdkError::ServiceError(service) => {
            let code = service.err().code();
            let by_status = match service.raw().status() {
                429 => ErrorKind::Throttled,
                503 => ErrorKind::Unavailable,
                500.. => ErrorKind::UnknownOutcome,
                _ => ErrorKind::Invalid,
            };
            (code.and_then(kind_of).unwrap_or(by_status), code)
        }
        _ => (ErrorKind::UnknownOutcome, None),
    };
    let told = match (failure, code) {
        (SdkError::ServiceError(service), Some(code)) => {
            format!("{code}: {}", service.err().message().unwrap_or("no more is said"))
        }
        _ => told(failure),
    };
    Error::new(kind, told)
}

/// Whether the connection could not even be made.
fn was_refused(failure: &(dyn std::error::Error + 'static)) -> bool {
    causes(failure).any(|cause| {
        let cause = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        matches!(cause, Some(io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound))
    })
}

/// The SDK's own words say little ("dispatch failure"); their causes say the rest.
fn told(failure: &(dyn std::error::Error + 'static)) -> String {
    let words: Vec<_> = causes(failure).take(8).map(ToString::to_string).collect();
    words.join(": ")
}

fn causes<'a>(
    failure: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(failure), |error| error.source())
}

/// What became of each of `count` entries.
pub(super) fn results(output: &PutRecordsOutput, count: usize) -> Vec<Result<Place>> {
    if output.records.len() == count {
        return output.records.iter().map(result).collect();
    }
    let told =
        format!("the service answered {} of {count} records, so nobody knows which", output.records.len());
    vec![Err(Error::new(ErrorKind::UnknownOutcome, told)); count]
}

fn result(entry: &PutRecordsResultEntry) -> Result<Place> {
    if let Some(code) = &entry.error_code {
        // the service says of each entry that failed that it is not stored
        let kind = match kind_of(code) {
            Some(ErrorKind::UnknownOutcome) | None => ErrorKind::Unavailable,
            Some(kind) => kind,
        };
        let told = entry.error_message.as_deref().unwrap_or("no more is said");
        return Err(Error::new(kind, format!("{code}: {told}")));
    }
    let missing =
        || Error::new(ErrorKind::UnknownOutcome, "a record was answered with neither place nor error");
    let (shard, number) =
        entry.shard_id.as_deref().zip(entry.sequence_number.as_deref()).ok_or_else(missing)?;
    let unknown = |error: tidemill_types::Error| Error::new(ErrorKind::UnknownOutcome, error.to_string());
    Ok(Place { shard: shard.parse().map_err(unknown)?, number: number.parse().map_err(unknown)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(shard: &str, number: &str) -> PutRecordsResultEntry {
        PutRecordsResultEntry::builder().shard_id(shard).sequence_number(number).build()
    }

    #[test]
    fn each_entry_is_told_its_own() {
        let throttled = "ProvisionedThroughputExceededException";
        let failed =
            |code: &str| PutRecordsResultEntry::builder().error_code(code).error_message("why").build();
        let output = PutRecordsOutput::builder()
            .records(entry(
                "shardId-000000000003",
                "49545115243490985018280067714973144582180062593244200961",
            ))
            .records(failed(throttled))
            .records(failed("InternalFailure"))
            .build()
            .unwrap();
        let results = results(&output, 3);
        assert_eq!(results[0].as_ref().unwrap().shard, ShardId::new(3).unwrap());
        let error = results[1].as_ref().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Throttled);
        assert!(error.message().contains(throttled) && error.message().contains("why"), "{error}");
        assert_eq!(results[2].as_ref().unwrap_err().kind(), ErrorKind::Unavailable);
    }

    #[test]
    fn an_answer_of_another_length_tells_nothing_of_any_record() {
        let output = PutRecordsOutput::builder().records(entry("shardId-000000000000", "1")).build().unwrap();
        let results = results(&output, 2);
        assert_eq!(results.len(), 2);
        assert!(results.iter().all(|r| r.as_ref().unwrap_err().kind() == ErrorKind::UnknownOutcome));
    }

    #[test]
    fn codes_are_known_with_and_without_what_stands_before_them() {
        let throttled = Some(ErrorKind::Throttled);
        assert_eq!(kind_of("com.amazonaws.kinesis.v20131202#LimitExceededException"), throttled);
        assert_eq!(kind_of("LimitExceededException"), throttled);
        assert_eq!(kind_of("AccessDeniedException"), None);
    }
}
