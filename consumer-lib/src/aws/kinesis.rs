//! The settings of a worker that reads from a Kinesis.

use super::{Access, DynamoDb, SdkConfig};
use crate::error::{Error, ErrorKind, Result};
use crate::fetch::{Consumer, Consumers, KinesisApi, KinesisReads, Polling};
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::config::timeout::TimeoutConfig;
use aws_sdk_kinesis::config::{BehaviorVersion, Builder, StalledStreamProtectionConfig};
use std::time::Duration;

const IDLE_MIN: Duration = Duration::from_millis(200);
const IDLE_MAX: Duration = Duration::from_secs(60);
const RECORDS_MAX: usize = 10_000;
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// A service that speaks the Kinesis API, and how its shards are read: by polling unless fan-out is asked for.
///
/// ```no_run
/// # use tidemill_consumer::{Worker, aws::Kinesis};
/// # async fn example() -> Result<(), tidemill_consumer::Error> {
/// let worker = Worker::kinesis(Kinesis::from_env().await, "my-app", "events").build()?;
/// worker.for_each(|record| async move { Ok(println!("{record:?}")) }, std::future::pending()).await
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "settings do nothing until a worker is built with them"]
pub struct Kinesis {
    access: Access,
    reading: HowToRead,
    idle: Duration,
    records_max: usize,
}

#[derive(Debug, Clone)]
enum HowToRead {
    Polling,
    /// As the consumer with the name of the application.
    FanOut,
    FanOutAs(Consumer),
}

/// Settings that were checked.
#[derive(Debug, Clone)]
pub(crate) struct KinesisChoice {
    pub(crate) api: KinesisApi,
    pub(crate) reads: KinesisReads,
    /// Where leases are unless somebody says otherwise.
    pub(crate) table: Option<DynamoDb>,
}

impl Kinesis {
    /// Amazon's, with what the environment says of region and credentials: variables, profiles, the machine's role.
    pub async fn from_env() -> Self {
        Self::of(Access::from_env().await)
    }
    /// Amazon's, or another, with a configuration that the application has loaded. Its retries and timeouts are replaced.
    pub fn new(config: &SdkConfig) -> Self {
        Self::of(Access::new(config.clone()))
    }
    /// One at this address, `http://…` or `https://…`, in the region `us-east-1` unless told otherwise. Needs
    /// [`Kinesis::credentials`].
    pub fn at(endpoint: &str) -> Self {
        Self::of(Access::at(endpoint))
    }
    fn of(access: Access) -> Self {
        let idle = Duration::from_secs(1);
        Self { access, reading: HowToRead::Polling, idle, records_max: RECORDS_MAX }
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
    /// Polling: how long to wait between two requests to a shard whose newest record was reached. 200 ms to 60 s, default
    /// 1 s. A shard that is behind is read without waiting.
    pub fn idle_time(self, idle: Duration) -> Self {
        Self { idle, ..self }
    }
    /// Polling: most records in an answer, 1 to 10,000, which is the default.
    pub fn records_max(self, records: usize) -> Self {
        Self { records_max: records, ..self }
    }
    /// Reads by enhanced fan-out: records are pushed as they arrive, with a throughput of the application's own. The
    /// consumer has the application's name, and is registered if need be; Amazon bills for it until it is deregistered.
    pub fn fan_out(self) -> Self {
        Self { reading: HowToRead::FanOut, ..self }
    }
    /// As [`Kinesis::fan_out`], with another name for the consumer.
    pub fn fan_out_as(self, consumer: &str) -> Self {
        Self { reading: HowToRead::FanOutAs(Consumer::Named(consumer.to_owned())), ..self }
    }
    /// As [`Kinesis::fan_out`], with a consumer that is registered already. For workers of one stream.
    pub fn fan_out_arn(self, consumer: &str) -> Self {
        Self { reading: HowToRead::FanOutAs(Consumer::Arn(consumer.to_owned())), ..self }
    }

    /// The lease table of a worker that does not name one: with the same access, unless that is to an address of the
    /// Kinesis alone.
    pub(crate) fn own_table(&self) -> Option<DynamoDb> {
        self.access.endpoint.is_none().then(|| DynamoDb::of(self.access.clone()))
    }

    /// Checks the settings, for an application.
    pub(crate) fn build(&self, app: &str) -> Result<KinesisChoice> {
        let bounds = IDLE_MIN..=IDLE_MAX;
        if !bounds.contains(&self.idle) {
            let told = format!("idle_time must be from {IDLE_MIN:?} to {IDLE_MAX:?}, found {:?}", self.idle);
            return Err(Error::new(ErrorKind::Invalid, told));
        }
        if !(1..=RECORDS_MAX).contains(&self.records_max) {
            let told = format!("records_max must be from 1 to {RECORDS_MAX}, found {}", self.records_max);
            return Err(Error::new(ErrorKind::Invalid, told));
        }
        let reads = match &self.reading {
            HowToRead::Polling => KinesisReads::Polling(Polling {
                idle: self.idle,
                records_max: i32::try_from(self.records_max).expect("bounded above"),
            }),
            HowToRead::FanOut => KinesisReads::FanOut(Consumers::new(Consumer::Named(app.to_owned()))),
            HowToRead::FanOutAs(consumer) => KinesisReads::FanOut(Consumers::new(consumer.clone())),
        };
        Ok(KinesisChoice { api: KinesisApi::new(self.client()), reads, table: self.own_table() })
    }

    /// What fails is tried again by who called, who knows better how long to wait; requests have their deadlines there. A
    /// subscription that stands still because the processor is slow is none that has stalled.
    fn client(&self) -> Client {
        let mut config = Builder::from(&self.access.config)
            .behavior_version(BehaviorVersion::latest())
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT_DEADLINE).build())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        if let Some(endpoint) = &self.access.endpoint {
            config = config.endpoint_url(endpoint);
        }
        Client::from_conf(config.build())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_bounds_are_refused_by_name() {
        let kinesis = || Kinesis::at("http://127.0.0.1:4567").credentials("id", "secret");
        assert!(kinesis().build("app").is_ok());
        let wrong = [
            ("idle_time", kinesis().idle_time(Duration::from_millis(199))),
            ("records_max", kinesis().records_max(0)),
            ("records_max", kinesis().records_max(10_001)),
        ];
        for (name, kinesis) in wrong {
            let error = kinesis.build("app").expect_err(name);
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.message().contains(name), "{error}");
        }
    }

    #[test]
    fn fan_out_registers_the_application_as_a_consumer_unless_told_otherwise() {
        let reads = |kinesis: Kinesis| format!("{:?}", kinesis.build("app").unwrap().reads);
        let kinesis = || Kinesis::at("http://127.0.0.1:4567").credentials("id", "secret");
        assert!(reads(kinesis()).contains("Polling"));
        assert!(reads(kinesis().fan_out()).contains("Named(\"app\")"));
        assert!(reads(kinesis().fan_out_as("reader")).contains("Named(\"reader\")"));
        assert!(reads(kinesis().fan_out_arn("arn")).contains("Arn(\"arn\")"));
    }
}
