//! boto3: whole round trips, and every operation of the API by its own words.

use crate::broker::{KEY_ID, verifying};
use crate::install::{clients, python, run};
use anyhow::Result;
use tempfile::TempDir;
use tidemill_tests::tell;
use tokio::process::Command;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn boto3_puts_10_000_records_and_reads_them_back_from_every_iterator_type() -> Result<()> {
    let Some(python) = python().await? else { return Ok(()) };
    let home = TempDir::new()?;
    let mut broker = verifying(&home, &[]).await?;
    let script = clients().join("boto3_roundtrip.py");
    tell(run(Command::new(python).arg(script).arg(broker.url())).await?.trim_end());
    broker.assert_alive().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn boto3_calls_every_operation_with_success_and_with_its_main_error() -> Result<()> {
    let Some(python) = python().await? else { return Ok(()) };
    let (home, limited_home) = (TempDir::new()?, TempDir::new()?);
    let mut broker = verifying(&home, &[]).await?;
    let mut limited = verifying(&limited_home, &["--limits", "aws"]).await?;
    let mut script = Command::new(python);
    script.arg(clients().join("boto3_operations")).args([broker.url(), limited.url()]).arg(KEY_ID);
    tell(run(&mut script).await?.trim_end());
    limited.assert_alive().await?;
    broker.assert_alive().await
}
