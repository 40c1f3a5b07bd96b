//! Messages on their way out: the body of a gRPC call.

use super::{Message, PREFIX_BYTES};
use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio_stream::Stream;
use tonic::{Code, Status};

/// Records shorter than this are copied behind the small fields: one piece costs less than two then.
const COPIED_BYTES_MAX: usize = 8 << 10;

/// The body of a call whose messages come from a stream. Dropping it drops the stream.
///
/// A client's ends with its stream. A server's ends with trailers that tell the status: the first error, or that all
/// went well.
#[derive(Debug)]
pub struct Outgoing<S> {
    messages: S,
    /// Records of the message at hand, whose small fields have been sent.
    bulk: Option<Bytes>,
    side: Side,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Server,
    /// Nothing more is to be said.
    Ended,
}

impl<S> Outgoing<S> {
    /// What a client asks.
    pub fn of_client(messages: S) -> Self {
        Self { messages, bulk: None, side: Side::Client }
    }
    /// What a server answers.
    pub fn of_server(messages: S) -> Self {
        Self { messages, bulk: None, side: Side::Server }
    }
}

impl<S, M> Body for Outgoing<S>
where
    S: Stream<Item = Result<M, Status>> + Unpin,
    M: Message,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(bulk) = self.bulk.take() {
            return Poll::Ready(Some(Ok(Frame::data(bulk))));
        }
        if self.side == Side::Ended {
            return Poll::Ready(None);
        }
        let ended = match ready!(Pin::new(&mut self.messages).poll_next(cx)) {
            Some(Ok(message)) => match encode(message) {
                Ok((head, bulk)) => {
                    self.bulk = bulk;
                    return Poll::Ready(Some(Ok(Frame::data(head))));
                }
                Err(status) => status,
            },
            Some(Err(status)) => status,
            None => Status::new(Code::Ok, ""),
        };
        let side = std::mem::replace(&mut self.side, Side::Ended);
        Poll::Ready(match (side, ended.code()) {
            (Side::Server, _) => Some(trailers(&ended).map(Frame::trailers)),
            (_, Code::Ok) => None,
            _ => Some(Err(ended)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.side == Side::Ended && self.bulk.is_none()
    }
}

fn trailers(status: &Status) -> Result<HeaderMap, Status> {
    let mut trailers = HeaderMap::new();
    status.add_header(&mut trailers)?;
    Ok(trailers)
}

/// Everything but the records, and they, unless they are few.
fn encode<M: Message>(mut message: M) -> Result<(Bytes, Option<Bytes>), Status> {
    let (field, bulk) = message.take_bulk().unwrap_or_default();
    let bulk_head = match bulk.len() {
        0 => 0,
        bytes => key_len(field) + encoded_len_varint(bytes as u64),
    };
    let small = message.encoded_len();
    let length = u32::try_from(small + bulk_head + bulk.len())
        .map_err(|_| Status::resource_exhausted("a message cannot have more than 4 GiB"))?;
    let copied = bulk.len() < COPIED_BYTES_MAX;
    let room = PREFIX_BYTES + small + bulk_head + if copied { bulk.len() } else { 0 };
    let mut head = BytesMut::with_capacity(room);
    head.put_u8(0);
    head.put_u32(length);
    message.encode(&mut head).expect("there is room for all of it");
    if !bulk.is_empty() {
        encode_key(field, WireType::LengthDelimited, &mut head);
        encode_varint(bulk.len() as u64, &mut head);
    }
    if copied {
        head.extend_from_slice(&bulk);
        return Ok((head.freeze(), None));
    }
    Ok((head.freeze(), Some(bulk)))
}
