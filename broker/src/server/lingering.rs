//! A connection that lets its peer go first.
//!
//! Why: an HTTP/2 client that says goodbye while a reply is on its way (the JavaScript SDK does so after each request) ends
//! the connection itself when it has looked at all of the reply; closed under it before, what it has not looked at is lost
//! to it. So a connection that has nothing more to say waits for its peer, for [`LINGER`] at most and not while the broker
//! stops. HTTP/1 is not held: there the close may be what a peer waits for. What this does not do: look inside.

use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;

/// How long a peer may take to close.
const LINGER: Duration = Duration::from_secs(1);
/// How each HTTP/2 connection begins, and no HTTP/1 request.
const HTTP2_START: &[u8] = b"PRI ";

pub(super) struct Lingering<I> {
    inner: I,
    /// Known once something came.
    is_http2: Option<bool>,
    /// When it is closed all the same, once there is nothing more to say.
    until: Option<Pin<Box<Sleep>>>,
    stopping: CancellationToken,
}

impl<I> Lingering<I> {
    pub(super) fn new(inner: I, stopping: CancellationToken) -> Self {
        Self { inner, is_http2: None, until: None, stopping }
    }
}

impl<I: AsyncRead + Unpin> Lingering<I> {
    /// Ready when the peer is gone or its time is over. What it still sends is thrown away.
    fn poll_peer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_http2 != Some(true) || self.stopping.is_cancelled() {
            return Poll::Ready(());
        }
        let until = self.until.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
        if until.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let mut thrown_away = [0; 4096];
        let mut buffer = ReadBuf::new(&mut thrown_away);
        match Pin::new(&mut self.inner).poll_read(cx, &mut buffer) {
            Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                // after the others' turn
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            gone_or_waiting => gone_or_waiting.map(|_| ()),
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Lingering<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buffer);
        let came = &buffer.filled()[before..];
        if self.is_http2.is_none() && !came.is_empty() {
            self.is_http2 = Some(came.starts_with(HTTP2_START));
        }
        read
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }
    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        std::task::ready!(self.poll_peer(cx));
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio::time::Instant;

    /// The peer, and a connection that it has begun with these bytes.
    async fn begun(start: &[u8]) -> (DuplexStream, Lingering<DuplexStream>, CancellationToken) {
        let (mut peer, inner) = tokio::io::duplex(1 << 20);
        let stopping = CancellationToken::new();
        let mut connection = Lingering::new(inner, stopping.clone());
        peer.write_all(start).await.unwrap();
        connection.read_exact(&mut vec![0; start.len()]).await.unwrap();
        (peer, connection, stopping)
    }

    #[tokio::test(start_paused = true)]
    async fn an_http2_peer_closes_first_or_has_a_second_and_others_do_not_wait() {
        let (mut peer, mut connection, _stopping) = begun(b"PRI * HTTP/2.0\r\n").await;
        let began = Instant::now();
        let closing = async {
            tokio::time::sleep(LINGER / 4).await;
            peer.write_all(&[0; 100_000]).await.unwrap();
            tokio::time::sleep(LINGER / 4).await;
            drop(peer);
        };
        let (closed, ()) = tokio::join!(connection.shutdown(), closing);
        closed.unwrap();
        assert_eq!(began.elapsed(), LINGER / 2);

        let (_peer, mut connection, _stopping) = begun(b"PRI * HTTP/2.0\r\n").await;
        let began = Instant::now();
        connection.shutdown().await.unwrap();
        assert!(began.elapsed() >= LINGER && began.elapsed() < 2 * LINGER);

        for (start, stops) in [(&b"POST / HTTP/1.1\r\n"[..], false), (b"PRI * HTTP/2.0\r\n", true)] {
            let (_peer, mut connection, stopping) = begun(start).await;
            if stops {
                stopping.cancel();
            }
            let began = Instant::now();
            connection.shutdown().await.unwrap();
            assert_eq!(began.elapsed(), Duration::ZERO);
        }
    }
}
