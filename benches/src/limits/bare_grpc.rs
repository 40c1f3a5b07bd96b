//! The limit of gRPC on this machine: the same messages through a stock server and client that do nothing with them.
//!
//! The sink answers each message and drops it; the source sends one and the same page again and again. Windows and
//! frame sizes are the broker's.

use crate::figure::Figure;
use crate::limits::raw_disk::noise;
use crate::window::{Meter, Window};
use anyhow::{Context, Result};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use tidemill_proto::client::{Channel, Endpoint};
use tidemill_proto::v1::data_server::{Data, DataServer};
use tidemill_proto::v1::{AppendRequest, AppendResponse, ReadRequest, ReadResponse};
use tidemill_types::limits::GRPC_MESSAGE_BYTES_MAX;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

/// Bytes of a message: what batches of a loaded producer, and pages of a reader, have.
pub(crate) const MESSAGE_BYTES: usize = 1 << 20;
const ANSWERS_WAITING_MAX: usize = 2;

struct Service {
    page: Bytes,
}

#[tonic::async_trait]
impl Data for Service {
    type AppendStream = ReceiverStream<Result<AppendResponse, Status>>;
    type ReadStream = ReceiverStream<Result<ReadResponse, Status>>;

    async fn append(
        &self,
        request: Request<Streaming<AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let (answers, stream) = mpsc::channel(ANSWERS_WAITING_MAX);
        let mut requests = request.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                let answer = AppendResponse { request_id: request.request_id, outcome: None };
                if answers.send(Ok(answer)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn read(&self, _: Request<ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let (answers, stream) = mpsc::channel(ANSWERS_WAITING_MAX);
        let page = ReadResponse { frames: self.page.clone(), ..ReadResponse::default() };
        tokio::spawn(async move { while answers.send(Ok(page.clone())).await.is_ok() {} });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// Serves until standard input ends.
pub(crate) fn serve() -> Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        println!("ready on http://{}", listener.local_addr()?);
        let service = DataServer::new(Service { page: noise(MESSAGE_BYTES).into() })
            .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX);
        tonic::transport::Server::builder()
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20)
            .max_frame_size(256 << 10)
            .tcp_nodelay(true)
            .add_service(service)
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), super::input_ended())
            .await
            .context("the bare server broke off")
    })
}

/// Messages into the sink, over so many connections. A record is a message.
pub(crate) async fn sink(endpoint: &str, connections: usize, window: Window) -> Result<Figure> {
    let frame = Bytes::from(noise(MESSAGE_BYTES));
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        let (channel, frame) = (Channel::connect(&Endpoint::new(endpoint)?).await?, frame.clone());
        tasks.spawn(sink_connection(channel, frame, window));
    }
    Ok(together(tasks, window).await?.figure("produce 1 MiB messages", "bare gRPC"))
}

async fn sink_connection(channel: Channel, frame: Bytes, window: Window) -> Result<Meter> {
    let began = Arc::new(Mutex::new(VecDeque::new()));
    let sent = began.clone();
    let requests = std::iter::from_fn(move || {
        sent.lock().unwrap_or_else(PoisonError::into_inner).push_back(Instant::now());
        let request = AppendRequest { frame: frame.clone(), ..AppendRequest::default() };
        (!window.is_over()).then_some(request)
    });
    let mut answers = channel.data().append(tokio_stream::iter(requests)).await?.into_inner();
    let mut meter = Meter::new(window);
    while answers.message().await?.is_some() {
        let began = began.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        meter.done(began.context("an answer without a request")?, 1, MESSAGE_BYTES as u64);
    }
    Ok(meter)
}

/// Pages from the source, over so many connections. A record is a page.
pub(crate) async fn source(endpoint: &str, connections: usize, window: Window) -> Result<Figure> {
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        let channel = Channel::connect(&Endpoint::new(endpoint)?).await?;
        tasks.spawn(async move {
            let mut pages = channel.data().read(ReadRequest::default()).await?.into_inner();
            let mut meter = Meter::new(window);
            while !window.is_over() {
                let began = Instant::now();
                let page = pages.message().await?.context("the source never ends")?;
                meter.done(began, 1, page.frames.len() as u64);
            }
            Ok(meter)
        });
    }
    Ok(together(tasks, window).await?.figure("consume 1 MiB messages", "bare gRPC"))
}

async fn together(mut tasks: JoinSet<Result<Meter>>, window: Window) -> Result<Meter> {
    let mut all = Meter::new(window);
    while let Some(part) = tasks.join_next().await {
        all.add(&part??);
    }
    Ok(all)
}
