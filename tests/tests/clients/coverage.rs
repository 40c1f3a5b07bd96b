//! `tests/COVERAGE.md` is what `coverage.py` makes of the tests as they are, and no cell of it is empty.

use crate::install::{clients, python, run};
use anyhow::Result;
use tokio::process::Command;

#[tokio::test]
async fn every_operation_of_the_model_is_covered_as_the_committed_table_says() -> Result<()> {
    let Some(python) = python().await? else { return Ok(()) };
    run(Command::new(python).arg(clients().join("coverage.py")).arg("--check")).await?;
    Ok(())
}
