//! A broker that verifies who calls, a producer by either sink, and what lies in a stream in the end.

use anyhow::{Context, Result, bail};
use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region, retry::RetryConfig};
use aws_sdk_kinesis::types::ShardIteratorType;
use aws_sdk_kinesis::{Client, Config as SdkConfig};
use bytes::Bytes;
use std::time::Duration;
use tempfile::TempDir;
use tidemill_producer::{
    Aws, Config, HashKey, PartitionKey, Placed, Producer, Record, SequenceNumber, Ticket,
};
use tidemill_proto::aggregate;
use tidemill_tests::{Broker, ONE_CREDENTIAL};
use tidemill_types::{HashKeyRange, ShardId};
use tokio::time::timeout;

/// A ticket that is not resolved by then hangs.
const TICKET_DEADLINE: Duration = Duration::from_secs(60);
const ID: &str = "test";
const SECRET: &str = "secret";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sink {
    Native,
    Aws,
}

pub(crate) struct Fixture {
    _home: TempDir,
    pub(crate) broker: Option<Broker>,
    pub(crate) sink: Sink,
    url: String,
}

/// A record of a user as it lies in a stream.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) shard: ShardId,
    pub(crate) number: SequenceNumber,
    pub(crate) sub: u64,
    pub(crate) record: Record,
    /// Whether its shard is meant for it; a KCL drops what is not.
    pub(crate) fits: bool,
}

impl Found {
    pub(crate) fn place(&self) -> (ShardId, SequenceNumber, u64) {
        (self.shard, self.number, self.sub)
    }
}

pub(crate) fn place_of(placed: &Placed) -> (ShardId, SequenceNumber, u64) {
    (placed.shard, placed.number, placed.sub)
}

pub(crate) fn record(key: &str, data: impl Into<Bytes>) -> Result<Record> {
    Ok(Record::new(PartitionKey::new(key)?, data)?)
}

pub(crate) async fn resolve(ticket: Ticket) -> Result<Result<Placed, tidemill_producer::Error>> {
    timeout(TICKET_DEADLINE, ticket).await.context("a ticket hangs")
}

impl Fixture {
    pub(crate) async fn start(sink: Sink) -> Result<Self> {
        let home = TempDir::new()?;
        let config = home.path().join("tidemill.toml");
        std::fs::write(&config, ONE_CREDENTIAL)?;
        let config = config.to_str().context("a temporary directory has a plain name")?;
        let broker = Broker::start(&home.path().join("data"), &["--config", config]).await?;
        let url = broker.url();
        Ok(Self { _home: home, broker: Some(broker), sink, url })
    }
    pub(crate) async fn kill(&mut self) -> Result<()> {
        self.broker.as_mut().context("it runs")?.kill_9().await
    }
    pub(crate) async fn restart(&mut self) -> Result<()> {
        let broker = self.broker.take().context("it was started")?;
        self.broker = Some(broker.restart().await?);
        Ok(())
    }

    /// The defaults of the sink, but for the rate limit: the broker has none.
    pub(crate) fn config(&self) -> Result<Config> {
        self.config_at(&self.url)
    }
    pub(crate) fn config_at(&self, url: &str) -> Result<Config> {
        Ok(match self.sink {
            Sink::Native => Config::new(url)?.credentials(ID, SECRET)?,
            Sink::Aws => {
                let aws = Aws::from_env().endpoint(url)?.region("us-east-1").credentials(ID, SECRET);
                Config::aws(aws.without_rate_limit().request_deadline(Duration::from_secs(2))?)
                    .linger(Duration::from_millis(20))?
            }
        })
    }
    pub(crate) async fn producer(&self) -> Result<Producer> {
        Ok(Producer::new(self.config()?).await?)
    }

    /// The official client.
    pub(crate) fn client(&self) -> Client {
        let config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new(ID, SECRET, None, None, "test"))
            .retry_config(RetryConfig::standard())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .endpoint_url(&self.url);
        Client::from_conf(config.build())
    }
    pub(crate) async fn create(&self, stream: &str, shards: i32) -> Result<()> {
        let client = self.client();
        client.create_stream().stream_name(stream).shard_count(shards).send().await?;
        for _ in 0..500 {
            if client.list_shards().stream_name(stream).send().await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        bail!("the stream {stream} does not become active")
    }
    /// The shards, in the order of their numbers: parents before children.
    pub(crate) async fn shards(&self, stream: &str) -> Result<Vec<(ShardId, HashKeyRange, bool)>> {
        let listed = self.client().list_shards().stream_name(stream).send().await?;
        let noun = |shard: &aws_sdk_kinesis::types::Shard| {
            let range = shard.hash_key_range.as_ref().context("a range")?;
            let range = HashKeyRange::new(range.starting_hash_key.parse()?, range.ending_hash_key.parse()?)?;
            let numbers = shard.sequence_number_range.as_ref().context("numbers")?;
            Ok((shard.shard_id.parse()?, range, numbers.ending_sequence_number.is_none()))
        };
        let mut shards = listed.shards().iter().map(noun).collect::<Result<Vec<_>>>()?;
        shards.sort_by_key(|(id, ..)| *id);
        Ok(shards)
    }
    /// All records of users, shard by shard, parents first, de-aggregated.
    pub(crate) async fn read(&self, stream: &str) -> Result<Vec<Found>> {
        let mut all = Vec::new();
        for (shard, range, _) in self.shards(stream).await? {
            for raw in self.read_raw(stream, shard).await? {
                let number: SequenceNumber = raw.sequence_number.parse()?;
                let data = Bytes::from(raw.data.into_inner());
                let records: Vec<Record> = match aggregate::unpack(&data) {
                    Some(records) => records.collect(),
                    None => vec![record(&raw.partition_key.context("a key")?, data)?],
                };
                for (sub, record) in (0..).zip(records) {
                    // the hash of a plain record is not told; only tests with keys of their own look at this
                    let fits = range.contains(record.hash_key());
                    all.push(Found { shard, number, sub, record, fits });
                }
            }
        }
        Ok(all)
    }
    /// The records of a shard as they lie there.
    pub(crate) async fn read_raw(
        &self,
        stream: &str,
        shard: ShardId,
    ) -> Result<Vec<aws_sdk_kinesis::types::Record>> {
        let client = self.client();
        let start = client.get_shard_iterator().stream_name(stream).shard_id(shard.to_string());
        let start = start.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await?;
        let (mut iterator, mut all) = (start.shard_iterator, Vec::new());
        while let Some(at) = iterator {
            let page = client.get_records().shard_iterator(at).send().await?;
            all.extend(page.records);
            iterator = page.next_shard_iterator.filter(|_| page.millis_behind_latest != Some(0));
        }
        Ok(all)
    }
}

/// A key whose hash lies in the range.
pub(crate) fn key_within(range: HashKeyRange) -> String {
    let keys = (0..10_000).map(|n| format!("key-{n}"));
    keys.into_iter().find(|key| range.contains(HashKey::of(key))).unwrap_or_default()
}
