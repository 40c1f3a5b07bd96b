//! `tidemill serve`: a broker until it is told to stop.

use super::signals::StopSignals;
use super::{log_to_stderr, output};
use crate::config::{Config, Flags};
use crate::error::Result;
use crate::server::Broker;
use rustix::process::{Resource, getrlimit, setrlimit};

/// Run a broker
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    flags: Flags,
}

pub(super) async fn run(args: Args, log: Option<String>) -> Result<()> {
    let config = Config::load(args.flags)?;
    log_to_stderr(log, config.log.as_deref().unwrap_or("info"))?;
    let mut signals = StopSignals::catch()?;
    raise_open_files();
    let broker = Broker::start(config.broker).await?;
    output::line(&format!("tidemill ready on {}", broker.endpoint()))?;
    signals.any().await;
    tracing::info!("stopping: finishing what is under way");
    broker.shutdown().await?;
    tracing::info!("stopped");
    Ok(())
}

/// Segments and connections need more open files than the usual soft limit of 1,024; the hard limit is ours to use.
pub(super) fn raise_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}
