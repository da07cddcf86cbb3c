//! A small client of the Hugging Face hub over its standard cache.
//!
//! A hub name becomes a folder of ordinary files: [`Hub::snapshot`] asks the hub for the commit and its
//! files, brings what is missing (resumed where it was broken off, each file checked by SHA-256 or its
//! git name) and hands out the folder. The cache is the one of `huggingface_hub`, read and written in
//! its layout, so that a model fetched by Python is not fetched again, and the other way round.
//!
//! Own code rather than the `hf-hub` crate, which has neither resume nor offline mode. Only what is
//! needed to load a model is ever fetched: settings and safetensors, no pickles, no programs.
//!
//! Limits: one file at a time; plain HTTPS also for repositories on Xet storage, which the hub serves
//! as well; no uploads, data sets or spaces.

mod ask;
mod cache;
mod checksum;
mod config;
mod error;
mod fetch;
mod files;
mod hint;
mod listing;
mod lock;
mod name;
mod progress;
mod remote;
mod sink;

use std::path::PathBuf;

use cache::{Holding, RepoCache};
use fetch::Fetcher;
use files::RepoFile;
use progress::Meter;
use remote::Remote;

pub use config::{DEFAULT_ENDPOINT, HubConfig, Retry, Timeouts};
pub use error::Error;
pub use files::FileSet;
pub use listing::{CachedModel, CachedRevision};
pub use name::ModelName;
pub use progress::{Bytes, Progress};

/// The revision that is meant when none is named.
const DEFAULT_REVISION: &str = "main";

/// The hub and its cache.
#[derive(Debug, Clone)]
pub struct Hub {
    config: HubConfig,
}

/// A model's files at one commit, on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// `<cache>/models--owner--name/snapshots/<commit>`.
    pub dir: PathBuf,
    /// The commit: 40 hexadecimal digits.
    pub commit: String,
    /// The wanted files that are there, sorted.
    pub files: Vec<String>,
}

impl Snapshot {
    /// The path of a file of this snapshot, if it is there.
    pub fn path(&self, file: &str) -> Option<PathBuf> {
        self.files
            .iter()
            .any(|name| name == file)
            .then(|| self.dir.join(file))
    }
}

impl Hub {
    /// Nothing is opened or sent yet; an address that cannot be used is told by [`Self::snapshot`].
    pub fn new(config: HubConfig) -> Self {
        Self { config }
    }

    /// The settings this hub was made with.
    pub fn config(&self) -> &HubConfig {
        &self.config
    }

    /// The cached snapshot of a whole checkpoint, if all that is needed to load it is there. Never
    /// uses the network.
    ///
    /// `revision` goes before the one in `name`; without either it is `main`.
    pub fn cached(&self, name: &ModelName, revision: Option<&str>) -> Option<Snapshot> {
        let revision = pick_revision(name, revision).ok()?;
        self.usable(&self.repo(name), revision, FileSet::checkpoint())
    }

    /// The models in the cache, sorted by name.
    ///
    /// # Errors
    /// [`Error::Io`] when the cache is there and cannot be read.
    pub fn list_cached(&self) -> Result<Vec<CachedModel>, Error> {
        listing::list(&self.config.cache_dir)
    }

