//! The store of a single machine: one `redb` file, `metadata.redb`, in the data directory, for the owner alone.
//!
//! Every group counts up one row of its own. After a failed commit the file is opened anew and that count says whether
//! the group is in it or not. Only if even that fails is the outcome unknown; then nothing more is taken until a restart.
//!
//! ```text
//!   Open ── commit fails ──► reopened: count moved → done · count stood → not done (Unavailable), Open again
//!                        └─► cannot be reopened → UnknownOutcome; Lost
//! ```

use super::contained::contained;
use super::{Batch, Expect, Store, Verdict};
use crate::error::{Error, ErrorKind, Result};
use bytes::Bytes;
use redb::backends::InMemoryBackend;
use redb::{
    Builder, Database, ReadableDatabase, ReadableTable, StorageBackend, Table, TableDefinition,
    WriteTransaction,
};
use std::fs::{File, OpenOptions};
use std::io::ErrorKind::{InvalidData, UnexpectedEof};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use tracing::warn;

/// The name of the file within the data directory.
pub(crate) const FILE_NAME: &str = "metadata.redb";
const ASIDE_NAME: &str = "metadata.redb.unfinished";
const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("metadata");
const COMMITS: TableDefinition<'_, (), u64> = TableDefinition::new("commits");
/// All metadata of a thousand shards is about a megabyte.
const CACHE_BYTES: usize = 32 << 20;

/// Metadata in one `redb` file.
pub(crate) struct RedbStore {
    path: PathBuf,
    state: State,
    commits: u64,
}

enum State {
    Open(Database),
    Lost,
}

impl RedbStore {
    /// Opens the file in `dir`, or makes it. The directory must be locked already.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE_NAME);
        let (database, commits) = open_file(&path)?;
        let synced = File::open(dir).and_then(|dir| dir.sync_all());
        synced.map_err(|e| {
            Error::caused(ErrorKind::Unavailable, format!("could not sync {}", dir.display()), e)
        })?;
        Ok(Self { path, state: State::Open(database), commits })
    }

    /// Moves a file out of the way that was cut short while it was made.
    pub(crate) fn set_aside(dir: &Path) -> Result<()> {
        let (path, aside) = (dir.join(FILE_NAME), dir.join(ASIDE_NAME));
        std::fs::rename(&path, aside).map_err(|e| {
            Error::caused(ErrorKind::Unavailable, format!("could not rename {}", path.display()), e)
        })
    }

    /// The rows of the file in `dir`, every checksum verified, without a change to it: it is read into memory, where what a
    /// crash left half done is settled.
    pub(crate) fn verified(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE_NAME);
        let bytes = std::fs::read(&path).map_err(|e| could_not_open(&path, redb::Error::Io(e)))?;
        let memory = InMemoryBackend::new();
        let loaded =
            memory.set_len(bytes.len() as u64).and_then(|()| StorageBackend::write(&memory, 0, &bytes));
        loaded.map_err(|e| Error::caused(ErrorKind::Internal, "could not hold the metadata in memory", e))?;
        let open = || -> std::result::Result<_, redb::Error> {
            let mut database = Builder::new().create_with_backend(memory)?;
            let intact = database.check_integrity()?;
            let commits = read_commits(&database)?;
            Ok((database, commits, intact))
        };
        let opened = contained(open).map_err(|panicked| damaged(&path, &panicked))?;
        let (database, commits, intact) = opened.map_err(|e| could_not_open(&path, e))?;
        if !intact {
            return Err(mismatch(&path));
        }
        Ok(Self { path, state: State::Open(database), commits })
    }

    fn database(&self) -> Result<&Database> {
        match &self.state {
            State::Open(database) => Ok(database),
            State::Lost => Err(Error::new(
                ErrorKind::Unavailable,
                format!("{} failed earlier; restart the broker to recover it", self.path.display()),
            )),
        }
    }

    fn failed(&self, error: impl Into<redb::Error>) -> Error {
        let error = error.into();
        let kind = if damage_in(&error).is_some() { ErrorKind::Damaged } else { ErrorKind::Unavailable };
        Error::caused(kind, format!("metadata store {}", self.path.display()), error)
    }

    /// After a commit that failed with `error`: was it done? `wanted` is the count it would have left.
    fn find_out(&mut self, wanted: u64, error: Error) -> Result<()> {
        warn!(%error, "a commit of the metadata store failed; opening its file anew");
        self.state = State::Lost; // closes the file, so that it can be opened again
        match open_file(&self.path) {
            Ok((database, commits)) => {
                self.state = State::Open(database);
                self.commits = commits;
                if commits == wanted { Ok(()) } else { Err(error) }
            }
            Err(reopening) => {
                let message =
                    format!("metadata may or may not have been written ({reopening}); restart the broker");
                Err(Error::caused(ErrorKind::UnknownOutcome, message, error))
            }
        }
    }
}

