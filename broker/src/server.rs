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

use crate::aws::{self, AwsState};
use crate::error::{Error, Result};
use crate::grpc;
use crate::ops::{self, Ops};
use axum::Router;
use axum::body::Body;
use http::{HeaderMap, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tidemill_engine::Engine;
use tidemill_types::{AccountId, Clock, Region, SystemClock};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// What one HTTP/2 stream may send before it is read: a few batches.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// What all streams of a connection may send before they are read.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Large frames on the wire cost fewer headers and wake-ups.
const FRAME_BYTES: u32 = 256 << 10;
/// What one HTTP/2 stream may have waiting to be sent.
const SEND_BUFFER_BYTES: usize = 1 << 20;
/// Calls at a time on one HTTP/2 connection.
const STREAMS_MAX: u32 = 4096;
const HEADER_BYTES_MAX: u32 = 64 << 10;
/// An idle HTTP/1 connection is kept this long; clients give up theirs earlier, so that none meets a closing one.
const IDLE: Duration = Duration::from_secs(150);
/// A connection must bring its first request within this time.
const FIRST_REQUEST: Duration = Duration::from_secs(60);
/// A plain HTTP request must be read and answered within this time.
const REQUEST: Duration = Duration::from_secs(120);
/// HTTP/2 peers are asked for a sign of life so often, and given up when it does not come in time.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// A peer that takes nothing of what waits for it is given up after this time: it holds memory that others need.
const STALLED: Duration = Duration::from_secs(60);
/// Requests under way may take so long once the broker is stopping.
const REQUESTS_DRAIN: Duration = Duration::from_secs(5);
/// What is queued in the engine may take so long then.
const ENGINE_DRAIN: Duration = Duration::from_secs(10);
/// After a failed accept (no file descriptors left, mostly) wait before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

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
    /// Who may reach it. Default: this machine only.
    pub exposure: Exposure,
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
            exposure: Exposure::LoopbackOnly,
            connections_max: 4096,
            engine: tidemill_engine::Settings::default(),
            clock: Arc::new(SystemClock::new()),
        }
    }
}

impl BrokerSettings {
    /// Whether the settings fit each other; says which do not.
    pub fn check(&self) -> Result<()> {
        if self.exposure == Exposure::LoopbackOnly && !self.listen.ip().is_loopback() {
            return Err(Error::usage(format!(
                "refusing to serve on {}: no credentials are configured, so anyone who reaches it could read and write; \
                 listen on a loopback address, or accept that with --insecure",
                self.listen
            )));
        }
        if self.connections_max == 0 || self.connections_max > Semaphore::MAX_PERMITS {
            return Err(Error::usage("server.connections_max must be at least 1"));
        }
        self.engine.storage.check().map_err(|e| Error::usage(e.to_string()))
    }
}

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
        let (grpc, health) = grpc::routes(&engine, &stopping).await;
        let front = Front {
            grpc,
            ops: Ops::new(engine.clone(), stopping.clone(), Arc::clone(&metrics)).router(),
            aws: aws::router(AwsState::new(engine.clone(), settings.account, settings.region)),
        };
        let door = Door { front, stopping: stopping.clone(), stalled: STALLED };
        let accepting = tokio::spawn(accept(listener, door, settings.connections_max));
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

/// What holds for every connection.
#[derive(Clone)]
struct Door {
    front: Front,
    stopping: CancellationToken,
    /// See [`STALLED`].
    stalled: Duration,
}

/// Tells when a time begins in which connections have to wait; it is over once an eighth of the slots is free.
struct Crowd {
    slots: usize,
    is_full: bool,
}

impl Crowd {
    fn begins(&mut self, free: usize) -> bool {
        let was_full = self.is_full;
        self.is_full = free == 0 || (was_full && free < (self.slots / 8).max(1));
        self.is_full && !was_full
    }
}

