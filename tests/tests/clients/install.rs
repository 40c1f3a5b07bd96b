//! Packages of other registries, at the versions that are pinned beside the tests, each set installed once into the
//! target directory and kept there until its pins change.

use anyhow::{Context, Result, bail, ensure};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;
use tidemill_tests::{build_dir, tell};
use tokio::process::Command;
use tokio::sync::OnceCell;
use tokio::time::timeout;

const INSTALL_DEADLINE: Duration = Duration::from_secs(300);
/// A script of a client that takes longer hangs.
const SCRIPT_DEADLINE: Duration = Duration::from_secs(240);

/// Where scripts and pins lie.
pub(crate) fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

async fn output(command: &mut Command, limit: Duration) -> Result<Output> {
    let running = command.kill_on_drop(true).output();
    let output =
        timeout(limit, running).await.with_context(|| format!("no end within {limit:?}: {command:?}"))?;
    output.with_context(|| format!("cannot run {command:?}"))
}

async fn step(command: &mut Command, limit: Duration) -> Result<String> {
    let done = output(command, limit).await?;
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    ensure!(done.status.success(), "{command:?} failed:\n{out}{err}");
    Ok(out.into_owned())
}

/// Runs a script to its end, which must be a good one, and gives what it printed.
pub(crate) async fn run(script: &mut Command) -> Result<String> {
    step(script, SCRIPT_DEADLINE).await
}

/// The python of a virtual environment with the packages of `requirements.txt`; nothing where they cannot be had.
pub(crate) async fn python() -> Result<Option<PathBuf>> {
    static PYTHON: OnceCell<Result<PathBuf, String>> = OnceCell::const_new();
    once(&PYTHON, "the Python clients", python_installed()).await
}

/// A folder whose `node_modules` has the packages of `package-lock.json`; nothing where they cannot be had.
pub(crate) async fn node_modules() -> Result<Option<PathBuf>> {
    static MODULES: OnceCell<Result<PathBuf, String>> = OnceCell::const_new();
    once(&MODULES, "the JavaScript packages", node_installed()).await
}

/// Tests of one process share what is installed, and are told alike when it is not.
async fn once(
    cell: &OnceCell<Result<PathBuf, String>>,
    what: &str,
    install: impl Future<Output = Result<PathBuf>>,
) -> Result<Option<PathBuf>> {
    match cell.get_or_init(|| async { install.await.map_err(|error| format!("{error:#}")) }).await {
        Ok(path) => Ok(Some(path.clone())),
        Err(error) if std::env::var_os("CI").is_none() => {
            tell(&format!(
                "NOT TESTED: {what} could not be installed, so nothing is known about them: {error}"
            ));
            Ok(None)
        }
        Err(error) => bail!("{what} could not be installed, and CI must not go without: {error}"),
    }
}

fn home(name: &str) -> Result<PathBuf> {
    Ok(build_dir()?.parent().context("a profile lies in target")?.join(name))
}

async fn python_installed() -> Result<PathBuf> {
    let home = home("clients-venv")?;
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

async fn node_installed() -> Result<PathBuf> {
    let home = home("clients-node")?;
    let pinned = home.join("package-lock.installed");
    let wanted = std::fs::read_to_string(clients().join("package-lock.json")).context("package-lock.json")?;
    if std::fs::read_to_string(&pinned).is_ok_and(|installed| installed == wanted) {
        return Ok(home);
    }
    std::fs::create_dir_all(&home)?;
    for file in ["package.json", "package-lock.json"] {
        std::fs::copy(clients().join(file), home.join(file)).with_context(|| file.to_owned())?;
    }
    let mut install = Command::new("npm");
    install.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]);
    step(install.current_dir(&home), INSTALL_DEADLINE).await?;
    std::fs::write(&pinned, wanted)?;
    Ok(home)
}
