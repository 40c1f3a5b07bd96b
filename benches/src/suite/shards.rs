//! Rows h and m: what shards cost, busy and idle.

use super::check::{Check, ratio};
use super::findings::Findings;
use super::load::{Load, Pace};
use super::site::{FreshBroker, Site};
use super::throughput::{GRPC_CONNECTIONS, SHARDS};
use super::watch::watch;
use crate::figure::Name;
use crate::libraries::RECORD_BYTES;
use crate::limits::raw_disk::noise;
use crate::vitals::Vitals;
use anyhow::Result;
use bytes::Bytes;
use std::time::Duration;
use tidemill_producer::{PartitionKey, Producer, Record};
use tidemill_proto::client::{Channel, Control, Endpoint};
use tidemill_types::limits::RETENTION_HOURS_DEFAULT;
use tidemill_types::{HashKeyRange, StreamName};

const MANY: u32 = 10_000;
const FEW_ACTIVE: Name<'_> = Name::new("scattered over 8 shards", "bare append calls");
const MANY_ACTIVE: Name<'_> = Name::new("scattered over 10,000 shards", "bare append calls");
const MEMORY: &str = "memory of the broker, 10,000 active shards";
const DESCRIPTORS: &str = "open descriptors, 10,000 active shards";
const MAPS: &str = "maps, 10,000 active shards";
const EMPTY_SHARD: &str = "memory of an idle shard, empty";
const HOLDING_SHARD: &str = "memory of an idle shard that holds a record";
/// By then storage has closed what nobody has used for 10 to 20 s, and its checkpoint of every 30 s is done.
const CLOSED_AFTER: Duration = Duration::from_secs(45);
/// Files of the journal and maps of the allocator come and go.
const IDLE_FILES_MAX: f64 = 16.0;
const IDLE_DESCRIPTORS: &str = "open descriptors that 10,000 idle shards add, each with a record";
const IDLE_MAPS: &str = "maps that 10,000 idle shards add, each with a record";
const IDLE_CPU: &str = "idle broker, 1,000 shards, 10 connections";

const MANY_MIN: f64 = 0.8;
const MEMORY_MIB_MAX: f64 = 400.0;
const IDLE_SHARD_KIB_MAX: f64 = 8.0;
const IDLE_CPU_PERCENT_MAX: f64 = 1.0;

/// Long enough for every shard to have been written to, and so to have its files.
const FIRST_WRITES_SECONDS: u64 = 5;
const IDLE_SHARDS: u32 = 1_000;
const IDLE_CONNECTIONS: usize = 10;
/// Until what was begun by making a stream has ended.
const SETTLING: Duration = Duration::from_secs(3);
/// Long enough for a hundredth of a per cent to be told.
const IDLE_TIME: Duration = Duration::from_secs(20);

pub(super) fn active(site: &Site, findings: &mut Findings) {
    let broker = match site.fresh_broker("active") {
        Ok(broker) => broker,
        Err(error) => return findings.took(MANY_ACTIVE, Err(error)),
    };
    let scattered = |shards| {
        let load = Load::new("shards", "bare").with("--shards", shards);
        site.warm()?;
        let pace = Pace { warmup_seconds: FIRST_WRITES_SECONDS, ..site.pace };
        Ok(load.with("--connections", GRPC_CONNECTIONS).run(&broker.server, pace)?.figure)
    };
    findings.took(FEW_ACTIVE, scattered(SHARDS));
    match watch(&broker.server, || scattered(u64::from(MANY))) {
        Ok(watched) => {
            findings.found(MEMORY, "MiB", Ok(watched.peak_mib()));
            findings.found(DESCRIPTORS, "", Ok(watched.peak_descriptors()));
            findings.found(MAPS, "", Ok(watched.peak_maps()));
            findings.took(MANY_ACTIVE, Ok(watched.done));
        }
        Err(error) => findings.took(MANY_ACTIVE, Err(error)),
    }
}

pub(super) fn idle(site: &Site, findings: &mut Findings) {
    if let Err(error) = idle_shards(site, findings) {
        findings.found(HOLDING_SHARD, "KiB", Err(error));
    }
}

