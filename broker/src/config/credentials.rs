//! `[[credentials]]` and `[[policies]]`: who may use the broker. What they say is described at
//! [`AccessSettings`]; it is in force from the start, and again whenever the file changes.

use super::file::File;
use super::keys::KeyFile;
use crate::auth::AccessSettings;
use crate::error::Result;
use std::path::Path;

/// The part of the file that is about access. A mistake anywhere in the file is one here.
pub(crate) fn read_access(path: &Path) -> Result<AccessSettings> {
    let file = File::read(path)?;
    let holds_secrets = !file.credentials.is_empty() || file.keys.iter().any(KeyFile::holds_secret);
    if holds_secrets && others_may_read(path) {
        tracing::warn!(
            file = %path.display(),
            "the configuration holds secrets, and others than its owner may read it: chmod 600"
        );
    }
    Ok(compose(Some(path), &file))
}

#[cfg(unix)]
fn others_may_read(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|about| about.permissions().mode() & 0o044 != 0)
}

#[cfg(not(unix))]
fn others_may_read(_: &Path) -> bool {
    false
}

pub(super) fn compose(path: Option<&Path>, file: &File) -> AccessSettings {
    AccessSettings {
        credentials: file.credentials.clone(),
        policies: file.policies.clone(),
        file: path.map(Path::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::captured_log::CapturedLog;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_with_secrets_that_others_may_read_is_warned_of() {
        let (log, _guard) = CapturedLog::start();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tidemill.toml");
        let credential = "[[credentials]]\naccess_key_id = 'A'\nsecret_access_key = 'hunter2'\n";
        let key = format!("[[keys]]\nid = 'alias/a'\nsecret = '{}'\n", "07".repeat(32));
        for (text, mode, warned) in
            [(credential, 0o600, false), ("", 0o644, false), (credential, 0o640, true), (&key, 0o604, true)]
        {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            let before = log.lines().len();
            read_access(&path).unwrap();
            let told = log.lines()[before..].join("\n");
            assert_eq!(told.contains("others than its owner"), warned, "{text} {mode:o}: {told}");
            assert!(!told.contains("hunter2"));
        }
    }
}
