//! Finding the documents under the paths a person names.
//!
//! Folders are looked through recursively in sorted order by the rules users of ripgrep know:
//! hidden files and what `.gitignore` (within a git repository), `.ignore` and `.colibriignore`
//! name are left out, and links inside folders are not followed unless asked for. What a person
//! names directly is always taken. Files that are neither PDF nor picture are passed over inside a
//! folder and an error when named.
//!
//! `include` and `exclude` are gitignore patterns relative to the folder named: `*.pdf` matches at
//! any depth, `drafts/` a folder, `/a/*.png` from the top. They filter what the other rules leave
//! and bring nothing back.

use std::collections::HashSet;
use std::io::Read;
use std::path::{Path, PathBuf};

use fs_err::File;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use ignore::{DirEntry, WalkBuilder};

use crate::error::{Error, Result};
use crate::sniff::{Kind, SNIFF_BYTES, sniff};

/// This program's own ignore file, beside `.gitignore` and `.ignore`.
const IGNORE_FILE: &str = ".colibriignore";

/// What to take from folders.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WalkOptions {
    /// Where not empty, only files that match one of these patterns.
    pub include: Vec<String>,
    /// No file that matches one of these patterns, and nothing in a folder that does.
    pub exclude: Vec<String>,
    /// Hidden files and folders too.
    pub hidden: bool,
    /// Do not read ignore files.
    pub no_ignore: bool,
    /// Follow links to files and folders inside folders.
    pub follow_links: bool,
}

/// A document found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its path: the path named, or below the folder named.
    pub path: PathBuf,
    /// What it is, by its first bytes.
    pub kind: Kind,
    /// Whether the path itself was named.
    pub named: bool,
}

/// What a walk came to; iterating over it gives the documents and errors in order.
#[derive(Debug, Default)]
pub struct Collected {
    /// Documents and what went wrong, in the order of the paths named and sorted within each.
    pub found: Vec<Result<Found>>,
    /// Files inside folders that are neither PDF nor picture.
    pub num_skipped: usize,
}

impl IntoIterator for Collected {
    type Item = Result<Found>;
    type IntoIter = std::vec::IntoIter<Result<Found>>;

    fn into_iter(self) -> Self::IntoIter {
        self.found.into_iter()
    }
}

/// Collects the documents at and under `paths`, each once.
///
/// A path that does not exist, cannot be read, or is named and unsupported is an error in its
/// place; the rest is collected all the same.
pub fn collect<P: AsRef<Path>>(
    paths: impl IntoIterator<Item = P>,
    options: &WalkOptions,
) -> Collected {
    let mut walk = Walk {
        options,
        out: Collected::default(),
        seen: HashSet::new(),
    };
    for path in paths {
        let path = path.as_ref();
        match fs_err::metadata(path) {
            Err(e) => walk.out.found.push(Err(Error::Io(e))),
            Ok(metadata) if metadata.is_dir() => walk.folder(path),
            Ok(metadata) if metadata.is_file() => walk.file(path, true),
            Ok(_) => {
                let path = path.to_path_buf();
                walk.out.found.push(Err(Error::NotAFile { path }));
            }
        }
    }
    walk.out
}

struct Walk<'a> {
    options: &'a WalkOptions,
    out: Collected,
    /// Canonical paths already taken.
    seen: HashSet<PathBuf>,
}

impl Walk<'_> {
    fn folder(&mut self, root: &Path) {
        let patterns = patterns(root, &self.options.include)
            .and_then(|include| Ok((include, patterns(root, &self.options.exclude)?)));
        let (include, exclude) = match patterns {
            Ok(patterns) => patterns,
            Err(e) => {
                self.out.found.push(Err(e));
                return;
            }
        };
        let read_ignore = !self.options.no_ignore;
        let mut builder = WalkBuilder::new(root);
        builder
            .hidden(!self.options.hidden)
            .ignore(read_ignore)
            .git_ignore(read_ignore)
            .git_global(read_ignore)
            .git_exclude(read_ignore)
            .parents(read_ignore)
            .follow_links(self.options.follow_links)
            .sort_by_file_name(std::ffi::OsStr::cmp);
        if read_ignore {
            builder.add_custom_ignore_filename(IGNORE_FILE);
        }
        builder.filter_entry(move |entry| {
            entry.depth() == 0 || !exclude.matched(entry.path(), is_folder(entry)).is_ignore()
        });
        for entry in builder.build() {
            match entry {
                Ok(entry) => {
                    let is_file = entry.file_type().is_some_and(|t| t.is_file());
                    let wanted = self.options.include.is_empty()
                        || include
                            .matched_path_or_any_parents(entry.path(), false)
                            .is_ignore();
                    if is_file && wanted {
                        self.file(entry.path(), false);
                    }
                }
                // A link that leads back up is not followed, which is all there is to do.
                Err(e) if is_loop(&e) => {}
                Err(reason) => {
                    let path = root.to_path_buf();
                    self.out.found.push(Err(Error::Walk { path, reason }));
                }
            }
        }
    }

    fn file(&mut self, path: &Path, named: bool) {
        let canonical = match fs_err::canonicalize(path) {
            Ok(canonical) => canonical,
            Err(e) => {
                self.out.found.push(Err(Error::Io(e)));
                return;
            }
        };
        if self.seen.contains(&canonical) {
            return;
        }
        let found = match head(path) {
            Err(e) => Err(Error::Io(e)),
            Ok(head) => match sniff(&head) {
                Some(kind) => Ok(Found {
                    path: path.to_path_buf(),
                    kind,
                    named,
                }),
                None if !named => {
                    self.out.num_skipped += 1;
                    return;
                }
                None if head.is_empty() => Err(Error::Empty {
                    path: path.to_path_buf(),
                }),
                None => Err(Error::Unsupported {
                    path: path.to_path_buf(),
                }),
            },
        };
        self.seen.insert(canonical);
        self.out.found.push(found);
    }
}

fn patterns(root: &Path, patterns: &[String]) -> Result<Gitignore> {
    let fail = |pattern: &str, reason| Error::Pattern {
        pattern: pattern.to_owned(),
        reason,
    };
    let mut builder = GitignoreBuilder::new(root);
    for pattern in patterns {
        builder
            .add_line(None, pattern)
            .map_err(|e| fail(pattern, e))?;
    }
    builder.build().map_err(|e| fail(&patterns.join(", "), e))
}

fn is_folder(entry: &DirEntry) -> bool {
    entry.file_type().is_some_and(|t| t.is_dir())
}

fn is_loop(error: &ignore::Error) -> bool {
    match error {
        ignore::Error::Loop { .. } => true,
        ignore::Error::WithDepth { err, .. }
        | ignore::Error::WithPath { err, .. }
        | ignore::Error::WithLineNumber { err, .. } => is_loop(err),
        ignore::Error::Partial(_)
        | ignore::Error::Io(_)
        | ignore::Error::Glob { .. }
        | ignore::Error::UnrecognizedFileType(_)
        | ignore::Error::InvalidDefinition => false,
    }
}

fn head(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::new();
    File::open(path)?
        .take(SNIFF_BYTES as u64)
        .read_to_end(&mut head)?;
    Ok(head)
}
