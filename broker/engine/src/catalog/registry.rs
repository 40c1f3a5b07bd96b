//! What everybody but the owner sees of the catalog: the streams that are there now, by name, and the accounts.

use super::accounts::{AccountInfo, Commitment};
use super::settings::StreamMode;
use super::streams::not_found;
use crate::error::Result;
use crate::shard::handle::ShardHandle;
use crate::stream::{StreamCore, StreamInfo, StreamPage};
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use tidemill_types::{AccountId, StreamKey, StreamName};

type Streams = BTreeMap<StreamKey, Arc<StreamCore>>;

/// The streams by account and name. Locks are held for moments only.
#[derive(Default)]
pub(crate) struct Registry {
    streams: RwLock<Streams>,
    commitments: RwLock<BTreeMap<AccountId, Commitment>>,
}

/// The streams of an account with names above `after`, ascending.
fn of_account<'a>(
    streams: &'a Streams,
    account: &AccountId,
    after: Option<&StreamName>,
) -> impl Iterator<Item = (&'a StreamKey, &'a Arc<StreamCore>)> {
    let account = account.clone();
    let from = match after {
        Some(name) => Bound::Excluded(StreamKey::new(account.clone(), name.clone())),
        None => Bound::Included(StreamKey::new(account.clone(), StreamName::first())),
    };
    streams.range((from, Bound::Unbounded)).take_while(move |(key, _)| key.account == account)
}

impl Registry {
    pub(crate) fn insert(&self, stream: Arc<StreamCore>) {
        self.streams.write().insert(stream.key().clone(), stream);
    }
    /// Takes the stream out and marks it deleted; whoever waits on it is woken.
    pub(crate) fn remove(&self, name: &StreamKey) -> Option<Arc<StreamCore>> {
        let removed = self.streams.write().remove(name);
        if let Some(stream) = &removed {
            stream.mark_deleted();
        }
        removed
    }
    pub(crate) fn get(&self, name: &StreamKey) -> Result<Arc<StreamCore>> {
        self.streams.read().get(name).cloned().ok_or_else(|| not_found(name))
    }
    /// Streams of an account with names above `after`, ascending.
    pub(crate) fn page(&self, account: &AccountId, after: Option<&StreamName>, limit: usize) -> StreamPage {
        let streams = self.streams.read();
        let mut rest = of_account(&streams, account, after).map(|(_, stream)| stream.info());
        let page: Vec<StreamInfo> = rest.by_ref().take(limit).collect();
        let more = rest.next().is_some();
        StreamPage { streams: page, more }
    }
    /// What an account has.
    pub(crate) fn account(&self, account: &AccountId) -> AccountInfo {
        let streams = self.streams.read();
        let commitment = self.commitments.read().get(account).copied().unwrap_or_default();
        let mut found = AccountInfo { commitment, ..AccountInfo::default() };
        for (_, stream) in of_account(&streams, account, None) {
            let info = stream.info();
            found.streams += 1;
            found.open_shards += info.open_shards;
            found.on_demand_streams += u32::from(info.settings.mode == StreamMode::OnDemand);
        }
        found
    }
    /// Shows a commitment that was committed.
    pub(crate) fn set_commitment(&self, account: &AccountId, commitment: Commitment) {
        self.commitments.write().insert(account.clone(), commitment);
    }
    /// The streams of an account, by name.
    pub(crate) fn of_account(&self, account: &AccountId) -> Vec<Arc<StreamCore>> {
        of_account(&self.streams.read(), account, None).map(|(_, stream)| Arc::clone(stream)).collect()
    }
    /// All streams there are.
    pub(crate) fn all(&self) -> Vec<Arc<StreamCore>> {
        self.streams.read().values().cloned().collect()
    }
    /// All shards there are, each with its stream.
    pub(crate) fn all_shards(&self) -> Vec<(Arc<StreamCore>, Arc<ShardHandle>)> {
        let of_stream = |stream: Arc<StreamCore>| {
            let set = stream.shard_set();
            set.handles().map(|handle| (Arc::clone(&stream), Arc::clone(handle))).collect::<Vec<_>>()
        };
        self.all().into_iter().flat_map(of_stream).collect()
    }
}
