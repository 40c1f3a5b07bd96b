//! Resharding as the owner runs it.

use super::owner::Owner;
use crate::error::{Error, ErrorKind, Result};
use crate::stream::Scaled;
use tidemill_types::{HashKey, ShardId, StreamKey};

impl Owner {
    pub(super) async fn split(&mut self, _key: &StreamKey, _shard: ShardId, _at: HashKey) -> Result<()> {
        Err(not_built())
    }
    pub(super) async fn merge(
        &mut self,
        _key: &StreamKey,
        _shard: ShardId,
        _adjacent: ShardId,
    ) -> Result<()> {
        Err(not_built())
    }
    pub(super) async fn scale(&mut self, _key: &StreamKey, _target: u32) -> Result<Scaled> {
        Err(not_built())
    }
}

fn not_built() -> Error {
    Error::new(ErrorKind::Precondition, "not offered by this version of tidemill")
}
