//! One model's folder in the Hugging Face cache, read and written as `huggingface_hub` does.
//!
//! ```text
//! <cache>/models--owner--name/
//!     blobs/<checksum>                    the bytes; `<checksum>.incomplete` while they arrive
//!     refs/<revision>                     the commit a branch or tag stood at, without a line end
//!     snapshots/<commit>/<file>           link to ../../blobs/<checksum>, or a copy
//!     .no_exist/<commit>/<file>           empty: this commit has no such file
//! <cache>/.locks/models--owner--name/<checksum>.lock
//! ```
//!
//! Blobs appear by renaming, complete and checked; references are written last. A crash at any
//! instant leaves the old snapshot in use.

use std::io;
use std::path::{Path, PathBuf};

use super::error::Error;
use super::files::{ADAPTER, FileSet, INDEX, SETTINGS, WEIGHTS, shards};
use super::name::{ModelName, is_commit};

/// One model's folder.
#[derive(Debug, Clone)]
pub(super) struct RepoCache {
    pub(super) name: String,
    folder: PathBuf,
    locks: PathBuf,
}

/// How much of a file set a snapshot holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Holding {
    /// Everything that this commit has: known without asking the hub.
    Complete,
    /// Enough to load; whether the commit has more is not known.
    Usable,
    /// Not enough: these are missing.
    Lacking(Vec<String>),
}

impl RepoCache {
    pub(super) fn new(cache_dir: &Path, name: &ModelName) -> Self {
        let folder = name.folder();
        Self {
            name: name.repository(),
            locks: cache_dir.join(".locks").join(&folder),
            folder: cache_dir.join(folder),
        }
    }

