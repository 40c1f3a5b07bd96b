//! An authority of the data directory's own, for development: TLS without asking anybody.
//!
//! How it lives: the authority (`ca.pem`, and `ca-key.pem` that only the owner may read) is made at the first start and
//! kept, so that a client told to trust it once goes on trusting. The certificate shown is made afresh at each start
//! and again when a third of its life is left; its key never leaves memory. To have a new authority, delete the folder.
//!
//! What it does not do: serve the world. Nobody else trusts it, and it revokes nothing.

use super::{Shown, provider};
use crate::error::{Error, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tidemill_types::{Clock, TimestampMs};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

const CA_FILE: &str = "ca.pem";
const CA_KEY_FILE: &str = "ca-key.pem";
const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// How long a certificate is good.
const LIFE_MS: u64 = 90 * DAY_MS;
/// It is made again when less than this is left.
const RENEW_BEFORE_MS: u64 = 30 * DAY_MS;
/// A client's clock may be behind by so much.
const CLOCK_LAG_MS: u64 = DAY_MS;
const LOOK_EVERY: Duration = Duration::from_secs(60 * 60);

/// Signs certificates of this broker.
pub(super) struct Authority {
    ca_file: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    names: Vec<String>,
}

/// Whether each name can stand in a certificate.
pub(super) fn check(names: &[String]) -> Result<()> {
    for name in names {
        let host = name.strip_prefix("*.").unwrap_or(name);
        if ServerName::try_from(host).is_err() {
            return Err(Error::usage(format!("tls.names: {name:?} is neither a host name nor an address")));
        }
    }
    Ok(())
}

impl Authority {
    /// The authority of the folder, made if there is none. It signs for the names, `localhost`, the loopback and the
    /// addresses listened on.
    pub(super) fn open(dir: &Path, names: &[String], addresses: &[SocketAddr]) -> Result<Self> {
        let (ca_file, key_file) = (dir.join(CA_FILE), dir.join(CA_KEY_FILE));
        let key = if key_file.exists() {
            read_key(&key_file)?
        } else {
            make_dir(dir)?;
            let key = new_key()?;
            write(&key_file, &key.serialize_pem(), 0o600)?;
            // one made by an earlier key proves nothing
            write(&ca_file, &certificate_of(&key)?, 0o644)?;
            key
        };
        if !ca_file.exists() {
            write(&ca_file, &certificate_of(&key)?, 0o644)?;
        }
        let issuer = Issuer::new(ca_params(&key), key);
        Ok(Self { ca_file, issuer, names: all_names(names, addresses) })
    }

    /// What clients are told to trust.
    pub(super) fn ca_file(&self) -> &Path {
        &self.ca_file
    }

    /// A certificate with a key of its own, good from now on.
    pub(super) fn issue(&self, now: TimestampMs) -> Result<CertifiedKey> {
        let key = new_key()?;
        let mut params = CertificateParams::new(self.names.clone()).map_err(cannot)?;
        params.distinguished_name = called("tidemill");
        params.not_before = date(now.saturating_sub_ms(CLOCK_LAG_MS));
        params.not_after = date(TimestampMs::new(now.get().saturating_add(LIFE_MS)));
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.issuer).map_err(cannot)?;
        let private = PrivateKeyDer::try_from(key.serialize_der()).map_err(cannot)?;
        let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
        CertifiedKey::from_der(chain, private, &provider()).map_err(cannot)
    }
}

/// Looks each hour whether the certificate is about to end, and makes the next one.
pub(super) async fn renew(
    authority: Authority,
    shown: Arc<Shown>,
    clock: Arc<dyn Clock>,
    stopping: CancellationToken,
) {
    let mut made = clock.now();
    while tokio::time::timeout(LOOK_EVERY, stopping.cancelled()).await.is_err() {
        let now = clock.now();
        if !is_due(made, now) {
            continue;
        }
        match authority.issue(now) {
            Ok(next) => {
                shown.swap(next);
                made = now;
                tracing::info!("the local TLS certificate was renewed");
            }
            Err(error) => tracing::error!(%error, "cannot renew the local TLS certificate"),
        }
    }
}

/// Also when the clock was set back behind the beginning of its life.
fn is_due(made: TimestampMs, now: TimestampMs) -> bool {
    let age_ms = now.get().saturating_sub(made.get());
    age_ms > LIFE_MS - RENEW_BEFORE_MS || made.get().saturating_sub(now.get()) > CLOCK_LAG_MS
}

fn cannot(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::because("cannot make a local TLS certificate", error)
}

fn new_key() -> Result<KeyPair> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(cannot)
}

fn called(name: &str) -> DistinguishedName {
    let mut called = DistinguishedName::new();
    called.push(DnType::CommonName, name);
    called
}

/// All that the key decides, so that a later start signs in the same name. The key is part of the name: clients may
/// know the authorities of several brokers.
fn ca_params(key: &KeyPair) -> CertificateParams {
    let digest = Sha256::digest(key.public_key_raw());
    let mut params = CertificateParams::default();
    params.distinguished_name = called(&format!(
        "Tidemill local authority {:02x}{:02x}{:02x}{:02x}",
        digest[0], digest[1], digest[2], digest[3]
    ));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2099, 12, 31);
    params
}

fn certificate_of(key: &KeyPair) -> Result<String> {
    Ok(ca_params(key).self_signed(key).map_err(cannot)?.pem())
}

fn all_names(names: &[String], addresses: &[SocketAddr]) -> Vec<String> {
    let mut all: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    let listened = addresses.iter().map(SocketAddr::ip).filter(|ip| !ip.is_unspecified());
    all.extend(listened.map(|ip| ip.to_string()));
    all.extend(names.iter().cloned());
    all.sort();
    all.dedup();
    all
}

fn date(at: TimestampMs) -> OffsetDateTime {
    let seconds = i64::try_from(at.seconds()).unwrap_or(i64::MAX);
    // a clock past the year 9999 gets a certificate from 1970, which no client takes
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

fn read_key(path: &Path) -> Result<KeyPair> {
    let what = format!("cannot use {} (delete the folder to have a new authority made)", path.display());
    let text = fs::read_to_string(path).map_err(|e| Error::because(what.clone(), e))?;
    KeyPair::from_pem(&text).map_err(|e| Error::because(what, e))
}

fn make_dir(dir: &Path) -> Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o755);
    builder
        .recursive(true)
        .create(dir)
        .map_err(|e| Error::because(format!("cannot make the folder {}", dir.display()), e))
}

/// Writes the file whole or not at all.
fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    let failed = |e| Error::because(format!("cannot write {}", path.display()), e);
    let dir = path.parent().expect("the path was joined from a folder and a name");
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(dir).map_err(failed)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.as_file().set_permissions(fs::Permissions::from_mode(mode)).map_err(failed)?;
    }
    file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    file.persist(path).map_err(|e| failed(e.error))?;
    Ok(())
}
