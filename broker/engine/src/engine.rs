//! The engine as a whole: opening, closing, and the verbs on streams.

use crate::background::{Background, Work};
use crate::backup::{Backup, HeldBackup};
use crate::catalog::accounts::AccountInfo;
use crate::catalog::consumers::{ConsumerInfo, ConsumerUpdate, ConsumersOnDelete};
use crate::catalog::owner::{Catalog, Owner, open_stream};
use crate::catalog::registry::Registry;
use crate::catalog::settings::{StreamUpdate, Tags};
use crate::directory::{self, Directory};
use crate::error::{Error, ErrorKind, Result};
use crate::even_time::{self, Watch};
use crate::lease::ending;
use crate::lease::table::LeaseTable;
use crate::retention;
use crate::settings::Settings;
use crate::shared::{Runs, Shared};
use crate::store::Batch;
use crate::store::Store;
use crate::store::redb::{FILE_NAME, RedbStore};
use crate::store::writer::Metadata;
use crate::stream::{Scaled, Stream, StreamInfo, StreamPage, StreamSpec, Updated};
use parking_lot::Mutex;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tidemill_storage::disk::{Disk, real::RealDisk};
use tidemill_storage::{Health, Opening, Storage, Used, is_unused};
use tidemill_types::{AccountId, Clock, ConsumerName, HashKey, ShardId, StreamKey, StreamName};
use tracing::{info, warn};

/// How long closing waits for what is queued to become durable.
const DRAIN_WAIT_MAX: Duration = Duration::from_secs(60);

/// All streams of one data directory. Cheap to clone. The directory is free for another process once the engine was
/// closed and the last handle on it, its streams and subscriptions is gone.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    storage: Arc<Storage>,
    registry: Arc<Registry>,
    catalog: Catalog,
    leases: Arc<LeaseTable>,
    secret: [u8; 32],
    lineage: u64,
    metadata: Metadata,
    background: Mutex<Option<Background>>,
}

/// What opening a directory yields before anything runs.
struct Opened {
    storage: Arc<Storage>,
    store: Box<dyn Store>,
    directory: Directory,
}

/// Where everything is kept.
pub(crate) struct Ground {
    /// Of the records.
    pub(crate) disk: Arc<dyn Disk>,
    /// Of everything else.
    pub(crate) store: Box<dyn Store>,
}

impl Engine {
    /// Opens a data directory, or makes it: locks it, reads the catalog, counts up the epoch, recovers the records, starts
    /// background work. Needs a tokio runtime.
    ///
    /// Errors: `Invalid` for settings that do not fit or a directory of a later version; `Unavailable` if another process
    /// has the directory or it cannot be used; `Damaged`.
    pub async fn open(data_dir: &Path, settings: Settings, clock: Arc<dyn Clock>) -> Result<Self> {
        let dir = data_dir.to_owned();
        Self::open_on(move || open_directory(&dir), settings, clock, Runs::OnThreads).await
    }

    pub(crate) async fn open_on(
        ground: impl FnOnce() -> Result<Ground> + Send + 'static,
        settings: Settings,
        clock: Arc<dyn Clock>,
        runs: Runs,
    ) -> Result<Self> {
        settings.check()?;
        let shared = Shared::new(clock, settings, runs);
        let of_opening = Arc::clone(&shared);
        let opened = shared.blocking("opening", move || recover(ground()?, &of_opening)).await?;
        let engine = Self::start(opened, Arc::clone(&shared))?;
        let (registry, now) = (Arc::clone(&engine.inner.registry), engine.clock().now());
        let trim = move || {
            retention::trim_at_open(&registry, now);
            Ok(())
        };
        shared.blocking("opening", trim).await?;
        engine.inner.catalog.settle_at_open().await?;
        Ok(engine)
    }

