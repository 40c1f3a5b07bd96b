//! Opening a data directory: what must be known before storage can recover.
//!
//! ```text
//!   lock the directory ─► metadata.redb ─► format ─► epoch + 1, durable ─► secret ─► catalog, leases
//! ```
//!
//! The epoch is counted up before anything is appended, so that no sequence number is ever given out twice.

use crate::backup::Row;
use crate::catalog::row as catalog_row;
use crate::catalog::state::CatalogState;
use crate::error::{Error, ErrorKind, Result};
use crate::even_time::Known;
use crate::store::redb::FILE_NAME;
use crate::store::row::{RowReader, RowWriter};
use crate::store::{Batch, Expect, Store, Verdict};
use tidemill_storage::Used;
use tidemill_types::{Epoch, TimestampMs};

const FORMAT_KEY: &[u8] = b"meta/format";
const EPOCH_KEY: &[u8] = b"meta/epoch";
const SECRET_KEY: &[u8] = b"meta/secret";
const LINEAGE_KEY: &[u8] = b"meta/lineage";
const BACKUP_KEY: &[u8] = b"meta/backup";
const CLOCK_KEY: &[u8] = b"meta/clock";
/// The version of the directory as a whole. It rises when an older program could no longer read it.
///
/// Format 1 was only ever written by programs before the first release: streams had no account and no settings.
const FORMAT: u32 = 2;
const VERSION: u8 = 1;

/// What the metadata store says of a directory.
pub(crate) struct Directory {
    pub(crate) epoch: Epoch,
    pub(crate) secret: [u8; 32],
    /// Names the directory and its backups.
    pub(crate) lineage: u64,
    pub(crate) catalog: CatalogState,
}

/// Checks that the store belongs to the records, of which `used` tells, and the format; then bumps the epoch and reads the catalog. What
/// is refused is refused before anything is counted up: a broker that is started again and again must not get past it. The directory
/// must be locked. Blocks.
pub(crate) fn open(store: &mut dyn Store, used: Option<Used>) -> Result<Directory> {
    check_is_no_backup(store, used)?;
    check_counted(counted(store)?, used)?;
    check_format(store)?;
    let catalog = catalog_row::load(store)?;
    check_logs(&catalog, used)?;
    check_lineage(store, used)?;
    let epoch = bump_epoch(store)?;
    Ok(Directory { epoch, secret: secret(store)?, lineage: lineage(store)?, catalog })
}

/// How many starts the store has counted.
fn counted(store: &dyn Store) -> Result<u32> {
    store.get(EPOCH_KEY)?.map_or(Ok(0), |found| epoch_of(&found))
}

/// Refuses a store that has counted fewer starts than the records have seen: 0 for one that is not there.
pub(crate) fn check_counted(counted: u32, used: Option<Used>) -> Result<()> {
    let Some(seen) = used.map(|used| used.epoch.get()).filter(|seen| counted < *seen) else { return Ok(()) };
    Err(foreign(&match counted {
        0 => "is missing or new, but there are records".to_owned(),
        _ => format!("is older than the records: it has counted {counted} starts, and they at least {seen}"),
    }))
}

/// Refuses a catalog that has not given out a log that there is: it would be removed as one that was deleted.
fn check_logs(catalog: &CatalogState, used: Option<Used>) -> Result<()> {
    let next = catalog.counters().next_log;
    match used.map(|used| used.log.get()).filter(|log| *log >= next) {
        None => Ok(()),
        Some(log) => Err(foreign(&format!("is older than the records: it does not know of log {log}"))),
    }
}

/// Refuses the store of another directory, whatever it has counted.
fn check_lineage(store: &dyn Store, used: Option<Used>) -> Result<()> {
    match used.map_or(0, |used| used.directory) {
        0 => Ok(()),
        named if named == name_of(lineage_of(store)?) => Ok(()),
        _ => Err(foreign("belongs to another data directory than the records")),
    }
}

/// The name of a directory in its checkpoints.
pub(crate) fn name_of(lineage: u64) -> u32 {
    u32::try_from(lineage & u64::from(u32::MAX)).expect("32 bits")
}

/// Refuses a backup: what is put into it would keep the next backup from being taken there, or be lost by that.
/// One that was opened by a program from before there was a mark is a directory like any other.
fn check_is_no_backup(store: &dyn Store, used: Option<Used>) -> Result<()> {
    if store.get(BACKUP_KEY)?.is_none() || used.is_some_and(|used| !used.is_copy) {
        return Ok(());
    }
    let message =
        "this is a backup: make a data directory of it (tidemill restore BACKUP DATA_DIR) and serve that";
    Err(Error::new(ErrorKind::Precondition, message))
}

fn foreign(what: &str) -> Error {
    let message = format!(
        "{FILE_NAME} {what}; put the one back that belongs to them, or restore a backup to another directory (tidemill restore)"
    );
    Error::new(ErrorKind::Damaged, message)
}

