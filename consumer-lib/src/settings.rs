//! The few knobs of a worker, their defaults and bounds.

use crate::error::{Error, ErrorKind, Result};
use crate::worker::Worker;
use std::time::Duration;
use tidemill_proto::client::Endpoint;
use tidemill_types::limits::{GRPC_MESSAGE_BYTES_MAX, LEASE_MS_MAX, LEASE_MS_MIN, WORKER_ID_BYTES_MAX};
use tidemill_types::{AppName, Checkpoint, StreamName, WorkerId};

const LEASE_DEFAULT: Duration = Duration::from_secs(10);
const PREFETCH_BYTES_DEFAULT: usize = 4 << 20;
const PREFETCH_BYTES_MAX: usize = 1 << 30;
const BATCH_BYTES_DEFAULT: usize = 1 << 20;

/// Where an application begins in a shard that it has never worked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InitialPosition {
    /// At the oldest record that is kept.
    #[default]
    TrimHorizon,
    /// After the newest record at the time the shard is first read. Children of shards that the application works on
    /// are read from their beginning all the same, so that a split or merge loses nothing.
    Latest,
}

impl From<InitialPosition> for Checkpoint {
    fn from(position: InitialPosition) -> Self {
        match position {
            InitialPosition::TrimHorizon => Self::TrimHorizon,
            InitialPosition::Latest => Self::Latest,
        }
    }
}

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
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) endpoint: Endpoint,
    pub(crate) app: AppName,
    pub(crate) streams: Vec<StreamName>,
    pub(crate) worker: WorkerId,
    pub(crate) initial: InitialPosition,
    pub(crate) checkpointing: Checkpointing,
    pub(crate) lease: Duration,
    pub(crate) leases_max: usize,
    pub(crate) prefetch_bytes: usize,
    pub(crate) batch_bytes: u32,
    pub(crate) until_caught_up: bool,
    /// Feeds everything that is left to chance later.
    pub(crate) seed: u64,
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
    endpoint: String,
    authorities: Option<Vec<u8>>,
    credentials: Option<Credentials>,
    app: String,
    streams: Vec<String>,
    worker: Option<String>,
    initial: InitialPosition,
    checkpointing: Checkpointing,
    lease: Duration,
    leases_max: usize,
    prefetch_bytes: usize,
    batch_bytes: usize,
    until_caught_up: bool,
}

impl WorkerBuilder {
    pub(crate) fn new(endpoint: &str, app: &str, stream: &str) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            authorities: None,
            credentials: None,
            app: app.to_owned(),
            streams: vec![stream.to_owned()],
            worker: None,
            initial: InitialPosition::default(),
            checkpointing: Checkpointing::default(),
            lease: LEASE_DEFAULT,
            leases_max: usize::MAX,
            prefetch_bytes: PREFETCH_BYTES_DEFAULT,
            batch_bytes: BATCH_BYTES_DEFAULT,
            until_caught_up: false,
        }
    }
    /// Another stream to process under the same application; the shards of all streams are shared out together.
    pub fn and_stream(mut self, stream: &str) -> Self {
        self.streams.push(stream.to_owned());
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
        let mut streams =
            self.streams.iter().map(|name| StreamName::new(name)).collect::<Result<Vec<_>, _>>()?;
        streams.sort();
        streams.dedup();
        let mut endpoint = Endpoint::new(&self.endpoint)?;
        if let Some(pem) = self.authorities {
            endpoint = endpoint.ca_certificate(pem)?;
        }
        if let Some(Credentials { access_key_id, secret_access_key }) = self.credentials {
            endpoint = endpoint.credentials(&access_key_id, &secret_access_key)?;
        }
        Ok(Worker::new(Settings {
            endpoint,
            app: AppName::new(&self.app)?,
            streams,
            worker: WorkerId::new(&self.worker.unwrap_or_else(made_up_worker_id))?,
            initial: self.initial,
            checkpointing: self.checkpointing,
            lease: self.lease,
            leases_max: self.leases_max,
            prefetch_bytes: self.prefetch_bytes,
            batch_bytes: u32::try_from(self.batch_bytes).expect("bounded above"),
            until_caught_up: self.until_caught_up,
            seed: rand::random(),
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
