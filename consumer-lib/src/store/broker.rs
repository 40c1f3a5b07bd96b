//! The lease calls of a broker in nouns, each with a deadline and made once. What to do after a failure is the caller's.

use crate::hold::Hold;
use crate::record::ShardRef;
use std::future::Future;
use std::time::Duration;
use tidemill_proto::client::Channel;
use tidemill_proto::convert::required;
use tidemill_proto::{Error, ErrorKind, Result, v1};
use tidemill_types::{AppName, Checkpoint, LeaseEpoch, Shard, ShardId, StreamName, WorkerId};
use tonic::{Request, Response, Status};

/// Longest a call may take; with a short lease half of it, so that a renewal that hangs can be repeated in time.
const CALL_DEADLINE_MAX: Duration = Duration::from_secs(10);

/// A lease as the broker knows it.
#[derive(Debug, Clone)]
pub(crate) struct LeaseRow {
    pub(crate) shard: Shard,
    pub(crate) owner: Option<WorkerId>,
    pub(crate) epoch: LeaseEpoch,
    /// Moves whenever the lease is taken or renewed.
    pub(crate) counter: u64,
    pub(crate) checkpoint: Option<Checkpoint>,
    /// 0 when it ran out or nobody holds it.
    pub(crate) expires_in_ms: u64,
}

/// How to take a lease.
#[derive(Debug, Clone)]
pub(crate) struct Take {
    pub(crate) at: ShardRef,
    pub(crate) expected: LeaseEpoch,
    /// Also when a worker holds it.
    pub(crate) steal: bool,
    /// The checkpoint if there is none yet.
    pub(crate) initial: Checkpoint,
}

/// The leases of one application, for one worker.
#[derive(Debug, Clone)]
pub(crate) struct BrokerStore {
    channel: Channel,
    app: AppName,
    worker: WorkerId,
    lease: Duration,
    deadline: Duration,
}

impl BrokerStore {
    pub(crate) fn new(channel: Channel, app: AppName, worker: WorkerId, lease: Duration) -> Self {
        Self { channel, app, worker, lease, deadline: (lease / 2).min(CALL_DEADLINE_MAX) }
    }
    pub(crate) fn lease(&self) -> Duration {
        self.lease
    }

    pub(crate) async fn list(&self, stream: &StreamName) -> Result<Vec<LeaseRow>> {
        let request =
            v1::ListLeasesRequest { app: self.app.to_string(), stream: stream.to_string(), with_lag: false };
        let mut client = self.channel.lease();
        let answer = self.call(request, |request| async move { client.list_leases(request).await }).await?;
        answer.leases.into_iter().map(row_from_wire).collect()
    }

    /// [`ErrorKind::Conflict`] if somebody else was faster.
    pub(crate) async fn take(&self, take: &Take) -> Result<LeaseRow> {
        let request = v1::TakeLeaseRequest {
            app: self.app.to_string(),
            stream: take.at.stream().to_string(),
            shard: take.at.shard().get(),
            worker: self.worker.to_string(),
            expected_epoch: take.expected.get(),
            lease_ms: u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX),
            steal: take.steal,
            initial: Some(take.initial.into()),
        };
        let mut client = self.channel.lease();
        let answer = self.call(request, |request| async move { client.take_lease(request).await }).await?;
        row_from_wire(required(answer.lease, "lease")?)
    }

    /// Renews, and returns those that are lost.
    pub(crate) async fn renew(
        &self,
        held: impl Iterator<Item = &Hold>,
    ) -> Result<Vec<(ShardRef, LeaseEpoch)>> {
        let request = v1::RenewLeasesRequest {
            app: self.app.to_string(),
            worker: self.worker.to_string(),
            leases: held.map(wire_hold).collect(),
        };
        let mut client = self.channel.lease();
        let answer = self.call(request, |request| async move { client.renew_leases(request).await }).await?;
        let lost = |held: v1::HeldLease| {
            let at = ShardRef::new(StreamName::new(&held.stream)?, ShardId::new(held.shard)?);
            Ok((at, LeaseEpoch::new(held.epoch)))
        };
        answer.lost.into_iter().map(lost).collect()
    }

    pub(crate) async fn release(&self, hold: &Hold) -> Result<()> {
        let request = v1::ReleaseLeaseRequest {
            app: self.app.to_string(),
            worker: self.worker.to_string(),
            lease: Some(wire_hold(hold)),
        };
        let mut client = self.channel.lease();
        self.call(request, |request| async move { client.release_lease(request).await }).await.map(drop)
    }

    /// May be repeated. [`ErrorKind::Conflict`] if the lease is lost.
    pub(crate) async fn checkpoint(&self, hold: &Hold, checkpoint: Checkpoint) -> Result<()> {
        let request = v1::SetCheckpointRequest {
            app: self.app.to_string(),
            worker: self.worker.to_string(),
            lease: Some(wire_hold(hold)),
            checkpoint: Some(checkpoint.into()),
        };
        let mut client = self.channel.lease();
        self.call(request, |request| async move { client.set_checkpoint(request).await }).await.map(drop)
    }

    async fn call<Q, A, F>(&self, message: Q, send: impl FnOnce(Request<Q>) -> F) -> Result<A>
    where
        F: Future<Output = std::result::Result<Response<A>, Status>>,
    {
        let mut request = Request::new(message);
        request.set_timeout(self.deadline);
        match tokio::time::timeout(self.deadline, send(request)).await {
            Ok(answer) => Ok(answer?.into_inner()),
            Err(_) => {
                let told = format!("the broker did not answer within {:?}", self.deadline);
                Err(Error::new(ErrorKind::UnknownOutcome, told))
            }
        }
    }
}

fn wire_hold(hold: &Hold) -> v1::HeldLease {
    let at = hold.at();
    v1::HeldLease {
        stream: at.stream().to_string(),
        shard: at.shard().get(),
        epoch: hold.epoch().get(),
        bytes_per_s: 0,
    }
}

fn row_from_wire(wire: v1::LeaseRow) -> Result<LeaseRow> {
    let owner = if wire.owner.is_empty() { None } else { Some(WorkerId::new(&wire.owner)?) };
    Ok(LeaseRow {
        shard: required(wire.shard, "lease.shard")?.try_into()?,
        expires_in_ms: if wire.expired || owner.is_none() { 0 } else { wire.expires_in_ms.max(1) },
        owner,
        epoch: LeaseEpoch::new(wire.epoch),
        counter: wire.counter,
        checkpoint: wire.checkpoint.map(TryInto::try_into).transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_proto::client::Endpoint;

    #[tokio::test]
    async fn a_call_that_hangs_leaves_time_for_another_within_the_lease() {
        let channel = Channel::lazy(&Endpoint::new("http://127.0.0.1:1").unwrap());
        let (app, worker) = (AppName::new("app").unwrap(), WorkerId::new("one").unwrap());
        for (lease_ms, deadline_ms) in [(500, 250), (10_000, 5_000), (600_000, 10_000)] {
            let lease = Duration::from_millis(lease_ms);
            let store = BrokerStore::new(channel.clone(), app.clone(), worker.clone(), lease);
            assert_eq!(store.deadline, Duration::from_millis(deadline_ms));
        }
    }
}
