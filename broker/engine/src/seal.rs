//! Sealing: what is written to an encrypted stream is encrypted before it is queued, and decrypted when it is read.
//!
//! ```text
//!   data key of the stream ─ HKDF with a salt of this opening ─► cipher ─ counter as nonce ─► sealed frame
//! ```
//!
//! A nonce must never come twice under one key. Each opening of a stream's data key draws a salt of its own, which makes a
//! key of its own, and counts frames under it; that holds also when a copy of the directory is put back, which a count
//! kept on disk would not survive.
//!
//! Each time the ring of wrapping keys is replaced, the data keys are unwrapped anew: once a wrapping key is gone or
//! switched off, nothing is read or written with it any more.
//!
//! Not here: bytes of a sealed frame (`tidemill_types`), rows of data keys ([`crate::catalog::encryption`]).

use crate::error::{Error, ErrorKind, Result};
use crate::keys::{KeyRing, Keys, WrappedKey, cipher, random};
use arc_swap::ArcSwap;
use aws_lc_rs::aead::{Aad, LessSafeKey, NONCE_LEN, Nonce};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tidemill_storage::LogId;
use tidemill_types::{Frame, FrameHeader, Sealing, StreamIncarnation, StreamKey};
use zeroize::Zeroizing;

/// Ciphers of earlier openings that are kept at hand; one costs two microseconds to make.
const CIPHERS_MAX: usize = 64;
/// Larger frames are sealed on a thread that may take its time: so much takes some 50 µs.
const INLINE_BYTES_MAX: u32 = 512 << 10;

/// The data keys of one stream, and what is sealed and opened with them.
pub(crate) struct StreamKeys {
    ring: KeyRing,
    owner: KeyOwner,
    wrapped: ArcSwap<BTreeMap<u32, WrappedKey>>,
    opened: Mutex<Opened>,
}

/// Whose data keys they are: part of what each is bound to.
pub(crate) struct KeyOwner {
    pub(crate) stream: StreamKey,
    pub(crate) incarnation: StreamIncarnation,
}

/// What was unwrapped.
#[derive(Default)]
struct Opened {
    keys: HashMap<u32, Arc<DataKey>>,
    ciphers: HashMap<(u32, [u8; 16]), Arc<LessSafeKey>>,
}

/// A data key in use.
struct DataKey {
    /// The keys that it was unwrapped with.
    from: Arc<Keys>,
    root: Prk,
    /// For what is sealed from now on.
    salt: [u8; 16],
    cipher: LessSafeKey,
    next: AtomicU64,
}

impl KeyOwner {
    /// What the data key of this number is bound to, so that a row cannot be put in place of another.
    pub(crate) fn binding(&self, number: u32, key_id: &str) -> Vec<u8> {
        let mut bound = b"tidemill data key v1".to_vec();
        bound.extend(self.incarnation.get().to_le_bytes());
        bound.extend(number.to_le_bytes());
        for text in [self.stream.account.as_str(), self.stream.name.as_str(), key_id] {
            bound.extend((text.len() as u64).to_le_bytes());
            bound.extend(text.as_bytes());
        }
        bound
    }
}

impl StreamKeys {
    pub(crate) fn new(ring: KeyRing, owner: KeyOwner, wrapped: BTreeMap<u32, WrappedKey>) -> Arc<Self> {
        let wrapped = ArcSwap::from_pointee(wrapped);
        Arc::new(Self { ring, owner, wrapped, opened: Mutex::default() })
    }

    /// Shows data keys that were committed.
    pub(crate) fn set_wrapped(&self, wrapped: BTreeMap<u32, WrappedKey>) {
        self.wrapped.store(Arc::new(wrapped));
    }

    /// The frame sealed with data key `number`, for this log. Large ones are sealed on another thread. Cancel-safe.
    ///
    /// Errors: `KeyNotFound`, `KeyUnusable`, `KeyDisabled`, `KeyDenied`, `Internal`.
    pub(crate) async fn seal(self: &Arc<Self>, number: u32, log: LogId, frame: Frame) -> Result<Frame> {
        if frame.header().frame_bytes <= INLINE_BYTES_MAX {
            return self.seal_now(number, log, &frame);
        }
        let keys = Arc::clone(self);
        let sealed = tokio::task::spawn_blocking(move || keys.seal_now(number, log, &frame)).await;
        sealed.map_err(|e| Error::caused(ErrorKind::Internal, "encrypting broke off", e))?
    }

    fn seal_now(&self, number: u32, log: LogId, frame: &Frame) -> Result<Frame> {
        let key = self.data_key(number)?;
        let count = key.next.fetch_add(1, Ordering::Relaxed);
        let sealing = Sealing { data_key: number, salt: key.salt, number: count };
        let bound = Aad::from(frame_binding(log.get(), frame.header()));
        frame.seal(sealing, |body| {
            let tag = key.cipher.seal_in_place_separate_tag(nonce(count), bound, body);
            let tag = tag.map_err(|_| Error::new(ErrorKind::Internal, "a frame could not be encrypted"))?;
            Ok(tag.as_ref().try_into().expect("a tag has 16 bytes"))
        })
    }

