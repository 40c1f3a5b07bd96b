//! What a stream is: a catalog of streams and shards, three data verbs (append, read, subscribe), and leases.
//!
//! Both front ends call the same verbs with the same nouns; nothing here knows a wire. Records live in
//! `tidemill-storage`, one log for each shard; everything else lives in the metadata store (module `store`, FORMAT.md).
//!
//! ```text
//!   Engine ─ create, delete ─► catalog::owner (one task) ─► store (group commit) ─► registry of streams
//!   Stream ─ put, submit ────► shard::handle (bounded queue) ─► log ─► PendingAppend
//!          ─ read, subscribe ─► log, woken by the shard's tail
//!   LeaseTable ─ take, renew, hand over, release, checkpoint, reset ─► memory ─► store
//! ```
//!
//! Not here: authentication, quotas of accounts, encodings of any wire, what a consumer does with its records.

mod append;
mod background;
mod backup;
mod catalog;
mod damage;
mod directory;
mod engine;
mod error;
mod even_time;
mod keys;
mod lease;
mod metrics;
#[cfg(test)]
mod one_stream;
mod read;
mod repair;
mod retention;
mod scrub;
mod seal;
mod settings;
mod shard;
mod shared;
pub mod simulation;
mod store;
mod stream;
mod subscribe;
mod verify;

pub use append::Placed;
pub use backup::{Backup, BackupPart, Copied, HeldBackup, Receiving, Row, restore};
pub use catalog::accounts::{AccountInfo, Commitment, CommitmentStatus};
pub use catalog::consumers::{ConsumerInfo, ConsumerUpdate, ConsumersOnDelete};
pub use catalog::settings::{
    Distribution, Encryption, MetricSet, StreamMode, StreamSettings, StreamUpdate, Tags,
};
pub use engine::Engine;
pub use error::{Error, ErrorKind, Result};
pub use keys::{KeyMaterial, KeyRing, WrappingKey};
pub use lease::{
    App, AppPage, AppStream, Effect, HeldLease, Holders, Lag, LeaseRow, LeaseTable, Renewal, Renewed,
    RequestHandoff, ResetCheckpoints, ResetRow, Steal, Successor, TakeLease,
};
pub use read::{FramePage, ReadRecord, RecordPage};
pub use repair::{Repair, repair};
pub use settings::Settings;
pub use shard::pending::PendingAppend;
pub use shard::quota::Quota;
pub use stream::{NumberProblem, Scaled, Stream, StreamInfo, StreamPage, StreamSpec, Updated};
pub use subscribe::Subscription;
pub use tidemill_storage::LogId;
pub use tidemill_storage::backup::{Held, Part};
pub use tidemill_storage::verify::{Finding, Report, Severity};
pub use tidemill_storage::{Appended, Durability, Health, Settings as StorageSettings};
pub use tidemill_types::StreamIncarnation;
pub use verify::{Owners, Verification, verify};
