//! Row i: whether it matters how much is stored.
//!
//! ```text
//!  start ─► fill to 1 GB ─► measure ─► kill -9 ─► start, timed ─► fill to N GB ─► measure ─► kill -9 ─► start, timed
//! ```

use super::check::{Check, ratio};
use super::findings::Findings;
use super::load::Load;
use super::site::Site;
use super::throughput::{GRPC_CONNECTIONS, SHARDS};
use crate::figure::Name;
use crate::libraries::RECORD_BYTES;
use crate::libraries::append::fill_with;
use crate::process::Server;
use anyhow::Result;
use std::path::PathBuf;
use tidemill_producer::Config;
use tidemill_proto::client::{Channel, Control, Endpoint};
use tidemill_types::StreamName;
use tidemill_types::limits::RETENTION_HOURS_DEFAULT;

const STREAM: &str = "stored";
const GB: u64 = 1_000_000_000;
const SAME_MIN: f64 = 0.9;
const START_MS_MAX: f64 = 2_000.0;

/// How much is stored.
#[derive(Clone, Copy)]
struct Size {
    produce: Name<'static>,
    tail: Name<'static>,
    start: &'static str,
}

const LITTLE: Size = Size {
    produce: Name::new("produce, 1 GB stored", "producer library"),
    tail: Name::new("read the tail, 1 GB stored", "push reader"),
    start: "start after kill -9, 1 GB stored",
};
const MUCH: Size = Size {
    produce: Name::new("produce, N GB stored", "producer library"),
    tail: Name::new("read the tail, N GB stored", "push reader"),
    start: "start after kill -9, N GB stored",
};

pub(super) fn measure(site: &Site, repetitions: u32, stored_gb: u64, findings: &mut Findings) {
    if let Err(error) = run(site, repetitions, stored_gb, findings) {
        findings.found(MUCH.start, "ms", Err(error));
    }
}

/// A broker with so much stored.
struct Filled {
    size: Size,
    data: PathBuf,
    broker: Server,
}

/// Both brokers run all the time and are loaded in turn, so that a change of the machine's mood meets both alike.
fn run(site: &Site, repetitions: u32, stored_gb: u64, findings: &mut Findings) -> Result<()> {
    let mut all = Vec::new();
    for (size, name, bytes) in [(LITTLE, "stored-little", GB), (MUCH, "stored-much", stored_gb * GB)] {
        let data = site.path().join(name);
        let broker = Server::broker(&data)?;
        site.runtime.block_on(fill(&broker, bytes))?;
        all.push(Filled { size, data, broker });
    }
    for _ in 0..repetitions {
        all.iter().for_each(|filled| load(site, &filled.broker, filled.size, findings));
    }
    for Filled { size, data, broker } in all {
        // the drop kills it
        drop(broker);
        let again = Server::broker(&data)?;
        findings.found(size.start, "ms", Ok(again.ready_in.as_secs_f64() * 1e3));
        drop(again);
        std::fs::remove_dir_all(&data)?;
    }
    Ok(())
}

async fn fill(broker: &Server, bytes: u64) -> Result<()> {
    let stream = StreamName::new(STREAM)?;
    let channel = Channel::connect(&Endpoint::new(&broker.endpoint)?).await?;
    let control = Control::new(channel, rand::random());
    control.create_stream(&stream, u32::try_from(SHARDS)?, RETENTION_HOURS_DEFAULT).await?;
    fill_with(Config::new(&broker.endpoint)?, &stream, bytes / RECORD_BYTES as u64).await
}

fn load(site: &Site, broker: &Server, size: Size, findings: &mut Findings) {
    let produce =
        Load::new("produce", "grpc").with("--shards", SHARDS).with("--connections", GRPC_CONNECTIONS);
    findings.took(size.produce, site.load(&produce, broker));
    let tail = Load::new("fanout", "bare").with("--readers", 1);
    let told = site.load_told(&tail, broker);
    findings.took(size.tail, told.map(|told| told.delivered.unwrap_or(told.figure)));
}

pub(super) fn checks(findings: &Findings) -> Vec<Check> {
    let mb = |name| findings.median(name, |run| run.mb_per_s);
    let over = |of: fn(Size) -> Name<'static>| ratio(mb(of(MUCH)), mb(of(LITTLE)));
    vec![
        Check::at_least("produce with N GB stored / with 1 GB", "×", over(|size| size.produce), SAME_MIN),
        Check::at_least("tail read with N GB stored / with 1 GB", "×", over(|size| size.tail), SAME_MIN),
        Check::at_most(LITTLE.start, "ms", findings.value(LITTLE.start), Ok(START_MS_MAX)),
        Check::at_most(MUCH.start, "ms", findings.value(MUCH.start), Ok(START_MS_MAX)),
    ]
}
