//! Registered consumers of a stream (enhanced fan-out): names under which readers subscribe, each at its own pace.
//!
//! A consumer's ARN ends in the second it was created, so no two consumers of a name may share one, of whichever stream
//! of a name they are. The account keeps the second from which new ones are counted, above that of every consumer that
//! is gone: one number, however many come and go. Who registers and deregisters faster than once a second gets times
//! that run ahead of the clock.

use super::accounts::AccountRow;
use super::owner::Owner;
use super::settings::Tags;
use super::state::{CatalogState, Change};
use super::streams::not_found;
use super::{tags, update};
use crate::error::{Error, ErrorKind, Result};
use tidemill_types::limits::{CONSUMERS_MAX, CONSUMERS_MAX_COMMITTED};
use tidemill_types::{ConsumerName, StreamKey, TimestampMs};
use tracing::info;

/// A registered consumer of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerInfo {
    /// Its name, unique in its stream.
    pub name: ConsumerName,
    /// When it was registered; its seconds are part of its ARN and differ from those of every earlier consumer of the name.
    pub created: TimestampMs,
    /// Its tags.
    pub tags: Tags,
    /// Its resource policy, a JSON document that was checked when it was set.
    pub policy: Option<String>,
}

/// A change of a consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConsumerUpdate {
    /// These tags besides.
    Tag(Tags),
    /// These keys no more; unknown ones are ignored.
    Untag(Vec<String>),
    /// This resource policy, or none.
    Policy(Option<String>),
}

/// What becomes of registered consumers when their stream is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsumersOnDelete {
    /// The stream is not deleted while there are any.
    Refuse,
    /// They go with it.
    Remove,
}

/// The error for a name that no consumer of the stream has.
pub(crate) fn consumer_not_found(stream: &StreamKey, name: &ConsumerName) -> Error {
    Error::new(ErrorKind::NotFound, format!("Consumer {name} of stream {stream} not found."))
}

/// A new consumer.
pub(super) fn plan_register(
    state: &CatalogState,
    key: &StreamKey,
    name: ConsumerName,
    tags: Tags,
    now: TimestampMs,
) -> Result<Vec<Change>> {
    let stream = state.stream(key).ok_or_else(|| not_found(key))?;
    tags::check(&format!("consumer {name} of stream {key}"), &tags)?;
    let account = state.account(&key.account);
    let (mut count, mut known) = (0, false);
    if let Some(consumers) = state.consumers(stream.incarnation) {
        (count, known) = (consumers.len(), consumers.contains_key(&name));
    }
    if known {
        let message = format!("Consumer {name} of stream {key} already exists.");
        return Err(Error::new(ErrorKind::AlreadyExists, message));
    }
    let most = if account.commitment.holds(now) { CONSUMERS_MAX_COMMITTED } else { CONSUMERS_MAX };
    if count >= most {
        let message = format!("Stream {key} has {count} registered consumers; it can have at most {most}.");
        return Err(Error::new(ErrorKind::Throttled, message));
    }
    let created = now.max(TimestampMs::new(account.consumers_from_s.saturating_mul(1000)));
    Ok(vec![Change::Consumer(stream.incarnation, ConsumerInfo { name, created, tags, policy: None })])
}

fn find<'a>(state: &'a CatalogState, key: &StreamKey, name: &ConsumerName) -> Result<&'a ConsumerInfo> {
    let stream = state.stream(key).ok_or_else(|| not_found(key))?;
    let consumer = state.consumers(stream.incarnation).and_then(|consumers| consumers.get(name));
    consumer.ok_or_else(|| consumer_not_found(key, name))
}

