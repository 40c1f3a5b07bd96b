//! A stream of one shard over a storage that is not running yet, for tests below the engine: what is appended waits
//! until the test starts the storage.

use crate::catalog::owner::{Catalog, Owner, open_stream};
use crate::catalog::registry::Registry;
use crate::catalog::row;
use crate::catalog::state::{CatalogState, Change};
use crate::catalog::streams::plan_create;
use crate::lease::table::LeaseTable;
use crate::settings::Settings;
use crate::shared::{Runs, Shared};
use crate::store::memory::MemoryStore;
use crate::store::writer::Metadata;
use crate::store::{Store, Verdict};
use crate::stream::{Stream, StreamSpec};
use std::collections::HashMap;
use std::sync::Arc;
use tempfile::TempDir;
use tidemill_storage::Storage;
use tidemill_storage::disk::real::RealDisk;
use tidemill_types::{AccountId, Epoch, ManualClock, StreamKey, StreamName, TimestampMs};

pub(crate) struct OneStream {
    pub(crate) name: StreamKey,
    pub(crate) stream: Stream,
    pub(crate) shared: Arc<Shared>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) storage: Arc<Storage>,
    pub(crate) state: CatalogState,
    pub(crate) dir: TempDir,
}

impl OneStream {
    pub(crate) fn new(settings: Settings) -> Self {
        Self::of(&StreamSpec::default(), settings)
    }
    /// With the first shard of a stream like this.
    pub(crate) fn of(spec: &StreamSpec, settings: Settings) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let now = TimestampMs::new(1_700_000_000_000);
        let clock = Arc::new(ManualClock::new(now));
        let disk = Arc::new(RealDisk::new(dir.path()).unwrap());
        let epoch = Epoch::new(1).unwrap();
        let storage = Storage::open(disk, clock.clone(), settings.storage.clone(), &[], epoch).unwrap();
        let (mut state, name) = (
            CatalogState::default(),
            StreamKey::new(AccountId::new("000000000000").unwrap(), StreamName::new("s").unwrap()),
        );
        let changes = plan_create(&state, &name, spec, now, 10).unwrap();
        changes.into_iter().for_each(|change| state.apply(change));
        state.logs().for_each(|log| drop(storage.create_log(log)));
        let shared = Shared::new(clock.clone(), settings, Runs::OnThreads);
        let registry = Arc::new(Registry::default());
        let core = open_stream(&state, &name, &shared, &storage).unwrap();
        registry.insert(Arc::clone(&core));
        Self { name, stream: Stream { core }, shared, clock, registry, storage, state, dir }
    }
    /// Starts the owner of its catalog over a store in memory.
    pub(crate) fn run_owner(&self) -> (Catalog, MemoryStore) {
        let mut store = MemoryStore::default();
        let counters = [Change::Counters(self.state.counters())];
        let batch = row::batch(&self.state, &counters, CatalogState::default().counters());
        assert_eq!(store.commit(&[batch]).unwrap(), [Verdict::Done]);
        let (metadata, writer) = Metadata::new(Box::new(store.clone()));
        std::thread::spawn(move || writer.run());
        let (shared, registry) = (Arc::clone(&self.shared), Arc::clone(&self.registry));
        let leases = LeaseTable::new(HashMap::new(), shared.clone(), Arc::clone(&registry), metadata.clone());
        let storage = Arc::clone(&self.storage);
        let (catalog, owner) =
            Owner::new(self.state.clone(), shared, storage, metadata, registry, Arc::new(leases));
        tokio::spawn(owner.run());
        (catalog, store)
    }
}
