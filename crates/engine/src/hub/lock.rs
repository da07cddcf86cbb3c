//! One writer per blob, across processes.
//!
//! The lock is the system's advisory lock (`flock` on Unix) on the file that `huggingface_hub` locks
//! for the same blob (`.locks/models--owner--name/<blob>.lock`), so that a Python process and we wait
//! for each other. Lock files stay: removing one while another process opens it would give two locks.

use std::fs::TryLockError;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::Error;

/// Held while a blob is written; let go when dropped.
pub(super) struct BlobLock {
    _file: fs_err::File,
}

/// Waits for the lock on `path`, looking again every `poll`; `waiting` is called once if it is taken.
///
/// It polls instead of blocking in the system so that a cancelled fetch stops waiting.
///
/// # Errors
/// [`Error::Io`] when the lock file cannot be made. A file system without locks is used unlocked:
/// the checksum still guards the result.
pub(super) async fn acquire(
    path: PathBuf,
    poll: Duration,
    waiting: impl Fn(),
) -> Result<BlobLock, Error> {
    if let Some(folder) = path.parent() {
        fs_err::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    }
    let mut told = false;
    loop {
        let file = fs_err::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|e| Error::io(&path, e))?;
        match file.try_lock() {
            Ok(()) if is_current(&file, &path) => return Ok(BlobLock { _file: file }),
            // Someone removed the file between our opening and locking it: lock its successor.
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                if !told {
                    waiting();
                    told = true;
                }
                drop(file);
                tokio::time::sleep(poll).await;
            }
            Err(TryLockError::Error(error)) if error.kind() == std::io::ErrorKind::Unsupported => {
                return Ok(BlobLock { _file: file });
            }
            Err(TryLockError::Error(error)) => return Err(Error::io(&path, error)),
        }
    }
}

/// Whether the open file still has its name.
#[cfg(unix)]
fn is_current(file: &fs_err::File, _path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    file.metadata().is_ok_and(|metadata| metadata.nlink() > 0)
}

/// Whether the open file still has its name: an open file cannot be removed here.
#[cfg(not(unix))]
fn is_current(_file: &fs_err::File, path: &Path) -> bool {
    path.exists()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn the_second_waits_for_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".locks/m/x.lock");
        let first = acquire(path.clone(), Duration::ZERO, || {}).await.unwrap();
        let waits = std::sync::Arc::new(AtomicUsize::new(0));
        let second = tokio::spawn({
            let waits = waits.clone();
            async move {
                acquire(path, Duration::ZERO, || {
                    waits.fetch_add(1, Ordering::SeqCst);
                })
                .await
                .map(drop)
            }
        });
        while waits.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        assert!(!second.is_finished());
        drop(first);
        second.await.unwrap().unwrap();
        assert_eq!(waits.load(Ordering::SeqCst), 1);
    }
}
