//! Lines to stdout. A reader that has gone away is an end, not a failure.

use crate::error::{Error, Result};
use std::io::{ErrorKind, Write};

/// Prints a line and flushes it.
pub(super) fn line(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Error::because("cannot write to stdout", error))
        }
        _ => Ok(()),
    }
}

/// Prints a value as one line of JSON.
pub(super) fn json(value: &impl serde::Serialize) -> Result<()> {
    line(&serde_json::to_string(value).map_err(|e| Error::because("cannot write JSON", e))?)
}