fn mismatch(path: &Path) -> Error {
    damaged(path, "it does not match its checksums")
}

fn damaged(path: &Path, why: &str) -> Error {
    let message = format!(
        "the metadata store {} is damaged: {why}; it cannot be repaired, but a backup can be restored to another directory \
         (tidemill restore)",
        path.display()
    );
    Error::new(ErrorKind::Damaged, message)
}

/// What is damaged, if that is what the error says: a bad pointer leads to a page behind the end of the file, too.
fn damage_in(error: &redb::Error) -> Option<String> {
    match error {
        redb::Error::Corrupted(why) => Some(why.clone()),
        redb::Error::Io(error) if matches!(error.kind(), UnexpectedEof | InvalidData) => {
            Some(error.to_string())
        }
        _ => None,
    }
}

fn could_not_open(path: &Path, error: redb::Error) -> Error {
    match damage_in(&error) {
        Some(why) => damaged(path, &why),
        None => {
            let message = format!("could not open the metadata store {}", path.display());
            Error::caused(ErrorKind::Unavailable, message, error)
        }
    }
}

fn open_file(path: &Path) -> Result<(Database, u64)> {
    let wrong = |e: redb::Error| could_not_open(path, e);
    // redb would make it readable for everybody
    let mut options = OpenOptions::new();
    let made = options.write(true).create(true).truncate(false).mode(0o600).open(path);
    made.map_err(|e| wrong(redb::Error::Io(e)))?;
    let open = || -> std::result::Result<_, redb::Error> {
        let mut database = Builder::new().set_cache_size(CACHE_BYTES).create(path)?;
        // reads do not look at checksums: what is damaged would be believed. All metadata of a thousand shards is a megabyte
        let intact = database.check_integrity()?;
        let commits = read_commits(&database)?;
        Ok((database, commits, intact))
    };
    let (database, commits, intact) =
        contained(open).map_err(|panicked| damaged(path, &panicked))?.map_err(wrong)?;
    if intact { Ok((database, commits)) } else { Err(mismatch(path)) }
}

