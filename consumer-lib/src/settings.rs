//! The few knobs of a worker, their defaults and bounds.

use crate::assign::Balance;
#[cfg(feature = "aws")]
use crate::aws::{DynamoDb, Kinesis, LeaseTable};
use crate::claims::Terms;
use crate::error::{Error, ErrorKind, Result};
use crate::failure::OnFailure;
use crate::initial::InitialPosition;
use crate::record::Misrouted;
use crate::service::{SourceChoice, StoreChoice};
use crate::store::MemoryLeases;
use crate::streams::Streams;
use crate::worker::Worker;
use std::sync::Arc;
use std::time::Duration;
use tidemill_proto::client::{Dial, Endpoint};
use tidemill_types::limits::{GRPC_MESSAGE_BYTES_MAX, LEASE_MS_MAX, LEASE_MS_MIN, WORKER_ID_BYTES_MAX};
use tidemill_types::{AppName, StreamName, WorkerId};

const LEASE_DEFAULT: Duration = Duration::from_secs(10);
const PREFETCH_BYTES_DEFAULT: usize = 4 << 20;
const PREFETCH_BYTES_MAX: usize = 1 << 30;
/// With 256 KiB a worker that catches up read 0.93 of what it reads with this (medians of 5, interleaved).
const BATCH_BYTES_DEFAULT: usize = 1 << 20;
/// As the KCL gives it.
const HANDOFF_DEFAULT: Duration = Duration::from_secs(30);
const HANDOFF_MAX: Duration = Duration::from_secs(600);

/// Who moves the checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Checkpointing {
    /// The worker: what was processed is checkpointed at most once a second per shard, and when the worker stops. The
    /// processor may checkpoint besides.
    #[default]
    Automatic,
    /// The processor alone, through its [`Checkpointer`](crate::Checkpointer). (The end of a shard is checkpointed by
    /// the worker once `shard_ended` returned `Ok`.)
    Manual,
}

/// Settings that were checked.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) source: SourceChoice,
    pub(crate) store: StoreChoice,
    pub(crate) app: AppName,
    pub(crate) streams: Arc<Streams>,
    pub(crate) worker: WorkerId,
    pub(crate) checkpointing: Checkpointing,
    pub(crate) on_failure: OnFailure,
    pub(crate) misrouted: Misrouted,
    pub(crate) balance: Balance,
    pub(crate) lease: Duration,
    pub(crate) leases_max: usize,
    /// How long a holder may take to hand a lease over; zero: it is not asked.
    pub(crate) handoff: Duration,
    pub(crate) prefetch_bytes: usize,
    pub(crate) batch_bytes: u32,
    pub(crate) until_caught_up: bool,
    /// Feeds everything that is left to chance later.
    pub(crate) seed: u64,
}

impl Settings {
    /// How it claims leases.
    pub(crate) fn terms(&self) -> Terms<'_> {
        Terms {
            me: &self.worker,
            leases_max: self.leases_max,
            balance: self.balance,
            handoff: self.handoff,
            patience: self.lease / 4,
        }
    }
}

