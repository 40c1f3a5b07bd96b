//! What the data verbs see of the catalog: the streams that are there now, by name.

use super::streams::not_found;
use crate::error::Result;
use crate::shard::handle::ShardHandle;
use crate::stream::{StreamCore, StreamInfo, StreamPage};
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use tidemill_types::StreamName;

/// The streams by name. Locks are held for moments only.
#[derive(Default)]
pub(crate) struct Registry {
    streams: RwLock<BTreeMap<StreamName, Arc<StreamCore>>>,
}

impl Registry {
    pub(crate) fn insert(&self, stream: Arc<StreamCore>) {
        self.streams.write().insert(stream.name().clone(), stream);
    }
    /// Takes the stream out and marks it deleted; whoever waits on it is woken.
    pub(crate) fn remove(&self, name: &StreamName) -> Option<Arc<StreamCore>> {
        let removed = self.streams.write().remove(name);
        if let Some(stream) = &removed {
            stream.mark_deleted();
        }
        removed
    }
    pub(crate) fn get(&self, name: &StreamName) -> Result<Arc<StreamCore>> {
        self.streams.read().get(name).cloned().ok_or_else(|| not_found(name))
    }
    /// Streams with names above `after`, ascending.
    pub(crate) fn page(&self, after: Option<&StreamName>, limit: usize) -> StreamPage {
        let streams = self.streams.read();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest =
            streams.range::<StreamName, _>((from, Bound::Unbounded)).map(|(_, stream)| stream.info());
        let page: Vec<StreamInfo> = rest.by_ref().take(limit).collect();
        let more = rest.next().is_some();
        StreamPage { streams: page, more }
    }
    /// All streams there are.
    pub(crate) fn all(&self) -> Vec<Arc<StreamCore>> {
        self.streams.read().values().cloned().collect()
    }
    /// All shards there are, each with the hours its records are kept.
    pub(crate) fn all_shards(&self) -> Vec<(u32, Arc<ShardHandle>)> {
        let streams = self.all();
        let shards = streams.iter().map(|stream| (stream.retention_hours(), stream.shard_set()));
        shards
            .flat_map(|(hours, set)| {
                set.handles().map(|handle| (hours, Arc::clone(handle))).collect::<Vec<_>>()
            })
            .collect()
    }
}