/// The catalog of a directory as it is, if it belongs to the records, and the epoch in which it was last opened; nothing is counted up.
pub(crate) fn read(store: &dyn Store, used: Option<Used>) -> Result<(CatalogState, Epoch)> {
    if let Some(found) = store.get(FORMAT_KEY)? {
        check_known(&found)?;
    }
    let counted = counted(store)?;
    check_counted(counted, used)?;
    let catalog = catalog_row::load(store)?;
    check_logs(&catalog, used)?;
    check_lineage(store, used)?;
    let epoch = Epoch::new(counted);
    let epoch = epoch.map_err(|e| Error::caused(ErrorKind::Damaged, "the epoch in the metadata store", e))?;
    Ok((catalog, epoch))
}

fn epoch_of(found: &[u8]) -> Result<u32> {
    let mut row = RowReader::new("epoch", found, VERSION)?;
    let epoch = row.u32()?;
    row.finish()?;
    Ok(epoch)
}

fn claim(store: &mut dyn Store, batch: Batch) -> Result<()> {
    match store.commit(&[batch])?.as_slice() {
        [Verdict::Done] => Ok(()),
        _ => {
            let message = "the metadata store was changed by someone else while it was opened; try again";
            Err(Error::new(ErrorKind::Unavailable, message))
        }
    }
}

fn check_format(store: &mut dyn Store) -> Result<()> {
    let Some(found) = store.get(FORMAT_KEY)? else {
        let row = RowWriter::new(VERSION).u32(FORMAT).finish();
        return claim(store, Batch::compare_and_set(FORMAT_KEY, Expect::Absent, row));
    };
    check_known(&found)
}

