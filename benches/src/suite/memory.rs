//! Row k: memory of a broker that is written to and read from as fast as it goes, the page cache not counted.

use super::check::Check;
use super::findings::Findings;
use super::load::{Load, Pace};
use super::site::Site;
use super::throughput::{GRPC_CONNECTIONS, SHARDS};
use super::watch::{Watched, watch};
use crate::process::Server;
use anyhow::Result;

const MEMORY: &str = "memory of the broker at full load";
const MIB_MAX: f64 = 256.0;
/// A stream is written to for so long, then the next: ten minutes on one would need the room of hundreds of GB.
const STREAM_SECONDS: u64 = 20;

pub(super) fn soak(site: &Site, seconds: u64, findings: &mut Findings) {
    let pace = Pace { seconds, ..site.pace };
    let watched = site.fresh_broker("soak").and_then(|broker| load(&broker.server, pace));
    match watched {
        Ok(watched) => {
            findings.found(MEMORY, "MiB", Ok(watched.peak_mib()));
            findings.memory = watched.memory();
        }
        Err(error) => findings.found(MEMORY, "MiB", Err(error)),
    }
}

fn load(broker: &Server, pace: Pace) -> Result<Watched<()>> {
    let load = |workload| {
        Load::new(workload, "grpc").with("--shards", SHARDS).with("--connections", GRPC_CONNECTIONS)
    };
    watch(broker, || {
        std::thread::scope(|scope| {
            let reading = scope.spawn(|| load("consume").run(broker, pace));
            for begin in (0..pace.seconds).step_by(STREAM_SECONDS as usize) {
                let seconds = STREAM_SECONDS.min(pace.seconds - begin);
                load("produce").run(broker, Pace { seconds, ..pace })?;
            }
            reading.join().expect("a load does not panic").map(drop)
        })
    })
}

pub(super) fn checks(findings: &Findings) -> Vec<Check> {
    vec![Check::at_most(MEMORY, "MiB", findings.value(MEMORY), Ok(MIB_MAX))]
}
