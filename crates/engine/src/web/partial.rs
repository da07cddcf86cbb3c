//! Files that are removed unless they are renamed.

use std::{
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

static NUMBER: AtomicU64 = AtomicU64::new(0);

/// A file that is not whole yet.
#[derive(Debug)]
pub(super) struct Partial(PathBuf);

impl Partial {
    pub(super) fn new(folder: &Path) -> io::Result<Self> {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!(".partial-{}-{number}", std::process::id());
        let path = folder.join(name);
        fs_err::File::create(&path)?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn rename(self, to: &Path) -> io::Result<()> {
        fs_err::rename(&self.0, to)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // Renamed, it is no longer there.
        drop(fs_err::remove_file(&self.0));
    }
}
