//! What a broker needs to start, and whether it fits together.

use crate::auth::{self, AccessSettings};
use crate::clock::HostClock;
use crate::error::{Error, Result};
use crate::limits::LimitSettings;
use crate::tls::TlsSettings;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tidemill_types::{AccountId, Clock, Region};
use tokio::sync::Semaphore;

/// Who may reach a broker that checks no signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposure {
    /// Only this machine: other addresses are refused.
    LoopbackOnly,
    /// Anyone who can reach the address (`--insecure`).
    Anywhere,
}

/// What a broker needs to start.
#[derive(Clone)]
pub struct BrokerSettings {
    /// Where to listen. Default `127.0.0.1:4567`; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where the data lies; made if there is none. Default `./tidemill-data`.
    pub data_dir: PathBuf,
    /// Account number in ARNs. Default `000000000000`.
    pub account: AccountId,
    /// Region in ARNs. Default `us-east-1`.
    pub region: Region,
    /// Who may use it, and do what. Default: everyone who can reach it.
    pub access: AccessSettings,
    /// Who may reach it while no credentials are configured. Default: this machine only.
    pub exposure: Exposure,
    /// What accounts, streams and shards may ask for through the Kinesis API. Default: anything.
    pub limits: LimitSettings,
    /// How it speaks TLS. Default: it does not.
    pub tls: Option<TlsSettings>,
    /// Connections at a time; more wait to be accepted. Default 4,096, at least 1.
    pub connections_max: usize,
    /// Of the engine and, within, of storage.
    pub engine: tidemill_engine::Settings,
    /// Where the time comes from. Default: the operating system.
    pub clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for BrokerSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BrokerSettings")
            .field("listen", &self.listen)
            .field("data_dir", &self.data_dir)
            .finish_non_exhaustive()
    }
}

impl Default for BrokerSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 4567)),
            data_dir: PathBuf::from("./tidemill-data"),
            account: AccountId::new("000000000000").expect("twelve digits"),
            region: Region::new("us-east-1").expect("a valid name"),
            access: AccessSettings::default(),
            exposure: Exposure::LoopbackOnly,
            limits: LimitSettings::default(),
            tls: None,
            connections_max: 4096,
            engine: tidemill_engine::Settings::default(),
            clock: Arc::new(HostClock::default()),
        }
    }
}

impl BrokerSettings {
    /// Whether the settings fit each other; says which do not.
    pub fn check(&self) -> Result<()> {
        auth::check_access(&self.access, &self.account).map_err(Error::usage)?;
        let anyone = self.access.credentials.is_empty() && self.exposure == Exposure::LoopbackOnly;
        let listens = std::iter::once(self.listen).chain(self.tls.as_ref().and_then(|tls| tls.listen));
        for listen in listens {
            if anyone && !listen.ip().is_loopback() {
                return Err(Error::usage(format!(
                    "refusing to serve on {listen}: no credentials are configured, so anyone who reaches it could read \
                     and write; configure credentials, listen on a loopback address, or accept that with --insecure"
                )));
            }
        }
        if let Some(tls) = &self.tls {
            tls.check()?;
        }
        if self.connections_max == 0 || self.connections_max > Semaphore::MAX_PERMITS {
            return Err(Error::usage("server.connections_max must be at least 1"));
        }
        self.engine.storage.check().map_err(|e| Error::usage(e.to_string()))
    }
}
