//! One port for everything: an accept loop, and a fork in the road by what a request is.
//!
//! ```text
//!  listener ─► slot (bounded) ─► connection: HTTP/1.1 or HTTP/2 by its first bytes
//!                                   ├─ content-type application/grpc*  ─► grpc/
//!                                   ├─ /health/*, /metrics             ─► ops
//!                                   └─ anything else                   ─► aws/
//!  stop: no more accepts ─► `Connection: close` / GOAWAY, subscriptions end ─► requests under way finish ─► engine closes
//! ```
//!
//! Why an own loop: window sizes, timeouts and the cap on connections are promises (never unbounded, never a hang), and
//! the ready-made servers hide them. What it does not do: look inside a request.

mod accept;
mod connection;
mod front;
mod settings;

pub use settings::{BrokerSettings, Exposure};

use crate::aws::{self, AwsState};
use crate::error::{Error, Result};
use crate::grpc;
use crate::ops::{self, Ops};
use connection::Door;
use front::Front;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tidemill_engine::Engine;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What is queued in the engine may take so long once the broker is stopping.
const ENGINE_DRAIN: Duration = Duration::from_secs(10);

/// A running broker. Dropping it stops nothing in order: call [`Broker::shutdown`].
pub struct Broker {
    addr: SocketAddr,
    engine: Engine,
    stopping: CancellationToken,
    accepting: JoinHandle<()>,
    upkeep: JoinHandle<()>,
    following: JoinHandle<()>,
    health: grpc::HealthSwitch,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker").field("addr", &self.addr).finish_non_exhaustive()
    }
}

impl Broker {
    /// Opens the data directory, recovers, binds. When this returns, requests are answered.
    pub async fn start(settings: BrokerSettings) -> Result<Self> {
        settings.check()?;
        let metrics = ops::recorder();
        // the port first: a broker that cannot serve must not touch the data
        let listener = TcpListener::bind(settings.listen)
            .await
            .map_err(|e| Error::because(format!("cannot listen on {}", settings.listen), e))?;
        let addr =
            listener.local_addr().map_err(|e| Error::because("cannot tell the address listened on", e))?;
        let engine = Engine::open(&settings.data_dir, settings.engine, Arc::clone(&settings.clock))
            .await
            .map_err(|e| Error::because(format!("cannot open {}", settings.data_dir.display()), e))?;
        let stopping = CancellationToken::new();
        let (grpc, health) = grpc::routes(&engine, &settings.account, &stopping).await;
        let front = Front {
            grpc,
            ops: Ops::new(engine.clone(), stopping.clone(), Arc::clone(&metrics)).router(),
            aws: aws::router(AwsState::new(engine.clone(), settings.account, settings.region)),
        };
        let door = Door { front, stopping: stopping.clone(), stalled: connection::STALLED };
        let accepting = tokio::spawn(accept::accept(listener, door, settings.connections_max));
        let upkeep = tokio::spawn(ops::upkeep(metrics, stopping.clone()));
        let following = tokio::spawn(health.clone().follow(engine.clone(), stopping.clone()));
        Ok(Self { addr, engine, stopping, accepting, upkeep, following, health })
    }

    /// The address it listens on, with the real port.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://` and the address: what clients take as endpoint.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The engine behind the wire.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Stops in order: no more connections, subscriptions end, requests under way finish (5 s), what is queued becomes
    /// durable (10 s), the directory is closed. An error says that recovery will have work to do; nothing
    /// acknowledged is lost by it.
    pub async fn shutdown(self) -> Result<()> {
        self.health.not_serving().await;
        self.stopping.cancel();
        for task in [self.accepting, self.upkeep, self.following] {
            if let Err(error) = task.await {
                tracing::error!(%error, "a server task panicked");
            }
        }
        match tokio::time::timeout(ENGINE_DRAIN, self.engine.close()).await {
            Ok(closed) => closed.map_err(|e| Error::because("the data directory did not close cleanly", e)),
            Err(_) => Err(Error::failed(format!(
                "the queue did not become durable within {} s; what was acknowledged is safe, the rest was refused",
                ENGINE_DRAIN.as_secs()
            ))),
        }
    }
}

#[cfg(test)]
mod tests;
