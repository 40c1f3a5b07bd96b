//! boto3: whole round trips, and every operation of the API by its own words.

use crate::broker::verifying;
use crate::install::{clients, python, run};
use anyhow::Result;
use tempfile::TempDir;
use tidemill_tests::tell;
use tokio::process::Command;

/// Runs a script on a broker of its own, with more arguments for `serve`, and tells what it printed.
async fn script(name: &str, args: &[&str]) -> Result<()> {
    let Some(python) = python().await? else { return Ok(()) };
    let home = TempDir::new()?;
    let mut broker = verifying(&home, args).await?;
    let out = run(Command::new(python).arg(clients().join(name)).arg(broker.url())).await?;
    tell(out.trim_end());
    broker.assert_alive().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn boto3_puts_10_000_records_and_reads_them_back_from_every_iterator_type() -> Result<()> {
    script("boto3_roundtrip.py", &[]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn boto3_calls_every_operation_with_success_and_with_its_main_error() -> Result<()> {
    script("boto3_operations.py", &[]).await
}
