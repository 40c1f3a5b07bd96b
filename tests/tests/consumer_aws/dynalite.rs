//! A DynamoDB in a process of its own, in memory, ended with the test.

use crate::install::node_modules;
use anyhow::{Context, Result, ensure};
use std::process::Stdio;
use std::time::Duration;
use tidemill_consumer::aws::DynamoDb;
use tidemill_tests::{Until, free_port, until};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

const READY_DEADLINE: Duration = Duration::from_secs(20);

/// A running dynalite.
#[derive(Debug)]
pub(crate) struct Dynalite {
    url: String,
    _child: Child,
}

impl Dynalite {
    /// Starts one; nothing where it cannot be had.
    pub(crate) async fn start() -> Result<Option<Self>> {
        let Some(home) = node_modules().await? else { return Ok(None) };
        let port = free_port()?;
        let child = Command::new("node")
            .arg(home.join("node_modules/dynalite/cli.js"))
            .args(["--host", "127.0.0.1", "--createTableMs", "20", "--port", &port.to_string()])
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start node")?;
        let listens = || async { TcpStream::connect(("127.0.0.1", port)).await.is_ok() };
        ensure!(until(READY_DEADLINE, listens).await != Until::Late, "dynalite does not listen");
        Ok(Some(Self { url: format!("http://127.0.0.1:{port}"), _child: child }))
    }

    /// As settings of a worker.
    pub(crate) fn table(&self) -> DynamoDb {
        DynamoDb::at(&self.url).credentials("test", "test")
    }

    /// A client of its own, for a look at the rows or for what another library would write.
    pub(crate) fn client(&self) -> aws_sdk_dynamodb::Client {
        use aws_sdk_dynamodb::config::{BehaviorVersion, Builder, Credentials, Region};
        let config = Builder::new()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .endpoint_url(&self.url);
        aws_sdk_dynamodb::Client::from_conf(config.build())
    }
}
