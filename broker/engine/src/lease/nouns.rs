//! What workers and operators ask of the leases, and what they are told.

use super::lag::Lag;
use super::reset::{Effect, Holders};
use super::row::{Handoff, Row};
use tidemill_types::{
    AppName, Checkpoint, LeaseEpoch, MonotonicMs, PendingCheckpoint, Position, Shard, ShardId, StreamKey,
    StreamName, WorkerId,
};

/// Whether a lease may be taken from a worker that still holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steal {
    /// Only a lease that is free, has run out, or is the worker's own.
    Never,
    /// Any.
    Allowed,
}

/// What a worker asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakeLease {
    /// The shard.
    pub shard: ShardId,
    /// Who asks.
    pub worker: WorkerId,
    /// The epoch the worker saw; 0 where nobody ever took the lease.
    pub expected_epoch: LeaseEpoch,
    /// It runs out when not renewed for so many milliseconds: 500 to 600,000.
    pub lease_ms: u64,
    /// Whether a live owner loses it.
    pub steal: Steal,
    /// The checkpoint to begin with if there is none yet.
    pub initial: Checkpoint,
}

/// A lease as its holder knows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HeldLease {
    /// The stream.
    pub stream: StreamKey,
    /// The shard.
    pub shard: ShardId,
    /// The epoch it was taken under.
    pub epoch: LeaseEpoch,
}

/// A lease that its holder keeps alive, and what it tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewal {
    /// The lease.
    pub held: HeldLease,
    /// The holder's throughput on it, in bytes a second.
    pub bytes_per_s: u64,
}

/// What keeping leases alive came to. Those named in neither list are held, and nobody waits for them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Renewed {
    /// Not held (any more) by the worker under that epoch.
    pub lost: Vec<HeldLease>,
    /// Held, and a successor waits: finish, checkpoint, give back.
    pub asked: Vec<HeldLease>,
}

/// Who wants to have a lease next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHandoff {
    /// The shard.
    pub shard: ShardId,
    /// The worker that is to have it.
    pub worker: WorkerId,
    /// The epoch the worker saw.
    pub expected_epoch: LeaseEpoch,
    /// How long the holder has before the successor takes the lease by force: 0 to 600,000 ms.
    pub deadline_ms: u64,
}

/// Who is to have a lease next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Successor {
    /// The worker.
    pub worker: WorkerId,
    /// Milliseconds until it may take the lease by force.
    pub in_ms: u64,
}

/// A lease as the table has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRow {
    /// The shard.
    pub shard: Shard,
    /// Who holds it, or held it last without giving it back.
    pub owner: Option<WorkerId>,
    /// The fencing counter; 0 if nobody ever took it.
    pub epoch: LeaseEpoch,
    /// How often it was taken or renewed under this epoch.
    pub counter: u64,
    /// How far the application has come; none if nobody ever took it.
    pub checkpoint: Option<Checkpoint>,
    /// A checkpoint that was prepared and not made.
    pub pending: Option<PendingCheckpoint>,
    /// Milliseconds until it runs out; 0: it has, or nobody holds it.
    pub expires_in_ms: u64,
    /// Who waits for it.
    pub successor: Option<Successor>,
    /// The throughput its holder told when it renewed last, in bytes a second.
    pub bytes_per_s: u64,
    /// How far the application is behind; none where nobody can tell, or nobody asked.
    pub lag: Option<Lag>,
}

impl LeaseRow {
    /// A lease as it is now; `row` is none where nobody ever took it.
    pub(crate) fn of(shard: Shard, row: Option<&Row>, now: MonotonicMs) -> Self {
        let waits = |handoff: &Handoff| Successor {
            worker: handoff.successor.clone(),
            in_ms: handoff.until.since(now),
        };
        Self {
            shard,
            owner: row.and_then(|row| row.owner.clone()),
            epoch: row.map_or(LeaseEpoch::default(), |row| row.epoch),
            counter: row.map_or(0, |row| row.counter),
            checkpoint: row.map(|row| row.checkpoint),
            pending: row.and_then(|row| row.pending.clone()),
            expires_in_ms: row.map_or(0, |row| row.expires_in_ms(now)),
            successor: row.and_then(|row| row.handoff.as_ref()).map(waits),
            bytes_per_s: row.map_or(0, |row| row.bytes_per_s),
            lag: None,
        }
    }
}

/// Where an operator wants the checkpoints of an application to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResetCheckpoints {
    /// The place. One with a sequence number concerns the shard that the number is of, and those that came from it.
    pub to: Position,
    /// What becomes of workers that hold the leases.
    pub holders: Holders,
    /// Whether it is done.
    pub effect: Effect,
}

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
    pub leases: usize,
    /// Of these, held and not run out.
    pub held: usize,
    /// Workers that hold them.
    pub workers: usize,
}

/// Some applications, and whether there are more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppPage {
    /// Names ascending.
    pub apps: Vec<App>,
    /// Whether more follow.
    pub more: bool,
}
