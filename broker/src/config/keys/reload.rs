//! Keys change without a restart: the configuration and the key files are looked at, and read again when one changes.
//!
//! A change is taken once it looks the same twice in a row, so that no half of a file is; keys never all go by an edit, as
//! a file without any is rather being written, or was cut off, than meant.
//! A configuration that cannot be read, or has a mistake, changes nothing: it is told in the log, once for each change.

use super::read;
use crate::config::stamp::{Looks, Stamp};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tidemill_engine::KeyRing;
use tokio_util::sync::CancellationToken;

const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What was looked at last.
#[derive(Default)]
struct Seen {
    looks: Looks<Vec<Stamp>>,
    files: Vec<PathBuf>,
    /// How many keys were read last.
    keys: usize,
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
    // stamped before they are read: what is written meanwhile shows as another change
    let stamps = std::iter::once(config).chain(seen.files.iter().map(PathBuf::as_path)).map(Stamp::of);
    if !seen.looks.settled(stamps.collect()) {
        return;
    }
    let shown = config.display();
    let read = read(config).map_err(|error| error.to_string());
    let replaced = read.and_then(|(found, files)| {
        let count = found.len();
        if count == 0 && seen.keys > 0 {
            return Err(
                "no keys are left in the file; disable them there, or restart if that is meant".to_owned()
            );
        }
        seen.files = files;
        keys.replace(found).map_err(|error| error.to_string())?;
        seen.keys = count;
        Ok(count)
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
    fn a_key_is_in_force_as_soon_as_its_file_is_there_and_gone_with_its_section() {
        let dir = tempfile::tempdir().unwrap();
        let (config, key) = (dir.path().join("tidemill.toml"), dir.path().join("a.key"));
        let (ring, mut seen) = (KeyRing::default(), Seen::default());
        let mut check = || {
            // a changed section can name other files, which are then looked at too
            (0..4).for_each(|_| look(&ring, &config, &mut seen));
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
        assert_eq!(check(), Ok(()), "an empty file changes nothing");
        std::fs::write(&config, "[[keys]]\nid = 'alias/b'\ndisabled = true\n").unwrap();
        assert_eq!(check(), Err(ErrorKind::KeyNotFound));
    }
}
