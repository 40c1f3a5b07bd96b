//! Leases: list, take, renew, release, checkpoint.

use super::told;
use tidemill_engine::{Engine, HeldLease, LeaseRow, Steal, TakeLease};
use tidemill_proto::convert::required;
use tidemill_proto::v1;
use tidemill_proto::v1::lease_server::Lease;
use tidemill_proto::{Error, Result as Checked};
use tidemill_types::{AccountId, AppName, Checkpoint, LeaseEpoch, ShardId, StreamKey, StreamName, WorkerId};
use tonic::{Request, Response, Status};

/// Leases in one renewal: more than a worker can hold.
const RENEWALS_MAX: usize = 20_000;

pub(crate) struct LeaseService {
    engine: Engine,
    account: AccountId,
}

impl LeaseService {
    pub(super) fn new(engine: Engine, account: AccountId) -> Self {
        Self { engine, account }
    }

    fn app_and_stream(&self, app: &str, stream: &str) -> Checked<(AppName, StreamKey)> {
        Ok((AppName::new(app)?, StreamKey::new(self.account.clone(), StreamName::new(stream)?)))
    }

    fn held(&self, wire: &v1::HeldLease) -> Checked<HeldLease> {
        Ok(HeldLease {
            stream: StreamKey::new(self.account.clone(), StreamName::new(&wire.stream)?),
            shard: ShardId::new(wire.shard)?,
            epoch: LeaseEpoch::new(wire.epoch),
        })
    }
}

#[tonic::async_trait]
impl Lease for LeaseService {
    async fn list_leases(
        &self,
        request: Request<v1::ListLeasesRequest>,
    ) -> Result<Response<v1::ListLeasesResponse>, Status> {
        let request = request.into_inner();
        let (app, stream) = self.app_and_stream(&request.app, &request.stream)?;
        let rows = self.engine.leases().list(&app, &stream).await.map_err(|e| told(&e))?;
        Ok(Response::new(v1::ListLeasesResponse { leases: rows.iter().map(row).collect() }))
    }

    async fn take_lease(
        &self,
        request: Request<v1::TakeLeaseRequest>,
    ) -> Result<Response<v1::TakeLeaseResponse>, Status> {
        let request = request.into_inner();
        let (app, stream) = self.app_and_stream(&request.app, &request.stream)?;
        let taken = self.engine.leases().take(&app, &stream, take(request)?).await.map_err(|e| told(&e))?;
        Ok(Response::new(v1::TakeLeaseResponse { lease: Some(row(&taken)) }))
    }

    async fn renew_leases(
        &self,
        request: Request<v1::RenewLeasesRequest>,
    ) -> Result<Response<v1::RenewLeasesResponse>, Status> {
        let request = request.into_inner();
        let (app, worker) = app_and_worker(&request.app, &request.worker)?;
        if request.leases.len() > RENEWALS_MAX {
            return Err(
                Error::invalid(format!("at most {RENEWALS_MAX} leases can be renewed at once")).into()
            );
        }
        let leases = request.leases.iter().map(|lease| self.held(lease)).collect::<Checked<Vec<_>>>()?;
        let lost = self.engine.leases().renew(&app, &worker, &leases).await.map_err(|e| told(&e))?;
        Ok(Response::new(v1::RenewLeasesResponse { lost: lost.iter().map(held_to_wire).collect() }))
    }

    async fn release_lease(
        &self,
        request: Request<v1::ReleaseLeaseRequest>,
    ) -> Result<Response<v1::ReleaseLeaseResponse>, Status> {
        let request = request.into_inner();
        let (app, worker) = app_and_worker(&request.app, &request.worker)?;
        let lease = self.held(&required(request.lease, "lease")?)?;
        self.engine.leases().release(&app, &worker, &lease).await.map_err(|e| told(&e))?;
        Ok(Response::new(v1::ReleaseLeaseResponse {}))
    }

    async fn set_checkpoint(
        &self,
        request: Request<v1::SetCheckpointRequest>,
    ) -> Result<Response<v1::SetCheckpointResponse>, Status> {
        let request = request.into_inner();
        let (app, worker) = app_and_worker(&request.app, &request.worker)?;
        let lease = self.held(&required(request.lease, "lease")?)?;
        let checkpoint = Checkpoint::try_from(required(request.checkpoint, "checkpoint")?)?;
        self.engine.leases().checkpoint(&app, &worker, &lease, checkpoint).await.map_err(|e| told(&e))?;
        Ok(Response::new(v1::SetCheckpointResponse {}))
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

fn held_to_wire(held: &HeldLease) -> v1::HeldLease {
    v1::HeldLease { stream: held.stream.name.to_string(), shard: held.shard.get(), epoch: held.epoch.get() }
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
    }
}
