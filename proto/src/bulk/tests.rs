use super::*;
use crate::v1;
use bytes::BytesMut;
use http::HeaderMap;
use http_body::{Body, Frame};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use tonic::{Code, Status};

const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// A body of given pieces.
struct Cut(VecDeque<Frame<Bytes>>);

impl Cut {
    fn body(bytes: &Bytes, lengths: &[usize], trailers: Option<HeaderMap>) -> tonic::body::Body {
        let (mut frames, mut rest, mut lengths) = (VecDeque::new(), bytes.clone(), lengths.iter().cycle());
        while !rest.is_empty() {
            let length = lengths.next().map_or(rest.len(), |length| rest.len().min(*length));
            frames.push_back(Frame::data(rest.split_to(length)));
        }
        frames.extend(trailers.map(Frame::trailers));
        tonic::body::Body::new(Self(frames))
    }
}

impl Body for Cut {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }
}

/// All that a body gives, and its trailers.
async fn sent<M: Message>(messages: Vec<Result<M, Status>>, server: bool) -> (Vec<Bytes>, Option<HeaderMap>) {
    let messages = tokio_stream::iter(messages);
    let mut body = match server {
        true => Outgoing::of_server(messages),
        false => Outgoing::of_client(messages),
    };
    let (mut pieces, mut trailers) = (Vec::new(), None);
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        match frame.unwrap().into_data() {
            Ok(piece) => pieces.push(piece),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    assert!(body.is_end_stream());
    (pieces, trailers)
}

fn joined(pieces: &[Bytes]) -> Bytes {
    pieces.concat().into()
}

fn page(bytes: usize) -> ReadResponse {
    let frames = (0..bytes).map(|at| at as u8).collect::<Vec<_>>().into();
    let shard = Some(v1::Shard { id: 7, ..v1::Shard::default() });
    ReadResponse { shard, frames, next_index: u64::MAX, records_behind: Some(0), ..ReadResponse::default() }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

async fn all<M: Message>(incoming: &mut Incoming<M>) -> (Vec<M>, Option<Status>) {
    let mut messages = Vec::new();
    loop {
        match incoming.message().await {
            Ok(Some(message)) => messages.push(message),
            Ok(None) => return (messages, None),
            Err(status) => return (messages, Some(status)),
        }
    }
}

proptest! {
    #[test]
    fn messages_arrive_however_they_are_cut(
        sizes in prop::collection::vec(prop_oneof![0usize..20, 8000..9000usize, 60_000..70_000usize], 0..6),
        cuts in prop::collection::vec(1usize..100_000, 1..5),
    ) {
        let pages: Vec<_> = sizes.iter().map(|bytes| page(*bytes)).collect();
        let got = block_on(async {
            let (pieces, trailers) = sent(pages.iter().cloned().map(Ok).collect(), true).await;
            let body = Cut::body(&joined(&pieces), &cuts, trailers);
            all(&mut Incoming::<ReadResponse>::from_server(body, MESSAGE_BYTES_MAX)).await
        });
        prop_assert_eq!(got.0, pages);
        prop_assert!(got.1.is_none());
    }

    #[test]
    fn what_any_peer_sends_is_read_and_what_is_sent_any_peer_reads(bytes in 0usize..20_000, request_id: u64) {
        let frame = page(bytes).frames;
        let request = AppendRequest { request_id, stream: "s".into(), frame, ..AppendRequest::default() };
        let plain = prost::Message::encode_to_vec(&request);
        let mut framed = BytesMut::from(&[0][..]);
        framed.extend_from_slice(&u32::try_from(plain.len()).unwrap().to_be_bytes());
        framed.extend_from_slice(&plain);
        let (pieces, got) = block_on(async {
            let body = Cut::body(&framed.freeze(), &[1000], None);
            let got = all(&mut Incoming::<AppendRequest>::from_client(body, MESSAGE_BYTES_MAX)).await.0;
            (sent(vec![Ok(request.clone())], false).await.0, got)
        });
        prop_assert_eq!(&got[..], std::slice::from_ref(&request));
        let read = <AppendRequest as prost::Message>::decode(joined(&pieces).slice(PREFIX_BYTES..)).unwrap();
        prop_assert_eq!(read, request);
    }
}

#[test]
fn large_records_are_not_copied_on_either_side() {
    let page = page(100_000);
    let lies = page.frames.as_ptr();
    block_on(async {
        let (pieces, trailers) = sent(vec![Ok(page)], true).await;
        assert_eq!(pieces[1].as_ptr(), lies);
        let whole = joined(&pieces);
        let mut incoming =
            Incoming::<ReadResponse>::from_server(Cut::body(&whole, &[], trailers), MESSAGE_BYTES_MAX);
        let came = incoming.message().await.unwrap().unwrap().frames;
        assert!(whole.as_ptr_range().contains(&came.as_ptr()));
    });
}

#[test]
fn a_call_ends_as_its_server_says_and_not_by_itself() {
    block_on(async {
        let (pieces, trailers) = sent(vec![Ok(page(3)), Err(Status::aborted("over"))], true).await;
        let body = Cut::body(&joined(&pieces), &[], trailers);
        let mut incoming = Incoming::<ReadResponse>::from_server(body, MESSAGE_BYTES_MAX);
        let (messages, status) = all(&mut incoming).await;
        assert_eq!((messages, status.unwrap().code()), (vec![page(3)], Code::Aborted));
        assert_eq!(incoming.message().await.unwrap(), None, "an error is told once");
        let body = Cut::body(&joined(&pieces), &[], None);
        let (messages, status) =
            all(&mut Incoming::<ReadResponse>::from_server(body, MESSAGE_BYTES_MAX)).await;
        assert_eq!((messages.len(), status.unwrap().code()), (1, Code::Unknown));
        let (_, none) = sent::<ReadResponse>(vec![], false).await;
        assert!(none.is_none(), "a client has no trailers");
    });
}

#[test]
fn what_cannot_be_a_message_is_refused() {
    let (over, within) = (MESSAGE_BYTES_MAX as u32 + 1, 9u32);
    let framed = |flag: u8, length: u32, bytes: &[u8]| [&[flag][..], &length.to_be_bytes(), bytes].concat();
    let cases = [
        (framed(1, 1, b"x"), Code::Unimplemented),
        (framed(0, over, b""), Code::ResourceExhausted),
        (framed(0, within, b"short"), Code::Internal),
        (framed(0, 4, b"\xff\xff\xff\xff"), Code::Internal),
        (vec![0, 0], Code::Internal),
    ];
    for (bytes, code) in cases {
        let body = Cut::body(&bytes.into(), &[1], None);
        let mut incoming = Incoming::<AppendRequest>::from_client(body, MESSAGE_BYTES_MAX);
        let status = block_on(incoming.message()).unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert_eq!(block_on(incoming.message()).unwrap(), None);
    }
}