    /// Brings a model's files into the cache and hands out their folder.
    ///
    /// `revision` (a branch, tag, reference or commit) goes before the one in `name`; without either it
    /// is `main`. A full commit that is complete in the cache is not asked for again; anything else costs
    /// one request when nothing has changed. When the hub cannot be reached, a cached snapshot serves
    /// ([`Progress::FromCache`]). Dropping the future stops the fetch; the next one goes on from there.
    ///
    /// # Errors
    /// Any [`Error`]; [`Error::hint`] says what to do.
    pub async fn snapshot(
        &self,
        name: &ModelName,
        revision: Option<&str>,
        want: &FileSet,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Snapshot, Error> {
        let revision = pick_revision(name, revision)?;
        let repo = self.repo(name);
        if self.config.offline {
            return self.offline(&repo, revision, *want);
        }
        if name::is_commit(revision) && repo.holding(revision, *want) == Holding::Complete {
            return Ok(snapshot_of(&repo, revision, *want));
        }
        let spare = self.usable(&repo, revision, *want);
        let remote = Remote::new(&self.config)?;
        let asked = self
            .ask_hub(&remote, &repo, revision, *want, spare.is_some(), progress)
            .await;
        let (commit, listing) = match (asked, spare) {
            (Ok(asked), _) => asked,
            (Err(error), Some(spare)) if error.is_transient() => {
                let commit = spare.commit.clone();
                progress(Progress::FromCache {
                    commit,
                    reason: error.to_string(),
                });
                return Ok(spare);
            }
            (Err(error), _) => return Err(error),
        };
        if let Some(listing) = listing {
            self.bring_all(&remote, &repo, &commit, &listing, *want, progress)
                .await?;
            repo.write_absent(&commit, |file| listing.iter().any(|f| f.path == file));
        }
        repo.write_ref(revision, &commit)?;
        Ok(snapshot_of(&repo, &commit, *want))
    }

    /// The commit of a revision, and its files unless the cache is known to hold them all.
    async fn ask_hub(
        &self,
        remote: &Remote,
        repo: &RepoCache,
        revision: &str,
        want: FileSet,
        has_spare: bool,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<(String, Option<Vec<RepoFile>>), Error> {
        let commit = if name::is_commit(revision) {
            revision.to_owned()
        } else {
            // With something to fall back on, one failure is enough: nobody waits without a network.
            let attempts = if has_spare {
                1
            } else {
                self.config.retry.attempts
            };
            remote
                .commit(&repo.name, revision, attempts, progress)
                .await?
        };
        if repo.holding(&commit, want) == Holding::Complete {
            return Ok((commit, None));
        }
        let listing = remote.files(&repo.name, &commit, progress).await?;
        Ok((commit, Some(listing)))
    }

    /// Brings every file of the plan, the index of a sharded checkpoint first.
    async fn bring_all(
        &self,
        remote: &Remote,
        repo: &RepoCache,
        commit: &str,
        listing: &[RepoFile],
        want: FileSet,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<(), Error> {
        let fetcher = Fetcher {
            remote,
            repo,
            commit,
            retry: self.config.retry,
        };
        let mut selection = want.select(&repo.name, commit, listing)?;
        if let Some(index) = &selection.index {
            // Before the plan is told: the sizes of the shards are part of it.
            fetcher
                .bring(index, &Meter::new(&|_| {}, 0, index.bytes))
                .await?;
            let path = repo.snapshot_dir(commit).join(&index.path);
            for shard in files::shards(&repo.name, &path)? {
                let file = listing
                    .iter()
                    .find(|file| file.path == shard)
                    .cloned()
                    .ok_or_else(|| Error::MissingShard {
                        name: repo.name.clone(),
                        shard: error::shortened(&shard),
                    })?;
                selection.files.push(file);
            }
        }
        let plan = selection.files;
        let is_there = |file: &RepoFile| repo.holds_file(commit, &file.path, file.bytes);
        let total = plan
            .iter()
            .fold(0u64, |sum, file| sum.saturating_add(file.bytes));
        let mut done: u64 = plan.iter().filter(|f| is_there(f)).map(|f| f.bytes).sum();
        progress(Progress::Planned {
            commit: commit.to_owned(),
            files: plan.len(),
            all: Bytes { done, total },
        });
        for file in &plan {
            if is_there(file) {
                continue;
            }
            fetcher
                .bring(file, &Meter::new(progress, done, total))
                .await?;
            done = done.saturating_add(file.bytes);
        }
        Ok(())
    }

    /// The cached snapshot, or why there is none.
    fn offline(&self, repo: &RepoCache, revision: &str, want: FileSet) -> Result<Snapshot, Error> {
        let commit = repo
            .commit_of(revision)
            .filter(|commit| repo.snapshot_dir(commit).is_dir());
        let Some(commit) = commit else {
            return Err(Error::Offline {
                name: repo.name.clone(),
                revision: revision.to_owned(),
                cache: self.config.cache_dir.clone(),
                held: repo.commits(),
            });
        };
        match repo.holding(&commit, want) {
            Holding::Complete | Holding::Usable => Ok(snapshot_of(repo, &commit, want)),
            Holding::Lacking(missing) => Err(Error::OfflineIncomplete {
                name: repo.name.clone(),
                folder: repo.snapshot_dir(&commit),
                missing,
            }),
        }
    }

    /// The cached snapshot of a revision, if it can be loaded.
    fn usable(&self, repo: &RepoCache, revision: &str, want: FileSet) -> Option<Snapshot> {
        self.offline(repo, revision, want).ok()
    }

    fn repo(&self, name: &ModelName) -> RepoCache {
        RepoCache::new(&self.config.cache_dir, name)
    }
}

/// The revision that is meant, checked.
fn pick_revision<'a>(name: &'a ModelName, revision: Option<&'a str>) -> Result<&'a str, Error> {
    let revision = revision.or(name.revision()).unwrap_or(DEFAULT_REVISION);
    name::check_revision(revision)?;
    Ok(revision)
}

fn snapshot_of(repo: &RepoCache, commit: &str, want: FileSet) -> Snapshot {
    Snapshot {
        dir: repo.snapshot_dir(commit),
        commit: commit.to_owned(),
        files: repo.files(commit, want),
    }
}
