//! One port for everything: an accept loop, and a fork in the road by what a request is.
//!
//! ```text
//!  listener ─► slot (bounded) ─► connection: TLS or clear, HTTP/1.1 or HTTP/2 by its first bytes
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
mod line;
mod lingering;
mod settings;

pub(crate) use line::{Cut, Place};
pub use settings::{BrokerSettings, Exposure};

use crate::auth::{self, Gate};
use crate::aws::{self, AwsState};
use crate::config;
use crate::error::{Error, Result};
use crate::grpc;
use crate::limits::LimitSettings;
use crate::ops::{self, Ops};
use crate::tls;
use accept::Listeners;
use connection::{Door, Patience, Speaks};
use front::Front;
use metrics_exporter_prometheus::PrometheusHandle;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tidemill_engine::Engine;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What is queued in the engine may take so long once the broker is stopping.
const ENGINE_DRAIN: Duration = Duration::from_secs(10);

/// A running broker. Dropping it stops nothing in order: call [`Broker::shutdown`].
pub struct Broker {
    addr: SocketAddr,
    tls_addr: Option<SocketAddr>,
    clear_text: bool,
    engine: Engine,
    stopping: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
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
        // the ports first: a broker that cannot serve must not touch the data
        let (listener, addr) = bind(settings.listen).await?;
        let second = match settings.tls.as_ref().and_then(|tls| tls.listen) {
            Some(listen) => Some(bind(listen).await?),
            None => None,
        };
        let tls_addr = second.as_ref().map(|(_, addr)| *addr);
        let keys = settings.engine.keys.clone();
        let engine = Engine::open(&settings.data_dir, settings.engine, Arc::clone(&settings.clock))
            .await
            .map_err(|e| Error::because(format!("cannot open {}", settings.data_dir.display()), e))?;
        let stopping = CancellationToken::new();
        let mut tasks = Vec::new();
        let gate = Gate::new(&settings.access, settings.account, settings.region).map_err(Error::usage)?;
        if let Some(file) = settings.access.file.clone() {
            tasks.push(tokio::spawn(config::follow_keys(keys, file.clone(), stopping.clone())));
            let following =
                auth::follow(gate.clone(), file, settings.access, config::read_access, stopping.clone());
            tasks.push(tokio::spawn(following));
        }
        let mut clear_text = true;
        let mut listeners = Vec::new();
        match &settings.tls {
            None => listeners.push((listener, Speaks::ClearText)),
            Some(tls) => {
                let addresses: Vec<_> = std::iter::once(addr).chain(tls_addr).collect();
                let clock = Arc::clone(&settings.clock);
                let (acceptor, following) =
                    tls::start(tls, &settings.data_dir, &addresses, clock, stopping.clone())?;
                tasks.push(following);
                clear_text = !tls.required;
                let first =
                    if clear_text { Speaks::Both(acceptor.clone()) } else { Speaks::Tls(acceptor.clone()) };
                listeners.push((listener, first));
                listeners.extend(second.map(|(listener, _)| (listener, Speaks::Tls(acceptor))));
            }
        }
        let (front, health) = front(&engine, gate, settings.limits, &stopping, &metrics).await;
        let door = Door { front, stopping: stopping.clone(), patience: Patience::default() };
        let accepting = accept::accept(Listeners::new(listeners), door, settings.connections_max);
        tasks.push(tokio::spawn(accepting));
        tasks.push(tokio::spawn(ops::upkeep(metrics, stopping.clone())));
        tasks.push(tokio::spawn(health.clone().follow(engine.clone(), stopping.clone())));
        Ok(Self { addr, tls_addr, clear_text, engine, stopping, tasks, health })
    }

    /// The address it listens on, with the real port.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The second address, where only TLS is spoken, with the real port.
    pub fn tls_addr(&self) -> Option<SocketAddr> {
        self.tls_addr
    }

    /// `http://` and the address: what clients take as endpoint; `https://` where clear text is refused.
    pub fn endpoint(&self) -> String {
        let scheme = if self.clear_text { "http" } else { "https" };
        format!("{scheme}://{}", self.addr)
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
        for task in self.tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a server task panicked");
            }
        }
        match tokio::time::timeout(ENGINE_DRAIN, self.engine.close()).await {
            Ok(closed) => closed.map_err(|e| Error::because("the data directory did not close cleanly", e)),
            Err(_) => Err(Error::failed(format!(
                "closing the data directory takes longer than {} s, as it may when thousands of shards were written to; nothing acknowledged is lost, the next start recovers",
                ENGINE_DRAIN.as_secs()
            ))),
        }
    }
}

/// The wire of a broker over connections that somebody else accepts, and over an engine that somebody else opens and closes:
/// for networks that are not this machine's. Everyone may use it. Cheap to clone.
#[derive(Clone)]
pub struct Wire {
    door: Door,
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire").finish_non_exhaustive()
    }
}

impl Wire {
    /// All front ends over `engine`, with the settings a broker has by default.
    pub async fn new(engine: &Engine) -> Result<Self> {
        let BrokerSettings { access, account, region, limits, .. } = BrokerSettings::default();
        let gate = Gate::new(&access, account, region).map_err(Error::usage)?;
        let stopping = CancellationToken::new();
        let (front, _) = front(engine, gate, limits, &stopping, &ops::recorder()).await;
        Ok(Self { door: Door { front, stopping, patience: Patience::default() } })
    }

    /// Serves one connection to its end. Cancelling cuts it.
    pub async fn serve<I>(&self, connection: I)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        connection::serve_http(connection, self.door.clone()).await;
    }

    /// Ends what goes on, answered, and takes no more requests.
    pub fn stop(&self) {
        self.door.stopping.cancel();
    }
}

async fn front(
    engine: &Engine,
    gate: Gate,
    limits: LimitSettings,
    stopping: &CancellationToken,
    metrics: &Arc<PrometheusHandle>,
) -> (Front, grpc::HealthSwitch) {
    let (grpc, health) = grpc::routes(engine, &gate, stopping).await;
    let front = Front {
        grpc,
        ops: Ops::new(engine.clone(), gate.clone(), stopping.clone(), Arc::clone(metrics)).router(),
        gate: gate.clone(),
        aws: aws::router(AwsState::guarded(engine.clone(), gate, limits, stopping.clone())),
    };
    (front, health)
}

async fn bind(listen: SocketAddr) -> Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(listen)
        .await
        .map_err(|e| Error::because(format!("cannot listen on {listen}"), e))?;
    let addr = listener.local_addr().map_err(|e| Error::because("cannot tell the address listened on", e))?;
    Ok((listener, addr))
}

#[cfg(test)]
mod tests;
