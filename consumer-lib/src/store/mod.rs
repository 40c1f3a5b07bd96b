//! Where leases and checkpoints are kept: in the broker, in a DynamoDB table as the KCL keeps them, or in memory for tests.
//!
//! ```text
//!           take                        let run out
//!  free ──────────► held by a worker ──────────────► expired: its owner's until somebody takes it
//!   ▲                │ renew, checkpoint, prepare: fenced by the epoch
//!   │                │ ask: a successor waits ──► its renewals tell the holder ──► release ─► held by the successor
//!   └──── release ───┘
//! ```
//!
//! Every change is conditional; a worker that has lost a lease changes nothing. Whether a lease has run out is judged by a
//! monotonic clock: the broker's own, or that of whoever looks. Every store must pass the suite in `suite/`.
//! What to do after a failure is the caller's: calls have a deadline and are made once.

mod broker;
#[cfg(feature = "aws")]
mod dynamodb;
mod memory;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod suite;

pub(crate) use broker::BrokerStore;
#[cfg(feature = "aws")]
pub(crate) use dynamodb::{Creation, DynamoDbSettings, DynamoDbStore, Keys, TableReads};
pub use memory::MemoryLeases;
pub(crate) use memory::MemoryStore;

use crate::hold::Hold;
use crate::place::{Checkpoint, PendingCheckpoint};
use crate::shard::{ShardInfo, ShardRef};
use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tidemill_proto::Result;
use tidemill_types::{LeaseEpoch, StreamName, WorkerId};

/// An answer under way.
pub(crate) type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// A lease as its store knows it, with the shard it is for.
#[derive(Debug, Clone)]
pub(crate) struct LeaseRow {
    pub(crate) shard: ShardInfo,
    /// Who holds it, or held it until it ran out.
    pub(crate) owner: Option<WorkerId>,
    /// Who is to have it next, in order: asked the owner to hand it over.
    pub(crate) successor: Option<WorkerId>,
    /// How long the successor must wait before it may take it by force; zero when it may, or when there is none.
    pub(crate) handoff_left: Duration,
    /// Rises with every change of owner. What a take must expect.
    pub(crate) epoch: LeaseEpoch,
    /// Moves whenever the lease is taken or renewed.
    pub(crate) counter: u64,
    /// Nothing: the store has no row, no worker has ever taken it.
    pub(crate) checkpoint: Option<Checkpoint>,
    pub(crate) pending: Option<PendingCheckpoint>,
    /// 0 when it ran out or nobody holds it.
    pub(crate) expires_in_ms: u64,
    /// What its holder last told of its throughput, bytes a second; 0 when it never did.
    pub(crate) bytes_per_s: u64,
}

impl LeaseRow {
    /// The lease of a shard that nobody ever took.
    pub(crate) fn untaken(shard: ShardInfo) -> Self {
        Self {
            shard,
            owner: None,
            successor: None,
            handoff_left: Duration::ZERO,
            epoch: LeaseEpoch::default(),
            counter: 0,
            checkpoint: None,
            pending: None,
            expires_in_ms: 0,
            bytes_per_s: 0,
        }
    }
    /// Whether some worker holds it and has not let it run out.
    pub(crate) fn is_held(&self) -> bool {
        self.owner.is_some() && self.expires_in_ms > 0
    }
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

/// How to ask that a lease be handed over.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) at: ShardRef,
    pub(crate) expected: LeaseEpoch,
    /// How long the holder may take; then it may be taken by force.
    pub(crate) deadline: Duration,
}

/// What became of a lease that was renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Renewed {
    Held,
    /// Held, and a successor waits for it.
    Asked,
    Lost,
}

/// The leases of one application, for one worker.
pub(crate) trait LeaseStore: Debug + Send + Sync {
    /// How long a lease lasts without being renewed.
    fn lease(&self) -> Duration;

    /// The leases on a stream, one for each shard that there is, in any order. Heals what it finds: rows of shards that are
    /// gone are removed. `NotFound` if there is no such stream.
    fn list<'a>(&'a self, stream: &'a StreamName) -> Answer<'a, Vec<LeaseRow>>;

    /// Takes a lease; the row after it. `Conflict` if somebody else was faster, or holds it and `steal` is not set.
    fn take<'a>(&'a self, take: &'a Take) -> Answer<'a, LeaseRow>;

    /// Asks its holder to hand a lease over to this worker. `Conflict` if that cannot be asked (any more).
    fn ask<'a>(&'a self, ask: &'a Ask) -> Answer<'a, ()>;

    /// Renews leases and tells of each, in their order, what became of it. An error says that nothing is known of any of
    /// them; a lease of which a store could not learn the fate stays as it is (`Held` is only said when it was renewed):
    /// it is left out.
    fn renew<'a>(&'a self, held: &'a [Arc<Hold>]) -> Answer<'a, Vec<(Arc<Hold>, Renewed)>>;

    /// Gives a lease back, or to its successor if there is one. `Conflict` if it is lost.
    fn release<'a>(&'a self, hold: &'a Hold) -> Answer<'a, ()>;

    /// Stores how far the holder has come; forgets what was prepared. May be repeated. `Conflict` if the lease is lost.
    fn checkpoint<'a>(&'a self, hold: &'a Hold, checkpoint: Checkpoint) -> Answer<'a, ()>;

    /// Stores a prepared checkpoint. May be repeated. `Conflict` if the lease is lost.
    fn prepare<'a>(&'a self, hold: &'a Hold, pending: &'a PendingCheckpoint) -> Answer<'a, ()>;

    /// Notes which shards follow the end of this one, before it is checkpointed as ended, so that other workers find them
    /// without listing the stream. Stores that know the shards themselves need not.
    fn note_children<'a>(&'a self, hold: &'a Hold, children: &'a [ShardInfo]) -> Answer<'a, ()> {
        let _ = (hold, children);
        Box::pin(async { Ok(()) })
    }
}
