//! Asking the limits before something is made or changed: each operation that they bound has its question here.
//!
//! What is asked for is kept as long as the answer is held, so hold it until the engine has answered. What would change
//! nothing, or be refused by the engine in any case, asks for nothing.

use super::Call;
use super::address::Opened;
use super::error::ApiError;
use crate::limits::{Change, Room, Turn};
use tidemill_engine::{StreamMode, StreamSpec};
use tidemill_types::{AccountId, ConsumerName, ShardId, StreamKey};

type Result<T> = std::result::Result<T, ApiError>;

impl Call {
    /// Counts the call.
    pub(super) fn admit(&self, stream: Option<&StreamKey>) -> Result<()> {
        self.state.limits().admit(self.caller.account(), self.operation, stream)
    }

    /// Counts a call of GetShardIterator.
    pub(super) fn admit_iterator(&self, stream: &StreamKey, shard: ShardId) -> Result<()> {
        self.state.limits().admit_iterator(stream, shard)
    }

    /// Room for a new stream.
    pub(super) fn room_for_stream(
        &self,
        key: &StreamKey,
        spec: &StreamSpec,
    ) -> Result<(Option<Room<'_>>, Option<Room<'_>>)> {
        if self.state.engine().stream(key).is_ok() {
            return Ok((None, None));
        }
        let shards = self.room_for_shards(&key.account, spec.shard_count)?;
        let stream = match spec.settings.mode {
            StreamMode::OnDemand => Some(self.room_on_demand(&key.account)?),
            StreamMode::Provisioned => None,
        };
        Ok((Some(shards), stream))
    }

    /// Room for so many more open shards.
    pub(super) fn room_for_shards(&self, account: &AccountId, more: u32) -> Result<Room<'_>> {
        let open = || self.state.engine().account(account).open_shards;
        self.state.limits().shards(account, self.state.region().as_str(), more, open)
    }

    fn room_on_demand(&self, account: &AccountId) -> Result<Room<'_>> {
        let present = || self.state.engine().account(account).on_demand_streams;
        self.state.limits().on_demand_stream(account, self.state.region().as_str(), present)
    }

    /// Room for another consumer.
    pub(super) fn room_for_consumer(&self, of: &Opened, name: &ConsumerName) -> Result<Option<Room<'_>>> {
        if of.stream.consumer(name).is_ok() {
            return Ok(None);
        }
        let present = || u32::try_from(of.stream.consumers().len()).unwrap_or(u32::MAX);
        self.state.limits().consumer(&of.key, present).map(Some)
    }

    /// Leave to scale a stream to so many shards.
    pub(super) fn leave_to_scale(&self, of: &Opened, target: u32) -> Result<(Room<'_>, Turn<'_>)> {
        let open = of.stream.info().open_shards;
        self.state.limits().scale(open, target)?;
        let room = self.room_for_shards(&of.key.account, target.saturating_sub(open))?;
        Ok((room, self.leave_to_change(of, Change::ShardCount)?))
    }

    /// Leave to change the mode of a stream.
    pub(super) fn leave_to_switch(
        &self,
        of: &Opened,
        mode: StreamMode,
    ) -> Result<Option<(Option<Room<'_>>, Turn<'_>)>> {
        if of.stream.info().settings.mode == mode {
            return Ok(None);
        }
        let room = match mode {
            StreamMode::OnDemand => Some(self.room_on_demand(&of.key.account)?),
            StreamMode::Provisioned => None,
        };
        Ok(Some((room, self.leave_to_change(of, Change::Mode)?)))
    }

    /// Leave to change what may be changed only so often.
    pub(super) fn leave_to_change(&self, of: &Opened, change: Change) -> Result<Turn<'_>> {
        self.state.limits().change(&of.key, change)
    }
}