    fn start(opened: Opened, shared: Arc<Shared>) -> Result<Self> {
        let Opened { storage, mut store, directory } = opened;
        let Directory { epoch, secret, lineage, catalog: state } = directory;
        let live = state.shard_keys().collect();
        let (leases, orphans) = ending::load(&*store, &live, shared.clock().monotonic())?;
        if !orphans.is_empty() {
            // of streams whose deletion, or shards whose expiry, was cut short
            let changes = orphans.into_iter().map(|key| (key, None)).collect();
            store.commit(&[Batch { conditions: Vec::new(), changes }])?;
        }
        let registry = Arc::new(Registry::default());
        for row in state.streams() {
            registry.insert(open_stream(&state, &row.key, &shared, &storage)?);
        }
        for (account, row) in state.accounts() {
            registry.set_commitment(account, row.commitment);
        }
        let shards = registry.all_shards();
        let newest = shards.iter().filter_map(|(_, handle)| handle.log().newest());
        let known = even_time::begin(&mut *store, newest, &shared)?;
        if shared.runs() == Runs::OnThreads {
            storage.start().map_err(|e| Error::from_storage("could not start storage", e))?;
        }
        info!(
            epoch = epoch.get(),
            streams = state.streams().count(),
            shards = state.shard_count(),
            "engine opened"
        );

        let (metadata, writer) = Metadata::new(store);
        let leases =
            Arc::new(LeaseTable::new(leases, Arc::clone(&shared), Arc::clone(&registry), metadata.clone()));
        let (catalog, owner) = Owner::new(
            state,
            Arc::clone(&shared),
            Arc::clone(&storage),
            metadata.clone(),
            Arc::clone(&registry),
            Arc::clone(&leases),
        );
        let work = Work {
            shared: Arc::clone(&shared),
            storage: Arc::clone(&storage),
            registry: Arc::clone(&registry),
            catalog: catalog.clone(),
            leases: Arc::clone(&leases),
        };
        let watch = Watch::new(known, Arc::clone(&shared), metadata.clone());
        let background = Background::start(work, owner, metadata.clone(), writer, watch)?;
        let background = Mutex::new(Some(background));
        let inner =
            Inner { shared, storage, registry, catalog, leases, secret, lineage, metadata, background };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Refuses new work (`Unavailable`), ends subscriptions, makes durable what is queued, writes a checkpoint, ends
    /// background work. A second call does nothing.
    pub async fn close(&self) -> Result<()> {
        if !self.inner.shared.begin_closing() {
            return Ok(());
        }
        let storage = Arc::clone(&self.inner.storage);
        let close = move || storage.close().map_err(|e| Error::from_storage("could not close storage", e));
        let closed = self.inner.shared.blocking("closing storage", close);
        let drained = tokio::time::timeout(DRAIN_WAIT_MAX, closed).await;
        let background = self.inner.background.lock().take();
        let stopped = match background {
            Some(background) => background.stop().await,
            None => Ok(()),
        };
        match drained {
            Ok(closed) => closed?,
            Err(_) => {
                let message = format!("storage did not come to rest within {} s", DRAIN_WAIT_MAX.as_secs());
                return Err(Error::new(ErrorKind::UnknownOutcome, message));
            }
        }
        stopped
    }

    /// Begins a copy of everything at one moment, without what the caller holds already. Cancelling it is safe, and so is dropping
    /// what it gives.
    ///
    /// Errors: `Precondition` if what is held is of another directory; `Unavailable`, `Internal`.
    pub async fn backup(&self, held: HeldBackup) -> Result<Backup> {
        let lineage = self.inner.lineage;
        // segments without a name may be anybody's: their numbers and first indexes are the same in every directory
        let holds_nothing = held.lineage == 0 && held.segments.is_empty();
        if !holds_nothing && held.lineage != lineage {
            let message = "what is there is a backup of another broker; choose another folder";
            return Err(Error::new(ErrorKind::Precondition, message));
        }
        self.inner.shared.check_open()?;
        let storage = Arc::clone(&self.inner.storage);
        let snapshot = self.inner.shared.blocking("the backup", move || Ok(storage.snapshot())).await?;
        let rows = self.inner.metadata.rows().await?;
        Ok(Backup::start(lineage, rows, snapshot, held.segments))
    }

    /// The clock it was opened with.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        self.inner.shared.clock()
    }

