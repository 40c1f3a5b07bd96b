//! Messages on their way in: read off the body of a gRPC call.

use super::{Message, PREFIX_BYTES};
use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use http_body::Body;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tonic::{Code, Status};

/// What is shorter is copied out, so that a small record does not keep the buffer that it came in.
const COPIED_BYTES_MAX: usize = 4 << 10;

/// The messages of a call, one after the other. Dropping it ends the call.
///
/// Holds what has come of the message at hand, at most its limit and what the connection hands over at a time.
#[derive(Debug)]
pub struct Incoming<M> {
    body: tonic::body::Body,
    pieces: Pieces,
    message_bytes_max: usize,
    /// A server ends its call with a status, a client just ends it.
    owes_status: bool,
    state: State,
    message: PhantomData<fn() -> M>,
}

#[derive(Debug)]
enum State {
    /// Between messages, or within one whose length is not known yet.
    Prefix,
    /// Within a message of so many bytes.
    Within(usize),
    /// The body is over, with this failure, if it has not been told yet.
    Ended(Option<Status>),
}

impl<M: Message> Incoming<M> {
    /// What a client asks, in messages of at most `message_bytes_max` bytes.
    pub fn from_client(body: tonic::body::Body, message_bytes_max: usize) -> Self {
        Self::new(body, message_bytes_max, false)
    }
    /// What a server answers, in messages of at most `message_bytes_max` bytes.
    pub fn from_server(body: tonic::body::Body, message_bytes_max: usize) -> Self {
        Self::new(body, message_bytes_max, true)
    }
    fn new(body: tonic::body::Body, message_bytes_max: usize, owes_status: bool) -> Self {
        Self {
            body,
            pieces: Pieces::default(),
            message_bytes_max,
            owes_status,
            state: State::Prefix,
            message: PhantomData,
        }
    }

    /// The next message; none once the peer has ended the call in order. Cancelling is safe.
    ///
    /// Errors: the status that the peer ended the call with; `RESOURCE_EXHAUSTED` for a message beyond the limit,
    /// `UNIMPLEMENTED` for a compressed one, `INTERNAL` for one that cannot be read; what broke the connection.
    pub async fn message(&mut self) -> Result<Option<M>, Status> {
        let message = poll_fn(|cx| self.poll_message(cx)).await;
        if message.is_err() {
            self.state = State::Ended(None);
        }
        message
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<M>, Status>> {
        loop {
            if let State::Ended(status) = &mut self.state {
                return Poll::Ready(status.take().map_or(Ok(None), Err));
            }
            if let Some(message) = self.take()? {
                return Poll::Ready(Ok(Some(message)));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Err(status)) => return Poll::Ready(Err(status)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.pieces.push(data),
                    Err(frame) => self.end(frame.trailers_ref()),
                },
                None => self.end(None),
            }
        }
    }

    /// A message, if a whole one is there.
    fn take(&mut self) -> Result<Option<M>, Status> {
        if matches!(self.state, State::Prefix) && self.pieces.remaining() >= PREFIX_BYTES {
            let compressed = self.pieces.get_u8() != 0;
            let length = self.pieces.get_u32() as usize;
            if compressed {
                return Err(Status::unimplemented(
                    "compressed messages are not taken: send them as they are",
                ));
            }
            if length > self.message_bytes_max {
                let most = self.message_bytes_max;
                let told = format!("a message of {length} bytes is over the limit of {most} bytes");
                return Err(Status::resource_exhausted(told));
            }
            self.state = State::Within(length);
        }
        let State::Within(length) = self.state else { return Ok(None) };
        if self.pieces.remaining() < length {
            return Ok(None);
        }
        self.state = State::Prefix;
        let message = M::decode((&mut self.pieces).take(length));
        message.map(Some).map_err(|error| Status::internal(format!("a message cannot be read: {error}")))
    }

    fn end(&mut self, trailers: Option<&HeaderMap>) {
        let failure = match trailers.and_then(Status::from_header_map) {
            Some(status) if status.code() != Code::Ok => Some(status),
            None if self.owes_status => Some(Status::unknown("the call ended without a status")),
            _ if self.pieces.has_remaining() || matches!(self.state, State::Within(_)) => {
                Some(Status::internal("the call ended within a message"))
            }
            _ => None,
        };
        self.state = State::Ended(failure);
    }
}

/// Bytes as they came, read as if they lay one behind the other.
#[derive(Debug, Default)]
struct Pieces {
    pieces: VecDeque<Bytes>,
    bytes: usize,
}

impl Pieces {
    fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.bytes += piece.len();
            self.pieces.push_back(piece);
        }
    }
}

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.bytes
    }
    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| piece)
    }
    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.bytes, "cannot go {count} bytes on where {} are left", self.bytes);
        self.bytes -= count;
        while let Some(first) = self.pieces.front_mut() {
            let here = count.min(first.len());
            first.advance(here);
            count -= here;
            if !first.is_empty() {
                return;
            }
            self.pieces.pop_front();
        }
    }
    /// A slice of what came where it lies in one piece, else gathered.
    fn copy_to_bytes(&mut self, count: usize) -> Bytes {
        assert!(count <= self.bytes, "cannot take {count} bytes where {} are left", self.bytes);
        match self.pieces.front_mut() {
            Some(first) if first.len() >= count && count > COPIED_BYTES_MAX => {
                let taken = first.slice(..count);
                self.advance(count);
                taken
            }
            _ => {
                let mut gathered = BytesMut::with_capacity(count);
                while gathered.len() < count {
                    let here = self.chunk().len().min(count - gathered.len());
                    gathered.extend_from_slice(&self.chunk()[..here]);
                    self.advance(here);
                }
                gathered.freeze()
            }
        }
    }
}
