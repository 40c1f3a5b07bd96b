//! Credentials change without a restart: the configuration file is read again when it changes, and on SIGHUP.
//!
//! A change is taken once it looks the same twice in a row, so that no half of a file is. A file that has lost all its
//! credentials is taken on SIGHUP only: it is rather being written, or was cut off, than meant.
//! A file that cannot be read, or has a mistake anywhere, changes nothing: it is told in the log, once for each change.
//! Nor does one that says the same of access as before, so that other settings can change without ending calls.

use super::{AccessSettings, Gate};
use crate::config::{Looks, Stamp};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Reads the part of a configuration file that is about access.
pub(crate) type ReadAccess = fn(&Path) -> crate::Result<AccessSettings>;

/// Follows the file until the broker stops; `current` is what was read from it and put into force before.
pub(crate) async fn follow(
    gate: Gate,
    file: PathBuf,
    mut current: AccessSettings,
    read: ReadAccess,
    stopping: CancellationToken,
) {
    let mut asked = Asked::catch();
    // what was written between the start and now is read too
    let mut looks = Looks::default();
    loop {
        if looks.settled(stamp(file.clone()).await) {
            reread(&gate, &file, &mut current, read, Cause::Changed).await;
        }
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = asked.next() => reread(&gate, &file, &mut current, read, Cause::Asked).await,
        }
    }
}

/// Why the file is read again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// It is not as it was.
    Changed,
    /// Someone said so.
    Asked,
}

async fn stamp(file: PathBuf) -> Stamp {
    tokio::task::spawn_blocking(move || Stamp::of(&file)).await.unwrap_or_default()
}

async fn reread(gate: &Gate, file: &Path, current: &mut AccessSettings, read: ReadAccess, cause: Cause) {
    let path = file.to_owned();
    let settings = match tokio::task::spawn_blocking(move || read(&path)).await {
        Ok(settings) => settings.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let replaced = settings.and_then(|settings| {
        if settings == *current {
            return Ok(None);
        }
        if settings.credentials.is_empty() && !current.credentials.is_empty() && cause == Cause::Changed {
            return Err(
                "no credentials are left in the file; if that is meant, say so with SIGHUP".to_owned()
            );
        }
        let credentials = gate.replace(&settings)?;
        *current = settings;
        Ok(Some(credentials))
    });
    match replaced {
        Ok(Some(credentials)) => {
            tracing::info!(file = %file.display(), credentials, "changed credentials are in force");
        }
        Ok(None) => {}
        Err(error) => tracing::error!(file = %file.display(), error, "the credentials stay as they were"),
    }
}

/// SIGHUP, the word by which a daemon is asked to read its configuration again.
#[cfg(unix)]
struct Asked(Option<tokio::signal::unix::Signal>);

#[cfg(unix)]
impl Asked {
    fn catch() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        let caught = signal(SignalKind::hangup());
        Self(caught.inspect_err(|error| tracing::warn!(%error, "cannot catch SIGHUP")).ok())
    }
    async fn next(&mut self) {
        match &mut self.0 {
            Some(signal) => drop(signal.recv().await),
            None => std::future::pending().await,
        }
    }
}

/// Other systems have no such word: there the file is looked at only.
#[cfg(not(unix))]
struct Asked;

#[cfg(not(unix))]
impl Asked {
    fn catch() -> Self {
        Self
    }
    async fn next(&mut self) {
        std::future::pending().await
    }
}
