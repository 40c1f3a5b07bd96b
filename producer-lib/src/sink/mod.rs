//! Where records go: a Tidemill broker over its own protocol, or Amazon Kinesis over its API. What differs between the two
//! is here; the stages before are the same.

#[cfg(feature = "aws")]
pub(crate) mod aws;
#[cfg(feature = "discard")]
mod discard;
pub(crate) mod grpc;

use crate::config::{Config, Target};
use crate::error::Result;
use crate::producer::Shared;
use std::sync::Arc;
use tidemill_proto::client::{Channel, Control, Endpoint};
use tidemill_proto::convert::ShardList;
use tidemill_types::StreamName;

pub(crate) enum Sink {
    Grpc(Box<Broker>),
    #[cfg(feature = "aws")]
    Aws(Arc<aws::Service>),
    /// Nothing; streams have so many shards.
    #[cfg(feature = "discard")]
    Discard(u32),
}

/// A Tidemill broker.
pub(crate) struct Broker {
    endpoint: Endpoint,
    control: Control,
}

/// What must be known of a stream to put into it.
pub(crate) struct Opened {
    pub(crate) list: ShardList,
    /// The largest record, data and key, if that is judged here.
    pub(crate) record_bytes_max: Option<usize>,
}

impl Sink {
    /// Makes ready; a broker must be there.
    pub(crate) async fn connect(config: &Config) -> Result<Self> {
        Ok(match &config.target {
            Target::Tidemill(endpoint) => {
                let control = Control::new(Channel::connect(endpoint).await?, rand::random());
                Self::Grpc(Box::new(Broker { endpoint: endpoint.clone(), control }))
            }
            #[cfg(feature = "aws")]
            Target::Aws(aws) => Self::Aws(Arc::new(aws::Service::connect(aws).await?)),
            #[cfg(feature = "discard")]
            Target::Discard(shards) => Self::Discard(*shards),
        })
    }
    pub(crate) async fn open(&self, stream: &StreamName) -> tidemill_proto::Result<Opened> {
        match self {
            Self::Grpc(_) => Ok(Opened { list: self.list_shards(stream).await?, record_bytes_max: None }),
            #[cfg(feature = "aws")]
            Self::Aws(service) => service.open(stream).await,
            #[cfg(feature = "discard")]
            Self::Discard(_) => Ok(Opened { list: self.list_shards(stream).await?, record_bytes_max: None }),
        }
    }
    /// The open shards.
    pub(crate) async fn list_shards(&self, stream: &StreamName) -> tidemill_proto::Result<ShardList> {
        match self {
            Self::Grpc(broker) => broker.control.list_shards(stream).await,
            #[cfg(feature = "aws")]
            Self::Aws(service) => service.list_shards(stream).await,
            #[cfg(feature = "discard")]
            Self::Discard(shards) => discard::list_shards(*shards),
        }
    }
    /// Starts the tasks that send, one a connection.
    pub(crate) fn start(&self, shared: &Arc<Shared>) {
        for connection in shared.maker.connections.iter().cloned() {
            let seed = rand::random();
            match self {
                Self::Grpc(broker) => {
                    let endpoint = broker.endpoint.clone();
                    shared.spawn(grpc::session::run(shared.clone(), endpoint, connection, seed));
                }
                #[cfg(feature = "aws")]
                Self::Aws(service) => {
                    shared.spawn(aws::session::run(shared.clone(), service.clone(), connection, seed));
                }
                #[cfg(feature = "discard")]
                Self::Discard(_) => shared.spawn(discard::run(shared.clone(), connection, seed)),
            }
        }
    }
}
