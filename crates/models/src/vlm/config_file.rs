//! `config.json`: read, and checked before anything is sized by it.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{Error, Result};

/// The path and contents of `config.json` in `folder`.
///
/// # Errors
/// When it cannot be read or is no JSON.
pub(crate) fn load(folder: &Path) -> Result<(PathBuf, Value)> {
    let path = folder.join("config.json");
    let bytes = fs_err::read(&path).map_err(|source| Error::Io {
        path: path.clone(),
        source,
    })?;
    match serde_json::from_slice(&bytes) {
        Ok(value) => Ok((path, value)),
        Err(source) => Err(Error::Json { path, source }),
    }
}

/// What was read from the file `path`, if `check` finds nothing that is impossible.
///
/// # Errors
/// When it is not what it should be, or describes no model that can be run.
pub(super) fn checked<C>(
    path: &Path,
    read: std::result::Result<C, serde_json::Error>,
    check: impl Fn(&C) -> std::result::Result<(), String>,
) -> Result<C> {
    let config = read.map_err(|source| Error::Json {
        path: path.to_owned(),
        source,
    })?;
    check(&config).map_err(|reason| Error::Config {
        path: path.to_owned(),
        reason,
    })?;
    Ok(config)
}
