//! How much each account, stream and shard may ask for: the quotas of Kinesis, any others, or none.
//!
//! What it is: settings, and the counting behind them. Why: an application that lives within these limits here lives
//! within them there, and finds out on its developer's machine if it does not. How it lives: one `Limits` for the
//! Kinesis front end; rates are asked where the caller is authorized, counts where something is about to be made.
//! What is counted is forgotten at a restart, except what is there to be counted.
//!
//! Not here: throughput of shards, which the engine meters for both front ends; and what always holds (sizes, tags,
//! pages), which is validated, not counted.

mod changes;
mod rates;
mod rooms;

pub(crate) use changes::{Change, Turn};
pub(crate) use rooms::Room;

use crate::aws::{ApiError, Code, Operation};
use changes::Changes;
use rates::Rates;
use rooms::Rooms;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemill_engine::Quota;
use tidemill_types::{AccountId, Clock, ShardId, StreamKey};

/// What one shard may take and give. None: no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShardLimits {
    /// What the engine meters, for the native API as well.
    pub throughput: Quota,
    /// Calls of GetShardIterator.
    pub iterators_per_s: Option<u32>,
    /// Calls of SubscribeToShard by one consumer.
    pub subscriptions_per_s: Option<u32>,
}

/// What one stream may have, and how often it may change. None: no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamLimits {
    /// Registered consumers, where fewer than the engine takes in any case.
    pub consumers: Option<u32>,
    /// How many times more, or fewer, open shards one UpdateShardCount may leave.
    pub scale_factor: Option<u32>,
    /// Calls of UpdateShardCount in 24 hours.
    pub shard_count_updates_per_day: Option<u32>,
    /// Changes of the mode in 24 hours.
    pub mode_changes_per_day: Option<u32>,
    /// Changes of the encryption in 24 hours.
    pub encryption_changes_per_day: Option<u32>,
}

/// What one account may have. None: no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccountLimits {
    /// Open shards of all its streams.
    pub shards: Option<u32>,
    /// Streams in on-demand mode.
    pub on_demand_streams: Option<u32>,
}

/// The limits that a broker keeps. Default: none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LimitSettings {
    /// Of each shard.
    pub shard: ShardLimits,
    /// Of each stream.
    pub stream: StreamLimits,
    /// Of each account.
    pub account: AccountLimits,
    /// Calls of operations that manage streams.
    pub calls_per_s: CallLimits,
}

/// How often operations that manage streams may be called: by an account, a few of them for each stream by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallLimits {
    /// By the name of the operation.
    pub named: BTreeMap<String, u32>,
    /// Each of the others. None: no limit.
    pub others: Option<u32>,
}

/// Calls that are counted for each stream by itself.
const COUNTED_PER_STREAM: [Operation; 3] =
    [Operation::DeregisterStreamConsumer, Operation::DescribeStreamConsumer, Operation::ListShards];
/// Those that move records: the limits of shards are theirs.
const DATA: [Operation; 5] = [
    Operation::PutRecord,
    Operation::PutRecords,
    Operation::GetShardIterator,
    Operation::GetRecords,
    Operation::SubscribeToShard,
];

/// Calls a second in Kinesis, beside the usual one.
const CALLS_PER_S: [(Operation, u32); 6] = [
    (Operation::DescribeLimits, 1),
    (Operation::DescribeStream, 10),
    (Operation::UpdateShardCount, 10),
    (Operation::DescribeStreamSummary, 20),
    (Operation::DescribeStreamConsumer, 20),
    (Operation::ListShards, 1000),
];
/// The usual one.
const CALLS_PER_S_USUAL: u32 = 5;

