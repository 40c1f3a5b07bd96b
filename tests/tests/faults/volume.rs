//! A file system of a test's own: on a loop device, or in memory. Its power can be cut.
//!
//! Needs root, and says so where it is missing; under CI as root it must work.

use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;
use tidemill_tests::tell;

/// `FS_IOC_SHUTDOWN` with "no log flush": the file system ends at once; what was not synced is gone.
const CUT: &str = "import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";

/// What it is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Ext4,
    Xfs,
    Memory,
}

/// A mounted file system. Dropping it unmounts it.
pub(crate) struct Volume {
    kind: Kind,
    mib: u64,
    home: TempDir,
}

fn run(program: &str, args: &[&str]) -> Result<()> {
    let output =
        Command::new(program).args(args).output().with_context(|| format!("cannot start {program}"))?;
    ensure!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a temporary directory has a plain name")
}

impl Volume {
    /// Makes and mounts one of so many MiB. None, and a word about it, where that is not allowed.
    pub(crate) fn make(kind: Kind, mib: u64) -> Result<Option<Self>> {
        if !rustix::process::geteuid().is_root() {
            tell(&format!("not tested for want of root: a file system of kind {kind:?}"));
            return Ok(None);
        }
        let home = TempDir::new_in(tidemill_tests::build_dir()?)?;
        let volume = Self { kind, mib, home };
        std::fs::create_dir(volume.path())?;
        let made = volume.format().and_then(|()| volume.mount());
        match made {
            Ok(()) => Ok(Some(volume)),
            Err(error) if std::env::var_os("CI").is_none() => {
                tell(&format!("not tested, a file system of kind {kind:?} cannot be made: {error:#}"));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn image(&self) -> PathBuf {
        self.home.path().join("image")
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> PathBuf {
        self.home.path().join("mnt")
    }

    fn format(&self) -> Result<()> {
        let image = self.image();
        std::fs::File::create(&image)?.set_len(self.mib << 20)?;
        match self.kind {
            Kind::Ext4 => run("mkfs.ext4", &["-q", "-F", text(&image)?]),
            Kind::Xfs => run("mkfs.xfs", &["-q", "-f", text(&image)?]),
            Kind::Memory => Ok(()),
        }
    }

    pub(crate) fn mount(&self) -> Result<()> {
        let (image, at) = (self.image(), self.path());
        match self.kind {
            Kind::Memory => {
                let size = format!("size={}m", self.mib);
                run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", text(&at)?])
            }
            Kind::Ext4 | Kind::Xfs => run("mount", &["-o", "loop", text(&image)?, text(&at)?]),
        }
    }

    pub(crate) fn unmount(&self) -> Result<()> {
        run("umount", &[text(&self.path())?])
    }

    /// What was not synced is gone, and nothing can be written any more, until it is mounted again.
    pub(crate) fn cut_power(&self) -> Result<()> {
        if self.kind == Kind::Memory {
            bail!("memory has no power to cut");
        }
        run("python3", &["-c", CUT, text(&self.path())?])
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // it may be unmounted already
        let _ = Command::new("umount").arg("-l").arg(self.path()).output();
    }
}
