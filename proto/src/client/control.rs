//! The calls on streams and shards, in nouns, each with a deadline and repeated where that is safe.
//!
//! Looking is repeated after every retryable failure. What changes something is repeated only when nothing was done: after
//! an unknown outcome the caller gets that, and looks.

use super::channel::Channel;
use super::retry::Backoff;
use crate::convert::{ShardList, StreamDescription, hash_key_to_wire, required};
use crate::v1;
use crate::{Error, ErrorKind, Outcome, Result};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tidemill_types::{HashKey, ShardId, StreamName};
use tokio::time::Instant;

/// One attempt may take this long.
const ATTEMPT_DEADLINE: Duration = Duration::from_secs(10);
/// All attempts of a call and the waits between them may take this long.
const CALL_DEADLINE: Duration = Duration::from_secs(30);

/// Streams by name, a page of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamPage {
    /// Ascending by name.
    pub streams: Vec<StreamDescription>,
    /// Whether more follow the last one.
    pub more: bool,
}

/// What scaling a stream came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scaled {
    /// Open shards before.
    pub before: u32,
    /// Open shards now.
    pub after: u32,
}

/// Whether a call may be done twice.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeat {
    Freely,
    OnlyIfNotDone,
}

/// Creates, deletes, describes, lists and reshards streams. Shared by its clones. Cancelling a call is safe; whether a
/// cancelled one that changes something was done is unknown.
#[derive(Debug, Clone)]
pub struct Control {
    channel: Channel,
    backoff: Backoff,
    seed: Arc<AtomicU64>,
}

impl Control {
    /// Over a channel. `seed` feeds the jitter of repetitions; any number will do.
    pub fn new(channel: Channel, seed: u64) -> Self {
        Self { channel, backoff: Backoff::default(), seed: Arc::new(AtomicU64::new(seed)) }
    }

    /// Creates a stream of 1 to 10,000 shards that keeps records for 24 to 8,760 hours.
    /// [`ErrorKind::AlreadyExists`] if the name is taken.
    pub async fn create_stream(
        &self,
        stream: &StreamName,
        shard_count: u32,
        retention_hours: u32,
    ) -> Result<StreamDescription> {
        let request = v1::CreateStreamRequest { stream: stream.to_string(), shard_count, retention_hours };
        let made = self
            .call("creating the stream", Repeat::OnlyIfNotDone, || {
                let (mut client, request) = (self.channel.control(), bounded(request.clone()));
                async move { client.create_stream(request).await }
            })
            .await?;
        required(made.stream, "stream")?.try_into()
    }

    /// Deletes a stream and all its records. [`ErrorKind::NotFound`] if there is none.
    pub async fn delete_stream(&self, stream: &StreamName) -> Result<()> {
        let request = v1::DeleteStreamRequest { stream: stream.to_string() };
        self.call("deleting the stream", Repeat::OnlyIfNotDone, || {
            let (mut client, request) = (self.channel.control(), bounded(request.clone()));
            async move { client.delete_stream(request).await }
        })
        .await
        .map(drop)
    }

    /// What the broker knows of a stream. [`ErrorKind::NotFound`] if there is none.
    pub async fn describe_stream(&self, stream: &StreamName) -> Result<StreamDescription> {
        let request = v1::DescribeStreamRequest { stream: stream.to_string() };
        let found = self
            .call("describing the stream", Repeat::Freely, || {
                let (mut client, request) = (self.channel.control(), bounded(request.clone()));
                async move { client.describe_stream(request).await }
            })
            .await?;
        required(found.stream, "stream")?.try_into()
    }

    /// Up to `limit` (1 to 1,000) streams, those after a name or from the first.
    pub async fn list_streams(&self, after: Option<&StreamName>, limit: u32) -> Result<StreamPage> {
        let after = after.map(ToString::to_string).unwrap_or_default();
        let request = v1::ListStreamsRequest { after, limit };
        let page = self
            .call("listing streams", Repeat::Freely, || {
                let (mut client, request) = (self.channel.control(), bounded(request.clone()));
                async move { client.list_streams(request).await }
            })
            .await?;
        let streams = page.streams.into_iter().map(TryInto::try_into).collect::<Result<_>>()?;
        Ok(StreamPage { streams, more: page.more })
    }

