//! Rows h and m: what shards cost, busy and idle.

use super::check::{Check, ratio};
use super::findings::Findings;
use super::load::Load;
use super::site::{FreshBroker, Site};
use super::throughput::{GRPC_CONNECTIONS, SHARDS};
use super::watch::watch;
use crate::figure::Name;
use anyhow::Result;
use std::time::Duration;
use tidemill_proto::client::{Channel, Control, Endpoint};
use tidemill_types::StreamName;
use tidemill_types::limits::RETENTION_HOURS_DEFAULT;

const MANY: u32 = 10_000;
const FEW_ACTIVE: Name<'_> = Name::new("scattered over 8 shards", "bare append calls");
const MANY_ACTIVE: Name<'_> = Name::new("scattered over 10,000 shards", "bare append calls");
const MEMORY: &str = "memory of the broker, 10,000 active shards";
const IDLE_SHARD: &str = "memory of an idle shard";
const DESCRIPTORS: &str = "open descriptors, 10,000 idle shards";
const MAPS: &str = "maps, 10,000 idle shards";
const IDLE_CPU: &str = "idle broker, 1,000 shards, 10 connections";

const MANY_MIN: f64 = 0.8;
const MEMORY_MIB_MAX: f64 = 400.0;
const IDLE_SHARD_KIB_MAX: f64 = 8.0;
const IDLE_CPU_PERCENT_MAX: f64 = 1.0;

const IDLE_SHARDS: u32 = 1_000;
const IDLE_CONNECTIONS: usize = 10;
/// Until what was begun by making a stream has ended.
const SETTLING: Duration = Duration::from_secs(3);
/// Long enough for a hundredth of a per cent to be told.
const IDLE_TIME: Duration = Duration::from_secs(20);

pub(super) fn active(site: &Site, findings: &mut Findings) {
    let load =
        |shards| Load::new("shards", "bare").with("--shards", shards).with("--connections", GRPC_CONNECTIONS);
    findings.took(FEW_ACTIVE, site.load(&load(SHARDS), &site.device));
    let watched = site
        .fresh_broker("active")
        .and_then(|broker| watch(&broker.server, || site.load(&load(u64::from(MANY)), &broker.server)));
    match watched {
        Ok(watched) => {
            findings.found(MEMORY, "MiB", Ok(watched.peak_mib()));
            findings.took(MANY_ACTIVE, Ok(watched.done));
        }
        Err(error) => {
            let reason = format!("{error:#}");
            findings.found(MEMORY, "MiB", Err(error));
            findings.took(MANY_ACTIVE, Err(anyhow::Error::msg(reason)));
        }
    }
}

pub(super) fn idle(site: &Site, findings: &mut Findings) {
    match idle_shards(site) {
        Ok([shard_kib, descriptors, maps]) => {
            findings.found(IDLE_SHARD, "KiB", Ok(shard_kib));
            findings.found(DESCRIPTORS, "", Ok(descriptors));
            findings.found(MAPS, "", Ok(maps));
        }
        Err(error) => findings.found(IDLE_SHARD, "KiB", Err(error)),
    }
}

/// Memory of one in KiB, descriptors and maps of the broker.
fn idle_shards(site: &Site) -> Result<[f64; 3]> {
    let broker = site.fresh_broker("idle-shards")?;
    let vitals = broker.server.vitals();
    let control = site.runtime.block_on(control(&broker))?;
    std::thread::sleep(SETTLING);
    let empty = vitals.resident_bytes()?;
    site.runtime.block_on(control.create_stream(&StreamName::new("idle")?, MANY, RETENTION_HOURS_DEFAULT))?;
    std::thread::sleep(SETTLING);
    let grown = vitals.resident_bytes()?.saturating_sub(empty);
    let shard_kib = grown as f64 / f64::from(MANY) / 1024.0;
    Ok([shard_kib, vitals.descriptors()? as f64, vitals.maps()? as f64])
}

async fn control(broker: &FreshBroker) -> Result<Control> {
    let channel = Channel::connect(&Endpoint::new(&broker.server.endpoint)?).await?;
    Ok(Control::new(channel, rand::random()))
}

pub(super) fn checks(findings: &Findings) -> Vec<Check> {
    let rate = |name| findings.median(name, |run| run.records_per_s);
    let idle = findings.value(IDLE_SHARD);
    vec![
        Check::at_least(
            "10,000 active shards / 8 shards",
            "×",
            ratio(rate(MANY_ACTIVE), rate(FEW_ACTIVE)),
            MANY_MIN,
        ),
        Check::at_most(MEMORY, "MiB", findings.value(MEMORY), Ok(MEMORY_MIB_MAX)),
        Check::at_most(IDLE_SHARD, "KiB", idle, Ok(IDLE_SHARD_KIB_MAX)),
        Check::figure(DESCRIPTORS, "", findings.value(DESCRIPTORS)),
        Check::figure(MAPS, "", findings.value(MAPS)),
    ]
}

pub(super) fn idle_broker(site: &Site, findings: &mut Findings) {
    findings.found(IDLE_CPU, "% of a core", idle_percent(site));
}

fn idle_percent(site: &Site) -> Result<f64> {
    let broker = site.fresh_broker("idle")?;
    let vitals = broker.server.vitals();
    let connections = site.runtime.block_on(async {
        let made = control(&broker).await?;
        made.create_stream(&StreamName::new("idle")?, IDLE_SHARDS, RETENTION_HOURS_DEFAULT).await?;
        let mut connections = vec![made];
        while connections.len() < IDLE_CONNECTIONS {
            let connection = control(&broker).await?;
            connection.list_shards(&StreamName::new("idle")?).await?;
            connections.push(connection);
        }
        anyhow::Ok(connections)
    })?;
    std::thread::sleep(SETTLING);
    let before = vitals.cpu_time()?;
    std::thread::sleep(IDLE_TIME);
    let used = vitals.cpu_time()?.saturating_sub(before);
    drop(connections);
    Ok(used.as_secs_f64() / IDLE_TIME.as_secs_f64() * 100.0)
}

pub(super) fn idle_broker_checks(findings: &Findings) -> Vec<Check> {
    vec![Check::at_most(IDLE_CPU, "% of a core", findings.value(IDLE_CPU), Ok(IDLE_CPU_PERCENT_MAX))]
}
