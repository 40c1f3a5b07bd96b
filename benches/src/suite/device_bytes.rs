//! Row n: bytes that the broker writes for a byte that it acknowledges. Small frames are written twice, to the journal and to
//! their places, large ones once; more is a fault. Counted by the kernel when pages become dirty or are written directly.

use super::check::Check;
use super::findings::Findings;
use super::site::Site;
use crate::libraries::RECORD_BYTES;
use crate::libraries::append::fill_with;
use crate::process::Server;
use anyhow::Result;
use std::time::Duration;
use tidemill_producer::Config;
use tidemill_proto::client::{Channel, Control, Endpoint};
use tidemill_types::StreamName;
use tidemill_types::limits::RETENTION_HOURS_DEFAULT;

/// Of one shard, so that with one under way a group never reaches what is written directly.
const SMALL_BATCH_BYTES: usize = 32 << 10;
const SMALL: &str = "bytes written for an acknowledged byte, small frames";
const LARGE: &str = "bytes written for an acknowledged byte, large frames";
const SMALL_MAX: f64 = 2.1;
const LARGE_MAX: f64 = 1.1;

const SHARDS: u32 = 8;
/// Before it counts: journal and segments have their files.
const SETTLING_RECORDS: u64 = 256 << 10;
const COUNTED_RECORDS: u64 = 512 << 10;
/// Until what is acknowledged has found its place.
const PLACING: Duration = Duration::from_secs(3);

pub(super) fn measure(site: &Site, findings: &mut Findings) {
    let small = |endpoint: &str| Config::new(endpoint)?.batch_bytes(SMALL_BATCH_BYTES)?.batches_in_flight(1);
    findings.found(SMALL, "×", written(site, small));
    findings.found(LARGE, "×", written(site, Config::new));
}

fn written(site: &Site, config: impl Fn(&str) -> tidemill_producer::Result<Config>) -> Result<f64> {
    let broker = site.fresh_broker("device-bytes")?;
    let stream = StreamName::new("counted")?;
    let endpoint = &broker.server.endpoint;
    site.runtime.block_on(async {
        let channel = Channel::connect(&Endpoint::new(endpoint)?).await?;
        Control::new(channel, rand::random()).create_stream(&stream, SHARDS, RETENTION_HOURS_DEFAULT).await?;
        fill_with(config(endpoint)?, &stream, SETTLING_RECORDS).await
    })?;
    let before = settled_bytes(&broker.server)?;
    site.runtime.block_on(fill_with(config(endpoint)?, &stream, COUNTED_RECORDS))?;
    let written = settled_bytes(&broker.server)? - before;
    Ok(written as f64 / (COUNTED_RECORDS * RECORD_BYTES as u64) as f64)
}

fn settled_bytes(broker: &Server) -> Result<u64> {
    std::thread::sleep(PLACING);
    broker.vitals().written_bytes()
}

pub(super) fn checks(findings: &Findings) -> Vec<Check> {
    vec![
        Check::at_most(SMALL, "×", findings.value(SMALL), Ok(SMALL_MAX)),
        Check::at_most(LARGE, "×", findings.value(LARGE), Ok(LARGE_MAX)),
    ]
}
