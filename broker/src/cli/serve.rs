//! `tidemill serve`: a broker until it is told to stop.

use super::signals::StopSignals;
use super::{log_to_stderr, output};
use crate::config::{Config, Flags};
use crate::error::Result;
use crate::open_files;
use crate::server::Broker;

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
    open_files::raise();
    let broker = Broker::start(config.broker).await?;
    output::line(&format!("tidemill ready on {}", broker.endpoint()))?;
    signals.any().await;
    tracing::info!("stopping: finishing what is under way");
    broker.shutdown().await?;
    tracing::info!("stopped");
    Ok(())
}