    /// Makes a stream whose shards share the hash space equally. It is there, durably, when this returns; once called it
    /// may happen even if the caller stops waiting.
    ///
    /// Errors: `AlreadyExists`, `Invalid`, `Throttled` when the broker holds too many shards, `Unavailable`,
    /// `UnknownOutcome`.
    pub async fn create_stream(&self, key: &StreamKey, spec: StreamSpec) -> Result<StreamInfo> {
        self.change(self.inner.catalog.create(key.clone(), spec)).await
    }

    /// Removes a stream with all its records, leases and consumers. Its name can be used again at once. Once called it may
    /// happen even if the caller stops waiting. After `UnknownOutcome` the stream can be read, but takes no records until
    /// the broker is restarted.
    ///
    /// Errors: `NotFound`, `Conflict` if it has registered consumers that must not go, `Unavailable`, `UnknownOutcome`.
    pub async fn delete_stream(&self, key: &StreamKey, consumers: ConsumersOnDelete) -> Result<()> {
        self.change(self.inner.catalog.delete(key.clone(), consumers)).await
    }

    /// Changes what a stream is set to; durable when this returns. Once called it may happen even if the caller stops
    /// waiting.
    ///
    /// Errors: `NotFound`, `Invalid`, `Precondition`, `Throttled` at a limit, those of keys for `Encrypt`, `Unavailable`,
    /// `UnknownOutcome`; the last also when the retention is shorter now, but some older records can still be read.
    pub async fn update_stream(&self, key: &StreamKey, update: StreamUpdate) -> Result<Updated> {
        self.change(self.inner.catalog.update(key.clone(), update)).await
    }

    /// Splits an open shard: the upper child begins at `at`. The parent takes nothing more, its records stay readable; one
    /// atomic change, durable when this returns. Once called it may happen even if the caller stops waiting.
    ///
    /// Errors: `NotFound`, `Invalid`, `Precondition` for an on-demand stream, `Throttled` at the limit of shards, `Conflict`
    /// while an earlier change of the stream's shards is not completed, `Unavailable`; `UnknownOutcome` also when this one was
    /// begun and goes on by itself.
    pub async fn split_shard(&self, key: &StreamKey, shard: ShardId, at: HashKey) -> Result<()> {
        self.change(self.inner.catalog.split(key.clone(), shard, at)).await
    }

    /// Merges two open shards whose ranges touch, the lower one first. Otherwise as [`Engine::split_shard`].
    pub async fn merge_shards(&self, key: &StreamKey, shard: ShardId, adjacent: ShardId) -> Result<()> {
        self.change(self.inner.catalog.merge(key.clone(), shard, adjacent)).await
    }

    /// Splits and merges until `target` open shards share the hash space equally. Otherwise as [`Engine::split_shard`].
    pub async fn scale_stream(&self, key: &StreamKey, target: u32) -> Result<Scaled> {
        self.change(self.inner.catalog.scale(key.clone(), target)).await
    }

    /// Registers a consumer; it can subscribe when this returns. Once called it may happen even if the caller stops waiting.
    ///
    /// Errors: `NotFound`, `AlreadyExists`, `Invalid`, `Unavailable`, `UnknownOutcome`.
    pub async fn register_consumer(
        &self,
        key: &StreamKey,
        name: &ConsumerName,
        tags: Tags,
    ) -> Result<ConsumerInfo> {
        self.change(self.inner.catalog.register_consumer(key.clone(), name.clone(), tags)).await
    }

    /// Changes a consumer's tags or policy. Errors: `NotFound`, `Invalid`, `Unavailable`, `UnknownOutcome`.
    pub async fn update_consumer(
        &self,
        key: &StreamKey,
        name: &ConsumerName,
        update: ConsumerUpdate,
    ) -> Result<()> {
        self.change(self.inner.catalog.update_consumer(key.clone(), name.clone(), update)).await
    }

    /// Removes a consumer. Errors: `NotFound`, `Unavailable`, `UnknownOutcome`.
    pub async fn deregister_consumer(&self, key: &StreamKey, name: &ConsumerName) -> Result<()> {
        self.change(self.inner.catalog.deregister_consumer(key.clone(), name.clone())).await
    }

