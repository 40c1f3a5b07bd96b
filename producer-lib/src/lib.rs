//! A batching producer for Tidemill streams, and, with the feature `aws`, for Amazon Kinesis: what the Kinesis Producer
//! Library is to Java, in the application's own process.
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
//!  put ─► limiter ─► route ─► lane of the shard ─────────────────────────► sender ─► sink ─► service
//!         (memory)  (shard    aggregator ─► sealed ─► flights             (one per   (gRPC    │
//!                    map)     (open batch)  batches   (unanswered)        connection) or AWS) │
//!                                 ▲ collector: linger, expiry   ▲                              │
//!                                                               └──── retrier: done, again, ◄──┘
//!  ticket ◄───────────────────────────────────────────────────────── rerouted or failed
//! ```
//!
//! One producer serves any number of streams over one set of connections; clones of it are cheap. Every queue on this way
//! is bounded: records by memory, batches under way by the shards, shards by their stream.
//!
//! # What it promises
//!
//! - Every [`Ticket`] resolves exactly once: with the place of its record, or with why not and what was tried. Nothing
//!   a service or a network does can make it hang: each record has a deadline.
//! - On Tidemill a record is stored at most once, however often it is sent: batches are numbered, the broker recognises a
//!   repetition. With the retries that is exactly once for every acknowledged record.
//! - Records put one after the other with the same partition key are stored in that order, also across lost connections
//!   and splits of the shard. Only where a broker refuses a batch (disk full, quota) while later ones are already under way
//!   may those come first; [`Config::ordered`] rules that out too.
//! - Memory is bounded by [`Config::memory_bytes`], and records by [`Config::memory_records`].
//!
//! # When memory is full
//!
//! | call | at the limit |
//! |---|---|
//! | [`Producer::put`] | waits, first come, first served |
//! | [`Producer::put_within`] | waits so long at most, then gives the record back |
//! | [`Producer::try_put`] | gives the record back at once |
//!
//! # When a record fails
//!
//! [`Error::kind`] says what to do, [`Error::message`] names the last true cause also where the time was over, and
//! [`Error::attempts`] tells each failed attempt. After [`ErrorKind::UnknownOutcome`] the record may be stored, after most
//! others it is not. [`Config::return_failed`] gives the record back ([`Error::record`]). A record that is soon
//! worthless can be given less time than the others: [`Producer::put_living`].
//!
//! # Amazon Kinesis
//!
//! ```no_run
//! # #[cfg(feature = "aws")]
//! # async fn hello() -> Result<(), tidemill_producer::Error> {
//! use tidemill_producer::{Aws, Config, Producer};
//! let producer = Producer::new(Config::aws(Aws::from_env())).await?;
//! # Ok(())
//! # }
//! # fn main() {}
//! ```
//!
//! Everything is as above, but for what the service does not offer:
//!
//! - Records travel aggregated, in the KPL's format, so readers must know it: the KCL, the aggregation libraries, Tidemill's
//!   consumer. They share the sequence number of the record that holds them; [`Placed::sub`] tells them apart.
//!   `Aws::without_aggregation` sends each as a record of its own.
//! - Batches have no numbers there. A record that is sent again after an unknown outcome (no answer in time, a lost
//!   connection) may be stored twice; `Aws::fail_if_unknown` fails it instead.
//! - A shard may be split while an aggregate for it is under way, and that then lies in a child that is not meant for all of
//!   it. The KCL drops such an aggregate whole, so it counts as not stored and is sent again, torn apart as the shards are
//!   now; readers that do not look at hash ranges find its records twice. One that fits is not sent again.
//! - Each shard is sent to at one and a half times its limits (`Aws::rate_limit_percent`), requests are made over HTTP,
//!   500 records and 5 MiB at most, and records linger for 100 ms.
//!
//! # Metrics
//!
//! Through the `metrics` facade, under the KPL's names, with the labels `StreamName` and, but for those of requests,
//! `ShardId`: `UserRecordsReceived`, `UserRecordsPending`, `UserRecordsPut`, `UserRecordsDataPut`, `KinesisRecordsPut`,
//! `KinesisRecordsDataPut` (a batch counts as a record of Kinesis), `ErrorsByCode` (with `ErrorCode`), `AllErrors`,
//! `RetriesPerRecord`, `UserRecordExpired`, `BufferingTime`, `RequestTime`, `UserRecordsPerKinesisRecord`,
//! `KinesisRecordsPerPutRecordsRequest` and `UserRecordsPerPutRecordsRequest` (both of Amazon only). Times are in
//! milliseconds. Install a recorder before the first put; without one nothing is recorded. [`Producer::stats`] tells the
//! most important figures without any. Events and spans of `tracing` are at the level of debug, but for what is wrong.
//!
//! # Runtimes and features
//!
//! A producer lives in the tokio runtime that it was made in, of one thread or many; when that ends, its tickets resolve.
//! Applications without one use [`blocking`].
//!
//! | feature | default | brings |
//! |---|---|---|
//! | `aws` | no | Amazon Kinesis with the official SDK (`Aws`, `Config::aws`) |
//! | `discard` | no | `Config::discard`, which sends nothing: to measure what the producer itself costs |
//!
//! Nothing here needs a C compiler but aws-lc, the cryptography of rustls, with or without `aws`. Linux on x86-64 and
//! aarch64, glibc and musl, are meant to work alike.
//!
//! What it does not do: keep records across a restart of the process, or make streams
//! (that is [`Control`](tidemill_proto::client::Control)).

mod aggregator;
mod batch;
pub mod blocking;
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
pub use tidemill_proto::client::{Dial, Endpoint};
pub use tidemill_types::{AnySequenceNumber as SequenceNumber, HashKey, PartitionKey, Record, ShardId};
