//! Where a checkpoint's small files come from.
//!
//! An adapter repository carries some of the processor's files and leaves the others to its base
//! (`colsmolvlm-alpha` had no `processor_config.json` for months), so a file is looked for in two
//! folders, the adapter's first.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde_json::Value;

use super::error::{Error, Result};

/// Greatest size of a JSON or template file other than the tokenizer: the largest known
/// (`tokenizer_config.json` of a tokenizer with reserved tokens) is 55 kB.
const SMALL_FILE_BYTES: u64 = 16 << 20;

/// Greatest size of `tokenizer.json`; Gemma's, the largest in use, has 34 MB.
const TOKENIZER_FILE_BYTES: u64 = 256 << 20;

/// The folders that hold a checkpoint's processor, tokenizer and template files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessorFiles {
    /// The checkpoint, or the adapter.
    pub dir: PathBuf,
    /// The base checkpoint of an adapter, asked where `dir` lacks a file.
    pub fallback: Option<PathBuf>,
}

/// A file's contents with the path they came from.
#[derive(Debug, Clone)]
pub(super) struct FileBytes {
    pub(super) path: PathBuf,
    pub(super) bytes: Vec<u8>,
}

/// A JSON file with the path it came from.
#[derive(Debug, Clone)]
pub(super) struct JsonFile {
    pub(super) path: PathBuf,
    pub(super) value: Value,
}

impl ProcessorFiles {
    /// The files of one folder.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            fallback: None,
        }
    }

    /// The files of an adapter, and those of its base where the adapter has none.
    #[must_use]
    pub fn with_fallback(mut self, base: impl Into<PathBuf>) -> Self {
        self.fallback = Some(base.into());
        self
    }

    /// The folders in the order in which they are asked.
    pub(super) fn dirs(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(self.dir.as_path()).chain(self.fallback.as_deref())
    }

    /// The folders, for an error.
    pub(super) fn dir_list(&self) -> Vec<PathBuf> {
        self.dirs().map(Path::to_path_buf).collect()
    }

    /// The tokenizer file of the first folder that has one.
    ///
    /// # Errors
    /// [`Error::MissingFile`], [`Error::Read`], [`Error::TooLarge`].
    pub(super) fn tokenizer(&self) -> Result<FileBytes> {
        const FILE: &str = "tokenizer.json";
        for dir in self.dirs() {
            if let Some(file) = read_limited(dir.join(FILE), TOKENIZER_FILE_BYTES)? {
                return Ok(file);
            }
        }
        Err(Error::MissingFile {
            file: FILE,
            dirs: self.dir_list(),
        })
    }

    /// The named JSON file of the first folder that has one.
    pub(super) fn json(&self, name: &str) -> Result<Option<JsonFile>> {
        for dir in self.dirs() {
            if let Some(file) = json_in(dir, name)? {
                return Ok(Some(file));
            }
        }
        Ok(None)
    }
}

/// A JSON file of one folder; `None` where there is no such file.
pub(super) fn json_in(dir: &Path, name: &str) -> Result<Option<JsonFile>> {
    let Some(FileBytes { path, bytes }) = read_limited(dir.join(name), SMALL_FILE_BYTES)? else {
        return Ok(None);
    };
    match serde_json::from_slice(&bytes) {
        Ok(value) => Ok(Some(JsonFile { path, value })),
        Err(source) => Err(Error::Json { path, source }),
    }
}

/// A text file of one folder; `None` where there is no such file.
pub(super) fn text_in(dir: &Path, name: &str) -> Result<Option<(PathBuf, String)>> {
    let Some(FileBytes { path, bytes }) = read_limited(dir.join(name), SMALL_FILE_BYTES)? else {
        return Ok(None);
    };
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some((path, text))),
        Err(_) => Err(Error::NotText { path }),
    }
}

/// Reads a whole file of at most `limit` bytes; `None` where there is no such file.
fn read_limited(path: PathBuf, limit: u64) -> Result<Option<FileBytes>> {
    let read = |source| Error::Read {
        path: path.clone(),
        source,
    };
    let file = match fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(read(error)),
    };
    let found = file.metadata().map_err(read)?.len();
    if found > limit {
        return Err(Error::TooLarge { path, found, limit });
    }
    // The file may grow while it is read (or be a pipe of unknown length): the limit holds anyway.
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(read)?;
    if bytes.len() as u64 > limit {
        let found = bytes.len() as u64;
        return Err(Error::TooLarge { path, found, limit });
    }
    Ok(Some(FileBytes { path, bytes }))
}
