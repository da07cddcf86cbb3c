//! Where things lie when nobody says: the user's folders by the rules of each system.

use std::path::{Path, PathBuf};

use etcetera::{BaseStrategy, base_strategy};

use crate::error::{Error, Result};

/// The name of this program's folders.
const NAME: &str = "colibri";

/// The home folder of the user.
///
/// # Errors
/// When the system does not tell.
pub(crate) fn home() -> Result<PathBuf> {
    etcetera::home_dir().map_err(|_| Error::NoHome)
}

fn strategy() -> Result<impl BaseStrategy> {
    base_strategy::choose_base_strategy().map_err(|_| Error::NoHome)
}

/// The index that is meant when none is named.
///
/// # Errors
/// When the home folder is unknown.
pub(crate) fn default_index() -> Result<PathBuf> {
    Ok(strategy()?.data_dir().join(NAME).join("index"))
}

/// What can be made again.
///
/// # Errors
/// When the home folder is unknown.
pub(crate) fn cache() -> Result<PathBuf> {
    Ok(strategy()?.cache_dir().join(NAME))
}

/// Where packed matrices are kept.
///
/// # Errors
/// When the home folder is unknown.
pub(crate) fn packed() -> Result<PathBuf> {
    Ok(cache()?.join("packed"))
}

/// The configuration file that is read when none is named.
///
/// # Errors
/// When the home folder is unknown.
pub(crate) fn default_config() -> Result<PathBuf> {
    Ok(strategy()?.config_dir().join(NAME).join("config.toml"))
}

/// A document's path as it is shown: relative to the current folder where it lies below it.
pub(crate) fn shown(path: &str) -> String {
    let here = std::env::current_dir().and_then(fs_err::canonicalize).ok();
    let below = here
        .as_deref()
        .and_then(|here| Path::new(path).strip_prefix(here).ok());
    match below.and_then(Path::to_str) {
        Some(below) if !below.is_empty() => below.to_owned(),
        _ => path.to_owned(),
    }
}

/// The last part of a document's path, by which answers cite it.
pub(crate) fn name(path: &str) -> String {
    Path::new(path).file_name().map_or_else(
        || path.to_owned(),
        |name| name.to_string_lossy().into_owned(),
    )
}

/// A path as the index keeps it: absolute, links followed where it still exists.
pub(crate) fn absolute(path: &Path) -> PathBuf {
    if let Ok(found) = fs_err::canonicalize(path) {
        return found;
    }
    // Gone: its folder may still be there, reached through a link.
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    match (whole.parent().map(fs_err::canonicalize), whole.file_name()) {
        (Some(Ok(folder)), Some(name)) => folder.join(name),
        _ => whole,
    }
}