/// Takes connections until told to stop, then waits for those there are, and cuts those that take too long.
async fn accept(listener: TcpListener, door: Door, connections_max: usize) {
    let slots = Arc::new(Semaphore::new(connections_max));
    let mut crowd = Crowd { slots: connections_max, is_full: false };
    let open = metrics::gauge!("tidemill_connections");
    let mut connections = JoinSet::new();
    loop {
        if crowd.begins(slots.available_permits()) {
            tracing::warn!(connections_max, "all connections are taken, more wait to be accepted");
        }
        let next = async {
            let slot = Arc::clone(&slots).acquire_owned().await.expect("the semaphore is never closed");
            (listener.accept().await, slot)
        };
        tokio::select! {
            () = door.stopping.cancelled() => break,
            Some(ended) = connections.join_next() => note_end(ended),
            (accepted, slot) = next => match accepted {
                Ok((socket, _)) => {
                    connections.spawn(serve_connection(socket, door.clone(), slot));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
        open.set(connections.len() as f64);
    }
    drop(listener);
    let drained = async {
        while let Some(ended) = connections.join_next().await {
            note_end(ended);
        }
    };
    if tokio::time::timeout(REQUESTS_DRAIN, drained).await.is_err() {
        tracing::warn!(connections = connections.len(), "cutting connections that did not finish in time");
    }
    connections.shutdown().await;
    open.set(0.0);
}

fn note_end(ended: std::result::Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection broke off");
    }
}

/// Ends the connection once what was sent has not been acknowledged, or could not be sent, for so long.
#[cfg(target_os = "linux")]
fn give_up_when_stalled(socket: &TcpStream, after: Duration) -> std::io::Result<()> {
    let ms = u32::try_from(after.as_millis()).unwrap_or(u32::MAX);
    Ok(rustix::net::sockopt::set_tcp_user_timeout(socket, ms)?)
}

/// Other systems have no such option: there a connection lasts as long as its peer.
#[cfg(not(target_os = "linux"))]
fn give_up_when_stalled(_socket: &TcpStream, _after: Duration) -> std::io::Result<()> {
    Ok(())
}

async fn serve_connection(socket: TcpStream, door: Door, _slot: OwnedSemaphorePermit) {
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "cannot switch off delays");
    }
    if let Err(error) = give_up_when_stalled(&socket, door.stalled) {
        tracing::debug!(%error, "cannot limit how long a peer may stall");
    }
    let Door { front, stopping, .. } = door;
    let seen = Arc::new(AtomicBool::new(false));
    let service = {
        let seen = Arc::clone(&seen);
        service_fn(move |request| {
            seen.store(true, Ordering::Relaxed);
            front.clone().call(request)
        })
    };
    let builder = connection_builder();
    let connection = builder.serve_connection(TokioIo::new(socket), service);
    let first_request = tokio::time::sleep(FIRST_REQUEST);
    tokio::pin!(connection, first_request);
    let (mut draining, mut waited) = (false, false);
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(error, "connection ended early");
                }
                return;
            }
            () = stopping.cancelled(), if !draining => {
                connection.as_mut().graceful_shutdown();
                draining = true;
            }
            () = &mut first_request, if !waited => {
                if !seen.load(Ordering::Relaxed) {
                    return;
                }
                waited = true;
            }
        }
    }
}

fn connection_builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).keep_alive(true).header_read_timeout(IDLE);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

/// The three front ends behind the one port.
#[derive(Clone)]
struct Front {
    grpc: Router,
    ops: Router,
    aws: Router,
}

impl Front {
    async fn call(self, request: Request<Incoming>) -> std::result::Result<Response<Body>, Infallible> {
        let request = request.map(Body::new);
        if is_grpc(request.headers()) {
            return self.grpc.oneshot(request).await;
        }
        let path = request.uri().path();
        let router = if path.starts_with("/health/") || path == "/metrics" { self.ops } else { self.aws };
        match tokio::time::timeout(REQUEST, router.oneshot(request)).await {
            Ok(answer) => answer,
            Err(_) => {
                let mut late = Response::new(Body::from("the request was not complete in time\n"));
                *late.status_mut() = StatusCode::REQUEST_TIMEOUT;
                late.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
                Ok(late)
            }
        }
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

#[cfg(test)]
mod tests;
