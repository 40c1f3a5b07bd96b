//! Records in and out, as frames.

mod append;
mod pages;
mod read;

use super::access::Access;
use pages::PageRoom;
use std::pin::Pin;
use tidemill_proto::v1::data_server::Data;
use tidemill_proto::v1::{AppendRequest, AppendResponse, ReadRequest, ReadResponse};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

pub(crate) struct DataService {
    access: Access,
    stopping: CancellationToken,
    room: PageRoom,
}

impl DataService {
    pub(super) fn new(access: Access, stopping: CancellationToken) -> Self {
        Self { access, stopping, room: PageRoom::default() }
    }
}

#[tonic::async_trait]
impl Data for DataService {
    type AppendStream = ReceiverStream<Result<AppendResponse, Status>>;
    type ReadStream = Pin<Box<dyn Stream<Item = Result<ReadResponse, Status>> + Send>>;

    async fn append(
        &self,
        request: Request<Streaming<AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let (caller, requests) = Access::caller(request)?;
        let (answers, stream) = mpsc::channel(append::ANSWERS_WAITING_MAX);
        tokio::spawn(append::serve(self.access.clone(), caller, requests, answers, self.stopping.clone()));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let (caller, request) = Access::caller(request)?;
        let reader = read::Reader::open(&self.access, &caller, request).await?;
        let (pages, answers) = pages::pages(self.room.clone());
        tokio::spawn(reader.serve(pages, self.stopping.clone(), self.access.clone(), caller));
        Ok(Response::new(Box::pin(answers)))
    }
}
