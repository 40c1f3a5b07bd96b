//! The gRPC services of the broker of the tests.

use super::Service;
use std::pin::Pin;
use std::time::Duration;
use tidemill_proto::v1;
use tidemill_proto::{Error, ErrorKind};
use tidemill_types::{Checkpoint, Position, SequenceNumber};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

type Answers = Pin<Box<dyn tokio_stream::Stream<Item = Result<v1::ReadResponse, Status>> + Send>>;

#[tonic::async_trait]
impl v1::data_server::Data for Service {
    type AppendStream = Pin<Box<dyn tokio_stream::Stream<Item = Result<v1::AppendResponse, Status>> + Send>>;
    type ReadStream = Answers;

    async fn append(
        &self,
        _: Request<tonic::Streaming<v1::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        Err(Status::unimplemented("not needed here"))
    }

    async fn read(&self, request: Request<v1::ReadRequest>) -> Result<Response<Answers>, Status> {
        let request = request.into_inner();
        let service = self.clone();
        let mut next = {
            let mut model = service.model.lock();
            model.check_stream(&request.stream)?;
            model.reads += 1;
            let shard = &model.shards[&request.shard];
            let own = |number: SequenceNumber| {
                assert_eq!(number.shard(), shard.shard.id, "a number of another shard");
                number.index().get()
            };
            match Position::try_from(request.position.unwrap()).unwrap() {
                Position::TrimHorizon => 1,
                Position::Latest => shard.next,
                Position::At(number) => own(number),
                Position::After(number) => own(number) + 1,
                Position::AtTime(_) => unreachable!("not asked for by workers"),
            }
        };
        let (tx, rx) = mpsc::channel(2);
        tokio::spawn(async move {
            let (mut news, mut breaks) = (service.news.subscribe(), service.breaks.subscribe());
            let mut first = true;
            loop {
                news.mark_unchanged();
                let answer =
                    service.model.lock().answer(request.shard, &mut next, request.max_bytes as usize, first);
                first = false;
                let ended = answer.as_ref().is_some_and(|answer| answer.end_of_shard);
                let sending = async {
                    match answer {
                        Some(answer) => tx.send(Ok(answer)).await.is_ok(),
                        None => news.changed().await.is_ok(),
                    }
                };
                tokio::select! {
                    gone_on = sending => if !gone_on || ended { return },
                    _ = breaks.changed() => {
                        let gone = service.model.lock().check_stream(&request.stream).err();
                        let broken = gone.unwrap_or_else(|| Status::unavailable("broken by the test"));
                        let _ = tx.send(Err(broken)).await;
                        return;
                    }
                    () = tx.closed() => return,
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(rx))))
    }
}

#[tonic::async_trait]
impl v1::lease_server::Lease for Service {
    async fn list_leases(
        &self,
        request: Request<v1::ListLeasesRequest>,
    ) -> Result<Response<v1::ListLeasesResponse>, Status> {
        let model = self.model.lock();
        model.check_stream(&request.get_ref().stream)?;
        let leases = model.shards.keys().map(|shard| model.row(*shard)).collect();
        Ok(Response::new(v1::ListLeasesResponse { leases }))
    }

    async fn take_lease(
        &self,
        request: Request<v1::TakeLeaseRequest>,
    ) -> Result<Response<v1::TakeLeaseResponse>, Status> {
        let request = request.into_inner();
        let mut model = self.model.lock();
        model.check_worker(&request.worker)?;
        model.check_stream(&request.stream)?;
        let row = model.leases.entry(request.shard).or_default();
        let other = row.left_ms() > 0 && row.owner != request.worker;
        if row.epoch != request.expected_epoch || (other && !request.steal) {
            return Err(Error::new(ErrorKind::Conflict, "somebody was faster").into());
        }
        row.owner.clone_from(&request.worker);
        row.successor = None;
        row.epoch += 1;
        row.counter += 1;
        row.lease_ms = request.lease_ms;
        row.expires = Some(Instant::now() + Duration::from_millis(request.lease_ms));
        let initial = request.initial.map(|initial| initial.try_into().unwrap());
        row.checkpoint = row.checkpoint.or(initial);
        model.takes.push((request.shard, request.worker));
        Ok(Response::new(v1::TakeLeaseResponse { lease: Some(model.row(request.shard)) }))
    }

    async fn renew_leases(
        &self,
        request: Request<v1::RenewLeasesRequest>,
    ) -> Result<Response<v1::RenewLeasesResponse>, Status> {
        let request = request.into_inner();
        let mut model = self.model.lock();
        model.check_worker(&request.worker)?;
        let (mut lost, mut asked) = (Vec::new(), Vec::new());
        for lease in request.leases {
            match model.held(&request.worker, &lease) {
                Ok(row) => {
                    row.counter += 1;
                    row.expires = Some(Instant::now() + Duration::from_millis(row.lease_ms));
                    asked.extend(row.successor.is_some().then_some(lease));
                }
                Err(_) => lost.push(lease),
            }
        }
        Ok(Response::new(v1::RenewLeasesResponse { lost, asked }))
    }

