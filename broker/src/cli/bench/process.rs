//! The workloads of a broker in a process of its own.
//!
//! ```text
//!  recovery:  start ─► fill ─► kill -9 ─► start again: ready ─► is everything there?
//!  idle:      start ─► shards, connections ─► warm up ─► do nothing ─► memory, processor time
//! ```

use super::args::Target;
use super::child::Process;
use super::connection::Connections;
use super::kinesis;
use super::meter::Meter;
use super::native;
use super::plan::{Measured, Stage, Usage};
use super::site;
use crate::config::DurabilityMode;
use crate::error::Result;
use std::sync::Arc;
use tokio::time::{sleep, sleep_until};

/// How long a killed broker takes until it is ready. The figures of records are those of filling it.
pub(super) async fn recovery(stage: &Stage, durability: DurabilityMode) -> Result<Measured> {
    let dir = site::directory()?;
    let data_dir = dir.path().join("data");
    let doomed = Process::start(&data_dir, durability).await?;
    let client = native::Client::connect(&doomed.endpoint, &stage.plan).await?;
    client.connections().create(&stage.stream, stage.plan.shards).await?;
    let mut meter = client.produce(stage).await?;
    doomed.kill_9().await?;
    let again = Process::start(&data_dir, durability).await?;
    let rss_mb = again.rss_mb()?;
    let client = native::Client::connect(&again.endpoint, &stage.plan).await?;
    let read = client.read_all(&stage.stream).await?;
    meter.add_read(&read);
    meter.expect_first_pass(meter.acknowledged());
    let process = Some(Usage { rss_mb, cpu_percent: None });
    Ok(Measured { process, ready: Some(again.ready), ..meter.into() })
}

/// What a broker takes that has shards and connections, and nothing to do.
pub(super) async fn idle(stage: &Stage, durability: DurabilityMode, region: &str) -> Result<Measured> {
    let dir = site::directory()?;
    let process = Process::start(&dir.path().join("data"), durability).await?;
    let plan = &stage.plan;
    let maker = Connections::open(&process.endpoint, 1).await?;
    maker.create(&stage.stream, plan.shards).await?;
    // those that are asked for, and no other
    drop(maker);
    let _connections = match plan.target {
        Target::Kinesis => {
            let client = kinesis::Client::new(&process.endpoint, None, region)?;
            Idle::Kinesis(client.idle_connections(&stage.stream, plan.connections).await?)
        }
        Target::Grpc | Target::Bare => {
            let connections = Connections::open(&process.endpoint, plan.connections).await?;
            connections.use_each(&stage.stream).await?;
            Idle::Native(connections)
        }
    };
    let course = stage.begin();
    sleep_until(course.window.opens()).await;
    let (began, used) = (course.window.opens(), process.cpu_time()?);
    sleep(plan.time).await;
    let cpu = process.cpu_time()?.saturating_sub(used);
    let cpu_percent = Some(cpu.as_secs_f64() / began.elapsed().as_secs_f64() * 100.0);
    let usage = Usage { rss_mb: process.rss_mb()?, cpu_percent };
    let meter = Meter::new(Arc::clone(&course.window));
    Ok(Measured { process: Some(usage), ready: Some(process.ready), ..meter.into() })
}

/// Connections that are kept open.
#[expect(dead_code, reason = "kept open, never used")]
enum Idle {
    Native(Connections),
    Kinesis(kinesis::IdleConnections),
}
