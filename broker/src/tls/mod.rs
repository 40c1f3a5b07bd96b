//! TLS: which certificate the listener shows, and where it comes from.
//!
//! ```text
//!  files the operator names ─► files ─┐
//!                                     ├─► Shown ─► each handshake
//!  DATA_DIR/tls/ca-key.pem  ─► local ─┘
//! ```
//!
//! What it is: settings in, a [`TlsAcceptor`] out; and the settings of a client, for the load generator. How it lives: a task follows the source and swaps what is shown; a
//! handshake takes whatever is shown at that moment, connections under way keep theirs. Why the crypto provider is
//! named here and not taken from the process: another library may have installed its own.
//!
//! What it does not do: accept connections, or ask clients for certificates; who calls is told by signatures.

mod files;
mod local;

use crate::error::{Error, Result};
use arc_swap::ArcSwap;
use hyper_rustls::ConfigBuilderExt;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tidemill_types::Clock;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Where the local authority lies within the data directory.
const LOCAL_DIR: &str = "tls";

/// How a broker speaks TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// What it shows to prove who it is.
    pub certificate: Certificate,
    /// Whether clear text is refused. Default: it is served on the same port.
    pub required: bool,
    /// A second address, for TLS alone.
    pub listen: Option<SocketAddr>,
}

/// Where the certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Certificate {
    /// Made by an authority of this data directory, whose certificate clients are told to trust. For development.
    Local {
        /// Names and addresses it is good for, beside `localhost`, the loopback and the listen addresses.
        names: Vec<String>,
    },
    /// Given in PEM files, read again when they change.
    Files {
        /// The certificate and those between it and the root.
        certificate: PathBuf,
        /// Its private key.
        key: PathBuf,
    },
}

impl TlsSettings {
    /// Whether the files can be used. Touches nothing.
    pub(crate) fn check(&self) -> Result<()> {
        match &self.certificate {
            Certificate::Local { names } => local::check(names),
            Certificate::Files { certificate, key } => files::load(certificate, key).map(drop),
        }
    }
}

/// What the next handshake shows.
#[derive(Debug)]
struct Shown(ArcSwap<CertifiedKey>);

impl Shown {
    fn new(first: CertifiedKey) -> Arc<Self> {
        Arc::new(Self(ArcSwap::from_pointee(first)))
    }
    fn swap(&self, next: CertifiedKey) {
        self.0.store(Arc::new(next));
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// Makes ready to shake hands; the task keeps the certificate up to date until `stopping`. The data directory must be
/// open, since a local authority lies there.
pub(crate) fn start(
    settings: &TlsSettings,
    data_dir: &Path,
    addresses: &[SocketAddr],
    clock: Arc<dyn Clock>,
    stopping: CancellationToken,
) -> Result<(TlsAcceptor, JoinHandle<()>)> {
    let (shown, following) = match &settings.certificate {
        Certificate::Files { certificate, key } => {
            let pair = files::Pair::new(certificate, key);
            let shown = Shown::new(files::load(certificate, key)?);
            (Arc::clone(&shown), tokio::spawn(files::follow(pair, shown, stopping)))
        }
        Certificate::Local { names } => {
            let dir = data_dir.join(LOCAL_DIR);
            let authority = local::Authority::open(&dir, names, addresses)?;
            let shown = Shown::new(authority.issue(clock.now())?);
            tracing::info!(ca = %authority.ca_file().display(), "TLS with a local certificate; clients trust it by this file");
            (Arc::clone(&shown), tokio::spawn(local::renew(authority, shown, clock, stopping)))
        }
    };
    Ok((acceptor(shown)?, following))
}

fn acceptor(shown: Arc<Shown>) -> Result<TlsAcceptor> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::because("cannot set up TLS", e))?;
    let mut config = builder.with_no_client_auth().with_cert_resolver(shown);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// How a client of this program speaks TLS: it trusts these authorities (PEM), or those that the system trusts.
pub(crate) fn client(authorities: Option<&[u8]>) -> Result<ClientConfig> {
    let cannot = |e: &dyn std::fmt::Display| Error::usage(format!("no authorities to trust for TLS: {e}"));
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::because("cannot set up TLS", e))?;
    let Some(pem) = authorities else {
        return Ok(builder.with_native_roots().map_err(|e| cannot(&e))?.with_no_client_auth());
    };
    let mut trusted = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(pem) {
        trusted.add(authority.map_err(|e| cannot(&e))?).map_err(|e| cannot(&e))?;
    }
    Ok(builder.with_root_certificates(trusted).with_no_client_auth())
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
