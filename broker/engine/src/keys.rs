//! The keys that wrap the data keys of encrypted streams: given by the operator, known by name, replaced while the
//! broker runs.
//!
//! ```text
//!   operator ─► KeyRing (name → usable, switched off, unreadable) ─ wraps, unwraps ─► data key of a stream ─ seals ─► frames
//! ```
//!
//! Names are spelled as AWS spells a KeyId: a key id, `alias/NAME`, or the ARN of either. An ARN and its short form mean
//! the same key; two different ARNs never do.
//!
//! Not here: where keys come from (files are the operator's business), data keys ([`crate::seal`]).

use crate::error::{Error, ErrorKind, Result};
use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Bytes of a wrapped data key: the key and the tag.
pub(crate) const WRAPPED_BYTES: usize = 32 + 16;

/// What is known of a configured key.
pub enum KeyMaterial {
    /// The key itself.
    Secret(Zeroizing<[u8; 32]>),
    /// It was switched off: nothing can be read or written with it until it is back.
    Disabled,
    /// It could not be read, and why.
    Unreadable(String),
}

impl KeyMaterial {
    /// The key itself. The copy that is given away is the caller's to forget.
    pub fn secret(key: [u8; 32]) -> Self {
        Self::Secret(Zeroizing::new(key))
    }
}

/// A key as the operator configured it.
pub struct WrappingKey {
    /// Its name: a key id, `alias/NAME`, or an ARN of AWS KMS.
    pub id: String,
    /// Other names of it.
    pub aliases: Vec<String>,
    /// What is known of it.
    pub material: KeyMaterial,
}

/// All configured keys. Cheap to clone: clones share the keys, so that replacing them is seen by all. Default: none.
#[derive(Clone, Default)]
pub struct KeyRing {
    keys: Arc<ArcSwap<Keys>>,
}

/// The keys at one moment.
#[derive(Default)]
pub(crate) struct Keys {
    /// By short name: the part of an ARN behind the account, without `key/`.
    by_name: HashMap<String, Vec<Named>>,
}

struct Named {
    /// The name as it was configured.
    full: String,
    key: Arc<Key>,
}

struct Key {
    id: String,
    state: State,
}

enum State {
    Usable(LessSafeKey),
    Disabled,
    Unreadable(String),
}

/// A data key that a key of the ring has wrapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WrappedKey {
    /// The configured name of the key that wrapped it.
    pub(crate) key_id: String,
    pub(crate) nonce: [u8; NONCE_LEN],
    pub(crate) bytes: [u8; WRAPPED_BYTES],
}

impl KeyRing {
    /// A ring of these keys. Errors: `Invalid` if a name is given twice.
    pub fn new(keys: Vec<WrappingKey>) -> Result<Self> {
        Ok(Self { keys: Arc::new(ArcSwap::from_pointee(Keys::new(keys)?)) })
    }
    /// These keys from now on, instead of those before. Errors: `Invalid` if a name is given twice; nothing changes then.
    pub fn replace(&self, keys: Vec<WrappingKey>) -> Result<()> {
        self.keys.store(Arc::new(Keys::new(keys)?));
        Ok(())
    }
    /// Whether a new stream could be encrypted with the key of this name.
    ///
    /// Errors: `KeyNotFound`, `KeyUnusable`, `KeyDisabled`, `KeyDenied`.
    pub fn check(&self, name: &str) -> Result<()> {
        self.keys.load().usable(name).map(|_| ())
    }
    pub(crate) fn now(&self) -> Arc<Keys> {
        self.keys.load_full()
    }
}

/// Tells how many keys there are, and nothing of them.
impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyRing({} names)", self.keys.load().by_name.values().map(Vec::len).sum::<usize>())
    }
}

/// Tells the names of the key, never the key.
impl fmt::Debug for WrappingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WrappingKey")
            .field("id", &self.id)
            .field("aliases", &self.aliases)
            .finish_non_exhaustive()
    }
}

fn is_arn(name: &str) -> bool {
    name.starts_with("arn:")
}

/// The part of an ARN behind the account, without `key/`; another name as it is.
fn short(name: &str) -> &str {
    let resource = match is_arn(name) {
        true => name.splitn(6, ':').nth(5).unwrap_or(name),
        false => name,
    };
    resource.strip_prefix("key/").unwrap_or(resource)
}