    /// All shards of a stream, and the map to route by. [`ErrorKind::NotFound`] if there is no such stream.
    pub async fn list_shards(&self, stream: &StreamName) -> Result<ShardList> {
        let request = v1::ListShardsRequest { stream: stream.to_string() };
        self.call("listing the shards", Repeat::Freely, || {
            let (mut client, request) = (self.channel.control(), bounded(request.clone()));
            async move { client.list_shards(request).await }
        })
        .await?
        .try_into()
    }

    /// Splits an open shard: its upper child begins at `at`, which lies above its first hash key plus one and below its
    /// last. [`ErrorKind::Invalid`] if it is closed already or `at` does not lie within.
    pub async fn split_shard(&self, stream: &StreamName, shard: ShardId, at: HashKey) -> Result<()> {
        let request = v1::SplitShardRequest {
            stream: stream.to_string(),
            shard: shard.get(),
            hash_start: hash_key_to_wire(at),
        };
        self.call("splitting the shard", Repeat::OnlyIfNotDone, || {
            let (mut client, request) = (self.channel.control(), bounded(request.clone()));
            async move { client.split_shard(request).await }
        })
        .await
        .map(drop)
    }

    /// Merges two open shards, the second beginning where the first ends. [`ErrorKind::Invalid`] otherwise.
    pub async fn merge_shards(&self, stream: &StreamName, shard: ShardId, adjacent: ShardId) -> Result<()> {
        let request = v1::MergeShardsRequest {
            stream: stream.to_string(),
            shard: shard.get(),
            adjacent_shard: adjacent.get(),
        };
        self.call("merging the shards", Repeat::OnlyIfNotDone, || {
            let (mut client, request) = (self.channel.control(), bounded(request.clone()));
            async move { client.merge_shards(request).await }
        })
        .await
        .map(drop)
    }

    /// Splits and merges until `shard_count` open shards share the hash space equally. [`ErrorKind::Invalid`] if there are
    /// that many already.
    pub async fn scale_stream(&self, stream: &StreamName, shard_count: u32) -> Result<Scaled> {
        let request = v1::ScaleStreamRequest { stream: stream.to_string(), shard_count };
        let scaled = self
            .call("scaling the stream", Repeat::OnlyIfNotDone, || {
                let (mut client, request) = (self.channel.control(), bounded(request.clone()));
                async move { client.scale_stream(request).await }
            })
            .await?;
        Ok(Scaled { before: scaled.before, after: scaled.after })
    }

    async fn call<T, F>(&self, what: &str, repeat: Repeat, attempt: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = std::result::Result<tonic::Response<T>, tonic::Status>>,
    {
        let give_up = Instant::now() + CALL_DEADLINE;
        let mut rng = StdRng::seed_from_u64(self.seed.fetch_add(1, Ordering::Relaxed));
        let mut attempts = 0;
        loop {
            attempts += 1;
            // the broker is asked to keep the deadline; a broker that hangs is not waited for
            let error = match tokio::time::timeout(ATTEMPT_DEADLINE, attempt()).await {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) => Error::from(status),
                Err(_) => {
                    Error::new(ErrorKind::UnknownOutcome, format!("no answer within {ATTEMPT_DEADLINE:?}"))
                }
            };
            let repeatable = error.kind().is_retryable()
                && (repeat == Repeat::Freely || error.kind().outcome() == Outcome::NotDone);
            let wait = if repeatable { self.backoff.after(attempts, &mut rng) } else { None };
            match wait.filter(|wait| Instant::now() + *wait < give_up) {
                Some(wait) => {
                    tracing::debug!(what, attempts, %error, "trying again");
                    tokio::time::sleep(wait).await;
                }
                None if attempts > 1 => return Err(error.during(&format!("{what}, attempt {attempts}"))),
                None => return Err(error),
            }
        }
    }
}

fn bounded<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(ATTEMPT_DEADLINE);
    request
}
