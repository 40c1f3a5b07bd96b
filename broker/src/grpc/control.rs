//! Streams and shards: create, delete, describe, list, reshard.

use super::access::Access;
use super::told;
use tidemill_engine::{ConsumersOnDelete, StreamInfo, StreamSettings, StreamSpec};
use tidemill_proto::Error;
use tidemill_proto::convert::hash_key_from_wire;
use tidemill_proto::v1::control_server::Control;
use tidemill_proto::v1::{
    CreateStreamRequest, CreateStreamResponse, DeleteStreamRequest, DeleteStreamResponse,
    DescribeStreamRequest, DescribeStreamResponse, ListShardsRequest, ListShardsResponse, ListStreamsRequest,
    ListStreamsResponse, MergeShardsRequest, MergeShardsResponse, ScaleStreamRequest, ScaleStreamResponse,
    Shard, SplitShardRequest, SplitShardResponse, StreamDescription,
};
use tidemill_types::limits::RETENTION_HOURS_DEFAULT;
use tidemill_types::{ShardId, StreamName};
use tonic::{Request, Response, Status};

const PAGE_DEFAULT: usize = 100;
const PAGE_MAX: usize = 1000;

pub(crate) struct ControlService {
    access: Access,
}

impl ControlService {
    pub(super) fn new(access: Access) -> Self {
        Self { access }
    }
}

#[tonic::async_trait]
impl Control for ControlService {
    async fn create_stream(
        &self,
        request: Request<CreateStreamRequest>,
    ) -> Result<Response<CreateStreamResponse>, Status> {
        let (caller, request) = Access::caller(request)?;
        let CreateStreamRequest { stream, shard_count, retention_hours } = request;
        let key = self.access.permit(&caller, "kinesis:CreateStream", &stream)?;
        let retention_hours = if retention_hours == 0 { RETENTION_HOURS_DEFAULT } else { retention_hours };
        let settings = StreamSettings { retention_hours, ..StreamSettings::default() };
        let spec = StreamSpec { shard_count, settings };
        let made = self.access.engine().create_stream(&key, spec).await.map_err(|e| told(&e))?;
        Ok(Response::new(CreateStreamResponse { stream: Some(description(&made)) }))
    }

    async fn delete_stream(
        &self,
        request: Request<DeleteStreamRequest>,
    ) -> Result<Response<DeleteStreamResponse>, Status> {
        let (caller, request) = Access::caller(request)?;
        let key = self.access.permit(&caller, "kinesis:DeleteStream", &request.stream)?;
        self.access.engine().delete_stream(&key, ConsumersOnDelete::Refuse).await.map_err(|e| told(&e))?;
        Ok(Response::new(DeleteStreamResponse {}))
    }

    async fn describe_stream(
        &self,
        request: Request<DescribeStreamRequest>,
    ) -> Result<Response<DescribeStreamResponse>, Status> {
        let (caller, request) = Access::caller(request)?;
        let info = self.access.open(&caller, "kinesis:DescribeStream", &request.stream)?.info();
        Ok(Response::new(DescribeStreamResponse { stream: Some(description(&info)) }))
    }

    async fn list_streams(
        &self,
        request: Request<ListStreamsRequest>,
    ) -> Result<Response<ListStreamsResponse>, Status> {
        let (caller, ListStreamsRequest { after, limit }) = Access::caller(request)?;
        self.access.permit_account(&caller, "kinesis:ListStreams")?;
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
        let page = self.access.engine().list_streams(caller.verified.account(), after.as_ref(), limit);
        let streams = page.streams.iter().map(description).collect();
        Ok(Response::new(ListStreamsResponse { streams, more: page.more }))
    }

    async fn list_shards(
        &self,
        request: Request<ListShardsRequest>,
    ) -> Result<Response<ListShardsResponse>, Status> {
        let (caller, request) = Access::caller(request)?;
        let stream = self.access.open(&caller, "kinesis:ListShards", &request.stream)?;
        // the version first: shards that are newer than it only make a producer look again
        let map_version = stream.map().version().get();
        let shards = stream.shards().iter().map(Shard::from).collect();
        let stream_incarnation = stream.info().incarnation.get();
        Ok(Response::new(ListShardsResponse { shards, map_version, stream_incarnation }))
    }

    async fn split_shard(
        &self,
        request: Request<SplitShardRequest>,
    ) -> Result<Response<SplitShardResponse>, Status> {
        let (caller, SplitShardRequest { stream, shard, hash_start }) = Access::caller(request)?;
        let key = self.access.permit(&caller, "kinesis:SplitShard", &stream)?;
        let (shard, at) = (shard_id(shard)?, hash_key_from_wire(&hash_start)?);
        self.access.engine().split_shard(&key, shard, at).await.map_err(|e| told(&e))?;
        Ok(Response::new(SplitShardResponse {}))
    }

    async fn merge_shards(
        &self,
        request: Request<MergeShardsRequest>,
    ) -> Result<Response<MergeShardsResponse>, Status> {
        let (caller, MergeShardsRequest { stream, shard, adjacent_shard }) = Access::caller(request)?;
        let key = self.access.permit(&caller, "kinesis:MergeShards", &stream)?;
        let (shard, adjacent) = (shard_id(shard)?, shard_id(adjacent_shard)?);
        self.access.engine().merge_shards(&key, shard, adjacent).await.map_err(|e| told(&e))?;
        Ok(Response::new(MergeShardsResponse {}))
    }

    async fn scale_stream(
        &self,
        request: Request<ScaleStreamRequest>,
    ) -> Result<Response<ScaleStreamResponse>, Status> {
        let (caller, ScaleStreamRequest { stream, shard_count }) = Access::caller(request)?;
        let key = self.access.permit(&caller, "kinesis:UpdateShardCount", &stream)?;
        let scaled = self.access.engine().scale_stream(&key, shard_count).await.map_err(|e| told(&e))?;
        Ok(Response::new(ScaleStreamResponse { before: scaled.before, after: scaled.after }))
    }
}

fn shard_id(number: u32) -> Result<ShardId, Error> {
    Ok(ShardId::new(number)?)
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