impl LimitSettings {
    /// The quotas of Kinesis, as a new account in its largest regions has them.
    pub fn aws() -> Self {
        Self {
            shard: ShardLimits {
                throughput: Quota::AWS,
                iterators_per_s: Some(5),
                subscriptions_per_s: Some(1),
            },
            stream: StreamLimits {
                // as many as the engine takes, which depends on the commitment of the account
                consumers: None,
                scale_factor: Some(2),
                shard_count_updates_per_day: Some(10),
                mode_changes_per_day: Some(2),
                encryption_changes_per_day: Some(25),
            },
            account: AccountLimits { shards: Some(20_000), on_demand_streams: Some(50) },
            calls_per_s: CallLimits {
                named: CALLS_PER_S.map(|(operation, calls)| (operation.name().to_owned(), calls)).into(),
                others: Some(CALLS_PER_S_USUAL),
            },
        }
    }

    /// Whether calls of an operation of this name are counted.
    pub(crate) fn is_counted(name: &str) -> bool {
        Operation::from_name(name).is_some_and(|operation| !DATA.contains(&operation))
    }
}

type Result<T> = std::result::Result<T, ApiError>;

/// Keeps the limits.
pub(crate) struct Limits {
    settings: LimitSettings,
    clock: Arc<dyn Clock>,
    rates: Rates,
    changes: Changes,
    rooms: Rooms,
}

impl Limits {
    pub(crate) fn new(settings: LimitSettings, clock: Arc<dyn Clock>) -> Self {
        Self {
            settings,
            clock,
            rates: Rates::default(),
            changes: Changes::default(),
            rooms: Rooms::default(),
        }
    }

    /// What is set.
    pub(crate) fn settings(&self) -> &LimitSettings {
        &self.settings
    }

    /// Counts a call of `account` about `stream`, if it is about one, and refuses it when there were too many.
    pub(crate) fn admit(
        &self,
        account: &AccountId,
        operation: Operation,
        stream: Option<&StreamKey>,
    ) -> Result<()> {
        let calls = &self.settings.calls_per_s;
        let per_s = calls.named.get(operation.name()).copied().or(calls.others);
        let Some(per_s) = per_s.filter(|_| !DATA.contains(&operation)) else { return Ok(()) };
        let of = stream.filter(|_| COUNTED_PER_STREAM.contains(&operation));
        let key = match of {
            Some(stream) => format!("{}/{}/{}/{account}", operation.name(), stream.account, stream.name),
            None => format!("{}/{account}", operation.name()),
        };
        if self.rates.admit(key, per_s, self.clock.monotonic_us()) {
            return Ok(());
        }
        Err(rate_exceeded(account, stream))
    }

    /// Counts a call of GetShardIterator.
    pub(crate) fn admit_iterator(&self, stream: &StreamKey, shard: ShardId) -> Result<()> {
        let Some(per_s) = self.settings.shard.iterators_per_s else { return Ok(()) };
        let key = format!("iterator/{}/{}/{shard}", stream.account, stream.name);
        if self.rates.admit(key, per_s, self.clock.monotonic_us()) {
            return Ok(());
        }
        let StreamKey { account, name } = stream;
        let message = format!("Rate exceeded for shard {shard} in stream {name} under account {account}.");
        Err(ApiError::new(Code::ProvisionedThroughputExceeded, message))
    }

    /// Counts a call of SubscribeToShard by the consumer of this ARN.
    pub(crate) fn admit_subscription(
        &self,
        consumer: &str,
        stream: &StreamKey,
        shard: ShardId,
    ) -> Result<()> {
        let Some(per_s) = self.settings.shard.subscriptions_per_s else { return Ok(()) };
        let key = format!("subscription/{consumer}/{shard}");
        if self.rates.admit(key, per_s, self.clock.monotonic_us()) {
            return Ok(());
        }
        Err(rate_exceeded(&stream.account, Some(stream)))
    }

