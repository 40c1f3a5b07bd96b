//! Unmodified clients of others against a real broker. Each brings its own packages into the target directory; where the
//! registry cannot be reached the test says so and passes, unless `CI` is set.

use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;
use tidemill_tests::{Broker, build_dir, tell};
use tokio::process::Command;
use tokio::time::timeout;

const INSTALL_DEADLINE: Duration = Duration::from_secs(180);
const TEST_DEADLINE: Duration = Duration::from_secs(120);

fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

async fn output(command: &mut Command, limit: Duration) -> Result<std::process::Output> {
    let running = command.kill_on_drop(true).output();
    let output =
        timeout(limit, running).await.with_context(|| format!("no end within {limit:?}: {command:?}"))?;
    output.with_context(|| format!("cannot run {command:?}"))
}

async fn step(command: &mut Command, limit: Duration) -> Result<()> {
    let done = output(command, limit).await?;
    ensure!(
        done.status.success(),
        "{command:?} failed:\n{}{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
    Ok(())
}

/// The python of a virtual environment with the pinned packages; kept in the target directory until the pins change.
async fn python() -> Result<PathBuf> {
    let home = build_dir()?.parent().context("a profile lies in target")?.join("clients-venv");
    let (python, pinned) = (home.join("bin/python"), home.join("requirements.installed"));
    let requirements = clients().join("requirements.txt");
    let wanted = std::fs::read_to_string(&requirements).context("requirements.txt")?;
    if std::fs::read_to_string(&pinned).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    step(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&home), INSTALL_DEADLINE).await?;
    let mut install = Command::new(&python);
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "-r"]);
    step(install.arg(&requirements), INSTALL_DEADLINE).await?;
    std::fs::write(&pinned, wanted)?;
    Ok(python)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn boto3_puts_10_000_records_and_reads_them_back_from_every_iterator_type() -> Result<()> {
    let python = match python().await {
        Ok(python) => python,
        Err(error) if std::env::var_os("CI").is_none() => {
            tell(&format!(
                "NOT TESTED: boto3 could not be installed, so nothing is known about it: {error:#}"
            ));
            return Ok(());
        }
        Err(error) => bail!("boto3 could not be installed, and CI must not go without: {error:#}"),
    };
    let home = TempDir::new()?;
    let mut broker = Broker::start(home.path(), &[]).await?;
    let mut script = Command::new(python);
    script.arg(clients().join("boto3_roundtrip.py")).arg(broker.url());
    let done = output(&mut script, TEST_DEADLINE).await?;
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    ensure!(done.status.success(), "boto3 is not content:\n{out}{err}");
    tell(out.trim_end());
    broker.assert_alive().await
}
