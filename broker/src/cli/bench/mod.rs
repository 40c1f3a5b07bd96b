//! `tidemill bench`: how much a broker takes and gives, and how soon it answers.
//!
//! ```text
//!  for each target and workload:  make a stream ─► (consume: fill it) ─► warm up ─► measure ─► delete it ─► a result
//! ```
//!
//! Load is closed loop: each connection has as much under way as it may, so latencies are those of a full queue. Every run
//! is bounded in time. Against `--endpoint` it works with anything that speaks the Kinesis API, or with a broker elsewhere;
//! otherwise it starts a broker in this process, with its data on the disk of the current directory.
//!
//! What it does not do: judge. A result is a figure; `benches/` sets it beside the limits of the machine.

mod grpc;
mod http;
mod kinesis;
mod load;
mod meter;
mod outcome;

use super::output;
use super::signals::StopSignals;
use crate::config::DurabilityMode;
use crate::error::{Error, Result};
use crate::server::{Broker, BrokerSettings};
use meter::{Meter, Window};
use outcome::Outcome;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tidemill_proto::client::Endpoint;
use tidemill_storage::Durability;
use tidemill_types::StreamName;

/// A consumer reads so much again and again, unless told a number of records.
const FILL_BYTES: u64 = 512 << 20;
/// Filling takes no longer than this.
const FILL_TIME: Duration = Duration::from_secs(30);
/// With a number of records to measure, no longer than this.
const RECORDS_TIME: Duration = Duration::from_secs(600);
const SYNC_INTERVAL_MS: u64 = 100;
/// Of a file system in memory.
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Workload {
    /// Put records as fast as they are acknowledged
    Produce,
    /// Read a filled stream from its beginning, as a consumer that catches up
    Consume,
}

/// By which protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Target {
    /// gRPC: the producer library, the native read call
    Grpc,
    /// The Kinesis API over HTTP/1.1 in JSON: PutRecords, GetRecords
    Kinesis,
}

/// Measure a broker
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What to measure [default: everything]
    #[arg(value_enum)]
    workloads: Vec<Workload>,
    /// By which protocol; may be repeated [default: each]
    #[arg(long = "target", value_enum)]
    targets: Vec<Target>,
    /// What to measure [default: a broker in this process, with its data under the current directory]
    #[arg(long, value_name = "URL")]
    endpoint: Option<Endpoint>,
    /// What an acknowledgement of the broker in this process promises [default: device]
    #[arg(long, value_enum, conflicts_with = "endpoint")]
    durability: Option<DurabilityMode>,
    /// Bytes of a record's data
    #[arg(long, value_name = "BYTES", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    record_bytes: u32,
    /// Seconds to measure
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Measure this many records instead; `consume` reads so many in a pass
    #[arg(long, conflicts_with = "seconds", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    records: Option<u64>,
    /// Shards of the stream
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    shards: u32,
    /// Connections to the broker [default: 4 for gRPC, 8 for Kinesis]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=16))]
    connections: Option<u32>,
    /// Seconds that do not count, before those that do
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..=600))]
    warmup_seconds: u64,
    /// Print results as JSON and nothing else
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args) -> Result<()> {
    let mut signals = StopSignals::catch()?;
    let site = Site::prepare(&args).await?;
    let measured = tokio::select! {
        measured = args.measure_all(&site.endpoint) => measured,
        () = signals.any() => Err(Error::failed("interrupted; the stream it made may be left behind")),
    };
    site.leave().await;
    let outcomes = measured?;
    if !args.json {
        eprintln!("{}", outcome::table(&outcomes));
    }
    match outcomes.iter().map(|outcome| outcome.errors).sum::<u64>() {
        0 => Ok(()),
        errors => {
            Err(Error::failed(format!("{errors} errors; the figures are not those of a healthy broker")))
        }
    }
}

/// What is measured: a broker elsewhere, or one in this process.
struct Site {
    endpoint: Endpoint,
    own: Option<(Broker, tempfile::TempDir)>,
}

impl Site {
    async fn prepare(args: &Args) -> Result<Self> {
        if let Some(endpoint) = &args.endpoint {
            if endpoint.is_https() {
                return Err(Error::usage("bench speaks clear text: use http://"));
            }
            return Ok(Self { endpoint: endpoint.clone(), own: None });
        }
        let dir = tempfile::Builder::new().prefix("tidemill-bench-").tempdir_in(".");
        let dir = dir.map_err(|e| Error::because("cannot make a directory here", e))?;
        let kind =
            rustix::fs::statfs(dir.path()).map_err(|e| Error::because("cannot tell the file system", e))?;
        if u64::try_from(kind.f_type) == Ok(TMPFS_MAGIC) {
            return Err(Error::usage(
                "the current directory lies in memory (tmpfs), so figures would not be of a disk; change to another one",
            ));
        }
        let mut engine = tidemill_engine::Settings::default();
        engine.storage.durability = match args.durability.unwrap_or(DurabilityMode::Device) {
            DurabilityMode::Device => Durability::Device,
            DurabilityMode::Interval => Durability::Interval { ms: SYNC_INTERVAL_MS },
            DurabilityMode::Os => Durability::Os,
        };
        let broker = Broker::start(BrokerSettings {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            data_dir: dir.path().join("data"),
            engine,
            ..BrokerSettings::default()
        })
        .await?;
        Ok(Self { endpoint: Endpoint::new(&broker.endpoint())?, own: Some((broker, dir)) })
    }

