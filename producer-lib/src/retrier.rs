//! The retrier: what to do with a batch after a failed attempt, and how to tell it when nothing more is done. Pure.

use crate::batch::{Batch, Sent};
use crate::error::Error;
use std::time::Duration;
use tidemill_proto::client::Backoff;
use tidemill_proto::{ErrorKind, Outcome};

/// Waits between attempts of a batch or of a connection. Attempts are bounded by the record's deadline alone.
pub(crate) const BACKOFF: Backoff =
    Backoff { base: Duration::from_millis(10), cap: Duration::from_secs(1), attempts_max: u32::MAX };

/// What a failed attempt calls for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Send it again, under the same number, after a wait.
    Again,
    /// The shard takes no more: look at the shards and route the records anew. This attempt wrote nothing.
    Reroute,
    /// Tell the tickets.
    Fail,
}

/// What happens to a batch that is stored already and comes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeats {
    /// It is recognised by its number, and answered as the first time.
    Recognised,
    /// It is stored again.
    Stored,
}

/// What is done after failures that leave a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) repeats: Repeats,
    pub(crate) throttled: Decision,
    pub(crate) unknown: Decision,
}

impl Policy {
    /// For a broker that recognises what it has stored: try again whatever happened.
    pub(crate) const RECOGNISED: Self =
        Self { repeats: Repeats::Recognised, throttled: Decision::Again, unknown: Decision::Again };

    /// Decides by the kind of the failure.
    pub(crate) fn decide(self, kind: ErrorKind) -> Decision {
        match kind {
            ErrorKind::Throttled => self.throttled,
            ErrorKind::UnknownOutcome => self.unknown,
            ErrorKind::Unavailable => Decision::Again,
            ErrorKind::ShardClosed | ErrorKind::NotFound => Decision::Reroute,
            _ => Decision::Fail,
        }
    }
}

/// What the tickets of a batch are told that is given up after `cause`.
pub(crate) fn refusal(batch: &Batch, cause: &tidemill_proto::Error) -> Error {
    let (kind, told) = certain(batch.uncertain, cause.kind(), cause.message());
    Error::with_history(kind, told, &batch.attempts)
}

/// What the tickets of a batch are told that was not acknowledged in time. `at_broker`: an attempt is still unanswered.
pub(crate) fn expiry(batch: &Batch, at_broker: bool, connection: Option<&tidemill_proto::Error>) -> Error {
    let tried = match batch.attempts.made() {
        0 => "it was never sent".to_owned(),
        made => format!("it was sent {made} times"),
    };
    let (kind, cause) = match (batch.attempts.last(), connection) {
        _ if at_broker => (ErrorKind::UnknownOutcome, "the last attempt is not answered".to_owned()),
        (_, Some(error)) => (error.kind(), error.message().to_owned()),
        (Some(attempt), None) => (attempt.kind, attempt.cause.clone()),
        (None, None) => (
            ErrorKind::Unavailable,
            "it waited for its turn, as records are taken more slowly than they are put".to_owned(),
        ),
    };
    // what is true of the last cause need not be true of the batch
    let kind = if batch.attempts.made() == 0 { ErrorKind::Unavailable } else { kind };
    let told = format!("the record was not acknowledged within its deadline; {tried}; last cause: {cause}");
    let (kind, told) = certain(batch.uncertain || at_broker, kind, &told);
    Error::with_history(kind, told, &batch.attempts)
}

/// Whether a batch may be stored already.
pub(crate) fn sent(batch: &Batch, at_broker: bool) -> Sent {
    if at_broker || batch.uncertain { Sent::MaybeStored } else { Sent::NotStored }
}

/// A batch of which an attempt may have been stored never fails as if none was.
fn certain(uncertain: bool, kind: ErrorKind, message: &str) -> (ErrorKind, String) {
    if uncertain && kind.outcome() == Outcome::NotDone {
        let told =
            format!("an earlier attempt was not answered, so the record may be stored; then: {message}");
        return (ErrorKind::UnknownOutcome, told);
    }
    (kind, message.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_wrote_nothing_here_is_routed_anew() {
        let decide = |kind| Policy::RECOGNISED.decide(kind);
        assert_eq!(decide(ErrorKind::ShardClosed), Decision::Reroute);
        assert_eq!(decide(ErrorKind::UnknownOutcome), Decision::Again);
        assert_eq!(decide(ErrorKind::Conflict), Decision::Fail);
    }

    #[test]
    fn who_would_rather_fail_than_try_again_does() {
        let (repeats, again) = (Repeats::Stored, Decision::Again);
        let decide = |throttled, unknown, kind| Policy { repeats, throttled, unknown }.decide(kind);
        assert_eq!(decide(Decision::Fail, again, ErrorKind::Throttled), Decision::Fail);
        assert_eq!(decide(again, Decision::Fail, ErrorKind::UnknownOutcome), Decision::Fail);
        assert_eq!(decide(Decision::Fail, Decision::Fail, ErrorKind::Unavailable), again);
    }

    #[test]
    fn a_batch_that_may_be_stored_never_fails_as_if_it_were_not() {
        for kind in [ErrorKind::ShardClosed, ErrorKind::Throttled, ErrorKind::Conflict, ErrorKind::NotFound] {
            let (told, message) = certain(true, kind, "the cause");
            assert_eq!(told, ErrorKind::UnknownOutcome);
            assert!(message.contains("the cause"));
            assert_eq!(certain(false, kind, "the cause").0, kind);
        }
    }
}