    async fn release_lease(
        &self,
        request: Request<v1::ReleaseLeaseRequest>,
    ) -> Result<Response<v1::ReleaseLeaseResponse>, Status> {
        let request = request.into_inner();
        let mut model = self.model.lock();
        let row = model.held(&request.worker, &request.lease.unwrap())?;
        match row.successor.take() {
            None => row.owner.clear(),
            Some((successor, _)) => {
                row.owner = successor;
                row.epoch += 1;
                row.expires = Some(Instant::now() + Duration::from_millis(row.lease_ms));
            }
        }
        Ok(Response::new(v1::ReleaseLeaseResponse {}))
    }

    async fn set_checkpoint(
        &self,
        request: Request<v1::SetCheckpointRequest>,
    ) -> Result<Response<v1::SetCheckpointResponse>, Status> {
        let request = request.into_inner();
        let mut model = self.model.lock();
        let row = model.held(&request.worker, &request.lease.unwrap())?;
        let checkpoint = Checkpoint::try_from(request.checkpoint.unwrap()).unwrap();
        if Some(checkpoint) < row.checkpoint {
            return Err(Status::failed_precondition("checkpoints do not move back"));
        }
        row.checkpoint = Some(checkpoint);
        row.pending = None;
        Ok(Response::new(v1::SetCheckpointResponse {}))
    }

    async fn prepare_checkpoint(
        &self,
        request: Request<v1::PrepareCheckpointRequest>,
    ) -> Result<Response<v1::PrepareCheckpointResponse>, Status> {
        let request = request.into_inner();
        let mut model = self.model.lock();
        model.held(&request.worker, &request.lease.unwrap())?.pending = request.pending;
        Ok(Response::new(v1::PrepareCheckpointResponse {}))
    }

    async fn request_handoff(
        &self,
        request: Request<v1::RequestHandoffRequest>,
    ) -> Result<Response<v1::RequestHandoffResponse>, Status> {
        let request = request.into_inner();
        let mut model = self.model.lock();
        model.check_worker(&request.worker)?;
        let row = model.leases.entry(request.shard).or_default();
        let taken = row.successor.as_ref().is_some_and(|(worker, _)| *worker != request.worker);
        if row.epoch != request.expected_epoch || row.left_ms() == 0 || row.owner == request.worker || taken {
            return Err(Error::new(ErrorKind::Conflict, "nobody to ask").into());
        }
        if row.successor.is_none() {
            let until = Instant::now() + Duration::from_millis(request.deadline_ms);
            row.successor = Some((request.worker, until));
        }
        Ok(Response::new(v1::RequestHandoffResponse { lease: Some(model.row(request.shard)) }))
    }

    async fn list_apps(
        &self,
        _: Request<v1::ListAppsRequest>,
    ) -> Result<Response<v1::ListAppsResponse>, Status> {
        Err(Status::unimplemented("not needed here"))
    }

    async fn reset_checkpoints(
        &self,
        _: Request<v1::ResetCheckpointsRequest>,
    ) -> Result<Response<v1::ResetCheckpointsResponse>, Status> {
        Err(Status::unimplemented("not needed here"))
    }

    async fn delete_app(
        &self,
        _: Request<v1::DeleteAppRequest>,
    ) -> Result<Response<v1::DeleteAppResponse>, Status> {
        Err(Status::unimplemented("not needed here"))
    }
}

#[tonic::async_trait]
impl v1::control_server::Control for Service {
    async fn list_shards(
        &self,
        request: Request<v1::ListShardsRequest>,
    ) -> Result<Response<v1::ListShardsResponse>, Status> {
        let model = self.model.lock();
        model.check_stream(&request.get_ref().stream)?;
        let shards = model.shards.values().map(|model| (&model.shard).into()).collect();
        Ok(Response::new(v1::ListShardsResponse { shards, map_version: 1, stream_incarnation: 1 }))
    }

    async fn create_stream(
        &self,
        _: Request<v1::CreateStreamRequest>,
    ) -> Result<Response<v1::CreateStreamResponse>, Status> {
        Err(Status::unimplemented("not needed here"))
    }

    async fn delete_stream(
        &self,
        _: Request<v1::DeleteStreamRequest>,
    ) -> Result<Response<v1::DeleteStreamResponse>, Status> {
        Err(Status::unimplemented("not needed here"))
    }

    async fn describe_stream(
        &self,
        _: Request<v1::DescribeStreamRequest>,
    ) -> Result<Response<v1::DescribeStreamResponse>, Status> {
        Err(Status::unimplemented("not needed here"))
    }

    async fn list_streams(
        &self,
        _: Request<v1::ListStreamsRequest>,
    ) -> Result<Response<v1::ListStreamsResponse>, Status> {
        Err(Status::unimplemented("not needed here"))
    }

    async fn split_shard(
        &self,
        _: Request<v1::SplitShardRequest>,
    ) -> Result<Response<v1::SplitShardResponse>, Status> {
        Err(Status::unimplemented("not needed here"))
    }

    async fn merge_shards(
        &self,
        _: Request<v1::MergeShardsRequest>,
    ) -> Result<Response<v1::MergeShardsResponse>, Status> {
        Err(Status::unimplemented("not needed here"))
    }

    async fn scale_stream(
        &self,
        _: Request<v1::ScaleStreamRequest>,
    ) -> Result<Response<v1::ScaleStreamResponse>, Status> {
        Err(Status::unimplemented("not needed here"))
    }
}
