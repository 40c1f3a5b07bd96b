//! Leases: list, take, renew, hand over, release, checkpoint; and applications: list, reset, delete.

mod wire;

use super::access::{Access, Caller};
use super::told;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use tidemill_engine::{HeldLease, Renewal};
use tidemill_proto::Error;
use tidemill_proto::convert::required;
use tidemill_proto::v1;
use tidemill_proto::v1::lease_server::Lease;
use tidemill_types::{AppName, Checkpoint, LeaseEpoch, PendingCheckpoint, ShardId, StreamKey};
use tonic::{Request, Response, Status};

/// Who may read a stream may hold leases on its shards.
const ACTION: &str = "kinesis:GetRecords";
/// Leases in one renewal: more than a worker can hold.
const RENEWALS_MAX: usize = 20_000;

pub(crate) struct LeaseService {
    access: Access,
}

impl LeaseService {
    pub(super) fn new(access: Access) -> Self {
        Self { access }
    }

    fn app_and_stream(
        &self,
        caller: &Caller,
        app: &str,
        stream: &str,
    ) -> Result<(AppName, StreamKey), Status> {
        Ok((AppName::new(app).map_err(Error::from)?, self.access.permit(caller, ACTION, stream)?))
    }

    /// Each stream is asked about once: a worker holds many shards of few.
    fn renewals(&self, caller: &Caller, wire: &[v1::HeldLease]) -> Result<Vec<Renewal>, Status> {
        let mut keys: HashMap<&str, StreamKey> = HashMap::new();
        let mut renewals = Vec::with_capacity(wire.len());
        for v1::HeldLease { stream, shard, epoch, bytes_per_s } in wire {
            let key = match keys.entry(stream) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => place.insert(self.access.permit(caller, ACTION, stream)?),
            };
            let shard = ShardId::new(*shard).map_err(Error::from)?;
            let held = HeldLease { stream: key.clone(), shard, epoch: LeaseEpoch::new(*epoch) };
            renewals.push(Renewal { held, bytes_per_s: *bytes_per_s });
        }
        Ok(renewals)
    }

    fn one_held(&self, caller: &Caller, wire: Option<v1::HeldLease>) -> Result<HeldLease, Status> {
        let mut renewals = self.renewals(caller, &[required(wire, "lease")?])?;
        Ok(renewals.remove(0).held)
    }
}

#[tonic::async_trait]
impl Lease for LeaseService {
    async fn list_leases(
        &self,
        request: Request<v1::ListLeasesRequest>,
    ) -> Result<Response<v1::ListLeasesResponse>, Status> {
        let (caller, request) = Access::caller(request)?;
        let (app, stream) = self.app_and_stream(&caller, &request.app, &request.stream)?;
        let leases = self.access.engine().leases();
        let rows = match request.with_lag {
            true => leases.list_with_lag(&app, &stream).await,
            false => leases.list(&app, &stream).await,
        };
        let rows = rows.map_err(|e| told(&e))?;
        Ok(Response::new(v1::ListLeasesResponse { leases: rows.iter().map(wire::row).collect() }))
    }

    async fn take_lease(
        &self,
        request: Request<v1::TakeLeaseRequest>,
    ) -> Result<Response<v1::TakeLeaseResponse>, Status> {
        let (caller, request) = Access::caller(request)?;
        let (app, stream) = self.app_and_stream(&caller, &request.app, &request.stream)?;
        let taken = self
            .access
            .engine()
            .leases()
            .take(&app, &stream, wire::take(request)?)
            .await
            .map_err(|e| told(&e))?;
        Ok(Response::new(v1::TakeLeaseResponse { lease: Some(wire::row(&taken)) }))
    }

    async fn renew_leases(
        &self,
        request: Request<v1::RenewLeasesRequest>,
    ) -> Result<Response<v1::RenewLeasesResponse>, Status> {
        let (caller, request) = Access::caller(request)?;
        let (app, worker) = wire::app_and_worker(&request.app, &request.worker)?;
        if request.leases.len() > RENEWALS_MAX {
            return Err(
                Error::invalid(format!("at most {RENEWALS_MAX} leases can be renewed at once")).into()
            );
        }
        let leases = self.renewals(&caller, &request.leases)?;
        let renewed =
            self.access.engine().leases().renew(&app, &worker, &leases).await.map_err(|e| told(&e))?;
        Ok(Response::new(v1::RenewLeasesResponse {
            lost: renewed.lost.iter().map(wire::held_to_wire).collect(),
            asked: renewed.asked.iter().map(wire::held_to_wire).collect(),
        }))
    }