/// With what a worker proves who it is. `Debug` does not show the secret.
#[derive(Clone)]
struct Credentials {
    access_key_id: String,
    secret_access_key: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

/// Collects the settings of a [`Worker`]; made by [`Worker::builder`]. Only the first three texts are needed.
#[derive(Debug, Clone)]
#[must_use]
pub struct WorkerBuilder {
    origin: Origin,
    authorities: Option<Vec<u8>>,
    credentials: Option<Credentials>,
    dial: Option<Dial>,
    store: Option<StoreChoice>,
    app: String,
    streams: Vec<(String, Option<InitialPosition>)>,
    worker: Option<String>,
    initial: InitialPosition,
    checkpointing: Checkpointing,
    on_failure: OnFailure,
    misrouted: Misrouted,
    balance: Balance,
    lease: Duration,
    leases_max: usize,
    handoff: Duration,
    prefetch_bytes: usize,
    batch_bytes: usize,
    until_caught_up: bool,
    seed: Option<u64>,
}

/// Where the records are.
#[derive(Debug, Clone)]
pub(crate) enum Origin {
    Broker(String),
    #[cfg(feature = "aws")]
    Kinesis(Box<Kinesis>),
    /// Made by a test.
    #[cfg(test)]
    Other(SourceChoice),
}

impl WorkerBuilder {
    pub(crate) fn new(origin: Origin, app: &str, stream: &str) -> Self {
        Self {
            origin,
            authorities: None,
            credentials: None,
            dial: None,
            store: None,
            app: app.to_owned(),
            streams: vec![(stream.to_owned(), None)],
            worker: None,
            initial: InitialPosition::default(),
            checkpointing: Checkpointing::default(),
            on_failure: OnFailure::default(),
            misrouted: Misrouted::default(),
            balance: Balance::default(),
            lease: LEASE_DEFAULT,
            leases_max: usize::MAX,
            handoff: HANDOFF_DEFAULT,
            prefetch_bytes: PREFETCH_BYTES_DEFAULT,
            batch_bytes: BATCH_BYTES_DEFAULT,
            until_caught_up: false,
            seed: None,
        }
    }
    /// Another stream to process under the same application; the shards of all streams are shared out together.
    /// [`WorkerHandle::add_stream`](crate::WorkerHandle::add_stream) does so while the worker runs.
    pub fn and_stream(mut self, stream: &str) -> Self {
        self.streams.push((stream.to_owned(), None));
        self
    }
    /// As [`WorkerBuilder::and_stream`], with an initial position of its own.
    pub fn and_stream_from(mut self, stream: &str, position: InitialPosition) -> Self {
        self.streams.push((stream.to_owned(), Some(position)));
        self
    }
    /// Keeps leases and checkpoints in memory, shared by the workers that are given the same ones: for tests. Default: in the
    /// broker.
    pub fn leases_in_memory(mut self, leases: &MemoryLeases) -> Self {
        self.store = Some(StoreChoice::Memory(leases.clone()));
        self
    }
    /// Keeps leases and checkpoints in a DynamoDB table, as the KCL does and together with it. Default for streams of a
    /// Kinesis: the table with the application's name; for those of a broker: in the broker.
    #[cfg(feature = "aws")]
    pub fn leases_in_dynamo_db(mut self, table: DynamoDb) -> Self {
        self.store = Some(StoreChoice::DynamoDb(Box::new(LeaseTable::new(table))));
        self
    }
    /// For simulations: leases in a store of their own.
    #[cfg(test)]
    pub(crate) fn leases_in(mut self, store: StoreChoice) -> Self {
        self.store = Some(store);
        self
    }
    /// For simulations: what is left to chance follows from this.
    #[cfg(test)]
    pub(crate) fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }
    /// The authorities (PEM) to trust with an address that begins with `https://`. Default: those the system trusts.
    pub fn ca_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.authorities = Some(pem.into());
        self
    }
    /// With what to prove to the broker who calls: an access key id and its secret. Default: nothing, which is enough for a
    /// broker without credentials. Use `https://` wherever others could listen.
    pub fn credentials(mut self, access_key_id: &str, secret_access_key: &str) -> Self {
        let (access_key_id, secret_access_key) = (access_key_id.to_owned(), secret_access_key.to_owned());
        self.credentials = Some(Credentials { access_key_id, secret_access_key });
        self
    }
    /// Makes connections to the broker by `dial` instead of TCP.
    pub fn dialed_by(mut self, dial: Dial) -> Self {
        self.dial = Some(dial);
        self
    }
    /// The worker's id, 1 to 256 bytes, unique among the workers of the application that run at the same time.
    /// Default: host name, process id and a random part. A worker that restarts under its old id takes its old leases
    /// back at once; two that run under the same id take them from each other for ever.
    pub fn worker_id(mut self, id: &str) -> Self {
        self.worker = Some(id.to_owned());
        self
    }
    /// Where to begin in shards that the application has never worked on. Default: the oldest record kept.
    pub fn initial_position(mut self, position: InitialPosition) -> Self {
        self.initial = position;
        self
    }
    /// What to do with a record that the processor fails on again and again. Default: call it again, for ever.
    pub fn on_failure(mut self, policy: OnFailure) -> Self {
        self.on_failure = policy;
        self
    }
    /// What to do with user records of aggregated records that belong to other shards. Default: deliver them.
    pub fn misrouted(mut self, misrouted: Misrouted) -> Self {
        self.misrouted = misrouted;
        self
    }
    /// What is shared out evenly among the workers. Default: the number of shards.
    pub fn balance(mut self, balance: Balance) -> Self {
        self.balance = balance;
        self
    }
    /// How long a worker that is to give up a shard for an even share may take to finish its batch and to checkpoint, before
    /// the shard is taken from it by force: up to 10 min, default 30 s. Zero: it is taken at once, and records that were not
    /// checkpointed come twice.
    pub fn handoff_deadline(mut self, deadline: Duration) -> Self {
        self.handoff = deadline;
        self
    }
    /// Who moves the checkpoints. Default: the worker.
    pub fn checkpointing(mut self, checkpointing: Checkpointing) -> Self {
        self.checkpointing = checkpointing;
        self
    }
    /// How long a lease lasts without being renewed: 500 ms to 10 min, default 10 s; renewed every third of it. The
    /// shards of a worker that died are taken over by others within twice this time.
    pub fn lease_duration(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }
    /// Most leases this worker holds at a time, at least 1. Default: no bound but an even share.
    pub fn leases_max(mut self, leases: usize) -> Self {
        self.leases_max = leases;
        self
    }
    /// Most bytes read ahead of the processor per shard: 64 KiB to 1 GiB, default 4 MiB. (The connection may hold up to
    /// as much again; a single larger batch is taken alone.)
    pub fn prefetch_bytes(mut self, bytes: usize) -> Self {
        self.prefetch_bytes = bytes;
        self
    }
    /// Most bytes in a batch: 1 KiB to 12 MiB, default 1 MiB. What one producer batch holds is not divided.
    pub fn batch_bytes(mut self, bytes: usize) -> Self {
        self.batch_bytes = bytes;
        self
    }
    /// Whether the worker ends by itself once it has processed everything there is
    /// ([`WorkerHandle::caught_up`](crate::WorkerHandle::caught_up)). Default: no, it follows the stream until stopped.
    pub fn until_caught_up(mut self, end: bool) -> Self {
        self.until_caught_up = end;
        self
    }

    /// Checks the settings. [`ErrorKind::Invalid`] names the one that is wrong. Nothing is connected yet.
    pub fn build(self) -> Result<Worker> {
        let lease_bounds = Duration::from_millis(LEASE_MS_MIN)..=Duration::from_millis(LEASE_MS_MAX);
        within("lease_duration", &self.lease, &lease_bounds)?;
        within("leases_max", &self.leases_max, &(1..=usize::MAX))?;
        within("prefetch_bytes", &self.prefetch_bytes, &((64 << 10)..=PREFETCH_BYTES_MAX))?;
        within("batch_bytes", &self.batch_bytes, &((1 << 10)..=GRPC_MESSAGE_BYTES_MAX))?;
        within("handoff_deadline", &self.handoff, &(Duration::ZERO..=HANDOFF_MAX))?;
        let streams = self
            .streams
            .iter()
            .map(|(name, position)| Ok((StreamName::new(name)?, position.unwrap_or(self.initial))));
        let streams = Streams::new(streams.collect::<Result<Vec<_>>>()?, self.initial);
        let source = match self.origin {
            #[cfg(test)]
            Origin::Other(source) => source,
            #[cfg(feature = "aws")]
            Origin::Kinesis(kinesis) => SourceChoice::Kinesis(Box::new(kinesis.build(&self.app)?)),
            Origin::Broker(address) => {
                let mut endpoint = Endpoint::new(&address)?;
                if let Some(pem) = self.authorities {
                    endpoint = endpoint.ca_certificate(pem)?;
                }
                if let Some(Credentials { access_key_id, secret_access_key }) = self.credentials {
                    endpoint = endpoint.credentials(&access_key_id, &secret_access_key)?;
                }
                if let Some(dial) = self.dial {
                    endpoint = endpoint.dialed_by(dial);
                }
                SourceChoice::Broker(endpoint)
            }
        };
        let store = match self.store {
            Some(store) => store,
            None => source.own_store()?,
        };
        #[cfg(feature = "aws")]
        let store = store.settled(&source, &streams)?;
        Ok(Worker::new(Settings {
            source,
            store,
            app: AppName::new(&self.app)?,
            streams: Arc::new(streams),
            worker: WorkerId::new(&self.worker.unwrap_or_else(made_up_worker_id))?,
            checkpointing: self.checkpointing,
            on_failure: self.on_failure,
            misrouted: self.misrouted,
            balance: self.balance,
            lease: self.lease,
            leases_max: self.leases_max,
            handoff: self.handoff,
            prefetch_bytes: self.prefetch_bytes,
            batch_bytes: u32::try_from(self.batch_bytes).expect("bounded above"),
            until_caught_up: self.until_caught_up,
            seed: self.seed.unwrap_or_else(rand::random),
        }))
    }
}

