//! One connection: TLS or clear text by its first byte, HTTP/1.1 or HTTP/2 by the next, with windows, caps and deadlines.
//!
//! Why the deadlines: a connection is a slot that others wait for. A peer that says nothing, or nothing whole, or takes
//! nothing of what it asked for, is given up; see [`Patience`]. What it does not do: look inside a request.

use super::front::Front;
use super::line::Cut;
use super::lingering::Lingering;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// What one HTTP/2 stream may send before it is read: a few batches.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// What all streams of a connection may send before they are read.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Large frames on the wire cost fewer wake-ups, and records that come in one are not gathered: catch-up reads gave 2,108 MB/s
/// with 256 KiB and 2,524 with this (interleaved, medians of 4). A client has its own (`proto/src/client/channel.rs`).
const FRAME_BYTES: u32 = 1 << 20;
/// What one HTTP/2 stream may have waiting to be sent.
const SEND_BUFFER_BYTES: usize = 1 << 20;
/// Calls at a time on one HTTP/2 connection.
const STREAMS_MAX: u32 = 1024;
/// Calls that a peer may take back before the broker has looked at them; with more the connection ends.
const EARLY_RESETS_MAX: usize = 32;
/// Calls that the broker may have to break off for a peer's mistakes; with more the connection ends.
const MISTAKES_MAX: usize = 256;
const HEADER_BYTES_MAX: u32 = 64 << 10;
/// First byte of every TLS connection: a handshake record. No HTTP request begins with it.
const TLS_HANDSHAKE: u8 = 0x16;
/// For who speaks clear text where it is not served.
const TLS_ONLY: &str = "this port speaks TLS only: use https:// here\n";

/// How long a peer may take for each thing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Bringing the first request.
    pub(super) first_request: Duration,
    /// The TLS handshake, once begun.
    pub(super) handshake: Duration,
    /// Between two HTTP/1 requests, and for the head of one. Clients give up idle connections earlier, so that none
    /// meets a closing one.
    pub(super) idle: Duration,
    /// HTTP/2 peers are asked for a sign of life so often …
    pub(super) ping_every: Duration,
    /// … and given up when it does not come in time.
    pub(super) ping_timeout: Duration,
    /// Taking anything of what waits for it: it holds memory that others need.
    pub(super) stalled: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            first_request: Duration::from_secs(60),
            handshake: Duration::from_secs(10),
            idle: Duration::from_secs(150),
            ping_every: Duration::from_secs(30),
            ping_timeout: Duration::from_secs(20),
            stalled: Duration::from_secs(60),
        }
    }
}

/// What holds for every connection.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) front: Front,
    pub(super) stopping: CancellationToken,
    pub(super) patience: Patience,
}

/// What a listener speaks.
#[derive(Clone)]
pub(super) enum Speaks {
    ClearText,
    Both(TlsAcceptor),
    Tls(TlsAcceptor),
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

/// Serves one connection to its end.
pub(super) async fn serve(socket: TcpStream, speaks: Speaks, door: Door, _slot: OwnedSemaphorePermit) {
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "cannot switch off delays");
    }
    if let Err(error) = give_up_when_stalled(&socket, door.patience.stalled) {
        tracing::debug!(%error, "cannot limit how long a peer may stall");
    }
    let tls = match speaks {
        Speaks::ClearText => return serve_http(socket, door).await,
        Speaks::Both(tls) => match first_byte(&socket, &door).await {
            Some(TLS_HANDSHAKE) => tls,
            Some(_) => return serve_http(socket, door).await,
            None => return,
        },
        Speaks::Tls(tls) => match first_byte(&socket, &door).await {
            Some(TLS_HANDSHAKE) => tls,
            Some(_) => return refuse_clear_text(socket).await,
            None => return,
        },
    };
    let shaking = tokio::time::timeout(door.patience.handshake, tls.accept(socket));
    let shaken = tokio::select! {
        () = door.stopping.cancelled() => return,
        shaken = shaking => shaken,
    };
    match shaken {
        Ok(Ok(stream)) => serve_http(stream, door).await,
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

/// Waits for the first byte and leaves it where it is. None if there comes none.
async fn first_byte(socket: &TcpStream, door: &Door) -> Option<u8> {
    let mut byte = [0];
    let peeked = tokio::select! {
        () = door.stopping.cancelled() => return None,
        peeked = tokio::time::timeout(door.patience.first_request, socket.peek(&mut byte)) => peeked,
    };
    matches!(peeked, Ok(Ok(1))).then_some(byte[0])
}

async fn refuse_clear_text(mut socket: TcpStream) {
    // what was sent is taken first, or the answer would be lost to a reset
    let _ = socket.try_read(&mut [0; 4096]);
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{TLS_ONLY}",
        TLS_ONLY.len()
    );
    if let Err(error) = socket.write_all(answer.as_bytes()).await {
        tracing::debug!(%error, "a peer that spoke clear text went before the answer");
    }
}

/// Serves one connection on which nothing is to be settled before HTTP.
pub(super) async fn serve_http<I>(stream: I, door: Door)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Door { front, stopping, patience } = door;
    let seen = Arc::new(AtomicBool::new(false));
    let cut = Cut::new();
    let service = {
        let (seen, cut) = (Arc::clone(&seen), cut.clone());
        service_fn(move |mut request| {
            seen.store(true, Ordering::Relaxed);
            request.extensions_mut().insert(cut.clone());
            front.clone().call(request)
        })
    };
    let builder = builder(&patience);
    let stream = TokioIo::new(Lingering::new(stream, stopping.clone()));
    let connection = builder.serve_connection(stream, service);
    let first_request = tokio::time::sleep(patience.first_request);
    let mut turns = tokio::time::interval(patience.stalled);
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
            () = cut.made() => return,
            _ = turns.tick() => {
                if cut.turn() {
                    tracing::debug!("cut a connection whose peer does not take its replies");
                    return;
                }
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

fn builder(patience: &Patience) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).keep_alive(true).header_read_timeout(patience.idle);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_concurrent_streams(STREAMS_MAX)
        .max_pending_accept_reset_streams(EARLY_RESETS_MAX)
        .max_local_error_reset_streams(MISTAKES_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .keep_alive_interval(patience.ping_every)
        .keep_alive_timeout(patience.ping_timeout);
    builder
}
