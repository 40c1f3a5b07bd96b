//! The settings of a worker that keeps its leases in DynamoDB.

use super::{Access, SdkConfig};
use crate::error::{Error, ErrorKind, Result};
use crate::fetch::{KinesisApi, Source};
use crate::service::Holder;
use crate::store::{Creation, DynamoDbSettings, DynamoDbStore, Keys, TableReads};
use crate::streams::Streams;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::config::{BehaviorVersion, Builder};
use std::sync::Arc;
use std::time::Duration;

/// Longest a call may take, its repetitions included; with a short lease half of it.
const CALL_DEADLINE_MAX: Duration = Duration::from_secs(10);
const ATTEMPTS_MAX: u32 = 3;

/// A lease table in DynamoDB, as the KCL for Java lays it out: workers of that library (its versions 2 and 3) and of this
/// one share an application when they name the same table, with the same lease time (`failoverTimeMillis` there).
///
/// A table for one stream and a table for many are laid out differently, and one cannot become the other: see
/// [`DynamoDb::many_streams`].
#[derive(Debug, Clone)]
#[must_use = "settings do nothing until a worker is built with them"]
pub struct DynamoDb {
    access: Access,
    table: Option<String>,
    reads: TableReads,
    creation: Creation,
    layout: Layout,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// By how many streams the worker begins with.
    AsNeeded,
    ManyStreams,
}

/// A lease table and, once the streams are known, how leases are named in it.
#[derive(Debug, Clone)]
pub(crate) struct LeaseTable {
    settings: DynamoDb,
    keys: Option<Keys>,
}

impl LeaseTable {
    pub(crate) fn new(settings: DynamoDb) -> Self {
        Self { settings, keys: None }
    }
    /// For the streams of a worker, which it reads from `api` if they are of a Kinesis.
    pub(crate) fn settled(self, api: Option<&KinesisApi>, streams: &Streams) -> Result<Self> {
        let keys = Some(self.settings.keys(api, streams)?);
        Ok(Self { keys, ..self })
    }
    /// Must be called within a runtime.
    pub(crate) fn store(&self, source: &Arc<dyn Source>, holder: &Holder) -> DynamoDbStore {
        let keys = self.keys.clone().expect("settled when the worker was built");
        let settings = self.settings.build(holder.app.as_str(), holder.lease, keys);
        DynamoDbStore::new(settings, Arc::clone(source), &holder.worker, holder.lease)
    }
}

impl DynamoDb {
    /// Amazon's, with what the environment says of region and credentials: variables, profiles, the machine's role.
    pub async fn from_env() -> Self {
        Self::of(Access::from_env().await)
    }
    /// Amazon's, or another, with a configuration that the application has loaded. Its retries and timeouts are replaced.
    pub fn new(config: &SdkConfig) -> Self {
        Self::of(Access::new(config.clone()))
    }
    /// One at this address, `http://…` or `https://…`, in the region `us-east-1` unless told otherwise. Needs
    /// [`DynamoDb::credentials`].
    pub fn at(endpoint: &str) -> Self {
        Self::of(Access::at(endpoint))
    }
    pub(super) fn of(access: Access) -> Self {
        Self {
            access,
            table: None,
            reads: TableReads::Eventual,
            creation: Creation::Create,
            layout: Layout::AsNeeded,
        }
    }

    /// Another address. Default: Amazon's in the region.
    pub fn endpoint(self, url: &str) -> Self {
        Self { access: self.access.endpoint(url), ..self }
    }
    /// The region. Default: that of the environment.
    pub fn region(self, region: &str) -> Self {
        Self { access: self.access.region(region), ..self }
    }
    /// What to sign with. Default: the credentials of the environment.
    pub fn credentials(self, access_key_id: &str, secret_access_key: &str) -> Self {
        Self { access: self.access.credentials(access_key_id, secret_access_key), ..self }
    }
    /// The table. Default: the name of the application, as with the KCL.
    pub fn table(self, name: &str) -> Self {
        Self { table: Some(name.to_owned()), ..self }
    }
    /// Lists leases with consistent reads, at twice the price. Default: eventually consistent ones; every change is
    /// conditional, so that nothing but speed hangs on it.
    pub fn consistent_reads(self) -> Self {
        Self { reads: TableReads::Consistent, ..self }
    }
    /// Fails when there is no such table. Default: it is created, paid by demand.
    pub fn existing_table(self) -> Self {
        Self { creation: Creation::Never, ..self }
    }
    /// Lays leases out for many streams though the worker begins with one: it can be given more while it runs. Default: as
    /// the streams it begins with demand. Only for streams of a Kinesis.
    pub fn many_streams(self) -> Self {
        Self { layout: Layout::ManyStreams, ..self }
    }

    /// How leases on the streams of a worker are named, which it reads from `api` if they are of a Kinesis.
    fn keys(&self, api: Option<&KinesisApi>, streams: &Streams) -> Result<Keys> {
        if self.layout == Layout::AsNeeded
            && !streams.are_many()
            && let Some(only) = streams.all().into_keys().next()
        {
            return Ok(Keys::one_stream(only));
        }
        let api = api.cloned().ok_or_else(|| {
            let told = "a lease table for many streams needs streams of a Kinesis; leases on those of a broker belong in it";
            Error::new(ErrorKind::Invalid, told)
        })?;
        Ok(Keys::many_streams(api))
    }

    /// What the store needs, for leases of this length.
    fn build(&self, app: &str, lease: Duration, keys: Keys) -> DynamoDbSettings {
        DynamoDbSettings {
            client: self.client(lease),
            table: self.table.clone().unwrap_or_else(|| app.to_owned()),
            keys,
            reads: self.reads,
            creation: self.creation,
        }
    }

    /// A call that hangs leaves time for another within the lease.
    fn client(&self, lease: Duration) -> Client {
        let deadline = (lease / 2).min(CALL_DEADLINE_MAX);
        let timeouts = TimeoutConfig::builder()
            .operation_timeout(deadline)
            .operation_attempt_timeout(deadline / 2)
            .connect_timeout(deadline / 2);
        let retries = RetryConfig::standard()
            .with_max_attempts(ATTEMPTS_MAX)
            .with_initial_backoff(deadline / 50)
            .with_max_backoff(deadline / 10);
        let mut config = Builder::from(&self.access.config)
            .behavior_version(BehaviorVersion::latest())
            .retry_config(retries)
            .timeout_config(timeouts.build());
        if let Some(endpoint) = &self.access.endpoint {
            config = config.endpoint_url(endpoint);
        }
        Client::from_conf(config.build())
    }
}