    async fn release_lease(
        &self,
        request: Request<v1::ReleaseLeaseRequest>,
    ) -> Result<Response<v1::ReleaseLeaseResponse>, Status> {
        let (caller, request) = Access::caller(request)?;
        let (app, worker) = wire::app_and_worker(&request.app, &request.worker)?;
        let lease = self.one_held(&caller, request.lease)?;
        self.access.engine().leases().release(&app, &worker, &lease).await.map_err(|e| told(&e))?;
        Ok(Response::new(v1::ReleaseLeaseResponse {}))
    }

    async fn set_checkpoint(
        &self,
        request: Request<v1::SetCheckpointRequest>,
    ) -> Result<Response<v1::SetCheckpointResponse>, Status> {
        let (caller, request) = Access::caller(request)?;
        let (app, worker) = wire::app_and_worker(&request.app, &request.worker)?;
        let lease = self.one_held(&caller, request.lease)?;
        let checkpoint = Checkpoint::try_from(required(request.checkpoint, "checkpoint")?)?;
        self.access
            .engine()
            .leases()
            .checkpoint(&app, &worker, &lease, checkpoint)
            .await
            .map_err(|e| told(&e))?;
        Ok(Response::new(v1::SetCheckpointResponse {}))
    }

    async fn prepare_checkpoint(
        &self,
        request: Request<v1::PrepareCheckpointRequest>,
    ) -> Result<Response<v1::PrepareCheckpointResponse>, Status> {
        let (caller, request) = Access::caller(request)?;
        let (app, worker) = wire::app_and_worker(&request.app, &request.worker)?;
        let lease = self.one_held(&caller, request.lease)?;
        let pending = PendingCheckpoint::try_from(required(request.pending, "pending")?)?;
        self.access.engine().leases().prepare(&app, &worker, &lease, pending).await.map_err(|e| told(&e))?;
        Ok(Response::new(v1::PrepareCheckpointResponse {}))
    }

    async fn request_handoff(
        &self,
        request: Request<v1::RequestHandoffRequest>,
    ) -> Result<Response<v1::RequestHandoffResponse>, Status> {
        let (caller, request) = Access::caller(request)?;
        let (app, stream) = self.app_and_stream(&caller, &request.app, &request.stream)?;
        let asked =
            self.access.engine().leases().request_handoff(&app, &stream, wire::handoff(&request)?).await;
        Ok(Response::new(v1::RequestHandoffResponse {
            lease: Some(wire::row(&asked.map_err(|e| told(&e))?)),
        }))
    }

    async fn list_apps(
        &self,
        request: Request<v1::ListAppsRequest>,
    ) -> Result<Response<v1::ListAppsResponse>, Status> {
        let (caller, request) = Access::caller(request)?;
        let after = match request.after.as_str() {
            "" => None,
            name => Some(AppName::new(name).map_err(Error::from)?),
        };
        let limit = wire::page_limit(request.limit)?;
        let account = caller.verified.account();
        let may_see = |stream: &StreamKey| self.access.permit(&caller, ACTION, stream.name.as_str()).is_ok();
        let page = self.access.engine().leases().apps(account, after.as_ref(), limit, may_see);
        Ok(Response::new(wire::apps(&page.map_err(|e| told(&e))?)))
    }

    async fn reset_checkpoints(
        &self,
        request: Request<v1::ResetCheckpointsRequest>,
    ) -> Result<Response<v1::ResetCheckpointsResponse>, Status> {
        let (caller, request) = Access::caller(request)?;
        let (app, stream) = self.app_and_stream(&caller, &request.app, &request.stream)?;
        let reset = self.access.engine().leases().reset(&app, &stream, wire::reset(request)?).await;
        let rows = reset.map_err(|e| told(&e))?.iter().map(wire::reset_row).collect();
        Ok(Response::new(v1::ResetCheckpointsResponse { rows }))
    }

    async fn delete_app(
        &self,
        request: Request<v1::DeleteAppRequest>,
    ) -> Result<Response<v1::DeleteAppResponse>, Status> {
        let (caller, request) = Access::caller(request)?;
        let app = AppName::new(&request.app).map_err(Error::from)?;
        let leases = self.access.engine().leases();
        let streams = match request.stream.as_str() {
            "" => leases.streams_of(caller.verified.account(), &app),
            name => vec![self.access.permit(&caller, ACTION, name)?],
        };
        // all or none: what the caller may not read it cannot forget
        for stream in &streams {
            self.access.permit(&caller, ACTION, stream.name.as_str())?;
        }
        let (holders, effect) = wire::terms(request.force, request.dry_run);
        let deleted = leases.delete_app(&app, &streams, holders, effect).await.map_err(|e| told(&e))?;
        Ok(Response::new(v1::DeleteAppResponse { leases: wire::count(deleted) }))
    }
}
