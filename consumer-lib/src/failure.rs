//! What an application wants done with a record that its processor fails on. A poison record never holds up other shards,
//! and nothing is skipped unless the application says so, and then never silently: it is logged, counted
//! (`RecordsSkipped`, `RecordsDeadLettered`) and shown in the status.
//!
//! Not here: finding the record in its batch, and the attempts (delivery).

use crate::error::{Error, ErrorKind, Result};
use crate::processor::ProcessError;
use crate::record::Record;
use std::fmt;
use std::future::Future;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use tidemill_types::{AppName, WorkerId};

/// Attempts that a policy may ask for.
const ATTEMPTS_MAX: u32 = 1_000_000;

type Put = dyn Fn(DeadLetter) -> Pin<Box<dyn Future<Output = Result<(), ProcessError>> + Send>> + Send + Sync;

/// What to do with a record that the processor fails on again and again.
///
/// When the processor names the record ([`ProcessError::at`]), its failures alone are counted. When it does not, a batch
/// that failed as often as the policy says is delivered record by record, which finds those that fail by themselves. In
/// between there is an exponential back-off with jitter, up to 10 s.
#[derive(Clone)]
pub struct OnFailure(pub(crate) Policy);

#[derive(Clone)]
pub(crate) enum Policy {
    Retry,
    Skip(NonZeroU32),
    StopShard(NonZeroU32),
    DeadLetter(NonZeroU32, Arc<Put>),
}

impl OnFailure {
    /// Call the processor again, for ever: the default. The shard waits, the others go on.
    pub fn retry() -> Self {
        Self(Policy::Retry)
    }
    /// After so many failed attempts (1 to 1,000,000) go on behind the record.
    pub fn skip_after(attempts: u32) -> Result<Self> {
        Ok(Self(Policy::Skip(bounded(attempts)?)))
    }
    /// After so many failed attempts (1 to 1,000,000) stop working on the shard, and keep its lease, so that no other worker
    /// runs into the same record: until [`WorkerHandle::resume`](crate::WorkerHandle::resume), or until the worker ends.
    pub fn stop_shard_after(attempts: u32) -> Result<Self> {
        Ok(Self(Policy::StopShard(bounded(attempts)?)))
    }
    /// After so many failed attempts (1 to 1,000,000) hand the record to `put`, with its position and the error, and go on
    /// behind it once `put` returned `Ok`; until then `put` is called again, with back-off. See
    /// [`DeadLetterStream`](crate::DeadLetterStream) for one that keeps them in a stream.
    pub fn dead_letter_after<F, Fut>(attempts: u32, put: F) -> Result<Self>
    where
        F: Fn(DeadLetter) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), ProcessError>> + Send + 'static,
    {
        let put: Arc<Put> = Arc::new(move |letter| Box::pin(put(letter)));
        Ok(Self(Policy::DeadLetter(bounded(attempts)?, put)))
    }

    /// Failed attempts before something other than trying again is done.
    pub(crate) fn attempts(&self) -> Option<NonZeroU32> {
        match &self.0 {
            Policy::Retry => None,
            Policy::Skip(attempts) | Policy::StopShard(attempts) | Policy::DeadLetter(attempts, _) => {
                Some(*attempts)
            }
        }
    }
}

impl Default for OnFailure {
    fn default() -> Self {
        Self::retry()
    }
}

impl fmt::Debug for OnFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Policy::Retry => f.write_str("retry"),
            Policy::Skip(attempts) => write!(f, "skip after {attempts}"),
            Policy::StopShard(attempts) => write!(f, "stop the shard after {attempts}"),
            Policy::DeadLetter(attempts, _) => write!(f, "dead letter after {attempts}"),
        }
    }
}

fn bounded(attempts: u32) -> Result<NonZeroU32> {
    let within = NonZeroU32::new(attempts).filter(|attempts| attempts.get() <= ATTEMPTS_MAX);
    within.ok_or_else(|| {
        let told = format!("attempts before a record is given up: 1 to {ATTEMPTS_MAX}, found {attempts}");
        Error::new(ErrorKind::Invalid, told)
    })
}

/// A record that was given up, and why.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The record, with its stream, shard, sequence number and arrival.
    pub record: Record,
    /// How often it was tried under this lease.
    pub attempts: u32,
    /// What the processor said last.
    pub error: String,
    /// The application that gave it up.
    pub app: AppName,
    /// The worker that did.
    pub worker: WorkerId,
}

impl DeadLetter {
    /// Most bytes of data in a letter's JSON, 512 KiB: so that the letter fits a record of 1 MiB.
    pub const DATA_BYTES_MAX: usize = 512 * 1024;

    /// As one JSON object: `app`, `worker`, `stream`, `shard`, `sequence_number`, `sub_sequence_number`, `arrival_ms`,
    /// `partition_key`, `attempts`, `error`, `data_bytes`, and `data_base64`, which is null for data of more than
    /// [`DeadLetter::DATA_BYTES_MAX`]: it is found by its position for as long as its stream keeps it.
    pub fn to_json(&self) -> String {
        let record = &self.record;
        let fits = record.data().len() <= Self::DATA_BYTES_MAX;
        let data = fits.then(|| base64_simd::STANDARD.encode_to_string(record.data()));
        serde_json::json!({
            "app": self.app.as_str(),
            "worker": self.worker.as_str(),
            "stream": record.stream().as_str(),
            "shard": record.shard().to_string(),
            "sequence_number": record.sequence_number().to_string(),
            "sub_sequence_number": record.sub_sequence_number(),
            "arrival_ms": record.arrival().get(),
            "partition_key": record.partition_key(),
            "attempts": self.attempts,
            "error": self.error,
            "data_bytes": record.data().len(),
            "data_base64": data,
        })
        .to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_without_attempts_is_refused() {
        for wrong in [OnFailure::skip_after(0), OnFailure::stop_shard_after(ATTEMPTS_MAX + 1)] {
            assert_eq!(wrong.unwrap_err().kind(), ErrorKind::Invalid);
        }
        assert_eq!(OnFailure::skip_after(3).unwrap().attempts().map(NonZeroU32::get), Some(3));
        assert_eq!(OnFailure::default().attempts(), None);
    }
}