    /// Room for so many more shards of the account, of which there are `open`. It is kept until dropped: drop it when
    /// the shards are there to be counted, or will not be.
    pub(crate) fn shards(
        &self,
        account: &AccountId,
        region: &str,
        more: u32,
        open: impl FnOnce() -> u32,
    ) -> Result<Room> {
        let limit = self.settings.account.shards;
        self.rooms.take(format!("shards/{account}"), more, limit, open).map_err(|full| {
            let message = format!(
                "This request would exceed the shard limit for the account {account} in {region}. Current shard count \
                 for the account: {}. Limit: {}. Number of additional shards that would have resulted from this \
                 request: {more}. Refer to the AWS Service Limits page \
                 (http://docs.aws.amazon.com/general/latest/gr/aws_service_limits.html) for current limits and how to \
                 request higher limits.",
                full.taken, full.limit
            );
            ApiError::new(Code::LimitExceeded, message)
        })
    }

    /// Room for one more stream in on-demand mode, of which there are `present`.
    pub(crate) fn on_demand_stream(
        &self,
        account: &AccountId,
        region: &str,
        present: impl FnOnce() -> u32,
    ) -> Result<Room> {
        let limit = self.settings.account.on_demand_streams;
        self.rooms.take(format!("on-demand/{account}"), 1, limit, present).map_err(|full| {
            let message = format!(
                "This request would exceed the on-demand stream limit for the account {account} in {region}. Current \
                 on-demand stream count for the account: {}. Limit: {}.",
                full.taken, full.limit
            );
            ApiError::new(Code::LimitExceeded, message)
        })
    }

    /// Room for one more consumer of the stream, of which there are `present`.
    pub(crate) fn consumer(&self, stream: &StreamKey, present: impl FnOnce() -> u32) -> Result<Room> {
        let StreamKey { account, name } = stream;
        let limit = self.settings.stream.consumers;
        self.rooms.take(format!("consumers/{account}/{name}"), 1, limit, present).map_err(|full| {
            let message = format!(
                "Stream {name} under account {account} has {} registered consumers. Limit: {}.",
                full.taken, full.limit
            );
            ApiError::new(Code::LimitExceeded, message)
        })
    }

    /// Leave to change the stream once more. Confirm it when the change has happened; it is given back otherwise.
    pub(crate) fn change(&self, stream: &StreamKey, change: Change) -> Result<Turn> {
        let StreamKey { account, name } = stream;
        let settings = &self.settings.stream;
        let per_day = match change {
            Change::ShardCount => settings.shard_count_updates_per_day,
            Change::Mode => settings.mode_changes_per_day,
            Change::Encryption => settings.encryption_changes_per_day,
        };
        let key = format!("{change:?}/{account}/{name}");
        self.changes.take(key, per_day, self.clock.monotonic()).map_err(|per_day| {
            let message = format!(
                "The {} of stream {name} under account {account} was changed {per_day} times within the last 24 hours, \
                 which is the limit.",
                change.noun()
            );
            ApiError::new(Code::LimitExceeded, message)
        })
    }

    /// Leave to go from so many open shards to so many.
    pub(crate) fn scale(&self, open: u32, target: u32) -> Result<()> {
        let Some(factor) = self.settings.stream.scale_factor else { return Ok(()) };
        let beyond = match factor {
            _ if u64::from(target) > u64::from(open) * u64::from(factor) => "up over",
            _ if u64::from(target) * u64::from(factor) < u64::from(open) => "down below",
            _ => return Ok(()),
        };
        let bound = match (factor, beyond) {
            (2, "up over") => "double".to_owned(),
            (2, _) => "half".to_owned(),
            (_, "up over") => format!("{factor} times"),
            _ => format!("1/{factor} of"),
        };
        let message = format!(
            "UpdateShardCount cannot scale {beyond} {bound} your current open shard count. Current open shard count: \
             {open} Target shard count: {target}"
        );
        Err(ApiError::new(Code::LimitExceeded, message))
    }
}

fn rate_exceeded(account: &AccountId, stream: Option<&StreamKey>) -> ApiError {
    let message = match stream {
        Some(StreamKey { account, name }) => {
            format!("Rate exceeded for stream {name} under account {account}.")
        }
        None => format!("Rate exceeded for account {account}."),
    };
    ApiError::new(Code::LimitExceeded, message)
}

#[cfg(test)]
mod tests;