/// Resident memory that each of many shards adds to a broker; first they are empty, then each holds a record.
fn idle_shards(site: &Site, findings: &mut Findings) -> Result<()> {
    let broker = site.fresh_broker("idle-shards")?;
    let vitals = broker.server.vitals();
    let control = site.runtime.block_on(control(&broker))?;
    std::thread::sleep(SETTLING);
    let before = vitals.resident_bytes()?;
    let (descriptors, maps) = (vitals.descriptors()?, vitals.maps()?);
    let kib_of_each = |vitals: Vitals| {
        std::thread::sleep(SETTLING);
        let grown = vitals.resident_bytes()?.saturating_sub(before);
        anyhow::Ok(grown as f64 / f64::from(MANY) / 1024.0)
    };
    let stream = StreamName::new("idle")?;
    site.runtime.block_on(control.create_stream(&stream, MANY, RETENTION_HOURS_DEFAULT))?;
    findings.found(EMPTY_SHARD, "KiB", kib_of_each(vitals));
    site.runtime.block_on(put_one_each(&broker, &stream))?;
    std::thread::sleep(CLOSED_AFTER);
    let added = |now: Result<usize>, before: usize| now.map(|now| now as f64 - before as f64);
    findings.found(IDLE_DESCRIPTORS, "", added(vitals.descriptors(), descriptors));
    findings.found(IDLE_MAPS, "", added(vitals.maps(), maps));
    // started again, so that it is what a shard holds, not what the allocator keeps of the records that went through
    let broker = broker.restart()?;
    findings.found(HOLDING_SHARD, "KiB", kib_of_each(broker.server.vitals()));
    Ok(())
}

/// A record into each shard.
async fn put_one_each(broker: &FreshBroker, stream: &StreamName) -> Result<()> {
    let producer = Producer::connect(&broker.server.endpoint).await?;
    let data = Bytes::from(noise(RECORD_BYTES));
    for range in HashKeyRange::uniform(MANY) {
        let record = Record::new(PartitionKey::new("one")?, data.clone())?.with_explicit_hash(range.start());
        // its failure is told by the end of the producer
        drop(producer.put(stream.as_str(), record).await?);
    }
    Ok(producer.close().await?)
}

async fn control(broker: &FreshBroker) -> Result<Control> {
    let channel = Channel::connect(&Endpoint::new(&broker.server.endpoint)?).await?;
    Ok(Control::new(channel, rand::random()))
}

pub(super) fn checks(findings: &Findings) -> Vec<Check> {
    let rate = |name| findings.median(name, |run| run.records_per_s);
    let scattered = ratio(rate(MANY_ACTIVE), rate(FEW_ACTIVE));
    // what comes with a measurement lacks for its reason
    let active = |name| findings.value(name).map_err(|why| rate(MANY_ACTIVE).err().unwrap_or(why));
    let idle = |name| findings.value(name).map_err(|why| findings.value(HOLDING_SHARD).err().unwrap_or(why));
    vec![
        Check::at_least("10,000 active shards / 8 shards", "×", scattered, MANY_MIN),
        Check::at_most(MEMORY, "MiB", active(MEMORY), Ok(MEMORY_MIB_MAX)),
        Check::figure(DESCRIPTORS, "", active(DESCRIPTORS)),
        Check::figure(MAPS, "", active(MAPS)),
        Check::at_most(EMPTY_SHARD, "KiB", idle(EMPTY_SHARD), Ok(IDLE_SHARD_KIB_MAX)),
        Check::at_most(HOLDING_SHARD, "KiB", idle(HOLDING_SHARD), Ok(IDLE_SHARD_KIB_MAX)),
        Check::at_most(IDLE_DESCRIPTORS, "", idle(IDLE_DESCRIPTORS), Ok(IDLE_FILES_MAX)),
        Check::at_most(IDLE_MAPS, "", idle(IDLE_MAPS), Ok(IDLE_FILES_MAX)),
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
