//! The Kinesis HTTP front end: JSON 1.1 and CBOR 1.1 over `POST`, operation by `X-Amz-Target`.
//!
//! What it is: the place where the Kinesis wire ends. Why: unmodified AWS SDKs, the KPL and the KCL talk to the broker
//! through it. How a request lives:
//!
//! ```text
//!  http       body cap, CORS, method, content type, target; renders replies and errors
//!   └ codec   bytes → tree → typed shape (conversion errors)          typed shape → bytes
//!      └ shape    the shapes, their constraints (validate)
//!         └ operation   which handler
//!            └ streams, shards, records, …    address: which stream, and may the caller; one engine call; reply
//! ```
//!
//! Tokens that clients hand back (shard iterators, page tokens) are self-contained: see `iterator`. Exceptions have one
//! table: see `error`.
//!
//! What it does not do: it keeps no state of its own about streams or records, and it binds no socket.

mod account;
mod address;
mod body;
mod codec;
mod consumers;
mod error;
mod eventstream;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod http;
mod iterator;
mod listing;
#[cfg(any(test, feature = "bench"))]
pub mod measured;
mod operation;
mod policies;
mod records;
mod reply;
mod room;
mod settings;
mod shape;
mod shards;
mod streams;
mod subscribe;
mod tags;
mod validate;

#[cfg(test)]
mod tests;

pub(crate) use error::{ApiError, Code};
pub(crate) use operation::Operation;

use crate::auth::{Gate, Verified};
use crate::limits::{LimitSettings, Limits};
use axum::Router;
use body::Budget;
use iterator::Tokens;
use std::sync::Arc;
use subscribe::{EventRoom, Seats};
use tidemill_engine::Engine;
use tidemill_types::{AccountId, Region, StreamArn, StreamKey, TimestampMs};
use tokio_util::sync::CancellationToken;

/// What the Kinesis front end needs to answer: the engine, and the account and region it speaks for. Cheap to clone.
#[derive(Clone)]
pub struct AwsState(Arc<Inner>);

struct Inner {
    engine: Engine,
    gate: Gate,
    tokens: Tokens,
    budget: Budget,
    limits: Limits,
    seats: Seats,
    event_room: EventRoom,
    /// Ends subscriptions.
    stopping: CancellationToken,
}

impl AwsState {
    /// A front end for `engine` in `region` that lets everyone pass; callers that name no account are of `account`.
    pub fn new(engine: Engine, account: AccountId, region: Region) -> Self {
        let gate = Gate::open(account, region);
        Self::guarded(engine, gate, LimitSettings::default(), CancellationToken::new())
    }
    /// A front end for `engine` behind a gate, within limits, whose subscriptions end when `stopping` says so.
    pub(crate) fn guarded(
        engine: Engine,
        gate: Gate,
        limits: LimitSettings,
        stopping: CancellationToken,
    ) -> Self {
        let tokens = Tokens::new(engine.secret());
        let limits = Limits::new(limits, Arc::clone(engine.clock()));
        let (budget, seats, event_room) = (Budget::default(), Seats::default(), EventRoom::default());
        Self(Arc::new(Inner { engine, gate, tokens, budget, limits, seats, event_room, stopping }))
    }
    pub(crate) fn gate(&self) -> &Gate {
        &self.0.gate
    }
    pub(crate) fn engine(&self) -> &Engine {
        &self.0.engine
    }
    pub(crate) fn region(&self) -> &Region {
        self.0.gate.region()
    }
    pub(crate) fn tokens(&self) -> &Tokens {
        &self.0.tokens
    }
    pub(crate) fn budget(&self) -> &Budget {
        &self.0.budget
    }
    pub(crate) fn limits(&self) -> &Limits {
        &self.0.limits
    }
    pub(crate) fn seats(&self) -> &Seats {
        &self.0.seats
    }
    pub(crate) fn event_room(&self) -> &EventRoom {
        &self.0.event_room
    }
    pub(crate) fn stopping(&self) -> &CancellationToken {
        &self.0.stopping
    }
    pub(crate) fn now(&self) -> TimestampMs {
        self.0.engine.clock().now()
    }
    /// The ARN of a stream of any account.
    pub(crate) fn arn(&self, key: &StreamKey) -> StreamArn {
        StreamArn { region: self.region().clone(), account: key.account.clone(), stream: key.name.clone() }
    }
}

/// One authenticated call: what every handler receives beside its input.
pub(crate) struct Call {
    pub(crate) state: AwsState,
    /// Who calls. Handlers authorize by it; none can be called without it.
    pub(crate) caller: Verified,
    /// Is cancelled when the credentials change: then the caller has to be verified anew.
    pub(crate) valid: CancellationToken,
    /// What it asks for, which is what it must be allowed to do.
    pub(crate) operation: Operation,
}

/// The router of the Kinesis API. It answers every path and method, so mount it as the fallback of the listener.
pub fn router(state: AwsState) -> Router {
    Router::new().fallback(http::handle).with_state(state)
}
