//! Leases in a broker of ours: its lease calls in nouns, each with a deadline and made once. It knows the shards itself.

use super::{Answer, Ask, LeaseRow, LeaseStore, Renewed, Take};
use crate::hold::Hold;
use crate::place::{Checkpoint, PendingCheckpoint};
use crate::shard::ShardInfo;
use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tidemill_proto::client::Channel;
use tidemill_proto::convert::required;
use tidemill_proto::{Error, ErrorKind, Result, v1};
use tidemill_types::{self as types, AppName, LeaseEpoch, Shard, StreamName, WorkerId};
use tonic::{Request, Response, Status};

/// Longest a call may take; with a short lease half of it, so that a renewal that hangs can be repeated in time.
const CALL_DEADLINE_MAX: Duration = Duration::from_secs(10);

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

impl LeaseStore for BrokerStore {
    fn lease(&self) -> Duration {
        self.lease
    }

    fn list<'a>(&'a self, stream: &'a StreamName) -> Answer<'a, Vec<LeaseRow>> {
        Box::pin(async move {
            let request = v1::ListLeasesRequest {
                app: self.app.to_string(),
                stream: stream.to_string(),
                with_lag: false,
            };
            let mut client = self.channel.lease();
            let answer = self.call(request, |request| async move { client.list_leases(request).await });
            answer.await?.leases.into_iter().map(row_from_wire).collect()
        })
    }

    fn take<'a>(&'a self, take: &'a Take) -> Answer<'a, LeaseRow> {
        Box::pin(async move {
            let request = v1::TakeLeaseRequest {
                app: self.app.to_string(),
                stream: take.at.stream().to_string(),
                shard: take.at.shard().get(),
                worker: self.worker.to_string(),
                expected_epoch: take.expected.get(),
                lease_ms: millis(self.lease),
                steal: take.steal,
                initial: Some(to_wire(take.initial)?),
            };
            let mut client = self.channel.lease();
            let answer =
                self.call(request, |request| async move { client.take_lease(request).await }).await?;
            row_from_wire(required(answer.lease, "lease")?)
        })
    }

    fn ask<'a>(&'a self, ask: &'a Ask) -> Answer<'a, ()> {
        Box::pin(async move {
            let request = v1::RequestHandoffRequest {
                app: self.app.to_string(),
                stream: ask.at.stream().to_string(),
                shard: ask.at.shard().get(),
                worker: self.worker.to_string(),
                expected_epoch: ask.expected.get(),
                deadline_ms: millis(ask.deadline),
            };
            let mut client = self.channel.lease();
            let asked = self.call(request, |request| async move { client.request_handoff(request).await });
            asked.await.map(drop)
        })
    }

    fn renew<'a>(&'a self, held: &'a [Arc<Hold>]) -> Answer<'a, Vec<(Arc<Hold>, Renewed)>> {
        Box::pin(async move {
            let request = v1::RenewLeasesRequest {
                app: self.app.to_string(),
                worker: self.worker.to_string(),
                leases: held.iter().map(|hold| wire_hold(hold)).collect(),
            };
            let mut client = self.channel.lease();
            let renewed = self.call(request, |request| async move { client.renew_leases(request).await });
            let v1::RenewLeasesResponse { lost, asked } = renewed.await?;
            let named = |held: Vec<v1::HeldLease>| -> HashSet<(String, u32, u64)> {
                held.into_iter().map(|held| (held.stream, held.shard, held.epoch)).collect()
            };
            let (lost, asked) = (named(lost), named(asked));
            let fate = |hold: &Arc<Hold>| {
                let at = hold.at();
                let key = (at.stream().to_string(), at.shard().get(), hold.epoch().get());
                let fate = match () {
                    () if lost.contains(&key) => Renewed::Lost,
                    () if asked.contains(&key) => Renewed::Asked,
                    () => Renewed::Held,
                };
                (Arc::clone(hold), fate)
            };
            Ok(held.iter().map(fate).collect())
        })
    }

