//! Streams and shards: create, delete, describe, list.

use super::told;
use tidemill_engine::{ConsumersOnDelete, Engine, Stream, StreamInfo, StreamSettings, StreamSpec};
use tidemill_proto::Error;
use tidemill_proto::v1::control_server::Control;
use tidemill_proto::v1::{
    CreateStreamRequest, CreateStreamResponse, DeleteStreamRequest, DeleteStreamResponse,
    DescribeStreamRequest, DescribeStreamResponse, ListShardsRequest, ListShardsResponse, ListStreamsRequest,
    ListStreamsResponse, Shard, StreamDescription,
};
use tidemill_types::limits::RETENTION_HOURS_DEFAULT;
use tidemill_types::{AccountId, StreamKey, StreamName};
use tonic::{Request, Response, Status};

const PAGE_DEFAULT: usize = 100;
const PAGE_MAX: usize = 1000;

pub(crate) struct ControlService {
    engine: Engine,
    account: AccountId,
}

impl ControlService {
    pub(super) fn new(engine: Engine, account: AccountId) -> Self {
        Self { engine, account }
    }

    fn stream(&self, name: &str) -> Result<Stream, Error> {
        self.engine.stream(&self.key(name)?).map_err(|e| told(&e))
    }

    fn key(&self, name: &str) -> Result<StreamKey, Error> {
        Ok(StreamKey::new(self.account.clone(), StreamName::new(name)?))
    }
}

#[tonic::async_trait]
impl Control for ControlService {
    async fn create_stream(
        &self,
        request: Request<CreateStreamRequest>,
    ) -> Result<Response<CreateStreamResponse>, Status> {
        let CreateStreamRequest { stream, shard_count, retention_hours } = request.into_inner();
        let key = self.key(&stream)?;
        let retention_hours = if retention_hours == 0 { RETENTION_HOURS_DEFAULT } else { retention_hours };
        let settings = StreamSettings { retention_hours, ..StreamSettings::default() };
        let spec = StreamSpec { shard_count, settings };
        let made = self.engine.create_stream(&key, spec).await.map_err(|e| told(&e))?;
        Ok(Response::new(CreateStreamResponse { stream: Some(description(&made)) }))
    }

    async fn delete_stream(
        &self,
        request: Request<DeleteStreamRequest>,
    ) -> Result<Response<DeleteStreamResponse>, Status> {
        let key = self.key(&request.into_inner().stream)?;
        self.engine.delete_stream(&key, ConsumersOnDelete::Refuse).await.map_err(|e| told(&e))?;
        Ok(Response::new(DeleteStreamResponse {}))
    }

    async fn describe_stream(
        &self,
        request: Request<DescribeStreamRequest>,
    ) -> Result<Response<DescribeStreamResponse>, Status> {
        let info = self.stream(&request.into_inner().stream)?.info();
        Ok(Response::new(DescribeStreamResponse { stream: Some(description(&info)) }))
    }

    async fn list_streams(
        &self,
        request: Request<ListStreamsRequest>,
    ) -> Result<Response<ListStreamsResponse>, Status> {
        let ListStreamsRequest { after, limit } = request.into_inner();
        let after = match after.as_str() {
            "" => None,
            name => Some(StreamName::new(name).map_err(Error::from)?),
        };
        let limit = match limit as usize {
            0 => PAGE_DEFAULT,
            limit if limit <= PAGE_MAX => limit,
            _ => {
                return Err(Error::invalid(format!("limit must be at most {PAGE_MAX}, found {limit}")).into());
            }
        };
        let page = self.engine.list_streams(&self.account, after.as_ref(), limit);
        let streams = page.streams.iter().map(description).collect();
        Ok(Response::new(ListStreamsResponse { streams, more: page.more }))
    }

    async fn list_shards(
        &self,
        request: Request<ListShardsRequest>,
    ) -> Result<Response<ListShardsResponse>, Status> {
        let stream = self.stream(&request.into_inner().stream)?;
        // the version first: shards that are newer than it only make a producer look again
        let map_version = stream.map().version().get();
        let shards = stream.shards().iter().map(Shard::from).collect();
        let stream_incarnation = stream.info().incarnation.get();
        Ok(Response::new(ListShardsResponse { shards, map_version, stream_incarnation }))
    }
}

fn description(info: &StreamInfo) -> StreamDescription {
    StreamDescription {
        stream: info.key.name.to_string(),
        open_shards: info.open_shards,
        retention_hours: info.settings.retention_hours,
        created_ms: info.created.get(),
        incarnation: info.incarnation.get(),
    }
}
