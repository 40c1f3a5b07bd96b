//! Keys of leases: the shard's id where a table serves one stream; `account:stream:creationEpoch:shardId` where it serves
//! many, so that a stream made anew under an old name has leases of its own.
//!
//! A table keeps the layout it began with. Not here: leases of former streams stay until an operator removes them.

use crate::fetch::KinesisApi;
use crate::shard::ShardRef;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tidemill_proto::{Error, ErrorKind, Result};
use tidemill_types::{ShardId, StreamName};

/// How leases are named.
#[derive(Debug, Clone)]
pub(crate) enum Keys {
    /// All are of this stream.
    OneStream(StreamName),
    /// Streams are told apart by what the service says of them.
    ManyStreams {
        /// Whom to ask.
        api: KinesisApi,
        /// Answers so far.
        known: Arc<Mutex<HashMap<StreamName, String>>>,
    },
}

/// The part of a table that is one stream's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scope {
    /// `account:stream:creationEpoch`; nothing where the table is one stream's.
    pub(super) stream: Option<String>,
}

impl Keys {
    pub(crate) fn one_stream(stream: StreamName) -> Self {
        Self::OneStream(stream)
    }
    pub(crate) fn many_streams(api: KinesisApi) -> Self {
        Self::ManyStreams { api, known: Arc::default() }
    }

    pub(super) async fn scope(&self, stream: &StreamName) -> Result<Scope> {
        match self {
            Self::OneStream(only) if only == stream => Ok(Scope { stream: None }),
            // the other streams are worked on all the same
            Self::OneStream(only) => Err(Error::new(
                ErrorKind::NotFound,
                format!(
                    "the lease table is laid out for the stream {only} alone; for {stream} too, begin with a table for \
                     many streams"
                ),
            )),
            Self::ManyStreams { api, known } => {
                let found = known.lock().get(stream).cloned();
                let identifier = match found {
                    Some(identifier) => identifier,
                    None => api.summary(stream).await?.identifier(stream),
                };
                known.lock().insert(stream.clone(), identifier.clone());
                Ok(Scope { stream: Some(identifier) })
            }
        }
    }

    pub(super) async fn key(&self, at: &ShardRef) -> Result<String> {
        Ok(self.scope(at.stream()).await?.key(at.shard()))
    }
}

impl Scope {
    pub(super) fn key(&self, shard: ShardId) -> String {
        match &self.stream {
            Some(stream) => format!("{stream}:{shard}"),
            None => shard.to_string(),
        }
    }
    /// The shard that a key is for; nothing if it is of another stream.
    pub(super) fn shard(&self, key: &str) -> Option<ShardId> {
        let shard = match &self.stream {
            Some(stream) => key.strip_prefix(stream.as_str())?.strip_prefix(':')?,
            None => key,
        };
        let id: ShardId = shard.parse().ok()?;
        (id.to_string() == shard).then_some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_name_the_shard_and_where_there_are_many_streams_the_stream() {
        let id = ShardId::new(7).unwrap();
        let one = Scope { stream: None };
        assert_eq!(one.key(id), "shardId-000000000007");
        let many = Scope { stream: Some("123456789012:events:1700000000".into()) };
        assert_eq!(many.key(id), "123456789012:events:1700000000:shardId-000000000007");
        for scope in [one, many] {
            assert_eq!(scope.shard(&scope.key(id)), Some(id));
            for foreign in ["123456789012:events:1:shardId-000000000007", "Leader", "shardId-7", "7", ""] {
                assert_eq!(scope.shard(foreign), None, "{foreign}");
            }
        }
    }

    #[tokio::test]
    async fn a_table_of_one_stream_takes_no_other() {
        let [one, other] = ["one", "other"].map(|name| StreamName::new(name).unwrap());
        let keys = Keys::one_stream(one.clone());
        assert_eq!(keys.scope(&one).await.unwrap(), Scope { stream: None });
        assert!(keys.scope(&other).await.unwrap_err().message().contains("many"));
    }
}
