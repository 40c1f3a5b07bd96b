//! `@aws-sdk/client-kinesis`, which speaks HTTP/2, in clear text by prior knowledge here.

use crate::broker::verifying;
use crate::install::{clients, node_modules, run};
use anyhow::Result;
use tempfile::TempDir;
use tidemill_tests::tell;
use tokio::process::Command;

async fn script(name: &str) -> Result<()> {
    let Some(home) = node_modules().await? else { return Ok(()) };
    let data = TempDir::new()?;
    let mut broker = verifying(&data, &[]).await?;
    let mut node = Command::new("node");
    node.env("NODE_PATH", home.join("node_modules")).arg(clients().join(name)).arg(broker.url());
    tell(run(&mut node).await?.trim_end());
    broker.assert_alive().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_javascript_client_puts_reads_pages_and_gets_typed_errors() -> Result<()> {
    script("javascript_roundtrip.cjs").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_javascript_client_is_pushed_records_over_http_2() -> Result<()> {
    script("javascript_subscribe.cjs").await
}