    pub(super) fn snapshot_dir(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    pub(super) fn blob(&self, hex: &str) -> PathBuf {
        self.folder.join("blobs").join(hex)
    }

    pub(super) fn incomplete(&self, hex: &str) -> PathBuf {
        self.folder.join("blobs").join(format!("{hex}.incomplete"))
    }

    pub(super) fn lock(&self, hex: &str) -> PathBuf {
        self.locks.join(format!("{hex}.lock"))
    }

    /// Whether the blob is there with all its bytes.
    pub(super) fn holds_blob(&self, hex: &str, bytes: u64) -> bool {
        fs_err::metadata(self.blob(hex)).is_ok_and(|m| m.is_file() && m.len() == bytes)
    }

    /// Whether a snapshot's file is there with all its bytes, be it a link or a copy.
    pub(super) fn holds_file(&self, commit: &str, file: &str, bytes: u64) -> bool {
        fs_err::metadata(self.snapshot_dir(commit).join(file))
            .is_ok_and(|m| m.is_file() && m.len() == bytes)
    }

    /// The commit that a revision stands for by what the cache knows: itself, or that of its reference.
    pub(super) fn commit_of(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_owned());
        }
        let path = self.folder.join("refs").join(revision);
        // A reference is one commit; anything longer is none and is not read whole.
        let length = fs_err::metadata(&path)
            .ok()
            .filter(std::fs::Metadata::is_file)?
            .len();
        let text = (length <= 64)
            .then(|| fs_err::read_to_string(&path).ok())
            .flatten()?;
        Some(text.trim().to_owned()).filter(|commit| is_commit(commit))
    }

    /// Commits of which the cache holds a snapshot, sorted.
    pub(super) fn commits(&self) -> Vec<String> {
        let Ok(entries) = fs_err::read_dir(self.folder.join("snapshots")) else {
            return vec![];
        };
        let mut commits: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| is_commit(name))
            .collect();
        commits.sort();
        commits
    }

    /// How much of `want` the snapshot of `commit` holds. Never fails: what cannot be read is missing.
    pub(super) fn holding(&self, commit: &str, want: FileSet) -> Holding {
        let folder = self.snapshot_dir(commit);
        let present = |file: &str| folder.join(file).is_file();
        let known_absent = |file: &str| {
            self.folder
                .join(".no_exist")
                .join(commit)
                .join(file)
                .exists()
        };
        let settled = |file: &str| present(file) || known_absent(file);

        let mut missing = Vec::new();
        if !present("config.json") && !present("adapter_config.json") {
            missing.push("config.json".to_owned());
        }
        let mut complete = SETTINGS.iter().all(|file| settled(file));
        if want.weights {
            complete &= settled(ADAPTER);
            if present(WEIGHTS) {
                // One file is all there is to fetch.
            } else if present(INDEX) {
                complete &= known_absent(WEIGHTS);
                match shards(&self.name, &folder.join(INDEX)) {
                    Ok(shards) => {
                        missing.extend(shards.into_iter().filter(|shard| !present(shard)));
                    }
                    Err(_unreadable) => missing.push(INDEX.to_owned()),
                }
            } else {
                complete &= known_absent(WEIGHTS) && known_absent(INDEX) && present(ADAPTER);
                if !self
                    .files(commit, want)
                    .iter()
                    .any(|file| file.ends_with(".safetensors"))
                {
                    missing.push(WEIGHTS.to_owned());
                }
            }
        }
        match (missing.is_empty(), complete) {
            (false, _) => Holding::Lacking(missing),
            (true, true) => Holding::Complete,
            (true, false) => Holding::Usable,
        }
    }

    /// The files of `want` that the snapshot holds, sorted; links to nothing are not there.
    pub(super) fn files(&self, commit: &str, want: FileSet) -> Vec<String> {
        let folder = self.snapshot_dir(commit);
        let Ok(entries) = fs_err::read_dir(&folder) else {
            return vec![];
        };
        let mut files: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|file| want.includes(file) && folder.join(file).is_file())
            .collect();
        files.sort();
        files
    }

    /// Makes `snapshots/<commit>/<file>` stand for the blob: a relative link, else a hard link, else a copy.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::DiskFull`] for a copy.
    pub(super) fn place(&self, commit: &str, file: &str, hex: &str) -> Result<(), Error> {
        self.place_by(commit, file, hex, symlink, |from, to| {
            fs_err::hard_link(from, to)
        })
    }

    fn place_by(
        &self,
        commit: &str,
        file: &str,
        hex: &str,
        symlink: impl Fn(&Path, &Path) -> io::Result<()>,
        hard_link: impl Fn(&Path, &Path) -> io::Result<()>,
    ) -> Result<(), Error> {
        let folder = self.snapshot_dir(commit);
        fs_err::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
        let pointer = folder.join(file);
        let blob = self.blob(hex);
        let scratch = self.scratch();
        let _absent_is_fine = fs_err::remove_file(&scratch);
        symlink(&Path::new("../../blobs").join(hex), &scratch)
            .or_else(|_impossible_here| hard_link(&blob, &scratch))
            .or_else(|_impossible_here| fs_err::copy(&blob, &scratch).map(drop))
            // In one step, so that another process never finds the file missing.
            .and_then(|()| fs_err::rename(&scratch, &pointer))
            .map_err(|error| discard(&scratch, &pointer, error))?;
        // Renaming a hard link to another name of the same file leaves both.
        let _absent_is_fine = fs_err::remove_file(&scratch);
        Ok(())
    }

    /// Records the commit that a branch or tag stands at. A commit needs no record.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::DiskFull`].
    pub(super) fn write_ref(&self, revision: &str, commit: &str) -> Result<(), Error> {
        // Unchanged references are left alone: the cache may be read-only (huggingface_hub#1216).
        if revision == commit || self.commit_of(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.folder.join("refs").join(revision);
        if let Some(folder) = path.parent() {
            fs_err::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        }
        let scratch = self.scratch();
        fs_err::write(&scratch, commit)
            .and_then(|()| fs_err::rename(&scratch, &path))
            .map_err(|error| discard(&scratch, &path, error))
    }

    /// Records which of the usual files this commit does not have, so that the next start of a pinned
    /// commit asks nobody. Python reads the same record.
    ///
    /// A help and no more: where it cannot be written (a cache that may only be read), the hub is asked
    /// again next time.
    pub(super) fn write_absent(&self, commit: &str, is_listed: impl Fn(&str) -> bool) {
        let folder = self.folder.join(".no_exist").join(commit);
        for file in SETTINGS.iter().chain(&[WEIGHTS, INDEX, ADAPTER]) {
            let path = folder.join(file);
            if is_listed(file) || path.exists() {
                continue;
            }
            let written = fs_err::create_dir_all(&folder).and_then(|()| fs_err::write(&path, ""));
            if written.is_err() {
                return;
            }
        }
    }

    /// A name of our own in this folder for what is renamed into place. Each process and thread has one.
    fn scratch(&self) -> PathBuf {
        let thread = std::thread::current().id();
        self.folder
            .join(format!(".colibri-{}-{thread:?}", std::process::id()))
    }
}

/// Removes the scratch file after a failure, which stays the failure that is told.
fn discard(scratch: &Path, path: &Path, error: io::Error) -> Error {
    let _absent_is_fine = fs_err::remove_file(scratch);
    Error::io(path, error)
}

#[cfg(unix)]
fn symlink(target: &Path, pointer: &Path) -> io::Result<()> {
    fs_err::os::unix::fs::symlink(target, pointer)
}

#[cfg(windows)]
fn symlink(target: &Path, pointer: &Path) -> io::Result<()> {
    fs_err::os::windows::fs::symlink_file(target, pointer)
}

