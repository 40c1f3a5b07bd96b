//! One client for each protocol; which of them does what.

use super::args::{Target, Workload};
use super::meter::Meter;
use super::plan::{Measured, Plan, Stage};
use super::site::{Credentials, Native};
use super::{kinesis, library, native};
use crate::error::{Error, Result};
use tidemill_proto::client::Endpoint;

/// A service, by one of the protocols.
pub(super) enum Client {
    Grpc(Box<library::Client>),
    Bare(Box<native::Client>),
    Kinesis(Box<kinesis::Client>),
}

impl Client {
    pub(super) async fn connect(
        endpoint: &Endpoint,
        credentials: Option<Credentials>,
        region: &str,
        plan: &Plan,
    ) -> Result<Self> {
        Ok(match plan.target {
            Target::Grpc => {
                let native = Native::new(endpoint, credentials)?;
                Self::Grpc(Box::new(library::Client::connect(&native).await?))
            }
            Target::Bare => {
                let native = Native::new(endpoint, credentials)?;
                Self::Bare(Box::new(native::Client::connect(&native.endpoint, plan).await?))
            }
            Target::Kinesis => Self::Kinesis(Box::new(kinesis::Client::new(endpoint, credentials, region)?)),
        })
    }

    pub(super) async fn create(&self, stage: &Stage) -> Result<()> {
        let (stream, shards) = (&stage.stream, stage.plan.shards);
        match self {
            Self::Grpc(client) => client.connections().create(stream, shards).await,
            Self::Bare(client) => client.connections().create(stream, shards).await,
            Self::Kinesis(client) => client.create(stream, shards).await,
        }
    }

    pub(super) async fn delete(&self, stage: &Stage) -> Result<()> {
        match self {
            Self::Grpc(client) => client.connections().delete(&stage.stream).await,
            Self::Bare(client) => client.connections().delete(&stage.stream).await,
            Self::Kinesis(client) => client.delete(stage).await,
        }
    }

    pub(super) async fn run(&self, stage: &Stage) -> Result<Measured> {
        let rate = stage.plan.rate.unwrap_or(1);
        Ok(match (stage.plan.workload, self) {
            (Workload::Consume, _) => self.consume(stage).await?.into(),
            (Workload::Produce, Self::Grpc(client)) => client.produce(stage).await?.into(),
            (Workload::Produce, Self::Bare(client)) => client.produce(stage).await?.into(),
            // keys are random, so each request goes to many shards
            (Workload::Produce | Workload::Shards, Self::Kinesis(client)) => {
                client.produce(stage).await?.into()
            }
            (Workload::Single, Self::Grpc(client)) => client.single(stage).await?.into(),
            (Workload::Single, Self::Bare(client)) => client.single(stage).await?.into(),
            (Workload::Single, Self::Kinesis(client)) => client.single(stage).await?.into(),
            (Workload::Shards, Self::Grpc(client)) => client.shards(stage).await?.into(),
            (Workload::Shards, Self::Bare(client)) => client.shards(stage).await?.into(),
            (Workload::Latency, Self::Grpc(client)) => client.latency(stage, rate).await?,
            (Workload::Latency, Self::Bare(client)) => client.latency(stage, rate).await?,
            (Workload::Latency, Self::Kinesis(client)) => client.latency(stage, rate).await?.into(),
            (Workload::Fanout, Self::Grpc(client)) => client.fanout(stage).await?.into(),
            (Workload::Fanout, Self::Bare(client)) => client.fanout(stage).await?.into(),
            (Workload::Fanout, Self::Kinesis(client)) => client.fanout(stage).await?.into(),
            (Workload::Recovery | Workload::Idle, _) => {
                return Err(Error::usage(format!("{} is not measured like this", stage.plan.workload)));
            }
        })
    }

    /// Fills the stream, then reads it; what was put and not read is an error each.
    async fn consume(&self, stage: &Stage) -> Result<Meter> {
        let filled = match self {
            Self::Grpc(client) => client.fill(stage).await?,
            Self::Bare(client) => client.fill(stage).await?,
            Self::Kinesis(client) => client.fill(stage).await?,
        };
        let mut meter = match self {
            Self::Grpc(client) => client.consume(stage, filled.acknowledged()).await?,
            Self::Bare(client) => client.consume(stage).await?,
            Self::Kinesis(client) => client.consume(stage).await?,
        };
        meter.expect_first_pass(filled.acknowledged());
        meter.add_errors(&filled);
        Ok(meter)
    }
}
