//! Keys change without a restart: the configuration and the key files are looked at, and read again when one changes.
//!
//! A configuration that cannot be read, or has a mistake, changes nothing: it is told in the log, once for each change.

use super::read;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tidemill_engine::KeyRing;
use tokio_util::sync::CancellationToken;

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What tells that a file was changed: when it was written, how long it is, who may read it.
#[derive(PartialEq, Eq, Clone, Copy)]
struct Stamp(SystemTime, u64, u32);

fn stamp(path: &Path) -> Option<Stamp> {
    let about = std::fs::metadata(path).ok()?;
    Some(Stamp(about.modified().ok()?, about.len(), mode(&about)))
}

#[cfg(unix)]
fn mode(about: &std::fs::Metadata) -> u32 {
    std::os::unix::fs::PermissionsExt::mode(&about.permissions())
}

#[cfg(not(unix))]
fn mode(_: &std::fs::Metadata) -> u32 {
    0
}

/// What was looked at last.
#[derive(Default)]
struct Seen {
    config: Option<Stamp>,
    files: Vec<(PathBuf, Option<Stamp>)>,
}

/// Follows the files until the broker stops.
pub(crate) async fn follow_keys(keys: KeyRing, config: PathBuf, stopping: CancellationToken) {
    let mut seen = Seen::default();
    loop {
        let (ring, path) = (keys.clone(), config.clone());
        let looked = tokio::task::spawn_blocking(move || {
            look(&ring, &path, &mut seen);
            seen
        });
        seen = looked.await.unwrap_or_default();
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// Reads the keys again if a file is not as it was.
fn look(keys: &KeyRing, config: &Path, seen: &mut Seen) {
    let now = stamp(config);
    if now == seen.config && seen.files.iter().all(|(path, known)| stamp(path) == *known) {
        return;
    }
    // stamped before they are read: what is written meanwhile shows as another change
    seen.config = now;
    seen.files.iter_mut().for_each(|(path, known)| *known = stamp(path));
    let shown = config.display();
    let read = read(config).map_err(|error| error.to_string());
    let replaced = read.and_then(|(found, files)| {
        let stamped = |path: PathBuf| {
            seen.files.iter().find(|(known, _)| *known == path).cloned().unwrap_or((path, None))
        };
        let files: Vec<_> = files.into_iter().map(stamped).collect();
        seen.files = files;
        let count = found.len();
        keys.replace(found).map(|()| count).map_err(|error| error.to_string())
    });
    match replaced {
        Ok(count) => tracing::info!(file = %shown, keys = count, "keys are in force"),
        Err(error) => tracing::error!(file = %shown, error, "the keys stay as they were"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use tidemill_engine::ErrorKind;

    #[test]
    fn a_key_is_in_force_as_soon_as_its_file_is_there_and_gone_with_the_section() {
        let dir = tempfile::tempdir().unwrap();
        let (config, key) = (dir.path().join("tidemill.toml"), dir.path().join("a.key"));
        let (ring, mut seen) = (KeyRing::default(), Seen::default());
        let mut check = || {
            look(&ring, &config, &mut seen);
            ring.check("alias/a").map_err(|error| error.kind())
        };
        assert_eq!(check(), Err(ErrorKind::KeyNotFound), "no configuration yet");
        std::fs::write(&config, format!("[[keys]]\nid = 'alias/a'\nfile = '{}'\n", key.display())).unwrap();
        assert_eq!(check(), Err(ErrorKind::KeyDenied), "no file yet");
        std::fs::write(&key, [7; 32]).unwrap();
        std::fs::set_permissions(&key, PermissionsExt::from_mode(0o644)).unwrap();
        assert_eq!(check(), Err(ErrorKind::KeyDenied), "anyone may read it");
        std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
        assert_eq!(check(), Ok(()));
        assert_eq!(check(), Ok(()), "nothing changed");
        std::fs::write(&config, "[[keys]]\nid = 'alias/a'\n").unwrap();
        assert_eq!(check(), Ok(()), "a mistake changes nothing");
        std::fs::write(&config, "").unwrap();
        assert_eq!(check(), Err(ErrorKind::KeyNotFound));
    }
}
