//! `[[keys]]`: the keys that streams may be encrypted with.
//!
//! ```toml
//! [[keys]]
//! id = "alias/orders"           # what KeyId may say: a key id, alias/NAME, or an ARN of AWS KMS
//! aliases = ["alias/payments"]  # other names of it
//! file = "/etc/tidemill/orders.key"   # 32 bytes: raw, in hex or in base64; nobody else may read it
//! # secret = "…"                # or here, in hex or in base64
//! # disabled = true             # known, but not to be used for now
//! ```
//!
//! What it is: from the section to the engine's key ring, at the start and whenever the file or a key file changes
//! ([`reload`]). A key file that cannot be read does not keep the broker from starting: it is told to who needs the key.
//! What a request names is looked up among these names, and never taken for a path.

mod reload;

pub(crate) use reload::follow_keys;

use super::file::File;
use crate::auth::Secret;
use crate::error::{Error, Result};
use serde::Deserialize;
use std::io::Read;
use std::path::{Path, PathBuf};
use tidemill_engine::{KeyMaterial, WrappingKey};
use zeroize::Zeroizing;

/// Longest name that a request may give.
const NAME_CHARS_MAX: usize = 2048;
/// Longest key file: a key in hex and some white space.
const FILE_BYTES_MAX: u64 = 256;

/// One key as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyFile {
    id: String,
    #[serde(default)]
    aliases: Vec<String>,
    secret: Option<Secret>,
    file: Option<PathBuf>,
    #[serde(default)]
    disabled: bool,
}

impl KeyFile {
    /// Whether the section holds the key itself.
    pub(super) fn holds_secret(&self) -> bool {
        self.secret.is_some()
    }
}

/// The keys, those in files as they can be read now. A mistake in the section is bad usage.
pub(super) fn compose(keys: &[KeyFile]) -> Result<Vec<WrappingKey>> {
    keys.iter().map(wrapping_key).collect()
}

/// The keys that a configuration file speaks of, and the files they lie in.
fn read(path: &Path) -> Result<(Vec<WrappingKey>, Vec<PathBuf>)> {
    let file = File::read(path)?;
    let files = file.keys.iter().filter_map(|key| key.file.clone()).collect();
    Ok((compose(&file.keys)?, files))
}

fn wrapping_key(key: &KeyFile) -> Result<WrappingKey> {
    let id = &key.id;
    for name in std::iter::once(id).chain(&key.aliases) {
        if name.is_empty() || name.chars().count() > NAME_CHARS_MAX {
            return Err(Error::usage(format!("keys: a name must have 1 to {NAME_CHARS_MAX} characters")));
        }
    }
    let material = match (&key.secret, &key.file) {
        (Some(_), Some(_)) => {
            return Err(Error::usage(format!("key {id}: leave out either its secret or its file")));
        }
        (None, None) if !key.disabled => {
            return Err(Error::usage(format!("key {id}: a secret or a file is needed")));
        }
        (Some(secret), None) => match parse(secret.reveal()) {
            Some(key) => KeyMaterial::Secret(key),
            None => {
                return Err(Error::usage(format!("key {id}: the secret is not 32 bytes in hex or base64")));
            }
        },
        (None, Some(path)) => match read_key(path) {
            Ok(key) => KeyMaterial::Secret(key),
            Err(why) => KeyMaterial::Unreadable(why),
        },
        (None, None) => KeyMaterial::Disabled,
    };
    let material = if key.disabled { KeyMaterial::Disabled } else { material };
    Ok(WrappingKey { id: id.clone(), aliases: key.aliases.clone(), material })
}

/// The key in a file, or why there is none. Clients are told, so the path is not.
fn read_key(path: &Path) -> std::result::Result<Zeroizing<[u8; 32]>, String> {
    let told = |error: std::io::Error| format!("its file: {}", error.kind());
    // opening a pipe would wait for who writes to it
    if !std::fs::metadata(path).map_err(told)?.is_file() {
        return Err("its file is not a regular one".to_owned());
    }
    let file = std::fs::File::open(path).map_err(told)?;
    check_access(&file.metadata().map_err(told)?)?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_BYTES_MAX as usize + 1));
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(told)?;
    let raw = <[u8; 32]>::try_from(bytes.as_slice()).ok().map(Zeroizing::new);
    let text = || std::str::from_utf8(&bytes).ok().and_then(|text| parse(text.trim()));
    raw.or_else(text).ok_or_else(|| "its file does not hold 32 bytes, raw, in hex or in base64".to_owned())
}

#[cfg(unix)]
fn check_access(file: &std::fs::Metadata) -> std::result::Result<(), String> {
    use std::os::unix::fs::PermissionsExt;
    let mode = file.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(format!("others may read its file (mode {mode:04o}, expected 0600 or less)"))
}

#[cfg(not(unix))]
fn check_access(_: &std::fs::Metadata) -> std::result::Result<(), String> {
    Ok(())
}

/// 32 bytes in hex or in base64, padded or not.
fn parse(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let mut key = Zeroizing::new([0; 32]);
    if text.len() == 64 {
        for (byte, digits) in key.iter_mut().zip(text.as_bytes().as_chunks::<2>().0) {
            let digit = |at: usize| char::from(digits[at]).to_digit(16);
            *byte = u8::try_from(digit(0)? * 16 + digit(1)?).expect("two digits of hex");
        }
        return Some(key);
    }
    let text = text.strip_suffix('=').unwrap_or(text);
    let decoded = Zeroizing::new(base64_simd::STANDARD_NO_PAD.decode_to_vec(text).ok()?);
    if decoded.len() != key.len() {
        return None;
    }
    key.copy_from_slice(&decoded);
    Some(key)
}

#[cfg(test)]
mod tests;
