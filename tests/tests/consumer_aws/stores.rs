//! One suite for all lease stores. That of memory runs with the unit tests of the library.

use crate::dynalite::Dynalite;
use anyhow::Result;
use std::time::Duration;
use tempfile::TempDir;
use tidemill_consumer::testing;
use tidemill_tests::{Broker, create_stream};

const LEASE: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_in_a_broker_are_kept_as_all_stores_keep_them() -> Result<()> {
    let home = TempDir::new()?;
    let broker = Broker::start(home.path(), &[]).await?;
    create_stream(&broker, "one-shard", 1).await?;
    let failed = testing::leases_in_a_broker(&broker.endpoint()?, "one-shard", LEASE).await;
    assert_eq!(failed, [""; 0]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_in_dynamo_db_are_kept_as_all_stores_keep_them() -> Result<()> {
    let Some(dynalite) = Dynalite::start().await? else { return Ok(()) };
    let failed = testing::leases_in_dynamo_db(&dynalite.table(), LEASE).await;
    assert_eq!(failed, [""; 0]);
    Ok(())
}