    /// Keeps whether an account has committed to a minimum throughput. Errors: `Unavailable`, `UnknownOutcome`.
    pub async fn set_commitment(&self, account: &AccountId, enabled: bool) -> Result<AccountInfo> {
        self.change(self.inner.catalog.set_commitment(account.clone(), enabled)).await
    }

    /// What is known of an account; one that was never heard of has nothing.
    pub fn account(&self, account: &AccountId) -> AccountInfo {
        self.inner.registry.account(account)
    }

    async fn change<T>(&self, verb: impl Future<Output = Result<T>>) -> Result<T> {
        let done = match self.inner.shared.check_open() {
            Ok(()) => verb.await,
            Err(error) => Err(error),
        };
        self.inner.shared.metrics().note(done)
    }

    /// Streams of `account` with names above `after`, ascending, at most `limit`.
    pub fn list_streams(&self, account: &AccountId, after: Option<&StreamName>, limit: usize) -> StreamPage {
        self.inner.registry.page(account, after, limit)
    }

    /// The stream of this name. Errors: `NotFound`.
    pub fn stream(&self, key: &StreamKey) -> Result<Stream> {
        let core = self.inner.shared.metrics().note(self.inner.registry.get(key))?;
        Ok(Stream { core })
    }

    /// Most shards of all streams together.
    pub fn shards_max(&self) -> u32 {
        self.inner.shared.settings().shards_max
    }

    /// The leases of consumer applications.
    pub fn leases(&self) -> &LeaseTable {
        &self.inner.leases
    }

    /// Whether writes are taken.
    pub fn health(&self) -> Health {
        self.inner.storage.health()
    }

    /// A secret of the data directory, random, made once: the key for iterator tokens.
    pub fn secret(&self) -> &[u8; 32] {
        &self.inner.secret
    }
}

/// The ground in a directory of this machine. Blocks.
fn open_directory(dir: &Path) -> Result<Ground> {
    let unusable = |e| {
        let message = format!("cannot use the data directory {}", dir.display());
        Error::caused(ErrorKind::Unavailable, message, e)
    };
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(dir).map_err(unusable)?);
    disk.lock().map_err(unusable)?;
    if !dir.join(FILE_NAME).exists() {
        directory::check_counted(0, used(&*disk)?)?; // before it is made
        info!(directory = %dir.display(), "there is nothing yet: a new data directory is begun");
    }
    let store = match RedbStore::open(dir) {
        // all of the rest is made before anything is taken
        Err(error)
            if error.kind() == ErrorKind::Damaged
                && is_unused(&*disk).map_err(|e| could_not_open(&*disk, e))? =>
        {
            warn!(%error, "the first start of this directory was cut short before anything was taken; it begins anew");
            RedbStore::set_aside(dir).and_then(|()| RedbStore::open(dir))
        }
        opened => opened,
    };
    Ok(Ground { disk, store: Box::new(store?) })
}

fn used(disk: &dyn Disk) -> Result<Option<Used>> {
    tidemill_storage::used(disk).map_err(|e| could_not_open(disk, e))
}

fn could_not_open(disk: &dyn Disk, error: tidemill_storage::Error) -> Error {
    Error::from_storage(&format!("could not open {}", disk.path()), error)
}

/// Everything else of opening that blocks.
fn recover(ground: Ground, shared: &Shared) -> Result<Opened> {
    let Ground { disk, mut store } = ground;
    let directory = directory::open(&mut *store, used(&*disk)?)?;
    let live: Vec<_> = directory.catalog.logs().collect();
    let (shown, clock, settings) = (disk.path(), Arc::clone(shared.clock()), shared.settings());
    let opening = Opening { epoch: directory.epoch, directory: directory::name_of(directory.lineage) };
    let storage = Storage::open(disk, clock, settings.storage.clone(), &live, opening)
        .map_err(|e| Error::from_storage(&format!("could not open {shown}"), e))?;
    // storage may not have met a log that nothing was ever written to
    for log in live {
        storage.create_log(log);
    }
    Ok(Opened { storage, store, directory })
}
