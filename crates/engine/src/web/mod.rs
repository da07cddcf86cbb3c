//! Documents by URL: the one place that fetches what a person names.
//!
//! A URL is given by whoever asks, and may point at what only this machine can reach: its own services, its
//! neighbours, the metadata service of a cloud. So a name is resolved here, every address it has must be
//! public, and the connection goes to the addresses that were looked at and to no others; each redirect is a
//! new URL and is looked at in the same way. Proxies of the environment are not used, since they would
//! resolve names themselves. What comes must be a document by its first bytes, and is bounded in bytes and
//! in time.
//!
//! Files are kept by their content. A URL that was fetched a short while ago is not asked for again; one
//! that was fetched before is asked for only if it has changed, and serves where it cannot be reached.

mod address;
mod cache;
mod error;
mod name;
mod partial;
mod request;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

pub use error::Error;

use crate::Result;

/// How documents are fetched.
#[derive(Clone, Debug)]
pub struct FetchConfig {
    /// Where files are kept.
    pub folder: PathBuf,
    /// Bytes of a file at most.
    pub max_bytes: u64,
    /// For a connection, and between two pieces of an answer.
    pub idle_time: Duration,
    /// For all of a file, redirects included.
    pub total_time: Duration,
    /// How long a file serves without being asked for again.
    pub fresh_time: Duration,
    /// Also addresses that are not public.
    pub allow_private: bool,
    /// These addresses though they are not public.
    pub trusted: Vec<SocketAddr>,
}

impl FetchConfig {
    /// Files in `folder`, of at most 256 MiB, within ten minutes; fresh for a day.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            max_bytes: 256 << 20,
            idle_time: Duration::from_secs(30),
            total_time: Duration::from_mins(10),
            fresh_time: Duration::from_hours(24),
            allow_private: false,
            trusted: Vec::new(),
        }
    }
}

/// How far a fetch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Progress {
    /// Bytes that are here.
    pub done_bytes: u64,
    /// Bytes in all, where the other side says.
    pub total_bytes: Option<u64>,
}

/// A file that is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Where it is.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Whether it was here before.
    pub from_cache: bool,
}

/// Whether an argument is a URL to be fetched rather than a path.
pub fn is_url(text: &str) -> bool {
    let start = text.get(..8).unwrap_or(text).to_ascii_lowercase();
    start.starts_with("http://") || start.starts_with("https://")
}

/// Brings the document at `url` here; `stop` ends the work.
///
/// # Errors
/// [`Error`] with the reason; [`crate::Error::Cancelled`] when stopped.
pub fn fetch(
    config: &FetchConfig,
    url: &str,
    stop: &AtomicBool,
    on_progress: &(dyn Fn(Progress) + Sync),
) -> Result<Fetched> {
    let parsed = request::parse(url)?;
    let known = cache::find(config, &parsed);
    if let Some(known) = &known
        && known.is_fresh(config.fresh_time)
    {
        return Ok(known.fetched());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Runtime { source })?;
    let work = async {
        tokio::select! {
            fetched = request::get(config, &parsed, known.as_ref(), on_progress) => fetched.map_err(crate::Error::from),
            () = stopped(stop) => Err(crate::Error::Cancelled),
            () = tokio::time::sleep(config.total_time) => Err(Error::TooSlow {
                url: request::shown(&parsed),
                seconds: config.total_time.as_secs(),
            }.into()),
        }
    };
    match (runtime.block_on(work), known) {
        // What was here before is better than nothing while the other side is away; what is refused for
        // where it leads or for what it is stays refused.
        (Err(crate::Error::Web(error)), Some(known)) if error.is_absence() => Ok(known.fetched()),
        (fetched, _) => fetched,
    }
}

async fn stopped(stop: &AtomicBool) {
    let mut every = tokio::time::interval(Duration::from_millis(50));
    while !stop.load(Ordering::Relaxed) {
        every.tick().await;
    }
}
