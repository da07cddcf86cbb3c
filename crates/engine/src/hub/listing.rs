//! What the cache holds, for `colibri models`.

use std::path::Path;

use super::cache::RepoCache;
use super::error::Error;
use super::name::{ModelName, is_commit};

/// A model in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedModel {
    /// Its name, without a revision.
    pub name: ModelName,
    /// Its snapshots, sorted by commit.
    pub revisions: Vec<CachedRevision>,
    /// Bytes on disk, each blob once, downloads that were broken off included.
    pub bytes: u64,
}

/// A snapshot of a model in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedRevision {
    /// The commit.
    pub commit: String,
    /// Branches and tags that stand at it, as far as the cache knows, sorted.
    pub references: Vec<String>,
    /// Files that are there, of any kind, folders within included.
    pub files: usize,
    /// Their bytes; two snapshots may share them.
    pub bytes: u64,
}

/// Folders within folders of a cache: deeper ones are not ours.
const DEEPEST: usize = 8;

/// Lists the models in a cache folder, sorted by name. A folder that does not exist holds none.
///
/// # Errors
/// [`Error::Io`] when the folder is there and cannot be read.
pub(super) fn list(cache_dir: &Path) -> Result<Vec<CachedModel>, Error> {
    let entries = match fs_err::read_dir(cache_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
        Err(error) => return Err(Error::io(cache_dir, error)),
    };
    let mut models = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| Error::io(cache_dir, e))?;
        let Some(name) = entry.file_name().to_str().and_then(ModelName::from_folder) else {
            continue;
        };
        let folder = entry.path();
        let repo = RepoCache::new(cache_dir, &name);

        let mut references = Vec::new();
        walk(&folder.join("refs"), DEEPEST, &mut |path| {
            let revision = path
                .strip_prefix(folder.join("refs"))
                .ok()
                .and_then(Path::to_str);
            references.extend(revision.map(|text| text.replace('\\', "/")));
        })?;
        references.sort();

        let mut bytes = 0;
        walk(&folder.join("blobs"), 1, &mut |path| bytes += length(path))?;
        let mut revisions = Vec::new();
        for commit in repo.commits() {
            debug_assert!(is_commit(&commit));
            let (mut files, mut size) = (0, 0);
            walk(&repo.snapshot_dir(&commit), DEEPEST, &mut |path| {
                // Links to nothing are not there; copies take room of their own.
                if path.is_file() {
                    files += 1;
                    size += length(path);
                    if !path.is_symlink() {
                        bytes += length(path);
                    }
                }
            })?;
            let references = references
                .iter()
                .filter(|reference| repo.commit_of(reference).as_deref() == Some(&commit))
                .cloned()
                .collect();
            revisions.push(CachedRevision {
                commit,
                references,
                files,
                bytes: size,
            });
        }
        models.push(CachedModel {
            name,
            revisions,
            bytes,
        });
    }
    models.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(models)
}

/// Bytes of a file, through a link; 0 where it has just gone.
fn length(path: &Path) -> u64 {
    fs_err::metadata(path).map_or(0, |metadata| metadata.len())
}

/// Calls `each` on everything under `folder` that is not a folder. Links to folders are not entered.
fn walk(folder: &Path, depth: usize, each: &mut dyn FnMut(&Path)) -> Result<(), Error> {
    let entries = match fs_err::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io(folder, error)),
    };
    for entry in entries {
        let entry = entry.map_err(|e| Error::io(folder, e))?;
        let kind = entry.file_type().map_err(|e| Error::io(entry.path(), e))?;
        if !kind.is_dir() {
            each(&entry.path());
        } else if depth > 1 {
            walk(&entry.path(), depth - 1, each)?;
        }
    }
    Ok(())
}
