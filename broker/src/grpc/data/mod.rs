//! Records in and out, as frames.
//!
//! The two calls are served by hand rather than by tonic's generated server, so that records are not copied on their way:
//! see [`tidemill_proto::bulk`]. On the wire they are what the schema says.

mod append;
mod pages;
mod read;

use super::access::{Access, Caller};
use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::post;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use pages::PageRoom;
use tidemill_proto::bulk::{Incoming, Message, Outgoing};
use tidemill_proto::v1::ReadRequest;
use tidemill_proto::v1::data_server::SERVICE_NAME;
use tidemill_types::limits::GRPC_MESSAGE_BYTES_MAX;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// As it is called in paths and by the health service.
pub(super) const NAME: &str = SERVICE_NAME;
/// A request to read is a few names and numbers.
const READ_REQUEST_BYTES_MAX: usize = 64 << 10;

#[derive(Clone)]
pub(super) struct DataService {
    access: Access,
    stopping: CancellationToken,
    room: PageRoom,
}

impl DataService {
    pub(super) fn new(access: Access, stopping: CancellationToken) -> Self {
        Self { access, stopping, room: PageRoom::default() }
    }

    pub(super) fn routes(self) -> Router {
        Router::new()
            .route(&format!("/{NAME}/Append"), post(append))
            .route(&format!("/{NAME}/Read"), post(read))
            .with_state(self)
    }

    async fn read(&self, caller: Caller, call: Request) -> Result<Response, Status> {
        let mut requests = Incoming::<ReadRequest>::from_client(body(call), READ_REQUEST_BYTES_MAX);
        let request = requests.message().await?;
        let request = request.ok_or_else(|| Status::invalid_argument("the call has no request"))?;
        let reader = read::Reader::open(&self.access, &caller, request).await?;
        let (pages, answers) = pages::pages(self.room.clone());
        tokio::spawn(reader.serve(pages, self.stopping.clone(), self.access.clone(), caller));
        Ok(answer(answers))
    }
}

async fn append(State(service): State<DataService>, mut call: Request) -> Response {
    let caller = match Access::caller_of(call.extensions_mut()) {
        Ok(caller) => caller,
        Err(status) => return status.into_http(),
    };
    let requests = Incoming::from_client(body(call), GRPC_MESSAGE_BYTES_MAX);
    let (answers, stream) = mpsc::channel(append::ANSWERS_WAITING_MAX);
    tokio::spawn(append::serve(service.access, caller, requests, answers, service.stopping));
    answer(ReceiverStream::new(stream))
}

async fn read(State(service): State<DataService>, mut call: Request) -> Response {
    let answered = match Access::caller_of(call.extensions_mut()) {
        Ok(caller) => service.read(caller, call).await,
        Err(status) => Err(status),
    };
    answered.unwrap_or_else(Status::into_http)
}

fn body(call: Request) -> tonic::body::Body {
    tonic::body::Body::new(call.into_body())
}

fn answer<M: Message + 'static>(
    messages: impl Stream<Item = Result<M, Status>> + Send + Unpin + 'static,
) -> Response {
    let mut answer = Response::new(axum::body::Body::new(Outgoing::of_server(messages)));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    answer
}
