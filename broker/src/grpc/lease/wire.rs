//! Between the messages of the service of leases and what the engine takes and tells.

use tidemill_engine::{
    AppPage, Effect, HeldLease, Holders, LeaseRow, RequestHandoff, ResetCheckpoints, ResetRow, Steal,
    TakeLease,
};
use tidemill_proto::convert::required;
use tidemill_proto::v1;
use tidemill_proto::{Error, Result as Checked};
use tidemill_types::{AppName, LeaseEpoch, ShardId, WorkerId};

const PAGE_DEFAULT: usize = 100;
const PAGE_MAX: usize = 1000;

pub(super) fn app_and_worker(app: &str, worker: &str) -> Checked<(AppName, WorkerId)> {
    Ok((AppName::new(app)?, WorkerId::new(worker)?))
}

pub(super) fn take(request: v1::TakeLeaseRequest) -> Checked<TakeLease> {
    Ok(TakeLease {
        shard: ShardId::new(request.shard)?,
        worker: WorkerId::new(&request.worker)?,
        expected_epoch: LeaseEpoch::new(request.expected_epoch),
        lease_ms: request.lease_ms,
        steal: if request.steal { Steal::Allowed } else { Steal::Never },
        initial: required(request.initial, "initial")?.try_into()?,
    })
}

pub(super) fn handoff(request: &v1::RequestHandoffRequest) -> Checked<RequestHandoff> {
    Ok(RequestHandoff {
        shard: ShardId::new(request.shard)?,
        worker: WorkerId::new(&request.worker)?,
        expected_epoch: LeaseEpoch::new(request.expected_epoch),
        deadline_ms: request.deadline_ms,
    })
}

pub(super) fn held_to_wire(held: &HeldLease) -> v1::HeldLease {
    v1::HeldLease {
        stream: held.stream.name.to_string(),
        shard: held.shard.get(),
        epoch: held.epoch.get(),
        bytes_per_s: 0,
    }
}

pub(super) fn row(row: &LeaseRow) -> v1::LeaseRow {
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

/// How many applications a page may have.
pub(super) fn page_limit(limit: u32) -> Checked<usize> {
    match limit as usize {
        0 => Ok(PAGE_DEFAULT),
        limit if limit <= PAGE_MAX => Ok(limit),
        _ => Err(Error::invalid(format!("limit must be at most {PAGE_MAX}, found {limit}"))),
    }
}

pub(super) fn apps(page: &AppPage) -> v1::ListAppsResponse {
    let stream = |stream: &tidemill_engine::AppStream| v1::AppStream {
        stream: stream.stream.to_string(),
        leases: count(stream.leases),
        held: count(stream.held),
        workers: count(stream.workers),
    };
    let app = |app: &tidemill_engine::App| v1::AppDescription {
        app: app.app.to_string(),
        streams: app.streams.iter().map(stream).collect(),
    };
    v1::ListAppsResponse { apps: page.apps.iter().map(app).collect(), more: page.more }
}

pub(super) fn reset(request: v1::ResetCheckpointsRequest) -> Checked<ResetCheckpoints> {
    let (holders, effect) = terms(request.force, request.dry_run);
    Ok(ResetCheckpoints { to: required(request.to, "to")?.try_into()?, holders, effect })
}

pub(super) fn reset_row(row: &ResetRow) -> v1::ResetRow {
    v1::ResetRow {
        shard: row.shard.get(),
        before: row.before.map(Into::into),
        after: row.after.map(Into::into),
        owner: row.owner.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

/// On what terms an operator wants something.
pub(super) fn terms(force: bool, dry_run: bool) -> (Holders, Effect) {
    let holders = if force { Holders::Fence } else { Holders::Respect };
    (holders, if dry_run { Effect::Rehearse } else { Effect::Apply })
}

pub(super) fn count(leases: usize) -> u32 {
    u32::try_from(leases).expect("the leases of a broker are bounded")
}
