//! What may be wrong with a data directory as a whole: a file is missing, may not be read, or is of a later version; somebody
//! else has it. Each is told by name, nothing is changed, and once it is put right everything is there.

use anyhow::{Context, Result, ensure};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tidemill_tests::load::{Load, Loading};
use tidemill_tests::{Broker, Finished, Running, run};

/// A directory with records, closed in order, and what they are.
pub(crate) async fn filled(home: &TempDir, records: usize) -> Result<(PathBuf, Arc<Load>)> {
    let data = home.path().join("data");
    let broker = Broker::start(&data, &["--durability", "device"]).await?;
    let loading = Loading::start(&broker).await?;
    loading.progress(records, Duration::from_secs(60)).await?;
    let load = loading.stop().await?;
    broker.terminate().await?;
    Ok((data, load))
}

/// Files of the directory, with the folder of segments.
pub(crate) fn files(data: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for folder in [data.to_owned(), data.join("segments")] {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_file() && path.file_name().and_then(|name| name.to_str()).is_some_and(&wanted) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Starts a broker that cannot start.
pub(crate) async fn refused(data: &Path) -> Result<Finished> {
    let data = data.to_str().context("a plain name")?;
    let finished = run(&["serve", "--listen", "127.0.0.1:0", "--data-dir", data]).await?;
    ensure!(finished.code == Some(1), "{finished:?}");
    ensure!(!finished.stderr.contains("panicked"), "{}", finished.stderr);
    Ok(finished)
}

/// The directory is refused with the name of what is wrong; put right, it has everything.
async fn refused_then_whole(
    what: &str,
    spoil: impl Fn(&Path) -> Result<String>,
    put_right: impl Fn(&Path) -> Result<()>,
) -> Result<()> {
    spoiled_then_whole(&TempDir::new()?, what, spoil, put_right).await
}

/// The same in this folder, where a directory may be already.
async fn spoiled_then_whole(
    home: &TempDir,
    what: &str,
    spoil: impl Fn(&Path) -> Result<String>,
    put_right: impl Fn(&Path) -> Result<()>,
) -> Result<()> {
    let (data, load) = filled(home, 1500).await?;
    let name = spoil(&data)?;
    // who keeps it running starts it again and again
    for _ in 0..3 {
        let finished = refused(&data).await?;
        ensure!(finished.stderr.contains(&name), "{what}: it does not name {name}: {}", finished.stderr);
    }
    put_right(&data)?;
    let broker = Broker::start(&data, &[]).await?;
    load.check(&broker, what).await?;
    broker.terminate().await?;
    Ok(())
}

fn aside(data: &Path) -> PathBuf {
    data.with_extension("aside")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_file_is_told_by_name_and_put_back_it_is_whole_again() -> Result<()> {
    for wanted in ["checkpoint", ".segment", "metadata.redb"] {
        let pick = |data: &Path| {
            let all = files(data, |name| name.ends_with(wanted))?;
            all.first().cloned().with_context(|| format!("a file {wanted}"))
        };
        let home = TempDir::new()?;
        let place = home.path().join("place");
        let spoil = |data: &Path| {
            let file = pick(data)?;
            std::fs::write(&place, file.to_str().context("a plain name")?)?;
            std::fs::rename(&file, aside(data))?;
            Ok(file.file_name().context("a name")?.to_string_lossy().into_owned())
        };
        let put_right = |data: &Path| Ok(std::fs::rename(aside(data), std::fs::read_to_string(&place)?)?);
        refused_then_whole(&format!("missing {wanted}"), spoil, put_right).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_of_a_later_version_is_refused_and_left_as_it_is() -> Result<()> {
    let spoil = |data: &Path| {
        let file = data.join("checkpoint");
        std::fs::copy(&file, aside(data))?;
        let mut bytes = std::fs::read(&file)?;
        bytes[12] += 1;
        let crc = crc32(&bytes[12..]);
        bytes[8..12].copy_from_slice(&crc.to_le_bytes());
        std::fs::write(&file, bytes)?;
        Ok("later version".to_owned())
    };
    let put_right = |data: &Path| Ok(std::fs::rename(aside(data), data.join("checkpoint"))?);
    refused_then_whole("checkpoint of a later version", spoil, put_right).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_metadata_store_that_is_older_than_the_records_is_refused_and_removes_nothing() -> Result<()> {
    let spoil = |data: &Path| {
        let (file, old) = (data.join("metadata.redb"), data.with_extension("old"));
        std::fs::rename(&file, aside(data))?;
        std::fs::copy(old, file)?;
        let verified =
            std::process::Command::new(tidemill_tests::tidemill()?).arg("verify").arg(data).output()?;
        let told = String::from_utf8_lossy(&verified.stdout).into_owned();
        ensure!(verified.status.code() == Some(1) && told.contains("metadata.redb is older"), "{told}");
        Ok("metadata.redb is older".to_owned())
    };
    let put_right = |data: &Path| Ok(std::fs::rename(aside(data), data.join("metadata.redb"))?);
    let home = TempDir::new()?;
    let data = home.path().join("data");
    Broker::start(&data, &[]).await?.terminate().await?;
    std::fs::copy(data.join("metadata.redb"), data.with_extension("old"))?;
    spoiled_then_whole(&home, "older metadata", spoil, put_right).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_metadata_store_of_another_directory_is_refused_and_removes_nothing() -> Result<()> {
    let home = TempDir::new()?;
    // it has counted more starts, and more logs
    let other = home.path().join("other");
    for stream in ["a", "b", "c"] {
        let broker = Broker::start(&other, &[]).await?;
        broker.kinesis().create_stream(stream, 50).await?;
        broker.terminate().await?;
    }
    let spoil = |data: &Path| {
        let file = data.join("metadata.redb");
        std::fs::rename(&file, aside(data))?;
        std::fs::copy(other.join("metadata.redb"), file)?;
        Ok("metadata.redb belongs to another data directory".to_owned())
    };
    let put_right = |data: &Path| Ok(std::fs::rename(aside(data), data.join("metadata.redb"))?);
    spoiled_then_whole(&home, "metadata of another directory", spoil, put_right).await
}

/// CRC-32 as in zlib, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    };
    !bytes.iter().fold(!0, step)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_may_not_be_read_is_told_by_name() -> Result<()> {
    let home = TempDir::new()?;
    let (data, load) = filled(&home, 1500).await?;
    for name in ["checkpoint", "metadata.redb", "segments"] {
        let path = data.join(name);
        let mode = std::fs::metadata(&path)?.permissions().mode();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000))?;
        let finished = if rustix::process::geteuid().is_root() {
            // root may read everything: somebody else is asked, who owns all but this
            as_nobody(&home, &data, &path).await?
        } else {
            refused(&data).await?
        };
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
        ensure!(finished.code == Some(1), "{name}: {finished:?}");
        ensure!(finished.stderr.contains(name), "it does not name {name}: {}", finished.stderr);
        ensure!(finished.stderr.to_lowercase().contains("permission denied"), "{name}: {}", finished.stderr);
    }
    let broker = Broker::start(&data, &[]).await?;
    load.check(&broker, "wrong permissions").await?;
    broker.terminate().await?;
    Ok(())
}

/// Runs a broker without the rights of root on a directory that belongs to who runs it.
async fn as_nobody(home: &TempDir, data: &Path, without: &Path) -> Result<Finished> {
    const NOBODY: u32 = 65_534;
    std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755))?;
    let own = |owner: u32| -> Result<()> {
        for path in [data.to_owned(), data.join("segments")].into_iter().chain(files(data, |_| true)?) {
            std::os::unix::fs::chown(&path, Some(owner), Some(owner))?;
        }
        Ok(())
    };
    own(NOBODY)?;
    // the program may lie where only root looks
    let program = home.path().join("tidemill");
    std::fs::copy(tidemill_tests::tidemill()?, &program)?;
    let (program, dir) = (program.to_str().context("a plain name")?, data.to_str().context("a plain name")?);
    let user = NOBODY.to_string();
    let args =
        ["--reuid", &user, "--regid", &user, "--clear-groups", program, "serve", "--listen", "127.0.0.1:0"];
    let all = [&args[..], &["--data-dir", dir]].concat();
    let finished = Running::spawn_program(Path::new("setpriv"), &all)?.ended(Duration::from_secs(20)).await;
    own(0)?;
    finished.with_context(|| format!("without {}", without.display()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_on_the_directory_is_refused_under_load_and_harms_nothing() -> Result<()> {
    let home = TempDir::new()?;
    let data = home.path().join("data");
    let broker = Broker::start(&data, &["--durability", "device"]).await?;
    let loading = Loading::start(&broker).await?;
    let named = data.to_str().context("a plain name")?;
    for _ in 0..3 {
        loading.progress(200, Duration::from_secs(20)).await?;
        ensure!(refused(&data).await?.stderr.contains(named));
        for command in ["verify", "repair"] {
            let other = run(&[command, named]).await?;
            ensure!(other.code == Some(1) && other.stderr.contains("stop it first"), "{command}: {other:?}");
        }
        let repair = run(&["repair", named, "--yes"]).await?;
        ensure!(repair.code == Some(1), "{repair:?}");
    }
    // somebody thinks that it was left behind
    std::fs::remove_file(data.join("lock"))?;
    ensure!(refused(&data).await?.stderr.contains("metadata.redb"));
    let repair = run(&["repair", named, "--yes"]).await?;
    ensure!(repair.code == Some(1) && repair.stderr.contains("metadata.redb; stop it first"), "{repair:?}");
    let load = loading.stop().await?;
    let mut broker = broker;
    broker.kill_9().await?;
    let broker = broker.restart().await?;
    load.check(&broker, "second processes on the directory").await?;
    broker.terminate().await?;
    Ok(())
}
