//! A batching producer for Tidemill streams.
//!
//! ```no_run
//! use tidemill_producer::{PartitionKey, Producer, Record};
//!
//! # async fn hello() -> Result<(), tidemill_producer::Error> {
//! let producer = Producer::connect("http://127.0.0.1:4567").await?;
//! let record = Record::new(PartitionKey::new("user-1")?, "hello")?;
//! let ticket = producer.put("events", record).await?; // waits only when memory is full
//! let placed = ticket.await?; // stored durably
//! println!("{} in {} after {} attempts", placed.number, placed.shard, placed.attempts);
//! producer.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # The way of a record
//!
//! ```text
//!  put ─► limiter ─► route ─► lane of the shard ─────────────────────────► sender ─► sink ─► broker
//!         (memory)  (shard    aggregator ─► sealed ─► flights             (one per     (gRPC)   │
//!                    map)     (open batch)  batches   (unanswered)         connection)          │
//!                                 ▲ collector: linger, expiry   ▲                              │
//!                                                               └──── retrier: done, again, ◄──┘
//!  ticket ◄───────────────────────────────────────────────────────── rerouted or failed
//! ```
//!
//! # What it promises
//!
//! - Every [`Ticket`] resolves exactly once: with the place of its record, or with why not and what was tried. Nothing
//!   a broker or a network does can make it hang: each record has a deadline.
//! - A record is stored at most once, however often it is sent: batches are numbered, the broker recognises a repetition.
//! - Records put one after the other with the same partition key are stored in that order, also across lost connections
//!   and splits of the shard. Only where a broker refuses a batch (disk full, quota) while later ones are already under way
//!   may those come first; [`Config::batches_in_flight`] of 1 rules that out too.
//! - Memory is bounded by [`Config::memory_bytes`]: at the limit [`Producer::put`] waits and [`Producer::try_put`] gives
//!   the record back.
//!
//! What it does not do: keep records across a restart of the process, or make streams
//! (that is [`Control`](tidemill_proto::client::Control)).

mod aggregator;
mod batch;
mod collector;
mod config;
mod error;
mod lane;
mod limiter;
mod meters;
mod producer;
mod rate;
mod retrier;
mod sender;
mod shard_map;
mod sink;
mod stats;
mod ticket;

pub use config::Config;
pub use error::{Attempt, Error, Result, TryPutError};
pub use producer::Producer;
#[cfg(feature = "aws")]
pub use sink::aws::Aws;
pub use stats::Stats;
pub use ticket::{Placed, Ticket};
pub use tidemill_proto::ErrorKind;
pub use tidemill_proto::client::Endpoint;
pub use tidemill_types::{AnySequenceNumber as SequenceNumber, HashKey, PartitionKey, Record, ShardId};