fn check_known(found: &[u8]) -> Result<()> {
    let mut row = RowReader::new("format of the directory", found, VERSION)?;
    let format = row.u32()?;
    row.finish()?;
    if format > FORMAT {
        let message = format!(
            "the data directory has format {format}, this program knows up to {FORMAT}; use a later version of tidemill"
        );
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    if format < FORMAT {
        let message = format!(
            "the data directory has format {format}, which was written before the first release of tidemill and cannot be \
             read any more; begin with a new directory"
        );
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    Ok(())
}

fn bump_epoch(store: &mut dyn Store) -> Result<Epoch> {
    let found = store.get(EPOCH_KEY)?;
    let (last, expect) = match found {
        None => (0, Expect::Absent),
        Some(found) => (epoch_of(&found)?, Expect::Value(found)),
    };
    let epoch = Epoch::new(last.saturating_add(1)).map_err(|e| {
        Error::caused(
            ErrorKind::Unavailable,
            "the data directory was opened too often; move its records to a new one",
            e,
        )
    })?;
    let row = RowWriter::new(VERSION).u32(epoch.get()).finish();
    claim(store, Batch::compare_and_set(EPOCH_KEY, expect, row))?;
    Ok(epoch)
}

fn secret(store: &mut dyn Store) -> Result<[u8; 32]> {
    if let Some(found) = store.get(SECRET_KEY)? {
        let mut row = RowReader::new("secret", &found, VERSION)?;
        let mut secret = [0; 32];
        for part in secret.chunks_exact_mut(8) {
            part.copy_from_slice(&row.u64()?.to_le_bytes());
        }
        row.finish()?;
        return Ok(secret);
    }
    let mut secret = [0u8; 32];
    rand::fill(&mut secret);
    let words = secret.as_chunks::<8>().0.iter().map(|part| u64::from_le_bytes(*part));
    let row = words.fold(RowWriter::new(VERSION), RowWriter::u64).finish();
    claim(store, Batch::compare_and_set(SECRET_KEY, Expect::Absent, row))?;
    Ok(secret)
}

fn lineage(store: &mut dyn Store) -> Result<u64> {
    if store.get(LINEAGE_KEY)?.is_none() {
        // 0 says that there is none
        let row = RowWriter::new(VERSION).u64(rand::random_range(1..=u64::MAX)).finish();
        claim(store, Batch::compare_and_set(LINEAGE_KEY, Expect::Absent, row))?;
    }
    lineage_of(store)
}

/// Names the directory and its backups; 0 if it was never opened.
pub(crate) fn lineage_of(store: &dyn Store) -> Result<u64> {
    let Some(found) = store.get(LINEAGE_KEY)? else { return Ok(0) };
    let mut row = RowReader::new("lineage", &found, VERSION)?;
    let lineage = row.u64()?;
    row.finish()?;
    Ok(lineage)
}

/// What is remembered of the clock.
pub(crate) fn known_time(store: &dyn Store) -> Result<Known> {
    let Some(found) = store.get(CLOCK_KEY)? else { return Ok(Known::default()) };
    let mut row = RowReader::new("what is known of the clock", &found, VERSION)?;
    let (even_from, ahead) = (TimestampMs::new(row.u64()?), TimestampMs::new(row.u64()?));
    let known = Known { even_from, ahead, is_doubtful: row.u8()? != 0 };
    row.finish()?;
    Ok(known)
}

/// Remembers this of the clock.
pub(crate) fn known_time_batch(known: Known) -> Batch {
    let row = RowWriter::new(VERSION).u64(known.even_from.get()).u64(known.ahead.get());
    Batch::put(CLOCK_KEY, row.u8(u8::from(known.is_doubtful)).finish())
}

/// The mark of a backup, beside its rows.
pub(crate) fn backup_mark() -> Row {
    (BACKUP_KEY.into(), RowWriter::new(VERSION).finish())
}

/// The rows of a backup as those of a directory of its own: so many epochs later, without secret and lineage, which it gets when
/// it is opened, and without the mark of a backup.
pub(crate) fn restored(rows: Vec<Row>, epochs: u32) -> Result<Vec<Row>> {
    let kept = rows.into_iter().filter(|(key, _)| ![SECRET_KEY, LINEAGE_KEY, BACKUP_KEY].contains(&&**key));
    let later = |(key, value): Row| {
        if key != EPOCH_KEY {
            return Ok((key, value));
        }
        let epoch = epoch_of(&value)?.saturating_add(epochs);
        Ok((key, RowWriter::new(VERSION).u32(epoch).finish()))
    };
    kept.map(later).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;
    use tidemill_storage::LogId;

    #[test]
    fn each_opening_has_a_higher_epoch_and_the_same_secret() {
        let mut store = MemoryStore::default();
        let first = open(&mut store, None).unwrap();
        let second = open(&mut store, None).unwrap();
        assert_eq!((first.epoch.get(), second.epoch.get()), (1, 2));
        assert_eq!(first.secret, second.secret);
        assert_ne!(first.secret, [0; 32]);
        let other = open(&mut MemoryStore::default(), None).unwrap();
        assert_ne!(first.secret, other.secret);
    }

    #[test]
    fn a_store_that_does_not_belong_to_the_records_is_refused_however_often_it_is_tried() {
        let used = |epoch: u32| {
            Some(Used { epoch: Epoch::new(epoch).unwrap(), log: LogId::new(0), directory: 0, is_copy: false })
        };
        let mut store = MemoryStore::default();
        for _ in 0..3 {
            let error = open(&mut store, used(1)).err().expect("a new store");
            assert!(error.to_string().contains("missing"), "{error}");
            assert_eq!(store.scan(b"").unwrap(), [], "nothing is counted");
        }
        open(&mut store, None).unwrap();
        for _ in 0..3 {
            assert_eq!(open(&mut store, used(2)).err().expect("an old store").kind(), ErrorKind::Damaged);
        }
        let later = Some(Used { log: LogId::new(1), ..used(1).unwrap() });
        for _ in 0..3 {
            let error = open(&mut store, later).err().expect("a log that it does not know");
            assert!(error.to_string().contains("log 1"), "{error}");
        }
        let named = |directory: u32| Some(Used { directory, ..used(1).unwrap() });
        let name = name_of(lineage_of(&store).unwrap());
        for _ in 0..3 {
            let error = open(&mut store, named(name ^ 1)).err().expect("the store of another directory");
            assert!(error.to_string().contains("another data directory"), "{error}");
        }
        assert_eq!(open(&mut store, named(name)).unwrap().epoch.get(), 2);
    }

    #[test]
    fn a_backup_is_not_opened_and_what_is_made_of_it_is() {
        let mut store = MemoryStore::default();
        open(&mut store, None).unwrap();
        let mut rows = store.scan(b"").unwrap();
        rows.push(backup_mark());
        let filled = |rows: Vec<Row>| {
            let mut store = MemoryStore::default();
            let changes = rows.into_iter().map(|(key, value)| (key, Some(value))).collect();
            store.commit(&[Batch { conditions: Vec::new(), changes }]).unwrap();
            store
        };
        let error = open(&mut filled(rows.clone()), None).err().expect("a backup");
        assert_eq!(error.kind(), ErrorKind::Precondition);
        assert!(read(&filled(rows.clone()), None).is_ok(), "it can be verified");
        assert_eq!(open(&mut filled(restored(rows, 7).unwrap()), None).unwrap().epoch.get(), 9);
    }

    #[test]
    fn a_directory_of_another_format_is_refused_and_left_as_it_is() {
        for (format, told) in [(FORMAT + 1, "use a later version"), (1, "begin with a new directory")] {
            let mut store = MemoryStore::default();
            open(&mut store, None).unwrap();
            let other = RowWriter::new(VERSION).u32(format).finish();
            store.commit(&[Batch::put(FORMAT_KEY, other)]).unwrap();
            let epoch = store.get(EPOCH_KEY).unwrap();
            let error = open(&mut store, None).err().expect("another format");
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains(told), "{error}");
            assert_eq!(store.get(EPOCH_KEY).unwrap(), epoch);
        }
    }
}
