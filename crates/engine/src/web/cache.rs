//! What was fetched before: files by content, and beside them a note for each URL.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use reqwest::Url;
use serde::{Deserialize, Serialize};

use super::{Error, FetchConfig, Fetched, partial::Partial};

/// Where the notes are.
const NOTES: &str = ".urls";

/// What is remembered of a URL.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Known {
    url: String,
    path: PathBuf,
    bytes: u64,
    /// Seconds since 1970.
    fetched: u64,
    /// To ask whether it has changed.
    pub(super) etag: Option<String>,
    pub(super) last_modified: Option<String>,
}

impl Known {
    pub(super) fn is_fresh(&self, fresh_time: Duration) -> bool {
        // A clock that was turned back makes the age negative: then it is asked for.
        let age = now().checked_sub(self.fetched);
        age.is_some_and(|age| age < fresh_time.as_secs())
    }

    pub(super) fn fetched(&self) -> Fetched {
        Fetched {
            path: self.path.clone(),
            bytes: self.bytes,
            from_cache: true,
        }
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

fn note_of(config: &FetchConfig, url: &Url) -> PathBuf {
    let hash = blake3::hash(url.as_str().as_bytes()).to_hex();
    config
        .folder
        .join(NOTES)
        .join(format!("{}.json", &hash[..32]))
}

/// What is known of a URL, if its file is still there.
pub(super) fn find(config: &FetchConfig, url: &Url) -> Option<Known> {
    let note = fs_err::read(note_of(config, url)).ok()?;
    let known: Known = serde_json::from_slice(&note).ok()?;
    let inside = known.path.starts_with(&config.folder);
    let length = fs_err::metadata(&known.path).ok()?.len();
    (known.url == url.as_str() && inside && length == known.bytes).then_some(known)
}

/// Gives a file that is complete its place, and remembers the URL.
pub(super) fn keep(
    config: &FetchConfig,
    url: &Url,
    partial: Partial,
    whole: Whole<'_>,
) -> Result<Fetched, Error> {
    let home = config.folder.join(&whole.hash[..16]);
    let path = home.join(whole.name);
    let failed = |source| Error::Keep {
        path: path.clone(),
        source,
    };
    fs_err::create_dir_all(&home).map_err(failed)?;
    partial.rename(&path).map_err(failed)?;
    let known = Known {
        url: url.to_string(),
        path: path.clone(),
        bytes: whole.bytes,
        fetched: now(),
        etag: whole.etag,
        last_modified: whole.last_modified,
    };
    remember(config, url, &known)?;
    Ok(Fetched {
        from_cache: false,
        ..known.fetched()
    })
}

/// The file of a URL has not changed.
pub(super) fn unchanged(config: &FetchConfig, url: &Url, known: &Known) -> Result<Fetched, Error> {
    let known = Known {
        fetched: now(),
        ..known.clone()
    };
    remember(config, url, &known)?;
    Ok(known.fetched())
}

fn remember(config: &FetchConfig, url: &Url, known: &Known) -> Result<(), Error> {
    let note = note_of(config, url);
    let failed = |source| Error::Keep {
        path: note.clone(),
        source,
    };
    let folder = note.parent().unwrap_or(Path::new("."));
    fs_err::create_dir_all(folder).map_err(failed)?;
    let text = serde_json::to_vec(known).unwrap_or_default();
    let partial = Partial::new(folder).map_err(failed)?;
    fs_err::write(partial.path(), text).map_err(failed)?;
    partial.rename(&note).map_err(failed)
}

/// A file that came whole.
pub(super) struct Whole<'a> {
    pub(super) hash: &'a str,
    pub(super) name: &'a str,
    pub(super) bytes: u64,
    pub(super) etag: Option<String>,
    pub(super) last_modified: Option<String>,
}