    fn release<'a>(&'a self, hold: &'a Hold) -> Answer<'a, ()> {
        Box::pin(async move {
            let request = v1::ReleaseLeaseRequest {
                app: self.app.to_string(),
                worker: self.worker.to_string(),
                lease: Some(wire_hold(hold)),
            };
            let mut client = self.channel.lease();
            let released = self.call(request, |request| async move { client.release_lease(request).await });
            released.await.map(drop)
        })
    }

    fn checkpoint<'a>(&'a self, hold: &'a Hold, checkpoint: Checkpoint) -> Answer<'a, ()> {
        Box::pin(async move {
            let request = v1::SetCheckpointRequest {
                app: self.app.to_string(),
                worker: self.worker.to_string(),
                lease: Some(wire_hold(hold)),
                checkpoint: Some(to_wire(checkpoint)?),
            };
            let mut client = self.channel.lease();
            let stored = self.call(request, |request| async move { client.set_checkpoint(request).await });
            stored.await.map(drop)
        })
    }

    fn prepare<'a>(&'a self, hold: &'a Hold, pending: &'a PendingCheckpoint) -> Answer<'a, ()> {
        Box::pin(async move {
            let at = Some(to_wire(pending.at)?);
            let request = v1::PrepareCheckpointRequest {
                app: self.app.to_string(),
                worker: self.worker.to_string(),
                lease: Some(wire_hold(hold)),
                pending: Some(v1::PendingCheckpoint { at, state: pending.state.clone() }),
            };
            let mut client = self.channel.lease();
            let stored =
                self.call(request, |request| async move { client.prepare_checkpoint(request).await });
            stored.await.map(drop)
        })
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn wire_hold(hold: &Hold) -> v1::HeldLease {
    let at = hold.at();
    v1::HeldLease {
        stream: at.stream().to_string(),
        shard: at.shard().get(),
        epoch: hold.epoch().get(),
        bytes_per_s: hold.bytes_per_s(),
    }
}

/// A broker has no word for a time to begin at: such a shard is as one that begins at its oldest record, and where it is
/// read from is the application's setting ([`ReadFrom::behind`](crate::place::ReadFrom::behind)).
fn to_wire(checkpoint: Checkpoint) -> Result<v1::CheckpointValue> {
    let checkpoint = match checkpoint {
        Checkpoint::AtTimestamp | Checkpoint::TrimHorizon => types::Checkpoint::TrimHorizon,
        Checkpoint::Latest => types::Checkpoint::Latest,
        Checkpoint::At { number, sub } => types::Checkpoint::At { number: number.try_into()?, sub },
        Checkpoint::ShardEnd => types::Checkpoint::ShardEnd,
    };
    Ok(checkpoint.into())
}

fn from_wire(wire: v1::CheckpointValue) -> Result<Checkpoint> {
    Ok(match types::Checkpoint::try_from(wire)? {
        types::Checkpoint::TrimHorizon => Checkpoint::TrimHorizon,
        types::Checkpoint::Latest => Checkpoint::Latest,
        types::Checkpoint::At { number, sub } => Checkpoint::At { number: number.into(), sub },
        types::Checkpoint::ShardEnd => Checkpoint::ShardEnd,
    })
}

fn worker_from_wire(text: &str) -> Result<Option<WorkerId>> {
    Ok(if text.is_empty() { None } else { Some(WorkerId::new(text)?) })
}

fn row_from_wire(wire: v1::LeaseRow) -> Result<LeaseRow> {
    let owner = worker_from_wire(&wire.owner)?;
    let pending = wire.pending.map(|pending| -> Result<_> {
        Ok(PendingCheckpoint { at: from_wire(required(pending.at, "pending.at")?)?, state: pending.state })
    });
    Ok(LeaseRow {
        shard: ShardInfo::from(&Shard::try_from(required(wire.shard, "lease.shard")?)?),
        expires_in_ms: if wire.expired || owner.is_none() { 0 } else { wire.expires_in_ms.max(1) },
        owner,
        successor: worker_from_wire(&wire.successor)?,
        handoff_left: Duration::from_millis(wire.handoff_in_ms),
        epoch: LeaseEpoch::new(wire.epoch),
        counter: wire.counter,
        checkpoint: wire.checkpoint.map(from_wire).transpose()?,
        pending: pending.transpose()?,
        bytes_per_s: wire.bytes_per_s,
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