    /// The plain frame that a sealed one was made from; one that is not sealed is given back as it is.
    ///
    /// Errors: `KeyNotFound`, `KeyUnusable`, `KeyDisabled`, `KeyDenied`, `Damaged` if its bytes were changed.
    pub(crate) fn open(&self, frame: Frame) -> Result<Frame> {
        let Some(sealed) = frame.sealed() else { return Ok(frame) };
        let header = frame.header();
        let cipher = self.cipher_of(&sealed.sealing)?;
        let bound = Aad::from(frame_binding(header.log, header));
        frame.open(&sealed, |body| {
            let nonce = nonce(sealed.sealing.number);
            cipher.open_separate_gather(nonce, bound, sealed.ciphertext, sealed.tag, body).map_err(|_| {
                let (first, log, stream) = (header.first.get(), header.log, &self.owner.stream);
                let message = format!(
                    "records of stream {stream} from index {first} of log {log} on cannot be decrypted: their bytes were changed"
                );
                Error::new(ErrorKind::Damaged, message)
            })
        })
    }

    /// The data key of this number, unwrapped with the keys there are now.
    fn data_key(&self, number: u32) -> Result<Arc<DataKey>> {
        let from = self.ring.now();
        let mut opened = self.opened.lock();
        if let Some(known) = opened.keys.get(&number).filter(|known| Arc::ptr_eq(&known.from, &from)) {
            return Ok(Arc::clone(known));
        }
        opened.keys.remove(&number);
        opened.ciphers.retain(|(of, _), _| *of != number);
        let plain = self.unwrap(number, &from)?;
        let key = Arc::new(DataKey::new(from, &plain)?);
        opened.keys.insert(number, Arc::clone(&key));
        Ok(key)
    }

    fn unwrap(&self, number: u32, keys: &Keys) -> Result<Zeroizing<[u8; 32]>> {
        let known = self.wrapped.load();
        let Some(wrapped) = known.get(&number) else {
            let message = format!("stream {} has no data key {number}", self.owner.stream);
            return Err(Error::new(ErrorKind::Damaged, message));
        };
        keys.unwrap(wrapped, &self.owner.binding(number, &wrapped.key_id))
    }

    /// The cipher that a frame was sealed with.
    fn cipher_of(&self, sealing: &Sealing) -> Result<Arc<LessSafeKey>> {
        let key = self.data_key(sealing.data_key)?;
        let mut opened = self.opened.lock();
        let name = (sealing.data_key, sealing.salt);
        if let Some(cipher) = opened.ciphers.get(&name) {
            return Ok(Arc::clone(cipher));
        }
        let cipher = Arc::new(derive(&key.root, &sealing.salt));
        if opened.ciphers.len() >= CIPHERS_MAX {
            opened.ciphers.clear();
        }
        opened.ciphers.insert(name, Arc::clone(&cipher));
        Ok(cipher)
    }
}

impl DataKey {
    fn new(from: Arc<Keys>, plain: &[u8; 32]) -> Result<Self> {
        let root = Prk::new_less_safe(HKDF_SHA256, plain);
        let mut salt = [0; 16];
        random(&mut salt)?;
        let cipher = derive(&root, &salt);
        Ok(Self { from, root, salt, cipher, next: AtomicU64::new(0) })
    }
}

/// A key of 32 bytes.
struct CipherKey;

impl KeyType for CipherKey {
    fn len(&self) -> usize {
        32
    }
}

fn derive(root: &Prk, salt: &[u8; 16]) -> LessSafeKey {
    let mut key = Zeroizing::new([0; 32]);
    let info: [&[u8]; 2] = [b"tidemill frame", salt];
    root.expand(&info, CipherKey)
        .and_then(|derived| derived.fill(&mut *key))
        .expect("32 bytes are within what HKDF yields");
    cipher(&key)
}

fn nonce(number: u64) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[4..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

/// What a sealed body is bound to: the fields of its header that are known when it is sealed.
fn frame_binding(log: u64, header: &FrameHeader) -> [u8; 45] {
    let mut bound = [0; 45];
    bound[..17].copy_from_slice(b"tidemill frame v1");
    bound[17..25].copy_from_slice(&log.to_le_bytes());
    bound[25..29].copy_from_slice(&header.count.to_le_bytes());
    bound[29..37].copy_from_slice(&header.producer.get().to_le_bytes());
    bound[37..].copy_from_slice(&header.batch_number.to_le_bytes());
    bound
}

#[cfg(test)]
mod at_rest;
#[cfg(test)]
mod tests;