fn read_commits(database: &Database) -> std::result::Result<u64, redb::Error> {
    match database.begin_read()?.open_table(COMMITS) {
        Ok(table) => Ok(table.get(())?.map_or(0, |count| count.value())),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// Judges and does one batch within a transaction. Nothing is changed unless all conditions hold.
fn apply(
    rows: &mut Table<'_, &'static [u8], &'static [u8]>,
    batch: &Batch,
) -> std::result::Result<Verdict, redb::Error> {
    for (key, expect) in &batch.conditions {
        let found = rows.get(key.as_ref())?;
        let holds = match expect {
            Expect::Absent => found.is_none(),
            Expect::Value(value) => found.is_some_and(|found| found.value() == value.as_ref()),
        };
        if !holds {
            return Ok(Verdict::Refused);
        }
    }
    for (key, value) in &batch.changes {
        match value {
            Some(value) => rows.insert(key.as_ref(), value.as_ref())?,
            None => rows.remove(key.as_ref())?,
        };
    }
    Ok(Verdict::Done)
}

fn fill(
    transaction: &WriteTransaction,
    group: &[Batch],
    count: u64,
) -> std::result::Result<Vec<Verdict>, redb::Error> {
    let mut rows = transaction.open_table(ROWS)?;
    let verdicts =
        group.iter().map(|batch| apply(&mut rows, batch)).collect::<std::result::Result<Vec<_>, _>>()?;
    if verdicts.contains(&Verdict::Done) {
        transaction.open_table(COMMITS)?.insert((), count)?;
    }
    Ok(verdicts)
}

impl Store for RedbStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        let read = || -> std::result::Result<Option<Bytes>, redb::Error> {
            let transaction = match self.database() {
                Ok(database) => database.begin_read()?,
                Err(_) => return Err(redb::Error::DatabaseClosed),
            };
            match transaction.open_table(ROWS) {
                Ok(rows) => Ok(rows.get(key)?.map(|value| Bytes::copy_from_slice(value.value()))),
                Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
                Err(error) => Err(error.into()),
            }
        };
        read().map_err(|error| self.failed(error))
    }

    fn scan(&self, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>> {
        let database = self.database()?;
        let read = || -> std::result::Result<Vec<(Bytes, Bytes)>, redb::Error> {
            let rows = match database.begin_read()?.open_table(ROWS) {
                Ok(rows) => rows,
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                Err(error) => return Err(error.into()),
            };
            let mut found = Vec::new();
            for row in rows.range(prefix..)? {
                let (key, value) = row?;
                if !key.value().starts_with(prefix) {
                    break;
                }
                found.push((Bytes::copy_from_slice(key.value()), Bytes::copy_from_slice(value.value())));
            }
            Ok(found)
        };
        read().map_err(|error| self.failed(error))
    }

    fn commit(&mut self, group: &[Batch]) -> Result<Vec<Verdict>> {
        let count = self.commits + 1;
        let filled = {
            let transaction = self.database()?.begin_write().map_err(|error| self.failed(error))?;
            match fill(&transaction, group, count) {
                Ok(verdicts) if !verdicts.contains(&Verdict::Done) => return Ok(verdicts),
                Ok(verdicts) => Ok((transaction, verdicts)),
                Err(error) => Err(error),
            }
        };
        let (verdicts, failure) = match filled {
            Ok((transaction, verdicts)) => (verdicts, transaction.commit().err().map(redb::Error::from)),
            Err(error) => (Vec::new(), Some(error)),
        };
        if let Some(failure) = failure {
            let failure = self.failed(failure);
            self.find_out(count, failure)?;
        }
        self.commits = count;
        Ok(verdicts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_is_told_or_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let row = |n: u32| (format!("row/{n:05}").into_bytes(), vec![n as u8; 40]);
        let mut store = RedbStore::open(dir.path()).unwrap();
        for first in (0..400).step_by(50) {
            let batch: Vec<_> =
                (first..first + 50).map(row).map(|(key, value)| Batch::put(key, value)).collect();
            store.commit(&batch).unwrap();
        }
        let rows = store.scan(b"").unwrap();
        drop(store);
        let path = dir.path().join(FILE_NAME);
        let intact = std::fs::read(&path).unwrap();
        // where there is something; the rest of the file is free
        let end = intact.iter().rposition(|byte| *byte != 0).unwrap();
        let mut told = 0;
        for at in (0..end).step_by(1 + end / 500) {
            let mut bytes = intact.clone();
            bytes[at] ^= 1 << (at % 8);
            std::fs::write(&path, &bytes).unwrap();
            match RedbStore::open(dir.path()) {
                Ok(store) => assert_eq!(store.scan(b"").unwrap(), rows, "bit of byte {at}"),
                Err(error) => {
                    told += 1;
                    assert!(error.to_string().contains(FILE_NAME), "byte {at}: {error}");
                    assert_eq!(error.kind(), ErrorKind::Damaged, "byte {at}: {error}");
                }
            }
        }
        assert!(told > 0);
    }
}