/// A consumer changes.
pub(super) fn plan_update(
    state: &CatalogState,
    key: &StreamKey,
    name: &ConsumerName,
    change: ConsumerUpdate,
) -> Result<Vec<Change>> {
    let found = find(state, key, name)?;
    let mut consumer = found.clone();
    let what = || format!("consumer {name} of stream {key}");
    match change {
        ConsumerUpdate::Tag(more) => consumer.tags = tags::merged(&what(), &consumer.tags, &more)?,
        ConsumerUpdate::Untag(keys) => consumer.tags = tags::without(&consumer.tags, &keys)?,
        ConsumerUpdate::Policy(policy) => {
            update::check_policy(&what(), policy.as_deref())?;
            consumer.policy = policy;
        }
    }
    let incarnation = state.stream(key).map(|stream| stream.incarnation).ok_or_else(|| not_found(key))?;
    match consumer == *found {
        true => Ok(Vec::new()),
        false => Ok(vec![Change::Consumer(incarnation, consumer)]),
    }
}

/// A consumer goes.
pub(super) fn plan_deregister(
    state: &CatalogState,
    key: &StreamKey,
    name: &ConsumerName,
) -> Result<Vec<Change>> {
    let consumer = find(state, key, name)?;
    let incarnation = state.stream(key).map(|stream| stream.incarnation).ok_or_else(|| not_found(key))?;
    let account = account_without(state, key, [consumer]);
    Ok(vec![Change::ConsumerGone(incarnation, name.clone()), account])
}

/// All consumers of a stream go with it, or forbid that.
pub(super) fn plan_delete_all(
    state: &CatalogState,
    key: &StreamKey,
    on_delete: ConsumersOnDelete,
) -> Result<Vec<Change>> {
    let stream = state.stream(key).ok_or_else(|| not_found(key))?;
    let Some(consumers) = state.consumers(stream.incarnation) else { return Ok(Vec::new()) };
    if on_delete == ConsumersOnDelete::Refuse {
        let message = format!(
            "Stream {key} has registered consumers: {}. Deregister them first, or delete the stream with EnforceConsumerDeletion.",
            consumers.len()
        );
        return Err(Error::new(ErrorKind::Conflict, message));
    }
    let gone = consumers.keys().map(|name| Change::ConsumerGone(stream.incarnation, name.clone()));
    Ok(gone.chain([account_without(state, key, consumers.values())]).collect())
}

/// The account after these consumers are gone.
fn account_without<'a>(
    state: &CatalogState,
    key: &StreamKey,
    gone: impl IntoIterator<Item = &'a ConsumerInfo>,
) -> Change {
    let row = state.account(&key.account);
    let above = gone.into_iter().map(|consumer| consumer.created.seconds() + 1);
    let consumers_from_s = above.fold(row.consumers_from_s, u64::max);
    Change::Account(key.account.clone(), AccountRow { consumers_from_s, ..row })
}

impl Owner {
    pub(super) async fn register_consumer(
        &mut self,
        key: &StreamKey,
        name: ConsumerName,
        tags: Tags,
    ) -> Result<ConsumerInfo> {
        let changes = plan_register(&self.state, key, name.clone(), tags, self.shared.clock().now())?;
        self.commit_and_apply(changes).await?;
        self.show_consumers(key)?;
        info!(stream = %key, consumer = %name, "consumer registered");
        find(&self.state, key, &name).cloned()
    }

    pub(super) async fn update_consumer(
        &mut self,
        key: &StreamKey,
        name: &ConsumerName,
        update: ConsumerUpdate,
    ) -> Result<()> {
        self.commit_and_apply(plan_update(&self.state, key, name, update)?).await?;
        self.show_consumers(key)
    }

    pub(super) async fn deregister_consumer(&mut self, key: &StreamKey, name: &ConsumerName) -> Result<()> {
        self.commit_and_apply(plan_deregister(&self.state, key, name)?).await?;
        self.show_consumers(key)?;
        info!(stream = %key, consumer = %name, "consumer deregistered");
        Ok(())
    }

    /// Shows the consumers of a stream as they are in the state now.
    fn show_consumers(&self, key: &StreamKey) -> Result<()> {
        let core = self.registry.get(key)?;
        core.set_consumers(self.state.consumers(core.incarnation()).cloned().unwrap_or_default());
        Ok(())
    }
}
