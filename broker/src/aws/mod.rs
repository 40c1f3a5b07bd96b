//! The Kinesis HTTP front end: JSON 1.1 over `POST`, operation by `X-Amz-Target`.
//!
//! What it is: the place where the Kinesis wire ends. Why: unmodified AWS SDKs, the KPL and the KCL talk to the broker
//! through it. How a request lives:
//!
//! ```text
//!  http       body cap, CORS, method, content type, target; renders replies and errors
//!   └ codec   bytes → tree → typed shape (conversion errors)          typed shape → bytes
//!      └ shape    the shapes, their constraints (validate)
//!         └ operation   which handler
//!            └ streams, shards, records    parse into nouns, one engine call, reply
//! ```
//!
//! Tokens that clients hand back (shard iterators, page tokens) are self-contained: see `iterator`. Exceptions have one
//! table: see `error`.
//!
//! What it does not do: it keeps no state of its own about streams or records, and it binds no socket.

mod body;
mod codec;
mod error;
mod http;
mod iterator;
mod listing;
mod operation;
mod records;
mod shape;
mod shards;
mod streams;
mod validate;

#[cfg(test)]
mod tests;

use crate::auth::Caller;
use axum::Router;
use body::Budget;
use error::ApiError;
use iterator::Tokens;
use std::sync::Arc;
use tidemill_engine::{Engine, Stream};
use tidemill_types::{AccountId, Region, StreamArn, StreamName, TimestampMs};

/// What the Kinesis front end needs to answer: the engine, and the account and region it speaks for. Cheap to clone.
#[derive(Clone)]
pub struct AwsState(Arc<Inner>);

struct Inner {
    engine: Engine,
    account: AccountId,
    region: Region,
    tokens: Tokens,
    budget: Budget,
}

impl AwsState {
    /// A front end for `engine` whose streams belong to `account` in `region`.
    pub fn new(engine: Engine, account: AccountId, region: Region) -> Self {
        let tokens = Tokens::new(engine.secret());
        Self(Arc::new(Inner { engine, account, region, tokens, budget: Budget::default() }))
    }
    pub(crate) fn engine(&self) -> &Engine {
        &self.0.engine
    }
    pub(crate) fn account(&self) -> &AccountId {
        &self.0.account
    }
    pub(crate) fn region(&self) -> &Region {
        &self.0.region
    }
    pub(crate) fn tokens(&self) -> &Tokens {
        &self.0.tokens
    }
    pub(crate) fn budget(&self) -> &Budget {
        &self.0.budget
    }
    pub(crate) fn now(&self) -> TimestampMs {
        self.0.engine.clock().now()
    }
    /// The ARN of one of this broker's streams.
    pub(crate) fn arn(&self, stream: &StreamName) -> StreamArn {
        StreamArn { region: self.0.region.clone(), account: self.0.account.clone(), stream: stream.clone() }
    }
    /// The stream, or the exception that says it is not there.
    pub(crate) fn stream(&self, name: &StreamName) -> Result<Stream, ApiError> {
        self.engine().stream(name).map_err(|error| error::of_stream(&error, name, self.account()))
    }
}

/// One authenticated call: what every handler receives beside its input.
pub(crate) struct Call {
    pub(crate) state: AwsState,
    /// Who calls. Handlers that authorize read it; none can be called without it.
    pub(crate) caller: Caller,
}

/// The router of the Kinesis API. It answers every path and method, so mount it as the fallback of the listener.
pub fn router(state: AwsState) -> Router {
    Router::new().fallback(http::handle).with_state(state)
}