fn within<T: PartialOrd + std::fmt::Debug>(
    name: &str,
    value: &T,
    bounds: &std::ops::RangeInclusive<T>,
) -> Result<()> {
    if bounds.contains(value) {
        return Ok(());
    }
    let told = format!("{name} must be from {:?} to {:?}, found {value:?}", bounds.start(), bounds.end());
    Err(Error::new(ErrorKind::Invalid, told))
}

/// Host name, process id and a random part.
fn made_up_worker_id() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let mut host: String =
        host.chars().filter(|c| c.is_ascii_graphic()).take(WORKER_ID_BYTES_MAX / 2).collect();
    if host.is_empty() {
        host.push_str("localhost");
    }
    format!("{host}-{}-{:08x}", std::process::id(), rand::random::<u32>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn builder() -> WorkerBuilder {
        Worker::builder("http://127.0.0.1:4567", "app", "events")
    }

    #[test]
    fn the_defaults_build_and_workers_have_ids_of_their_own() {
        assert!(builder().build().is_ok());
        assert_ne!(made_up_worker_id(), made_up_worker_id());
        assert!(WorkerId::new(&made_up_worker_id()).is_ok());
    }

    #[test]
    fn a_setting_out_of_bounds_is_refused_by_name() {
        let wrong = [
            ("lease_duration", builder().lease_duration(Duration::from_millis(499))),
            ("leases_max", builder().leases_max(0)),
            ("prefetch_bytes", builder().prefetch_bytes(1)),
            ("batch_bytes", builder().batch_bytes(usize::MAX)),
            ("handoff_deadline", builder().handoff_deadline(Duration::from_secs(601))),
            ("worker id", builder().worker_id("a\nb")),
            ("stream name", builder().and_stream("a b")),
            ("address of a broker", Worker::builder("localhost", "app", "events")),
        ];
        for (name, builder) in wrong {
            let error = builder.build().expect_err(name);
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.message().contains(name), "{error}");
        }
    }
}
