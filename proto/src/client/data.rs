//! The calls that carry records, without copying them: what [`Channel::data`] does, by way of [`crate::bulk`].

use super::channel::Channel;
use crate::bulk::{Incoming, Message, Outgoing};
use crate::v1::{AppendRequest, AppendResponse, ReadRequest, ReadResponse};
use http::header::{CONTENT_TYPE, TE};
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, StatusCode, Uri};
use std::pin::Pin;
use std::task::{Context, Poll};
use tidemill_types::limits::GRPC_MESSAGE_BYTES_MAX;
use tokio_stream::Stream;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::ServiceExt;

const APPEND: PathAndQuery = PathAndQuery::from_static("/tidemill.v1.Data/Append");
const READ: PathAndQuery = PathAndQuery::from_static("/tidemill.v1.Data/Read");

impl Channel {
    /// Appends batches: see the schema. Resolves once the broker has begun to answer; `requests` are taken meanwhile.
    ///
    /// Errors: the status of a call that was refused, or of a broker that cannot be reached. Dropping the answers ends the
    /// call; the outcome of unanswered batches is then unknown. Cancelling ends it too.
    pub async fn append(
        &self,
        requests: impl Stream<Item = AppendRequest> + Send + Unpin + 'static,
    ) -> Result<Incoming<AppendResponse>, Status> {
        self.call(APPEND, requests).await
    }

    /// Reads one shard: see the schema. The frames of an answer share the memory that they came in.
    ///
    /// Errors as of [`Channel::append`]. Dropping the answers ends the call. Cancelling is safe.
    pub async fn read(&self, request: ReadRequest) -> Result<Incoming<ReadResponse>, Status> {
        self.call(READ, tokio_stream::once(request)).await
    }

    async fn call<Q: Message + 'static, A: Message>(
        &self,
        path: PathAndQuery,
        requests: impl Stream<Item = Q> + Send + Unpin + 'static,
    ) -> Result<Incoming<A>, Status> {
        let mut request = http::Request::new(Body::new(Outgoing::of_client(Fine(requests))));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from(path);
        request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        let response =
            self.carrier().oneshot(request).await.map_err(|error| Status::from_error(error.into()))?;
        let (head, body) = response.into_parts();
        match Status::from_header_map(&head.headers) {
            Some(status) if status.code() != Code::Ok => return Err(status),
            None if head.status != StatusCode::OK => {
                return Err(Status::unknown(format!(
                    "not an answer of a broker: HTTP status {}",
                    head.status
                )));
            }
            _ => {}
        }
        Ok(Incoming::from_server(Body::new(body), GRPC_MESSAGE_BYTES_MAX))
    }
}

/// Messages, none of which is an error.
struct Fine<S>(S);

impl<S: Stream + Unpin> Stream for Fine<S> {
    type Item = Result<S::Item, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.0).poll_next(cx).map(|next| next.map(Ok))
    }
}
