//! `aws kinesis`, version 1 of the command line, as people type it.

use crate::broker::verifying;
use crate::install::{clients, python, run};
use anyhow::Result;
use tempfile::TempDir;
use tidemill_tests::tell;
use tokio::process::Command;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_aws_command_line_does_what_its_manual_shows() -> Result<()> {
    let Some(python) = python().await? else { return Ok(()) };
    let home = TempDir::new()?;
    let mut broker = verifying(&home, &[]).await?;
    let mut script = Command::new("bash");
    script.arg(clients().join("aws_cli.sh")).arg(python.with_file_name("aws")).arg(broker.url());
    // nothing of the machine's own configuration
    script.env("HOME", home.path()).env("AWS_CONFIG_FILE", "/dev/null");
    tell(run(&mut script).await?.trim_end());
    broker.assert_alive().await
}
