//! Changes of settings, consumers and accounts as the owner runs them.

use super::accounts::AccountInfo;
use super::consumers::{ConsumerInfo, ConsumerUpdate};
use super::owner::Owner;
use super::settings::{StreamUpdate, Tags};
use crate::error::{Error, ErrorKind, Result};
use crate::stream::Updated;
use tidemill_types::{AccountId, ConsumerName, StreamKey};

impl Owner {
    pub(super) async fn update(&mut self, _key: &StreamKey, _update: StreamUpdate) -> Result<Updated> {
        Err(not_built())
    }
    pub(super) async fn register_consumer(
        &mut self,
        _key: &StreamKey,
        _name: ConsumerName,
        _tags: Tags,
    ) -> Result<ConsumerInfo> {
        Err(not_built())
    }
    pub(super) async fn update_consumer(
        &mut self,
        _key: &StreamKey,
        _name: &ConsumerName,
        _update: ConsumerUpdate,
    ) -> Result<()> {
        Err(not_built())
    }
    pub(super) async fn deregister_consumer(&mut self, _key: &StreamKey, _name: &ConsumerName) -> Result<()> {
        Err(not_built())
    }
    pub(super) async fn set_commitment(
        &mut self,
        _account: &AccountId,
        _enabled: bool,
    ) -> Result<AccountInfo> {
        Err(not_built())
    }
}

fn not_built() -> Error {
    Error::new(ErrorKind::Precondition, "not offered by this version of tidemill")
}
