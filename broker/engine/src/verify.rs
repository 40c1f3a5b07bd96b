//! Verification of a data directory that no broker has: the metadata store, the catalog and the leases in it, and the records.
//!
//! Changes nothing. Where files are named for logs, it tells whose they are.

use crate::catalog::state::{CatalogState, StreamRow};
use crate::directory;
use crate::error::{Error, ErrorKind, Result};
use crate::lease::ending;
use crate::store::redb::{FILE_NAME, RedbStore};
use std::collections::HashMap;
use std::path::Path;
use tidemill_storage::LogId;
use tidemill_storage::disk::{Disk, read_only::ReadOnlyDisk};
use tidemill_storage::verify::Report;
use tidemill_types::{MonotonicMs, ShardId, StreamKey};

/// What a verification saw.
#[derive(Debug)]
pub struct Verification {
    /// Of journal, segments and checkpoint.
    pub records: Report,
    /// What is wrong with the metadata store, if something is: the file, and what.
    pub metadata: Option<(&'static str, String)>,
    /// Streams in the catalog; none if it cannot be read.
    pub streams: usize,
    /// Whose logs they are.
    pub owners: Owners,
}

impl Verification {
    /// Whether anything is lost or in danger.
    pub fn is_damaged(&self) -> bool {
        self.metadata.is_some() || self.records.is_damaged()
    }
}

/// Whose logs they are, as the catalog says.
#[derive(Debug, Default)]
pub struct Owners(HashMap<LogId, (StreamKey, ShardId)>);

impl Owners {
    /// Whose log it is; none of one that the catalog does not know.
    pub fn of(&self, log: LogId) -> Option<&(StreamKey, ShardId)> {
        self.0.get(&log)
    }
    /// Shards in the catalog.
    pub fn shard_count(&self) -> usize {
        self.0.len()
    }
    pub(crate) fn new(catalog: &CatalogState) -> Self {
        let of_stream = |stream: &StreamRow| {
            let key = stream.key.clone();
            catalog
                .shards(stream.incarnation)
                .map(move |row| (row.log, (key.clone(), row.shard.id)))
                .collect::<Vec<_>>()
        };
        Self(catalog.streams().flat_map(of_stream).collect())
    }
}

/// Reads a whole data directory and compares it with its checksums, its order and its checkpoint. `progress` is told how many
/// bytes of how many are done. Blocks for as long as it takes to read everything.
///
/// Errors: `Unavailable` if there is no such directory, it cannot be read, or a broker has it; `Invalid` if a later version
/// wrote it. Everything else is part of the result.
pub fn verify(data_dir: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<Verification> {
    let cannot = |e| Error::caused(ErrorKind::Unavailable, "cannot verify", e);
    let disk = ReadOnlyDisk::open(data_dir).map_err(cannot)?;
    disk.lock().map_err(cannot)?;
    let (catalog, metadata) = match read_catalog(data_dir, &disk) {
        Ok(catalog) => (catalog, None),
        Err(error) if error.kind() == ErrorKind::Invalid => return Err(error),
        Err(error) => (CatalogState::default(), Some((FILE_NAME, error.to_string()))),
    };
    let records = tidemill_storage::verify::verify(&disk, progress)
        .map_err(|e| Error::from_storage("cannot verify", e))?;
    let owners = Owners::new(&catalog);
    Ok(Verification { records, metadata, streams: catalog.streams().count(), owners })
}

fn read_catalog(data_dir: &Path, disk: &dyn Disk) -> Result<CatalogState> {
    let store = RedbStore::verified(data_dir)?;
    let used = tidemill_storage::used(disk).unwrap_or_default(); // a checkpoint that is not intact is told as such
    let (catalog, _) = directory::read(&store, used)?;
    let live = catalog.shard_keys().collect();
    ending::load(&store, &live, MonotonicMs::new(0))?;
    Ok(catalog)
}
