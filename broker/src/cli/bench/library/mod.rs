//! The target `grpc`: what an application gets through the libraries, as they are configured by default. `put` is the
//! producer library, `workers` the consumer library.

mod put;
mod workers;

use super::connection::Connections;
use super::deliveries::Deliveries;
use super::load::{Load, keys_of_shards};
use super::meter::Meter;
use super::plan::{Measured, Plan, Stage};
use super::site::{Credentials, Native};
use super::tasks::together;
use crate::error::{Error, Result};
use put::{Fleet, Manner};
use std::sync::Arc;
use tidemill_consumer::{InitialPosition, Worker};
use tokio::task::JoinSet;
use workers::{Audience, Ear, Fan};

/// A broker that is spoken to through the libraries.
pub(super) struct Client {
    native: Native,
    connections: Connections,
}

impl Client {
    pub(super) async fn connect(native: &Native) -> Result<Self> {
        // one to make streams; the libraries have their own
        let connections = Connections::open(&native.endpoint, 1).await?;
        Ok(Self { native: native.clone(), connections })
    }

    pub(super) fn connections(&self) -> &Connections {
        &self.connections
    }

    async fn fleet(&self, plan: &Plan, manner: Manner) -> Result<Fleet> {
        Fleet::new(&self.native, plan, manner).await
    }

    pub(super) async fn fill(&self, stage: &Stage) -> Result<Meter> {
        let fleet = self.fleet(&stage.plan, Manner::Shared).await?;
        let loads = fleet.loads(&stage.plan)?;
        let course = stage.begin_fill();
        fleet.produce(stage.stream.as_str(), loads, Arc::clone(&course.window)).await
    }

    pub(super) async fn produce(&self, stage: &Stage) -> Result<Meter> {
        let fleet = self.fleet(&stage.plan, Manner::Shared).await?;
        let loads = fleet.loads(&stage.plan)?;
        let course = stage.begin();
        fleet.produce(stage.stream.as_str(), loads, Arc::clone(&course.window)).await
    }

    /// Every shard has its key, and keys come in turn.
    pub(super) async fn shards(&self, stage: &Stage) -> Result<Meter> {
        let fleet = self.fleet(&stage.plan, Manner::Shared).await?;
        let mut keys = keys_of_shards(&self.connections.map(&stage.stream).await?)?;
        let share = keys.len() / fleet.len();
        let mut loads = Vec::new();
        for _ in 0..fleet.len() {
            loads.push(Load::of_keys(stage.plan.record_bytes, keys.clone()));
            // connections begin at different shards
            keys.rotate_left(share);
        }
        let course = stage.begin();
        fleet.produce(stage.stream.as_str(), loads, Arc::clone(&course.window)).await
    }

    pub(super) async fn single(&self, stage: &Stage) -> Result<Meter> {
        let fleet = self.fleet(&stage.plan, Manner::Alone).await?;
        let loads = fleet.loads(&stage.plan)?;
        let course = stage.begin();
        let mut tasks = JoinSet::new();
        for (producer, load) in fleet.iter().zip(loads) {
            let meter = Meter::new(Arc::clone(&course.window));
            tasks.spawn(put::one_by_one(producer, stage.stream.clone(), load, meter));
        }
        let meter = together(tasks, Arc::clone(&course.window)).await?;
        fleet.close().await;
        Ok(meter)
    }

    /// Records when they are due, and a worker that holds all shards.
    pub(super) async fn latency(&self, stage: &Stage, rate: u32) -> Result<Measured> {
        let fleet = self.fleet(&stage.plan, Manner::Shared).await?;
        let loads = fleet.loads(&stage.plan)?;
        let fan =
            Fan::start([self.worker(stage, "latency")?], Audience::new(stage.plan.shards as usize)).await?;
        let course = stage.begin();
        let deliveries = Deliveries::new(&course.window);
        fan.listen(Ear::Due(Arc::clone(&deliveries)));
        let meter = fleet.paced(&stage.stream, loads, rate, &course.window).await?;
        fleet.close().await;
        deliveries.expect(meter.acknowledged()).await;
        fan.stop().await?;
        Ok(Measured { delivered: Some(deliveries.meter()), ..meter.into() })
    }

    pub(super) async fn consume(&self, stage: &Stage, filled: u64) -> Result<Meter> {
        let course = stage.begin();
        let mut meter = Meter::new(Arc::clone(&course.window));
        let mut passes = 0_u32;
        loop {
            // an application that was never there begins at the beginning
            let worker = self.worker(stage, &format!("consume-{passes}"))?;
            let records = workers::pass(worker, filled, &mut meter).await?;
            if passes == 0 {
                meter.read_once(records);
            }
            passes += 1;
            if records < filled || filled == 0 || meter.window().is_over() {
                return Ok(meter);
            }
        }
    }

    /// Workers of as many applications, each of which reads the one shard while it is written to.
    pub(super) async fn fanout(&self, stage: &Stage) -> Result<Meter> {
        let plan = &stage.plan;
        let workers = (0..plan.readers)
            .map(|n| self.worker(stage, &format!("fanout-{n}")))
            .collect::<Result<Vec<_>>>()?;
        let fleet = self.fleet(plan, Manner::Shared).await?;
        let loads = fleet.loads(plan)?;
        let fan = Fan::start(workers, Audience::new(plan.readers as usize)).await?;
        let course = stage.begin();
        fan.listen(Ear::counting(Arc::clone(&course.window)));
        let beside = course.window.beside();
        let put = match plan.rate {
            Some(rate) => fleet.paced(&stage.stream, loads, rate, &beside).await?,
            None => fleet.produce(stage.stream.as_str(), loads, beside).await?,
        };
        course.window.over().await;
        let mut meter = fan.stop().await?.ok_or_else(|| Error::failed("nobody listened"))?;
        meter.add_errors(&put);
        Ok(meter)
    }

    fn worker(&self, stage: &Stage, app: &str) -> Result<Worker> {
        let endpoint = self.native.endpoint.to_string();
        let mut builder = Worker::builder(&endpoint, app, stage.stream.as_str())
            .initial_position(InitialPosition::TrimHorizon);
        if let Some(pem) = self.native.endpoint.authorities() {
            builder = builder.ca_certificate(pem);
        }
        if let Some(Credentials { id, secret, .. }) = &self.native.credentials {
            builder = builder.credentials(id, secret.reveal());
        }
        builder.build().map_err(|e| Error::failed(e.message()))
    }
}
