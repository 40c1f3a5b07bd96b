//! One connection: HTTP/1.1 or HTTP/2 by its first bytes, with windows, caps and deadlines.

use super::front::Front;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

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
/// HTTP/2 peers are asked for a sign of life so often, and given up when it does not come in time.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// A peer that takes nothing of what waits for it is given up after this time: it holds memory that others need.
pub(super) const STALLED: Duration = Duration::from_secs(60);

/// What holds for every connection.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) front: Front,
    pub(super) stopping: CancellationToken,
    /// See [`STALLED`].
    pub(super) stalled: Duration,
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

pub(super) async fn serve(socket: TcpStream, door: Door, _slot: OwnedSemaphorePermit) {
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