/// Whether two names of the same short form may mean the same key.
fn same(one: &str, other: &str) -> bool {
    one == other || !is_arn(one) || !is_arn(other)
}

impl Keys {
    fn new(keys: Vec<WrappingKey>) -> Result<Self> {
        let mut by_name: HashMap<String, Vec<Named>> = HashMap::new();
        for WrappingKey { id, aliases, material } in keys {
            let state = match material {
                KeyMaterial::Secret(secret) => State::Usable(cipher(&secret)),
                KeyMaterial::Disabled => State::Disabled,
                KeyMaterial::Unreadable(why) => State::Unreadable(why),
            };
            let key = Arc::new(Key { id: id.clone(), state });
            for name in std::iter::once(id).chain(aliases) {
                let named = by_name.entry(short(&name).to_owned()).or_default();
                if named.iter().any(|known| same(&known.full, &name)) {
                    return Err(Error::new(ErrorKind::Invalid, format!("two keys have the name {name}")));
                }
                named.push(Named { full: name, key: Arc::clone(&key) });
            }
        }
        Ok(Self { by_name })
    }

    fn find(&self, name: &str) -> Result<&Key> {
        let named = self.by_name.get(short(name)).into_iter().flatten();
        let mut fitting = named.filter(|known| same(&known.full, name));
        fitting.next().map(|named| &*named.key).ok_or_else(|| {
            Error::new(ErrorKind::KeyNotFound, format!("Key {name} is not one of the keys of this broker."))
        })
    }

    /// The key and its cipher.
    fn usable(&self, name: &str) -> Result<(&Key, &LessSafeKey)> {
        let key = self.find(name)?;
        match &key.state {
            State::Usable(cipher) => Ok((key, cipher)),
            State::Disabled => Err(Error::new(ErrorKind::KeyDisabled, format!("Key {name} is disabled."))),
            State::Unreadable(why) => {
                Err(Error::new(ErrorKind::KeyDenied, format!("Key {name} cannot be read: {why}.")))
            }
        }
    }

    /// Whether two names mean the same key; an unknown one means only itself.
    pub(crate) fn are_same(&self, one: &str, other: &str) -> bool {
        match (self.find(one), self.find(other)) {
            (Ok(one), Ok(other)) => one.id == other.id,
            _ => one == other,
        }
    }

    /// Draws a data key and wraps it with the key of this name; `bind` is made from the configured name of that key.
    pub(crate) fn wrap_new(&self, name: &str, bind: impl FnOnce(&str) -> Vec<u8>) -> Result<WrappedKey> {
        let (key, cipher) = self.usable(name)?;
        let mut data_key = Zeroizing::new([0u8; 32]);
        let mut nonce = [0u8; NONCE_LEN];
        random(&mut *data_key)?;
        random(&mut nonce)?;
        let tag = cipher
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(bind(&key.id)),
                &mut *data_key,
            )
            .map_err(|_| Error::new(ErrorKind::Internal, "a data key could not be wrapped"))?;
        let mut bytes = [0u8; WRAPPED_BYTES];
        bytes[..32].copy_from_slice(&*data_key); // ciphertext by now
        bytes[32..].copy_from_slice(tag.as_ref());
        Ok(WrappedKey { key_id: key.id.clone(), nonce, bytes })
    }

    /// The data key within. It opens only with the key and the binding it was wrapped with.
    pub(crate) fn unwrap(&self, wrapped: &WrappedKey, bind: &[u8]) -> Result<Zeroizing<[u8; 32]>> {
        let (key, cipher) = self.usable(&wrapped.key_id)?;
        let mut data_key = Zeroizing::new([0u8; 32]);
        let (ciphertext, tag) = wrapped.bytes.split_at(32);
        cipher
            .open_separate_gather(
                Nonce::assume_unique_for_key(wrapped.nonce),
                Aad::from(bind),
                ciphertext,
                tag,
                &mut *data_key,
            )
            .map_err(|_| {
                let id = &key.id;
                let message = format!(
                    "Key {id} is not the one that this stream was encrypted with; configure that one."
                );
                Error::new(ErrorKind::KeyUnusable, message)
            })?;
        Ok(data_key)
    }
}

/// AES-256-GCM under this key.
pub(crate) fn cipher(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("the key has 32 bytes"))
}

