//! Leases: list, take, renew, hand over, release, checkpoint.

use super::access::{Access, Caller};
use super::told;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use tidemill_engine::{HeldLease, LeaseRow, Renewal, RequestHandoff, Steal, TakeLease};
use tidemill_proto::convert::required;
use tidemill_proto::v1;
use tidemill_proto::v1::lease_server::Lease;
use tidemill_proto::{Error, Result as Checked};
use tidemill_types::{AppName, Checkpoint, LeaseEpoch, PendingCheckpoint, ShardId, StreamKey, WorkerId};
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
        Ok(Response::new(v1::ListLeasesResponse { leases: rows.iter().map(row).collect() }))
    }

    async fn take_lease(
        &self,
        request: Request<v1::TakeLeaseRequest>,
    ) -> Result<Response<v1::TakeLeaseResponse>, Status> {
        let (caller, request) = Access::caller(request)?;
        let (app, stream) = self.app_and_stream(&caller, &request.app, &request.stream)?;
        let taken =
            self.access.engine().leases().take(&app, &stream, take(request)?).await.map_err(|e| told(&e))?;
        Ok(Response::new(v1::TakeLeaseResponse { lease: Some(row(&taken)) }))
    }

    async fn renew_leases(
        &self,
        request: Request<v1::RenewLeasesRequest>,
    ) -> Result<Response<v1::RenewLeasesResponse>, Status> {
        let (caller, request) = Access::caller(request)?;
        let (app, worker) = app_and_worker(&request.app, &request.worker)?;
        if request.leases.len() > RENEWALS_MAX {
            return Err(
                Error::invalid(format!("at most {RENEWALS_MAX} leases can be renewed at once")).into()
            );
        }
        let leases = self.renewals(&caller, &request.leases)?;
        let renewed =
            self.access.engine().leases().renew(&app, &worker, &leases).await.map_err(|e| told(&e))?;
        Ok(Response::new(v1::RenewLeasesResponse {
            lost: renewed.lost.iter().map(held_to_wire).collect(),
            asked: renewed.asked.iter().map(held_to_wire).collect(),
        }))
    }

    async fn release_lease(
        &self,
        request: Request<v1::ReleaseLeaseRequest>,
    ) -> Result<Response<v1::ReleaseLeaseResponse>, Status> {
        let (caller, request) = Access::caller(request)?;
        let (app, worker) = app_and_worker(&request.app, &request.worker)?;
        let lease = self.one_held(&caller, request.lease)?;
        self.access.engine().leases().release(&app, &worker, &lease).await.map_err(|e| told(&e))?;
        Ok(Response::new(v1::ReleaseLeaseResponse {}))
    }

    async fn set_checkpoint(
        &self,
        request: Request<v1::SetCheckpointRequest>,
    ) -> Result<Response<v1::SetCheckpointResponse>, Status> {
        let (caller, request) = Access::caller(request)?;
        let (app, worker) = app_and_worker(&request.app, &request.worker)?;
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
        let (app, worker) = app_and_worker(&request.app, &request.worker)?;
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
        let asked = self.access.engine().leases().request_handoff(&app, &stream, handoff(&request)?).await;
        Ok(Response::new(v1::RequestHandoffResponse { lease: Some(row(&asked.map_err(|e| told(&e))?)) }))
    }

    async fn list_apps(
        &self,
        _: Request<v1::ListAppsRequest>,
    ) -> Result<Response<v1::ListAppsResponse>, Status> {
        Err(Status::unimplemented("applications are not listed yet"))
    }

    async fn reset_checkpoints(
        &self,
        _: Request<v1::ResetCheckpointsRequest>,
    ) -> Result<Response<v1::ResetCheckpointsResponse>, Status> {
        Err(Status::unimplemented("checkpoints are not reset yet"))
    }

    async fn delete_app(
        &self,
        _: Request<v1::DeleteAppRequest>,
    ) -> Result<Response<v1::DeleteAppResponse>, Status> {
        Err(Status::unimplemented("applications are not deleted yet"))
    }
}

fn app_and_worker(app: &str, worker: &str) -> Checked<(AppName, WorkerId)> {
    Ok((AppName::new(app)?, WorkerId::new(worker)?))
}

fn take(request: v1::TakeLeaseRequest) -> Checked<TakeLease> {
    Ok(TakeLease {
        shard: ShardId::new(request.shard)?,
        worker: WorkerId::new(&request.worker)?,
        expected_epoch: LeaseEpoch::new(request.expected_epoch),
        lease_ms: request.lease_ms,
        steal: if request.steal { Steal::Allowed } else { Steal::Never },
        initial: required(request.initial, "initial")?.try_into()?,
    })
}

fn handoff(request: &v1::RequestHandoffRequest) -> Checked<RequestHandoff> {
    Ok(RequestHandoff {
        shard: ShardId::new(request.shard)?,
        worker: WorkerId::new(&request.worker)?,
        expected_epoch: LeaseEpoch::new(request.expected_epoch),
        deadline_ms: request.deadline_ms,
    })
}

fn held_to_wire(held: &HeldLease) -> v1::HeldLease {
    v1::HeldLease {
        stream: held.stream.name.to_string(),
        shard: held.shard.get(),
        epoch: held.epoch.get(),
        bytes_per_s: 0,
    }
}

fn row(row: &LeaseRow) -> v1::LeaseRow {
    v1::LeaseRow {
        shard: Some((&row.shard).into()),
        owner: row.owner.as_ref().map(ToString::to_string).unwrap_or_default(),
        epoch: row.epoch.get(),
        counter: row.counter,
        checkpoint: row.checkpoint.map(Into::into),
        expired: row.expires_in_ms == 0,
        expires_in_ms: row.expires_in_ms,
        successor: row.successor.as_ref().map(|next| next.worker.to_string()).unwrap_or_default(),
        handoff_in_ms: row.successor.as_ref().map_or(0, |next| next.in_ms),
        pending: row.pending.as_ref().map(Into::into),
        bytes_per_s: row.bytes_per_s,
        records_behind: row.lag.map(|lag| lag.records),
        millis_behind: row.lag.map(|lag| lag.millis),
    }
}
