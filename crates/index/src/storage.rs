//! The file operations segments are written with.
//!
//! Everything a segment writer does to the disk goes through [`Storage`], so that tests can put a
//! simulated one in its place: one that loses every write that was not synced, or runs out of space at a
//! chosen byte. The catalogue is SQLite's and has its own.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A file system, as far as segments need one.
pub trait Storage: fmt::Debug + Send + Sync {
    /// Creates a folder and its parents; an existing one is fine.
    ///
    /// # Errors
    /// What the system says.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Opens a file for writing: a new one (an existing one is an error) or an existing one.
    ///
    /// # Errors
    /// What the system says.
    fn open(&self, path: &Path, new: bool) -> io::Result<Box<dyn StorageFile>>;

    /// Makes the names in a folder durable.
    ///
    /// # Errors
    /// What the system says.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// The files in a folder, in no particular order.
    ///
    /// # Errors
    /// What the system says.
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>>;

    /// Removes a file.
    ///
    /// # Errors
    /// What the system says.
    fn remove(&self, path: &Path) -> io::Result<()>;
}

/// An open file of a [`Storage`].
pub trait StorageFile: fmt::Debug + Send + Sync {
    /// The length of the file in bytes.
    ///
    /// # Errors
    /// What the system says.
    fn num_bytes(&self) -> io::Result<u64>;

    /// Writes all of `bytes` at `offset`, lengthening the file as needed.
    ///
    /// # Errors
    /// What the system says; some of the bytes may have been written.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts the file at `len` bytes.
    ///
    /// # Errors
    /// What the system says.
    fn truncate(&mut self, len: u64) -> io::Result<()>;

    /// Makes everything written durable.
    ///
    /// # Errors
    /// What the system says; after an error nothing is known about what was written since the last sync.
    fn sync(&mut self) -> io::Result<()>;
}

/// The file system of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileSystem;

impl Storage for FileSystem {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs_err::create_dir_all(path)
    }

    fn open(&self, path: &Path, new: bool) -> io::Result<Box<dyn StorageFile>> {
        let mut options = fs_err::OpenOptions::new();
        options.read(true).write(true).create_new(new);
        Ok(Box::new(RealFile(options.open(path)?)))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        sync_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        fs_err::read_dir(path)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs_err::remove_file(path)
    }
}

/// Makes the names in a folder durable. Windows has no such operation on a folder and keeps its names
/// in a journal.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    if cfg!(unix) {
        fs_err::File::open(path)?.sync_all()
    } else {
        Ok(())
    }
}

#[derive(Debug)]
struct RealFile(fs_err::File);

impl StorageFile for RealFile {
    fn num_bytes(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        use std::io::{Seek as _, SeekFrom, Write as _};
        self.0.seek(SeekFrom::Start(offset))?;
        self.0.write_all(bytes)
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_all()
    }
}
