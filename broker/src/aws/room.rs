//! Asking the limits before something is made or changed: each operation that they bound has its question here.
//!
//! What is asked for is kept as long as the answer is held, so hold it until the engine has answered: [`see_through`]
//! does, also when the caller does not wait. What would change nothing, or be refused by the engine in any case, asks for
//! nothing.

use super::Call;
use super::address::Opened;
use super::error::{self, ApiError, Code};
use crate::limits::{Change, Room, Turn};
use tidemill_engine::{StreamMode, StreamSpec};
use tidemill_types::{AccountId, ConsumerName, HashKey, Shard, ShardId, StreamKey};

type Result<T> = std::result::Result<T, ApiError>;

/// Does what there is room for, in a task of its own: what happens after a caller has gone must be counted as well.
pub(super) async fn see_through<T: Send + 'static>(
    room: impl Send + 'static,
    turn: Option<Turn>,
    doing: impl Future<Output = tidemill_engine::Result<T>> + Send + 'static,
) -> Result<T> {
    let seen = tokio::spawn(async move {
        let done = doing.await;
        if let (Ok(_), Some(turn)) = (&done, turn) {
            turn.happened();
        }
        drop(room);
        done
    });
    let broken =
        |_| ApiError::new(Code::InternalFailure, "The change broke off; whether it happened is not known.");
    seen.await.map_err(broken)?.map_err(|error| error::of_control(&error))
}

impl Call {
    /// Counts the call. Where anyone may name any account, those without a stream are not counted, nor is what is asked
    /// about streams that are not there: whoever makes up names must not take the place of those who have some.
    pub(super) fn admit(&self, stream: Option<&StreamKey>) -> Result<()> {
        let (engine, account) = (self.state.engine(), self.caller.account());
        if !self.state.gate().verifies() && engine.account(account).streams == 0 {
            return Ok(());
        }
        let stream = stream.filter(|key| engine.stream(key).is_ok());
        self.state.limits().admit(account, self.operation, stream)
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
    ) -> Result<(Option<Room>, Option<Room>)> {
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
    pub(super) fn room_for_shards(&self, account: &AccountId, more: u32) -> Result<Room> {
        let open = || self.state.engine().account(account).open_shards;
        self.state.limits().shards(account, self.state.region().as_str(), more, open)
    }

    /// Room for a split, unless the engine is going to refuse it.
    pub(super) fn room_to_split(&self, of: &Opened, shard: ShardId, at: HashKey) -> Result<Option<Room>> {
        let inside = |shard: &Shard| shard.is_open() && shard.range.contains(at) && at != shard.range.start();
        if !of.stream.shards().iter().any(|found| found.id == shard && inside(found)) {
            return Ok(None);
        }
        self.room_for_shards(&of.key.account, 1).map(Some)
    }

    fn room_on_demand(&self, account: &AccountId) -> Result<Room> {
        let present = || self.state.engine().account(account).on_demand_streams;
        self.state.limits().on_demand_stream(account, self.state.region().as_str(), present)
    }

    /// Room for another consumer.
    pub(super) fn room_for_consumer(&self, of: &Opened, name: &ConsumerName) -> Result<Option<Room>> {
        if of.stream.consumer(name).is_ok() {
            return Ok(None);
        }
        let present = || u32::try_from(of.stream.consumers().len()).unwrap_or(u32::MAX);
        self.state.limits().consumer(&of.key, present).map(Some)
    }

    /// Leave to scale a stream to so many shards.
    pub(super) fn leave_to_scale(&self, of: &Opened, target: u32) -> Result<Option<(Room, Turn)>> {
        let info = of.stream.info();
        if info.settings.mode == StreamMode::OnDemand {
            // the engine refuses that
            return Ok(None);
        }
        let open = info.open_shards;
        self.state.limits().scale(open, target)?;
        let room = self.room_for_shards(&of.key.account, target.saturating_sub(open))?;
        Ok(Some((room, self.leave_to_change(of, Change::ShardCount)?)))
    }

    /// Leave to change the mode of a stream.
    pub(super) fn leave_to_switch(
        &self,
        of: &Opened,
        mode: StreamMode,
    ) -> Result<Option<(Option<Room>, Turn)>> {
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
    pub(super) fn leave_to_change(&self, of: &Opened, change: Change) -> Result<Turn> {
        self.state.limits().change(&of.key, change)
    }
}