/// Fills `bytes` from the random generator of the operating system.
pub(crate) fn random(bytes: &mut [u8]) -> Result<()> {
    aws_lc_rs::rand::fill(bytes)
        .map_err(|_| Error::new(ErrorKind::Internal, "the system gave no random bytes for a key"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str, aliases: &[&str], byte: u8) -> WrappingKey {
        let aliases = aliases.iter().map(|alias| (*alias).to_owned()).collect();
        WrappingKey { id: id.to_owned(), aliases, material: KeyMaterial::secret([byte; 32]) }
    }

    #[test]
    fn a_key_is_found_by_each_spelling_of_its_names_and_by_no_other() {
        let id = "1234abcd-12ab-34cd-56ef-1234567890ab";
        let arn = "arn:aws:kms:eu-west-1:111122223333:alias/mine";
        let ring = KeyRing::new(vec![key(id, &["alias/orders"], 1), key(arn, &[], 2)]).unwrap();
        for name in [
            id,
            &format!("arn:aws:kms:us-east-1:111122223333:key/{id}"),
            "alias/orders",
            "arn:aws:kms:us-east-1:111122223333:alias/orders",
            arn,
            "alias/mine",
        ] {
            assert!(ring.check(name).is_ok(), "{name}");
        }
        for name in
            ["", "orders", "alias/", "arn:aws:kms:eu-west-1:999999999999:alias/mine", "arn:", "/etc/passwd"]
        {
            assert_eq!(ring.check(name).unwrap_err().kind(), ErrorKind::KeyNotFound, "{name}");
        }
        assert!(ring.now().are_same("alias/orders", id));
        assert!(!ring.now().are_same("alias/orders", "alias/mine"));
        assert!(ring.now().are_same("alias/gone", "alias/gone"));
    }

    #[test]
    fn a_name_given_twice_is_refused_in_whatever_spelling_and_leaves_the_ring_as_it_was() {
        let ring = KeyRing::new(vec![key("alias/a", &[], 1)]).unwrap();
        let twice = vec![key("alias/b", &[], 1), key("arn:aws:kms:us-east-1:111122223333:alias/b", &[], 2)];
        assert_eq!(ring.replace(twice).unwrap_err().kind(), ErrorKind::Invalid);
        assert!(ring.check("alias/a").is_ok());
        let (one, other) = ("arn:aws:kms:r:1:alias/b", "arn:aws:kms:r:2:alias/b");
        ring.replace(vec![key(one, &[], 1), key(other, &[], 2)]).unwrap();
        assert!(ring.check(other).is_ok() && ring.check("alias/a").is_err());
    }

    #[test]
    fn a_data_key_opens_only_with_its_wrapping_key_and_its_binding() {
        let ring = KeyRing::new(vec![key("alias/a", &[], 1)]).unwrap();
        let wrapped = ring.now().wrap_new("alias/a", |id| id.as_bytes().to_vec()).unwrap();
        let first = ring.now().unwrap(&wrapped, b"alias/a").unwrap();
        assert_ne!(*first, [0; 32]);
        assert_eq!(ring.now().unwrap(&wrapped, b"alias/b").unwrap_err().kind(), ErrorKind::KeyUnusable);
        let kind = |keys| {
            ring.replace(keys).unwrap();
            ring.now().unwrap(&wrapped, b"alias/a").unwrap_err().kind()
        };
        assert_eq!(kind(vec![key("alias/a", &[], 2)]), ErrorKind::KeyUnusable);
        assert_eq!(kind(vec![]), ErrorKind::KeyNotFound);
        let with = |material| vec![WrappingKey { id: "alias/a".into(), aliases: vec![], material }];
        assert_eq!(kind(with(KeyMaterial::Disabled)), ErrorKind::KeyDisabled);
        assert_eq!(kind(with(KeyMaterial::Unreadable("mode 0644".into()))), ErrorKind::KeyDenied);
        ring.replace(vec![key("alias/new", &["alias/a"], 1)]).unwrap();
        assert_eq!(
            *ring.now().unwrap(&wrapped, b"alias/a").unwrap(),
            *first,
            "the same key under another name"
        );
    }

    #[test]
    fn nothing_that_is_printed_tells_a_key() {
        let ring = KeyRing::new(vec![key("alias/a", &[], 171)]).unwrap();
        let shown = format!("{ring:?} {:?}", key("alias/a", &[], 171));
        assert!(
            shown.contains("alias/a") && !shown.contains("171") && !shown.to_lowercase().contains("ab, ")
        );
    }
}
