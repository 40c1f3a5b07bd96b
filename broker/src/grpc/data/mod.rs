//! Records in and out, as frames.

mod append;
mod read;

use tidemill_engine::Engine;
use tidemill_proto::v1::data_server::Data;
use tidemill_proto::v1::{AppendRequest, AppendResponse, ReadRequest, ReadResponse};
use tidemill_types::AccountId;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

pub(crate) struct DataService {
    engine: Engine,
    account: AccountId,
    stopping: CancellationToken,
}

impl DataService {
    pub(super) fn new(engine: Engine, account: AccountId, stopping: CancellationToken) -> Self {
        Self { engine, account, stopping }
    }
}

#[tonic::async_trait]
impl Data for DataService {
    type AppendStream = ReceiverStream<Result<AppendResponse, Status>>;
    type ReadStream = ReceiverStream<Result<ReadResponse, Status>>;

    async fn append(
        &self,
        request: Request<Streaming<AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let (answers, stream) = mpsc::channel(append::ANSWERS_WAITING_MAX);
        tokio::spawn(append::serve(
            self.engine.clone(),
            self.account.clone(),
            request.into_inner(),
            answers,
            self.stopping.clone(),
        ));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let reader = read::Reader::open(&self.engine, &self.account, request.into_inner()).await?;
        let (answers, stream) = mpsc::channel(read::ANSWERS_WAITING_MAX);
        tokio::spawn(reader.serve(answers, self.stopping.clone()));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}
