//! Replies on their way out: in pieces, each of which its client must take in time.
//!
//! Why: a reply that nobody takes is memory that others need. Over HTTP/2 a client may answer every ping and leave the
//! windows of its replies shut, so the socket alone does not tell. Every reply of known length, however small, has a
//! [`Place`] in the line of its connection until the last byte of it was sent; the connection is cut when something stood
//! there for too long. What it does not do: subscriptions, which watch themselves.

use crate::server::{Cut, Place};
use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http::Response;
use hyper::body::{Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// What the connection is handed at a time: the least it must take before it is cut.
const PIECE_BYTES: usize = 128 * 1024;

/// The reply, watched, if it is of known length and has a connection that can be cut.
pub(super) fn watched(reply: Response<Body>, cut: Option<&Cut>) -> Response<Body> {
    let length = reply.body().size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
    let (Some(cut), Some(bytes)) = (cut, length.filter(|bytes| *bytes > 0)) else { return reply };
    reply.map(|whole| Body::new(Pieces { whole, piece: Bytes::new(), place: cut.place(bytes), left: bytes }))
}

/// A reply in pieces.
struct Pieces {
    whole: Body,
    /// What came out of it and was not handed on yet.
    piece: Bytes,
    /// Of all that was not handed on yet.
    place: Place,
    left: usize,
}

/// Bytes in the hands of the connection.
struct Sending {
    bytes: Bytes,
    _place: Place,
}

impl AsRef<[u8]> for Sending {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        while self.piece.is_empty() {
            match ready!(Pin::new(&mut self.whole).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => self.piece = bytes,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                end => return Poll::Ready(end),
            }
        }
        let bytes = self.piece.len().min(PIECE_BYTES);
        let (piece, left) = (self.piece.split_to(bytes), self.left.saturating_sub(bytes));
        self.left = left;
        // that this much was asked for shows that the client takes its reply: the rest stands at the end of the line
        let place = self.place.next(bytes);
        self.place = place.next(left);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_owner(Sending { bytes: piece, _place: place })))))
    }
    fn is_end_stream(&self) -> bool {
        self.piece.is_empty() && self.whole.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    fn reply(bytes: usize, cut: &Cut) -> Body {
        watched(Response::new(Body::from(vec![7; bytes])), Some(cut)).into_body()
    }

    #[tokio::test]
    async fn a_reply_that_is_taken_slowly_is_left_alone_and_one_that_is_not_taken_is_cut() {
        let cut = Cut::new();
        let mut slow = reply(4 * PIECE_BYTES, &cut);
        assert_eq!(HttpBody::size_hint(&slow).exact(), Some(4 * PIECE_BYTES as u64));
        let mut taken = 0;
        while let Some(piece) = slow.frame().await {
            taken += piece.unwrap().into_data().unwrap().len();
            assert!(!cut.turn(), "it goes on");
        }
        assert_eq!((taken, cut.unread()), (4 * PIECE_BYTES, 0));
        drop(slow);
        assert!(!cut.turn() && !cut.turn(), "a reply that was taken is over");
        for bytes in [1, 4 * PIECE_BYTES] {
            let _untaken = reply(bytes, &cut);
            assert_eq!(cut.unread(), bytes);
            assert!(!cut.turn(), "it may have come just now");
            assert!(cut.turn());
        }
    }

    #[tokio::test]
    async fn a_small_reply_that_the_connection_took_and_cannot_send_is_cut() {
        let cut = Cut::new();
        let mut small = reply(10, &cut);
        let piece = small.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(small.is_end_stream());
        drop(small);
        assert_eq!(cut.unread(), 10);
        assert!(!cut.turn() && cut.turn());
        drop(piece);
        assert!(cut.unread() == 0 && !cut.turn());
    }
}
