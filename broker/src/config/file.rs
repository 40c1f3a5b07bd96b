//! The TOML file, section by section. Every key may be left out; an unknown one is an error that names the line.

use super::DurabilityMode;
use super::keys::KeyFile;
use super::tls::TlsFile;
use crate::auth::{CredentialSettings, PolicySettings};
use crate::error::{Error, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use tidemill_types::{AccountId, Region};

/// The file as it is written. Every key may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub(super) listen: Option<SocketAddr>,
    pub(super) data_dir: Option<PathBuf>,
    pub(super) durability: Option<DurabilityMode>,
    #[serde(deserialize_with = "parsed")]
    pub(super) account: Option<AccountId>,
    #[serde(deserialize_with = "parsed")]
    pub(super) region: Option<Region>,
    pub(super) insecure: Option<bool>,
    pub(super) log: Option<String>,
    pub(super) limits: Option<String>,
    pub(super) tls: TlsFile,
    pub(super) server: ServerFile,
    pub(super) credentials: Vec<CredentialSettings>,
    pub(super) policies: Vec<PolicySettings>,
    pub(super) keys: Vec<KeyFile>,
    pub(super) engine: EngineFile,
    pub(super) storage: StorageFile,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ServerFile {
    pub(super) connections_max: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct EngineFile {
    pub(super) queue_bytes_per_shard: Option<usize>,
    pub(super) queue_bytes_total: Option<usize>,
    pub(super) shards_max: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct StorageFile {
    pub(super) sync_interval_ms: Option<u64>,
    pub(super) journal_bytes_max: Option<u64>,
    pub(super) segment_bytes_max: Option<u64>,
    pub(super) open_segments_max: Option<usize>,
    pub(super) scrub_bytes_per_s: Option<u64>,
}

impl File {
    pub(super) fn read(path: &Path) -> Result<Self> {
        read_toml(path, "configuration")
    }
}

/// Reads a file of this kind; a mistake is told with its line.
pub(super) fn read_toml<T: DeserializeOwned>(path: &Path, kind: &str) -> Result<T> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| Error::usage(format!("cannot read the {kind} {}: {e}", path.display())))?;
    parse_toml(&text)
        .map_err(|(line, message)| Error::usage(format!("{kind} {}, line {line}: {message}", path.display())))
}

/// On failure the line, counted from 1, and what is wrong there.
pub(super) fn parse_toml<T: DeserializeOwned>(text: &str) -> std::result::Result<T, (usize, String)> {
    toml::from_str(text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or("");
        (before.matches('\n').count() + 1, error.message().to_owned())
    })
}

pub(super) fn parsed<'de, T, D>(from: D) -> std::result::Result<Option<T>, D::Error>
where
    T: FromStr<Err = tidemill_types::Error>,
    D: Deserializer<'de>,
{
    let text = String::deserialize(from)?;
    text.parse().map(Some).map_err(serde::de::Error::custom)
}
