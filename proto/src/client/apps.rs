//! The calls on applications and their leases that operators make, in nouns.
//!
//! What workers do with leases is the consumer library's own.

use super::call::{Calls, Repeat, bounded};
use super::channel::Channel;
use crate::convert::required;
use crate::v1;
use crate::{Error, Result};
use tidemill_types::{
    AppName, Checkpoint, LeaseEpoch, PendingCheckpoint, Position, Shard, ShardId, StreamName, WorkerId,
};

/// An application, and where it has leases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct App {
    /// Its name.
    pub app: AppName,
    /// By name.
    pub streams: Vec<AppStream>,
}

/// The leases of an application on a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppStream {
    /// The stream.
    pub stream: StreamName,
    /// Leases that were taken at least once, or reset.
    pub leases: u32,
    /// Of these, held and not run out.
    pub held: u32,
    /// Workers that hold them.
    pub workers: u32,
}

/// Applications by name, a page of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppPage {
    /// Ascending by name.
    pub apps: Vec<App>,
    /// Whether more follow the last one.
    pub more: bool,
}

/// The lease of an application on a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseDescription {
    /// The shard.
    pub shard: Shard,
    /// Who holds it, or held it last without giving it back.
    pub owner: Option<WorkerId>,
    /// The fencing counter; 0 if nobody ever took it.
    pub epoch: LeaseEpoch,
    /// How far the application has come; none if nobody ever took it.
    pub checkpoint: Option<Checkpoint>,
    /// A checkpoint that was prepared and not made.
    pub pending: Option<PendingCheckpoint>,
    /// Milliseconds until it runs out; 0: it has, or nobody holds it.
    pub expires_in_ms: u64,
    /// Who is to have it next.
    pub successor: Option<WorkerId>,
    /// Milliseconds until the successor may take it by force.
    pub handoff_in_ms: u64,
    /// The throughput that its holder told last, bytes a second.
    pub bytes_per_s: u64,
    /// Stored records behind the checkpoint; none where nobody can tell.
    pub records_behind: Option<u64>,
    /// How old the first of them is, in milliseconds; 0 if there is none.
    pub millis_behind: Option<u64>,
}

/// Whether something is done, and what becomes of workers that hold what it concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is only told what would be done.
    DryRun,
    /// It is done unless a worker holds a lease concerned.
    Unheld,
    /// It is done, and holders lose their leases.
    Force,
}

/// One shard before and after its checkpoint was moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResetRow {
    /// The shard.
    pub shard: ShardId,
    /// Its checkpoint before; none if nobody had ever taken the lease.
    pub before: Option<Checkpoint>,
    /// Its checkpoint after; as before, if the reset does not concern it.
    pub after: Option<Checkpoint>,
    /// Who holds its lease, or held it until the reset.
    pub owner: Option<WorkerId>,
}

/// Lists applications, describes their leases, moves their checkpoints, hands leases over, forgets applications. Shared by
/// its clones. Cancelling a call is safe; whether a cancelled one that changes something was done is unknown.
#[derive(Debug, Clone)]
pub struct Apps {
    channel: Channel,
    calls: Calls,
}

impl Apps {
    /// Over a channel. `seed` feeds the jitter of repetitions; any number will do.
    pub fn new(channel: Channel, seed: u64) -> Self {
        Self { channel, calls: Calls::new(seed) }
    }

    /// Up to `limit` (1 to 1,000) applications, those after a name or from the first.
    pub async fn list(&self, after: Option<&AppName>, limit: u32) -> Result<AppPage> {
        let after = after.map(ToString::to_string).unwrap_or_default();
        let request = v1::ListAppsRequest { after, limit };
        let page = self
            .calls
            .call("listing applications", Repeat::Freely, || {
                let (mut client, request) = (self.channel.lease(), bounded(request.clone()));
                async move { client.list_apps(request).await }
            })
            .await?;
        let apps = page.apps.into_iter().map(TryInto::try_into).collect::<Result<_>>()?;
        Ok(AppPage { apps, more: page.more })
    }

    /// The leases of an application on a stream, one for each shard, with how far it is behind.
    /// [`NotFound`](crate::ErrorKind::NotFound) if there is no such stream.
    pub async fn leases(&self, app: &AppName, stream: &StreamName) -> Result<Vec<LeaseDescription>> {
        let request =
            v1::ListLeasesRequest { app: app.to_string(), stream: stream.to_string(), with_lag: true };
        let list = self
            .calls
            .call("listing the leases", Repeat::Freely, || {
                let (mut client, request) = (self.channel.lease(), bounded(request.clone()));
                async move { client.list_leases(request).await }
            })
            .await?;
        list.leases.into_iter().map(TryInto::try_into).collect()
    }

