//! Encryption of a stream, switched on and off: data keys, their rows, and the plans.
//!
//! Each start draws a new data key and wraps it with the named key, also when the stream is encrypted already: that is
//! how keys are rotated. Data keys stay as long as the stream, for the records that were sealed with them.

use super::row::VERSION;
use super::settings::Encryption;
use super::state::{CatalogState, Change, StreamRow};
use super::streams::not_found;
use crate::error::{Error, ErrorKind, Result};
use crate::keys::{Keys, WrappedKey};
use crate::seal::KeyOwner;
use crate::store::row::{RowReader, RowWriter};
use bytes::{BufMut, Bytes, BytesMut};
use tidemill_types::{StreamIncarnation, StreamKey};

pub(super) const DATA_KEY_PREFIX: &[u8] = b"catalog/data-key/";
/// Data keys of one stream: every row is kept as long as the stream.
const DATA_KEYS_MAX: u32 = 10_000;

/// Big-endian, so that the data keys of a stream lie together and in order.
pub(super) fn data_key_key(incarnation: StreamIncarnation, number: u32) -> Bytes {
    let mut key = BytesMut::from(DATA_KEY_PREFIX);
    key.put_u64(incarnation.get());
    key.put_u32(number);
    key.freeze()
}

pub(super) fn encode_data_key(wrapped: &WrappedKey) -> Bytes {
    RowWriter::new(VERSION).text(&wrapped.key_id).bytes(&wrapped.nonce).bytes(&wrapped.bytes).finish()
}

pub(super) fn decode_data_key(key: &[u8], bytes: &[u8]) -> Result<Change> {
    let mut row = RowReader::new("row of a data key", bytes, VERSION)?;
    let tail = key[DATA_KEY_PREFIX.len()..].first_chunk::<12>();
    let tail = tail.filter(|_| key.len() == DATA_KEY_PREFIX.len() + 12);
    let tail = tail.ok_or_else(|| row.damaged("its key has another length"))?;
    let (incarnation, number) = tail.split_at(8);
    let incarnation = u64::from_be_bytes(incarnation.try_into().expect("split at eight"));
    let number = u32::from_be_bytes(number.try_into().expect("four are left"));
    let wrapped = WrappedKey { key_id: row.text()?.to_owned(), nonce: row.bytes()?, bytes: row.bytes()? };
    row.finish()?;
    Ok(Change::DataKey(StreamIncarnation::new(incarnation), number, wrapped))
}

/// A new data key, wrapped by the key of that name, with which records are sealed from now on.
pub(super) fn plan_encrypt(
    state: &CatalogState,
    stream: &StreamKey,
    key_id: &str,
    keys: &Keys,
) -> Result<Vec<Change>> {
    let row = state.stream(stream).ok_or_else(|| not_found(stream))?;
    let incarnation = row.incarnation;
    let number = state
        .data_keys(incarnation)
        .and_then(|keys| keys.last_key_value())
        .map_or(1, |(number, _)| number + 1);
    if number > DATA_KEYS_MAX {
        let message = format!("Stream {stream} has had {DATA_KEYS_MAX} data keys, and can have no more.");
        return Err(Error::new(ErrorKind::Precondition, message));
    }
    let owner = KeyOwner { stream: stream.clone(), incarnation };
    let wrapped = keys.wrap_new(key_id, |id| owner.binding(number, id))?;
    let encryption = Some(Encryption { key_id: key_id.to_owned(), data_key: number });
    Ok(vec![Change::DataKey(incarnation, number, wrapped), Change::Stream(with_encryption(row, encryption))])
}

/// Records lie in the clear from now on. `key_id` must name the key in use; nothing to be done if there is none.
pub(super) fn plan_stop(
    state: &CatalogState,
    stream: &StreamKey,
    key_id: &str,
    keys: &Keys,
) -> Result<Vec<Change>> {
    let row = state.stream(stream).ok_or_else(|| not_found(stream))?;
    match &row.settings.encryption {
        None => Ok(Vec::new()),
        Some(current) if keys.are_same(&current.key_id, key_id) => {
            Ok(vec![Change::Stream(with_encryption(row, None))])
        }
        Some(current) => {
            let message = format!("Stream {stream} is encrypted with {}, not with {key_id}.", current.key_id);
            Err(Error::new(ErrorKind::Invalid, message))
        }
    }
}

fn with_encryption(row: &StreamRow, encryption: Option<Encryption>) -> StreamRow {
    let mut row = row.clone();
    row.settings.encryption = encryption;
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::consumers::ConsumersOnDelete;
    use crate::catalog::row;
    use crate::catalog::streams::{plan_create, plan_delete};
    use crate::error::ErrorKind;
    use crate::keys::{KeyMaterial, KeyRing, WrappingKey};
    use crate::store::Store;
    use crate::store::memory::MemoryStore;
    use crate::stream::StreamSpec;
    use tidemill_types::{AccountId, StreamName, TimestampMs};

    fn keys() -> std::sync::Arc<Keys> {
        let key =
            WrappingKey { id: "alias/a".into(), aliases: Vec::new(), material: KeyMaterial::secret([1; 32]) };
        KeyRing::new(vec![key]).unwrap().now()
    }

    /// A catalog with the stream `s`, encrypted twice, and all changes that led to it.
    fn encrypted() -> (CatalogState, StreamKey, Vec<Change>) {
        let name = StreamKey::new(AccountId::new("000000000000").unwrap(), StreamName::new("s").unwrap());
        let mut state = CatalogState::default();
        let mut changes =
            plan_create(&state, &name, &StreamSpec::default(), TimestampMs::new(1), 10).unwrap();
        changes.iter().for_each(|change| state.apply(change.clone()));
        for _ in 0..2 {
            let more = plan_encrypt(&state, &name, "alias/a", &keys()).unwrap();
            more.iter().for_each(|change| state.apply(change.clone()));
            changes.extend(more);
        }
        (state, name, changes)
    }

    fn stored(changes: &[Change]) -> MemoryStore {
        let mut store = MemoryStore::default();
        let empty = CatalogState::default();
        store.commit(&[row::batch(&empty, changes, empty.counters())]).unwrap();
        store
    }

    #[test]
    fn data_keys_survive_being_written_down_and_go_with_their_stream() {
        let (mut state, name, mut changes) = encrypted();
        assert_eq!(state.stream(&name).unwrap().settings.encryption.as_ref().unwrap().data_key, 2);
        assert_eq!(row::load(&stored(&changes)).unwrap(), state);
        let gone = plan_delete(&state, &name, ConsumersOnDelete::Refuse).unwrap();
        gone.iter().for_each(|change| state.apply(change.clone()));
        changes.extend(gone);
        let store = stored(&changes);
        assert!(store.scan(DATA_KEY_PREFIX).unwrap().is_empty());
        assert_eq!(row::load(&store).unwrap(), state);
    }

    #[test]
    fn a_stream_without_its_data_key_is_told_as_damaged() {
        let (_, _, mut changes) = encrypted();
        changes.retain(|change| !matches!(change, Change::DataKey(_, 2, _)));
        let error = row::load(&stored(&changes)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged);
        assert!(error.to_string().contains("data key"), "{error}");
    }

    #[test]
    fn a_stream_has_so_many_data_keys_and_no_more() {
        let (mut state, name, _) = encrypted();
        let incarnation = state.stream(&name).unwrap().incarnation;
        let wrapped = state.data_keys(incarnation).unwrap()[&1].clone();
        state.apply(Change::DataKey(incarnation, DATA_KEYS_MAX, wrapped));
        let error = plan_encrypt(&state, &name, "alias/a", &keys()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Precondition);
    }
}
