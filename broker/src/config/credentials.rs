//! `[[credentials]]` and `[[policies]]`: who may use the broker. What they say is described at
//! [`AccessSettings`]; it is in force from the start, and again whenever the file changes.

use super::file::File;
use crate::auth::AccessSettings;
use crate::error::Result;
use std::path::Path;

/// The part of the file that is about access. A mistake anywhere in the file is one here.
pub(crate) fn read_access(path: &Path) -> Result<AccessSettings> {
    let file = File::read(path)?;
    Ok(compose(Some(path), &file))
}

pub(super) fn compose(path: Option<&Path>, file: &File) -> AccessSettings {
    AccessSettings {
        credentials: file.credentials.clone(),
        policies: file.policies.clone(),
        file: path.map(Path::to_owned),
    }
}