    /// Asks the holder of a lease, which the caller saw at `epoch`, to hand it over to `to` within `deadline_ms` (0 to
    /// 600,000). [`Conflict`](crate::ErrorKind::Conflict) if it has changed hands since, nobody or `to` itself holds it, or
    /// another worker waits for it.
    pub async fn request_handoff(
        &self,
        app: &AppName,
        stream: &StreamName,
        lease: (ShardId, LeaseEpoch),
        to: &WorkerId,
        deadline_ms: u64,
    ) -> Result<LeaseDescription> {
        let request = v1::RequestHandoffRequest {
            app: app.to_string(),
            stream: stream.to_string(),
            shard: lease.0.get(),
            worker: to.to_string(),
            expected_epoch: lease.1.get(),
            deadline_ms,
        };
        // asking twice is asking once
        let asked = self
            .calls
            .call("asking for the lease", Repeat::Freely, || {
                let (mut client, request) = (self.channel.lease(), bounded(request.clone()));
                async move { client.request_handoff(request).await }
            })
            .await?;
        required(asked.lease, "lease")?.try_into()
    }

    /// Moves the checkpoints of an application on a stream, and tells what that means for each shard.
    /// [`Conflict`](crate::ErrorKind::Conflict) if a worker holds a lease concerned and is not to lose it;
    /// [`Invalid`](crate::ErrorKind::Invalid) for a sequence number of another stream.
    pub async fn reset(
        &self,
        app: &AppName,
        stream: &StreamName,
        to: Position,
        change: Change,
    ) -> Result<Vec<ResetRow>> {
        let request = v1::ResetCheckpointsRequest {
            app: app.to_string(),
            stream: stream.to_string(),
            to: Some(to.into()),
            dry_run: change == Change::DryRun,
            force: change == Change::Force,
        };
        let reset = self
            .calls
            .call("resetting the checkpoints", Repeat::OnlyIfNotDone, || {
                let (mut client, request) = (self.channel.lease(), bounded(request.clone()));
                async move { client.reset_checkpoints(request).await }
            })
            .await?;
        reset.rows.into_iter().map(TryInto::try_into).collect()
    }

    /// Forgets all leases of an application, on one stream or on all; returns how many.
    /// [`NotFound`](crate::ErrorKind::NotFound) if it has none there, [`Conflict`](crate::ErrorKind::Conflict) if a worker
    /// holds one and is not to lose it.
    pub async fn delete(&self, app: &AppName, stream: Option<&StreamName>, change: Change) -> Result<u32> {
        let request = v1::DeleteAppRequest {
            app: app.to_string(),
            stream: stream.map(ToString::to_string).unwrap_or_default(),
            force: change == Change::Force,
            dry_run: change == Change::DryRun,
        };
        let deleted = self
            .calls
            .call("deleting the application", Repeat::OnlyIfNotDone, || {
                let (mut client, request) = (self.channel.lease(), bounded(request.clone()));
                async move { client.delete_app(request).await }
            })
            .await?;
        Ok(deleted.leases)
    }
}

impl TryFrom<v1::AppDescription> for App {
    type Error = Error;
    fn try_from(wire: v1::AppDescription) -> Result<Self> {
        let stream = |wire: v1::AppStream| {
            let v1::AppStream { stream, leases, held, workers } = wire;
            Ok(AppStream { stream: StreamName::new(&stream)?, leases, held, workers })
        };
        let streams = wire.streams.into_iter().map(stream).collect::<Result<_>>()?;
        Ok(Self { app: AppName::new(&wire.app)?, streams })
    }
}

impl TryFrom<v1::LeaseRow> for LeaseDescription {
    type Error = Error;
    fn try_from(wire: v1::LeaseRow) -> Result<Self> {
        Ok(Self {
            shard: required(wire.shard, "lease.shard")?.try_into()?,
            owner: worker(&wire.owner)?,
            epoch: LeaseEpoch::new(wire.epoch),
            checkpoint: wire.checkpoint.map(TryInto::try_into).transpose()?,
            pending: wire.pending.map(TryInto::try_into).transpose()?,
            expires_in_ms: wire.expires_in_ms,
            successor: worker(&wire.successor)?,
            handoff_in_ms: wire.handoff_in_ms,
            bytes_per_s: wire.bytes_per_s,
            records_behind: wire.records_behind,
            millis_behind: wire.millis_behind,
        })
    }
}

impl TryFrom<v1::ResetRow> for ResetRow {
    type Error = Error;
    fn try_from(wire: v1::ResetRow) -> Result<Self> {
        Ok(Self {
            shard: ShardId::new(wire.shard)?,
            before: wire.before.map(TryInto::try_into).transpose()?,
            after: wire.after.map(TryInto::try_into).transpose()?,
            owner: worker(&wire.owner)?,
        })
    }
}

/// Nobody is an empty text.
fn worker(text: &str) -> Result<Option<WorkerId>> {
    Ok(if text.is_empty() { None } else { Some(WorkerId::new(text)?) })
}
