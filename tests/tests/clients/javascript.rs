//! `@aws-sdk/client-kinesis`, which speaks HTTP/2: in clear text by prior knowledge, and over TLS by ALPN.

use crate::broker::verifying;
use crate::install::{clients, node_modules, run};
use anyhow::Result;
use tempfile::TempDir;
use tidemill_tests::tell;
use tokio::process::Command;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Over {
    Clear,
    /// With a certificate of the broker's own authority.
    Tls,
}

async fn script(name: &str, over: Over) -> Result<()> {
    let Some(home) = node_modules().await? else { return Ok(()) };
    let data = TempDir::new()?;
    let tls = ["--tls", if over == Over::Tls { "local" } else { "off" }];
    let mut broker = verifying(&data, &tls).await?;
    let url = match over {
        Over::Clear => broker.url(),
        Over::Tls => format!("https://localhost:{}", broker.addr().port()),
    };
    let mut node = Command::new("node");
    node.env("NODE_EXTRA_CA_CERTS", broker.dir().join("tls/ca.pem"));
    node.env("NODE_PATH", home.join("node_modules")).arg(clients().join(name)).arg(url);
    tell(run(&mut node).await?.trim_end());
    broker.assert_alive().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_javascript_client_puts_reads_pages_and_gets_typed_errors() -> Result<()> {
    script("javascript_roundtrip.cjs", Over::Clear).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_javascript_client_is_pushed_records_over_http_2() -> Result<()> {
    script("javascript_subscribe.cjs", Over::Clear).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_javascript_client_is_pushed_records_over_http_2_by_tls_and_alpn() -> Result<()> {
    script("javascript_subscribe.cjs", Over::Tls).await
}