    async fn leave(self) {
        if let Some((broker, _dir)) = self.own
            && let Err(error) = broker.shutdown().await
        {
            tracing::warn!(%error, "the broker did not stop in order");
        }
    }
}

/// One measurement.
#[derive(Debug, Clone, Copy)]
struct Plan {
    record_bytes: u32,
    shards: u32,
    connections: u32,
    warmup: Duration,
    time: Duration,
    /// Counted ones.
    records_max: u64,
    fill_records: u64,
}

impl Plan {
    fn window(&self) -> Arc<Window> {
        Window::after(self.warmup, self.time, self.records_max)
    }
    fn fill_window(&self) -> Arc<Window> {
        Window::after(Duration::ZERO, FILL_TIME, self.fill_records)
    }
}

impl Args {
    async fn measure_all(&self, endpoint: &Endpoint) -> Result<Vec<Outcome>> {
        let targets = match &self.targets[..] {
            [] => &[Target::Grpc, Target::Kinesis],
            chosen => chosen,
        };
        let workloads = match &self.workloads[..] {
            [] => &[Workload::Produce, Workload::Consume],
            chosen => chosen,
        };
        let mut outcomes = Vec::new();
        for &target in targets {
            for &workload in workloads {
                let outcome = self.measure(endpoint, target, workload).await?;
                output::json(&outcome)?;
                outcomes.push(outcome);
            }
        }
        Ok(outcomes)
    }

    fn plan(&self, target: Target) -> Plan {
        let connections = match target {
            Target::Grpc => 4,
            Target::Kinesis => 8,
        };
        Plan {
            record_bytes: self.record_bytes,
            shards: self.shards,
            connections: self.connections.unwrap_or(connections),
            warmup: Duration::from_secs(self.warmup_seconds),
            time: if self.records.is_some() { RECORDS_TIME } else { Duration::from_secs(self.seconds) },
            records_max: self.records.unwrap_or(u64::MAX),
            fill_records: self.records.unwrap_or((FILL_BYTES / u64::from(self.record_bytes)).max(1)),
        }
    }

    async fn measure(&self, endpoint: &Endpoint, target: Target, workload: Workload) -> Result<Outcome> {
        let plan = self.plan(target);
        let name = format!("bench-{:08x}", rand::random::<u32>());
        let stream = StreamName::new(&name).map_err(|e| Error::because("cannot name the stream", e))?;
        let client = match target {
            Target::Grpc => Client::Grpc(Box::new(grpc::Client::connect(endpoint, plan).await?)),
            Target::Kinesis => Client::Kinesis(Box::new(kinesis::Client::new(endpoint, plan))),
        };
        client.create(&stream).await?;
        let measured = client.run(&stream, workload, &plan).await;
        let deleted = client.delete(&stream).await;
        let meter = measured?;
        deleted?;
        Ok(Outcome::new(workload, target, &plan, &meter))
    }
}

enum Client {
    Grpc(Box<grpc::Client>),
    Kinesis(Box<kinesis::Client>),
}

impl Client {
    async fn create(&self, stream: &StreamName) -> Result<()> {
        match self {
            Self::Grpc(client) => client.create(stream).await,
            Self::Kinesis(client) => client.create(stream).await,
        }
    }
    async fn delete(&self, stream: &StreamName) -> Result<()> {
        match self {
            Self::Grpc(client) => client.delete(stream).await,
            Self::Kinesis(client) => client.delete(stream).await,
        }
    }
    async fn run(&self, stream: &StreamName, workload: Workload, plan: &Plan) -> Result<Meter> {
        match workload {
            Workload::Produce => self.produce(stream, plan.window()).await,
            Workload::Consume => {
                let filled = self.produce(stream, plan.fill_window()).await?;
                let mut meter = self.consume(stream, plan.window()).await?;
                meter.expect_first_pass(filled.acknowledged());
                meter.add_errors(&filled);
                Ok(meter)
            }
        }
    }
    async fn produce(&self, stream: &StreamName, window: Arc<Window>) -> Result<Meter> {
        match self {
            Self::Grpc(client) => client.produce(stream, window).await,
            Self::Kinesis(client) => client.produce(stream, window).await,
        }
    }
    async fn consume(&self, stream: &StreamName, window: Arc<Window>) -> Result<Meter> {
        match self {
            Self::Grpc(client) => client.consume(stream, window).await,
            Self::Kinesis(client) => client.consume(stream, window).await,
        }
    }
}
