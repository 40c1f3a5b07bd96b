//! Connections to a broker over gRPC, and the streams of a measurement made over them: what the targets `grpc` and `bare`
//! share.

use crate::error::Result;
use tidemill_proto::client::{Channel, Control, Endpoint};
use tidemill_types::limits::RETENTION_HOURS_DEFAULT;
use tidemill_types::{Shard, ShardMap, StreamName};

/// Connections to one broker.
pub(super) struct Connections {
    pub(super) channels: Vec<Channel>,
    control: Control,
}

impl Connections {
    pub(super) async fn open(endpoint: &Endpoint, connections: u32) -> Result<Self> {
        let mut channels = Vec::new();
        for _ in 0..connections {
            channels.push(Channel::connect(endpoint).await?);
        }
        let control = Control::new(channels[0].clone(), rand::random());
        Ok(Self { channels, control })
    }

    pub(super) async fn create(&self, stream: &StreamName, shards: u32) -> Result<()> {
        self.control.create_stream(stream, shards, RETENTION_HOURS_DEFAULT).await?;
        Ok(())
    }

    pub(super) async fn delete(&self, stream: &StreamName) -> Result<()> {
        Ok(self.control.delete_stream(stream).await?)
    }

    pub(super) async fn shards(&self, stream: &StreamName) -> Result<Vec<Shard>> {
        Ok(self.control.list_shards(stream).await?.shards)
    }

    /// One small call over each.
    pub(super) async fn use_each(&self, stream: &StreamName) -> Result<()> {
        for channel in &self.channels {
            Control::new(channel.clone(), rand::random()).describe_stream(stream).await?;
        }
        Ok(())
    }

    pub(super) async fn map(&self, stream: &StreamName) -> Result<ShardMap> {
        Ok(self.control.list_shards(stream).await?.map)
    }
}
