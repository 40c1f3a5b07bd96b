//! The calls on streams and shards, in nouns, each with a deadline and repeated where that is safe.

use super::call::{Calls, Repeat, bounded};
use super::channel::Channel;
use crate::Result;
use crate::convert::{ShardList, StreamDescription, hash_key_to_wire, required};
use crate::v1;
use tidemill_types::{HashKey, ShardId, StreamName};

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

/// Creates, deletes, describes, lists and reshards streams. Shared by its clones. Cancelling a call is safe; whether a
/// cancelled one that changes something was done is unknown.
#[derive(Debug, Clone)]
pub struct Control {
    channel: Channel,
    calls: Calls,
}

impl Control {
    /// Over a channel. `seed` feeds the jitter of repetitions; any number will do.
    pub fn new(channel: Channel, seed: u64) -> Self {
        Self { channel, calls: Calls::new(seed) }
    }

    /// Creates a stream of 1 to 10,000 shards that keeps records for 24 to 8,760 hours.
    /// [`ErrorKind::AlreadyExists`](crate::ErrorKind::AlreadyExists) if the name is taken.
    pub async fn create_stream(
        &self,
        stream: &StreamName,
        shard_count: u32,
        retention_hours: u32,
    ) -> Result<StreamDescription> {
        let request = v1::CreateStreamRequest { stream: stream.to_string(), shard_count, retention_hours };
        let made = self
            .calls
            .call("creating the stream", Repeat::OnlyIfNotDone, || {
                let (mut client, request) = (self.channel.control(), bounded(request.clone()));
                async move { client.create_stream(request).await }
            })
            .await?;
        required(made.stream, "stream")?.try_into()
    }

    /// Deletes a stream and all its records. [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) if there is none.
    pub async fn delete_stream(&self, stream: &StreamName) -> Result<()> {
        let request = v1::DeleteStreamRequest { stream: stream.to_string() };
        self.calls
            .call("deleting the stream", Repeat::OnlyIfNotDone, || {
                let (mut client, request) = (self.channel.control(), bounded(request.clone()));
                async move { client.delete_stream(request).await }
            })
            .await
            .map(drop)
    }

    /// What the broker knows of a stream. [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) if there is none.
    pub async fn describe_stream(&self, stream: &StreamName) -> Result<StreamDescription> {
        let request = v1::DescribeStreamRequest { stream: stream.to_string() };
        let found = self
            .calls
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
            .calls
            .call("listing streams", Repeat::Freely, || {
                let (mut client, request) = (self.channel.control(), bounded(request.clone()));
                async move { client.list_streams(request).await }
            })
            .await?;
        let streams = page.streams.into_iter().map(TryInto::try_into).collect::<Result<_>>()?;
        Ok(StreamPage { streams, more: page.more })
    }

    /// All shards of a stream, and the map to route by. [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) if there is no such stream.
    pub async fn list_shards(&self, stream: &StreamName) -> Result<ShardList> {
        let request = v1::ListShardsRequest { stream: stream.to_string() };
        self.calls
            .call("listing the shards", Repeat::Freely, || {
                let (mut client, request) = (self.channel.control(), bounded(request.clone()));
                async move { client.list_shards(request).await }
            })
            .await?
            .try_into()
    }

    /// Splits an open shard: its upper child begins at `at`, which lies above its first hash key plus one and below its
    /// last. [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if it is closed already or `at` does not lie within.
    pub async fn split_shard(&self, stream: &StreamName, shard: ShardId, at: HashKey) -> Result<()> {
        let request = v1::SplitShardRequest {
            stream: stream.to_string(),
            shard: shard.get(),
            hash_start: hash_key_to_wire(at),
        };
        self.calls
            .call("splitting the shard", Repeat::OnlyIfNotDone, || {
                let (mut client, request) = (self.channel.control(), bounded(request.clone()));
                async move { client.split_shard(request).await }
            })
            .await
            .map(drop)
    }

    /// Merges two open shards, the second beginning where the first ends. [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) otherwise.
    pub async fn merge_shards(&self, stream: &StreamName, shard: ShardId, adjacent: ShardId) -> Result<()> {
        let request = v1::MergeShardsRequest {
            stream: stream.to_string(),
            shard: shard.get(),
            adjacent_shard: adjacent.get(),
        };
        self.calls
            .call("merging the shards", Repeat::OnlyIfNotDone, || {
                let (mut client, request) = (self.channel.control(), bounded(request.clone()));
                async move { client.merge_shards(request).await }
            })
            .await
            .map(drop)
    }

    /// Splits and merges until `shard_count` open shards share the hash space equally. [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if there are
    /// that many already.
    pub async fn scale_stream(&self, stream: &StreamName, shard_count: u32) -> Result<Scaled> {
        let request = v1::ScaleStreamRequest { stream: stream.to_string(), shard_count };
        let scaled = self
            .calls
            .call("scaling the stream", Repeat::OnlyIfNotDone, || {
                let (mut client, request) = (self.channel.control(), bounded(request.clone()));
                async move { client.scale_stream(request).await }
            })
            .await?;
        Ok(Scaled { before: scaled.before, after: scaled.after })
    }
}
