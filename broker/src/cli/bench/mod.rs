//! `tidemill bench`: how much a broker, or anything that speaks the Kinesis API, takes and gives, and how soon it answers.
//!
//! ```text
//!  for each target and workload:  make a stream ─► (consume: fill it) ─► warm up ─► measure ─► delete it ─► a result
//!
//!  target    library (grpc) · native (bare) · kinesis          by which protocol
//!  loop      closed: the next when the last is answered · pace (open): when it is due
//!  window    what counts: behind the warm-up, within the time, up to a number of records
//! ```
//!
//! Why one load generator: figures of several protocols and services can be compared only if the same program measures them
//! alike. Every run is bounded in time. Without `--endpoint` it starts a broker, in this process or where it must be killed
//! and looked at in one of its own, with its data on the disk of the current directory.
//!
//! What it does not do: judge. A result is a figure; `benches/` sets it beside the limits of the machine.

mod args;
mod bare;
mod child;
mod connection;
mod deliveries;
mod kinesis;
mod library;
mod load;
mod meter;
mod native;
mod outcome;
mod pace;
mod plan;
mod process;
mod progress;
mod site;
mod target;
mod tasks;

pub(super) use args::Args;

use super::output;
use super::signals::StopSignals;
use crate::config::DurabilityMode;
use crate::error::{Error, Result};
use args::{Target, Workload};
use outcome::Outcome;
use plan::{Measured, Stage};
use progress::Progress;
use site::Site;
use tidemill_types::StreamName;

pub(super) async fn run(args: Args) -> Result<()> {
    let pairs = args.pairs()?;
    let mut signals = StopSignals::catch()?;
    crate::open_files::raise();
    let site = args.site(&pairs).await?;
    let measured = tokio::select! {
        measured = args.measure_all(site.as_ref(), &pairs) => measured,
        () = signals.any() => Err(Error::failed("interrupted; the stream it made may be left behind")),
    };
    if let Some(site) = site {
        site.leave().await;
    }
    let outcomes = measured?;
    if !args.json {
        eprintln!("{}", outcome::table(&outcomes));
    }
    match outcomes.iter().map(|outcome| outcome.errors).sum::<u64>() {
        0 => Ok(()),
        errors => {
            Err(Error::failed(format!("{errors} errors; the figures are not those of a healthy service")))
        }
    }
}

impl Args {
    async fn measure_all(&self, site: Option<&Site>, pairs: &[(Target, Workload)]) -> Result<Vec<Outcome>> {
        let mut outcomes = Vec::new();
        for &(target, workload) in pairs {
            let outcome = self.measure(site, target, workload).await?;
            output::json(&outcome)?;
            outcomes.push(outcome);
        }
        Ok(outcomes)
    }

    async fn measure(&self, site: Option<&Site>, target: Target, workload: Workload) -> Result<Outcome> {
        let name = format!("bench-{:08x}", rand::random::<u32>());
        let stream = StreamName::new(&name).map_err(|e| Error::because("cannot name the stream", e))?;
        let progress = if self.json { Progress::Hidden } else { Progress::Shown };
        let stage = Stage::new(self.plan(target, workload), stream, progress);
        let durability = self.durability.unwrap_or(DurabilityMode::Device);
        let measured = match (workload, site) {
            (Workload::Recovery, _) => process::recovery(&stage, durability).await?,
            (Workload::Idle, _) => process::idle(&stage, durability, &self.region).await?,
            (_, Some(site)) => self.measure_at(site, &stage).await?,
            (_, None) => return Err(Error::failed("there is nothing to measure")),
        };
        Ok(Outcome::new(&stage.plan, &measured))
    }

    async fn measure_at(&self, site: &Site, stage: &Stage) -> Result<Measured> {
        let credentials = self.credentials();
        let client = target::Client::connect(&site.endpoint, credentials, &self.region, &stage.plan).await?;
        client.create(stage).await?;
        let measured = client.run(stage).await;
        let deleted = client.delete(stage).await;
        let measured = measured?;
        deleted?;
        Ok(measured)
    }
}
