//! A certificate and its key in PEM files, read again when they change.
//!
//! Why by looking each second: it works on every file system and for every way of replacing a file, links that are
//! switched included. While the two do not fit each other, as between two copies, what was shown before is shown on.

use super::{Shown, provider};
use crate::error::{Error, Result};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio_util::sync::CancellationToken;

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Chains are a few KiB; a path that leads to something huge is a mistake.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The two files, and how they looked when they were last read.
pub(super) struct Pair {
    certificate: PathBuf,
    key: PathBuf,
    seen: [Look; 2],
}

/// What changes when a file does.
type Look = Option<(u64, SystemTime)>;

fn look(path: &Path) -> Look {
    let meta = fs::metadata(path).ok()?;
    Some((meta.len(), meta.modified().ok()?))
}

impl Pair {
    /// Notes how the files look now; load them after this, so that no change is missed.
    pub(super) fn new(certificate: &Path, key: &Path) -> Self {
        let seen = [look(certificate), look(key)];
        Self { certificate: certificate.to_owned(), key: key.to_owned(), seen }
    }

    /// What the files hold if they have changed.
    fn changed(&mut self) -> Option<Result<CertifiedKey>> {
        let now = [look(&self.certificate), look(&self.key)];
        if now == self.seen {
            return None;
        }
        self.seen = now;
        Some(load(&self.certificate, &self.key))
    }
}

/// Reads both files and tells whether they belong together. Blocks.
pub(super) fn load(certificate: &Path, key: &Path) -> Result<CertifiedKey> {
    let bad = |path: &Path, why: String| Error::usage(format!("{}: {why}", path.display()));
    let read = |path: &Path| {
        let bytes = fs::metadata(path).map_err(|e| bad(path, format!("cannot read it: {e}")))?.len();
        if bytes > FILE_BYTES_MAX {
            return Err(bad(path, format!("{bytes} bytes are too many for a PEM file")));
        }
        fs::read(path).map_err(|e| bad(path, format!("cannot read it: {e}")))
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&read(certificate)?)
        .collect::<std::result::Result<_, _>>()
        .map_err(|e| bad(certificate, format!("not a PEM file of certificates: {e}")))?;
    if chain.is_empty() {
        return Err(bad(certificate, "it holds no certificate".to_owned()));
    }
    let private = PrivateKeyDer::from_pem_slice(&read(key)?)
        .map_err(|e| bad(key, format!("it holds no private key in PEM form: {e}")))?;
    CertifiedKey::from_der(chain, private, &provider())
        .map_err(|e| bad(certificate, format!("cannot be used with the key {}: {e}", key.display())))
}

/// Looks each second whether the files have changed, and shows what they hold if it is sound.
pub(super) async fn follow(mut pair: Pair, shown: Arc<Shown>, stopping: CancellationToken) {
    while tokio::time::timeout(LOOK_EVERY, stopping.cancelled()).await.is_err() {
        // a file may lie on a slow network
        let looked = tokio::task::spawn_blocking(move || {
            let changed = pair.changed();
            (pair, changed)
        });
        let Ok((same_pair, changed)) = looked.await else { return };
        pair = same_pair;
        match changed {
            Some(Ok(next)) => {
                shown.swap(next);
                tracing::info!(certificate = %pair.certificate.display(), "the TLS certificate was replaced");
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "the changed TLS files cannot be used, the certificate from before is shown on");
            }
            None => {}
        }
    }
}
