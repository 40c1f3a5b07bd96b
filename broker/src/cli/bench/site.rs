//! What is measured: a broker elsewhere, or one that is started here, in this process or in one of its own, with its data
//! on the disk of the current directory.

use crate::auth::Secret;
use crate::config::DurabilityMode;
use crate::error::{Error, Result};
use crate::server::{Broker, BrokerSettings};
use std::net::{IpAddr, SocketAddr};
use tempfile::TempDir;
use tidemill_proto::client::Endpoint;
use tidemill_storage::Durability;

const SYNC_INTERVAL_MS: u64 = 100;
/// Of a file system in memory.
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// An access key id and its secret.
#[derive(Debug, Clone)]
pub(super) struct Credentials {
    pub(super) id: String,
    pub(super) secret: Secret,
    /// Of temporary ones.
    pub(super) token: Option<Secret>,
}

impl Credentials {
    /// Those that need no token.
    pub(super) fn lasting(id: String, secret: Secret) -> Self {
        Self { id, secret, token: None }
    }
}

/// What is measured.
pub(super) struct Site {
    pub(super) endpoint: Endpoint,
    own: Option<(Broker, TempDir)>,
}

impl Site {
    pub(super) fn elsewhere(endpoint: Endpoint) -> Self {
        Self { endpoint, own: None }
    }

    /// A broker in this process.
    pub(super) async fn start(durability: DurabilityMode) -> Result<Self> {
        let dir = directory()?;
        let mut engine = tidemill_engine::Settings::default();
        engine.storage.durability = match durability {
            DurabilityMode::Device => Durability::Device,
            DurabilityMode::Interval => Durability::Interval { ms: SYNC_INTERVAL_MS },
            DurabilityMode::Os => Durability::Os,
        };
        let broker = Broker::start(BrokerSettings {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            data_dir: dir.path().join("data"),
            engine,
            ..BrokerSettings::default()
        })
        .await?;
        Ok(Self { endpoint: Endpoint::new(&broker.endpoint())?, own: Some((broker, dir)) })
    }

    pub(super) async fn leave(self) {
        if let Some((broker, _dir)) = self.own
            && let Err(error) = broker.shutdown().await
        {
            tracing::warn!(%error, "the broker did not stop in order");
        }
    }
}

/// A directory for the data of a broker, removed when it is dropped; on a disk, or figures would not be of one.
pub(super) fn directory() -> Result<TempDir> {
    let dir = tempfile::Builder::new().prefix("tidemill-bench-").tempdir_in(".");
    let dir = dir.map_err(|e| Error::because("cannot make a directory here", e))?;
    let kind =
        rustix::fs::statfs(dir.path()).map_err(|e| Error::because("cannot tell the file system", e))?;
    if u64::try_from(kind.f_type) == Ok(TMPFS_MAGIC) {
        return Err(Error::usage(
            "the current directory lies in memory (tmpfs), so figures would not be of a disk; change to another one",
        ));
    }
    Ok(dir)
}

/// Where the native calls go, and as whom.
#[derive(Debug, Clone)]
pub(super) struct Native {
    /// With what proves who calls.
    pub(super) endpoint: Endpoint,
    pub(super) credentials: Option<Credentials>,
}

impl Native {
    /// Over gRPC the secret itself travels, so in clear text it stays on this machine. Temporary credentials are for the
    /// Kinesis API.
    pub(super) fn new(endpoint: &Endpoint, credentials: Option<Credentials>) -> Result<Self> {
        let given = credentials.is_some();
        let credentials = credentials.filter(|_| endpoint.is_https() || is_loopback(endpoint));
        if given && credentials.is_none() {
            eprintln!(
                "tidemill: bench: the secret is not sent to {endpoint} over gRPC, which would carry it in clear text"
            );
        }
        let plain = endpoint.clone();
        let endpoint = match &credentials {
            Some(Credentials { id, secret, .. }) => plain.credentials(id, secret.reveal())?,
            None => plain,
        };
        Ok(Self { endpoint, credentials })
    }
}

fn is_loopback(endpoint: &Endpoint) -> bool {
    let authority = authority(endpoint);
    let host = authority.rsplit_once(':').map_or(authority.as_str(), |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// `host:port`.
pub(super) fn authority(endpoint: &Endpoint) -> String {
    let text = endpoint.to_string();
    text.split_once("://").map_or(text.clone(), |(_, authority)| authority.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_goes_over_grpc_on_this_machine_only() {
        for (text, expected) in [
            ("http://127.0.0.1:4567", true),
            ("http://localhost:1", true),
            ("http://[::1]:1", true),
            ("http://10.0.0.1:1", false),
            ("http://broker.example:1", false),
            ("http://localhost.example:1", false),
        ] {
            assert_eq!(is_loopback(&Endpoint::new(text).unwrap()), expected, "{text}");
        }
    }
}
