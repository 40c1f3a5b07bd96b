//! The binary under test: built once per test process, in the profile of the test itself.

use anyhow::{Context, Result, anyhow, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The `tidemill` binary, built from the sources as they are now. `TIDEMILL_BIN` names another to be tested instead.
pub fn tidemill() -> Result<&'static Path> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match BINARY.get_or_init(|| build().map_err(|error| format!("{error:#}"))) {
        Ok(path) => Ok(path),
        Err(message) => Err(anyhow!("there is no tidemill to test: {message}")),
    }
}

/// Where cargo puts what it builds in the profile of this test: `target/<profile>`.
pub fn build_dir() -> Result<PathBuf> {
    // target/<profile>/deps/<this test>
    let this = std::env::current_exe().context("where this test lies")?;
    let folder = this.parent().and_then(Path::parent).context("a test lies in target/<profile>/deps")?;
    Ok(folder.to_owned())
}

fn build() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("TIDEMILL_BIN") {
        return Ok(path.into());
    }
    let folder = build_dir()?;
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev",
        Some(profile) => profile,
        None => bail!("cannot tell the profile from {}", folder.display()),
    };
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["build", "--quiet", "--package", "tidemill", "--bin", "tidemill", "--profile", profile])
        .arg("--manifest-path")
        .arg(manifest)
        .stdin(Stdio::null());
    // what cargo told this test about its own package is not true of the one being built
    for (name, _) in std::env::vars_os() {
        let told = name.to_str().is_some_and(|name| {
            ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"]
                .iter()
                .any(|p| name.starts_with(p))
        });
        if told {
            command.env_remove(name);
        }
    }
    let built = command.output().context("cannot run cargo")?;
    if !built.status.success() {
        bail!("cargo build failed:\n{}", String::from_utf8_lossy(&built.stderr));
    }
    let binary = folder.join("tidemill");
    if !binary.is_file() {
        bail!("cargo built no {}", binary.display());
    }
    Ok(binary)
}