#[cfg(not(any(unix, windows)))]
fn symlink(_target: &Path, _pointer: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn repo(folder: &Path) -> RepoCache {
        let repo = RepoCache::new(folder, &"a/b".parse().unwrap());
        fs_err::create_dir_all(repo.folder.join("blobs")).unwrap();
        fs_err::write(repo.blob("abc"), "bytes").unwrap();
        repo
    }

    fn refuse(_: &Path, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    #[test]
    fn a_link_else_a_hard_link_else_a_copy() {
        let folder = tempfile::tempdir().unwrap();
        let repo = repo(folder.path());
        let pointer = repo.snapshot_dir(COMMIT).join("config.json");
        let is_link = || fs_err::symlink_metadata(&pointer).unwrap().is_symlink();

        repo.place_by(COMMIT, "config.json", "abc", refuse, refuse)
            .unwrap();
        assert_eq!(fs_err::read_to_string(&pointer).unwrap(), "bytes");
        assert!(!is_link());
        // The copy is one: the blob may change without it.
        fs_err::write(repo.blob("abc"), "other").unwrap();
        assert_eq!(fs_err::read_to_string(&pointer).unwrap(), "bytes");

        repo.place_by(COMMIT, "config.json", "abc", refuse, |a, b| {
            fs_err::hard_link(a, b)
        })
        .unwrap();
        assert_eq!(fs_err::read_to_string(&pointer).unwrap(), "other");
        assert!(!is_link());

        repo.place(COMMIT, "config.json", "abc").unwrap();
        assert_eq!(fs_err::read_to_string(&pointer).unwrap(), "other");
        #[cfg(unix)]
        assert_eq!(
            fs_err::read_link(&pointer).unwrap(),
            Path::new("../../blobs/abc")
        );
        let left: Vec<_> = fs_err::read_dir(&repo.folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with(".colibri"))
            .collect();
        assert_eq!(left, Vec::<String>::new());
    }

    #[test]
    fn references_are_commits_or_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let repo = repo(folder.path());
        assert_eq!(repo.commit_of("main"), None);
        repo.write_ref("main", COMMIT).unwrap();
        repo.write_ref("refs/pr/1", COMMIT).unwrap();
        repo.write_ref(COMMIT, COMMIT).unwrap();
        assert_eq!(repo.commit_of("main").as_deref(), Some(COMMIT));
        assert_eq!(repo.commit_of("refs/pr/1").as_deref(), Some(COMMIT));
        assert_eq!(repo.commit_of(COMMIT).as_deref(), Some(COMMIT));
        assert!(!repo.folder.join("refs").join(COMMIT).exists());
        let main = repo.folder.join("refs/main");
        assert_eq!(fs_err::read_to_string(&main).unwrap(), COMMIT);
        for bad in ["", "../../../etc", &COMMIT[1..], &"a".repeat(1000)] {
            fs_err::write(&main, bad).unwrap();
            assert_eq!(repo.commit_of("main"), None, "`{bad}`");
        }
    }

    #[test]
    fn a_snapshot_is_complete_only_when_all_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let repo = repo(folder.path());
        let want = FileSet::checkpoint();
        let lacking =
            |files: &[&str]| Holding::Lacking(files.iter().map(|f| (*f).into()).collect());
        assert_eq!(
            repo.holding(COMMIT, want),
            lacking(&["config.json", WEIGHTS])
        );
        repo.place(COMMIT, "config.json", "abc").unwrap();
        assert_eq!(repo.holding(COMMIT, want), lacking(&[WEIGHTS]));
        assert_eq!(repo.holding(COMMIT, FileSet::settings()), Holding::Usable);
        repo.place(COMMIT, WEIGHTS, "abc").unwrap();
        assert_eq!(repo.holding(COMMIT, want), Holding::Usable);
        repo.write_absent(COMMIT, |file| ["config.json", WEIGHTS].contains(&file));
        assert_eq!(repo.holding(COMMIT, want), Holding::Complete);
        // A link whose blob is gone is no file.
        fs_err::remove_file(repo.blob("abc")).unwrap();
        assert_eq!(
            repo.holding(COMMIT, want),
            lacking(&["config.json", WEIGHTS])
        );
    }

    #[test]
    fn shards_that_are_missing_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let repo = repo(folder.path());
        let index = r#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}"#;
        fs_err::write(repo.blob("1d"), index).unwrap();
        repo.place(COMMIT, "config.json", "abc").unwrap();
        repo.place(COMMIT, INDEX, "1d").unwrap();
        repo.place(COMMIT, "model-2.safetensors", "abc").unwrap();
        let holding = repo.holding(COMMIT, FileSet::checkpoint());
        assert_eq!(
            holding,
            Holding::Lacking(vec!["model-1.safetensors".into()])
        );
        fs_err::write(repo.blob("1d"), "not json").unwrap();
        let holding = repo.holding(COMMIT, FileSet::checkpoint());
        assert_eq!(holding, Holding::Lacking(vec![INDEX.into()]));
    }
}
