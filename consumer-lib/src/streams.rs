//! The streams that a worker processes, which may change while it runs.

use crate::initial::InitialPosition;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use tidemill_types::StreamName;
use tokio::sync::Notify;

#[derive(Debug)]
pub(crate) struct Streams {
    wanted: Mutex<BTreeMap<StreamName, InitialPosition>>,
    /// Where a stream begins that is added without a word about it.
    initial: InitialPosition,
    changed: Notify,
}

impl Streams {
    pub(crate) fn new(
        wanted: impl IntoIterator<Item = (StreamName, InitialPosition)>,
        initial: InitialPosition,
    ) -> Self {
        Self { wanted: Mutex::new(wanted.into_iter().collect()), initial, changed: Notify::new() }
    }
    pub(crate) fn all(&self) -> BTreeMap<StreamName, InitialPosition> {
        self.wanted.lock().clone()
    }
    /// Where shards of a stream begin that were never worked on; nothing if the stream is not wanted.
    pub(crate) fn initial(&self, stream: &StreamName) -> Option<InitialPosition> {
        self.wanted.lock().get(stream).copied()
    }
    /// Whether there is more than one.
    #[cfg_attr(not(feature = "aws"), expect(dead_code, reason = "some stores name leases otherwise then"))]
    pub(crate) fn are_many(&self) -> bool {
        self.wanted.lock().len() > 1
    }
    pub(crate) fn add(&self, stream: StreamName, position: Option<InitialPosition>) {
        self.wanted.lock().insert(stream, position.unwrap_or(self.initial));
        self.changed.notify_one();
    }
    pub(crate) fn remove(&self, stream: &StreamName) {
        self.wanted.lock().remove(stream);
        self.changed.notify_one();
    }
    /// Waits until a stream was added or removed.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}
