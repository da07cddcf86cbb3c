//! A blob in the making: `<blob>.incomplete`, its length and its checksum so far.
//!
//! Bytes are gathered to a quarter of a mebibyte and then written and hashed on a blocking thread,
//! so that neither a slow disk nor SHA-256 holds up the runtime. The lock travels with the file: a
//! fetch that is dropped in the middle of a write keeps the lock until that write has ended.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use super::checksum::{Checksum, Hasher};
use super::error::Error;
use super::lock::BlobLock;

/// Bytes gathered before they are written: large enough that the hop to the blocking thread is
/// noise (about 20 µs), small enough that a kill loses little.
const GATHER: usize = 256 * 1024;

/// What moves to the blocking thread and back.
struct Part {
    file: fs_err::File,
    hasher: Hasher,
    _lock: Arc<BlobLock>,
}

/// The open `.incomplete` file.
pub(super) struct Sink {
    path: PathBuf,
    part: Part,
    gathered: Vec<u8>,
    written: u64,
    size: u64,
    checksum: Checksum,
}

impl Sink {
    /// Opens what an earlier fetch left at `path`, or a new file, and hashes what is there. A file
    /// that is longer than `size` is no beginning of ours and starts again.
    pub(super) async fn open(
        path: PathBuf,
        size: u64,
        checksum: Checksum,
        lock: Arc<BlobLock>,
    ) -> Result<Self, Error> {
        let target = path.clone();
        on_disk(target.clone(), move || {
            let mut file = fs_err::OpenOptions::new()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .open(&target)?;
            let mut written = file.metadata()?.len();
            if written > size {
                file.set_len(0)?;
                written = 0;
            }
            let mut hasher = checksum.hasher(size);
            let mut buffer = vec![0; GATHER];
            let mut left = written;
            while left > 0 {
                let count = (&mut file).take(left).read(&mut buffer)?;
                if count == 0 {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
                hasher.update(&buffer[..count]);
                left -= count as u64;
            }
            let part = Part {
                file,
                hasher,
                _lock: lock,
            };
            Ok(Self {
                path: target,
                part,
                gathered: Vec::new(),
                written,
                size,
                checksum,
            })
        })
        .await
    }

    /// Bytes received so far, written or gathered.
    pub(super) fn len(&self) -> u64 {
        self.written + self.gathered.len() as u64
    }

    /// Takes bytes; says whether they (and those before) have been written.
    pub(super) async fn push(mut self, bytes: &[u8]) -> Result<(Self, bool), Error> {
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() < GATHER {
            return Ok((self, false));
        }
        Ok((self.flush().await?, true))
    }

    /// Writes and hashes what is gathered.
    pub(super) async fn flush(self) -> Result<Self, Error> {
        if self.gathered.is_empty() {
            return Ok(self);
        }
        on_disk(self.path.clone(), move || {
            let mut sink = self;
            sink.part.file.write_all(&sink.gathered)?;
            sink.part.hasher.update(&sink.gathered);
            sink.written += sink.gathered.len() as u64;
            sink.gathered.clear();
            Ok(sink)
        })
        .await
    }

    /// Throws everything away and begins again.
    pub(super) async fn restart(self) -> Result<Self, Error> {
        on_disk(self.path.clone(), move || {
            let mut sink = self;
            // A file without bytes needs no cutting, and a device file allows none.
            if sink.written > 0 {
                sink.part.file.set_len(0)?;
                sink.part.file.seek(SeekFrom::Start(0))?;
            }
            sink.part.hasher = sink.checksum.hasher(sink.size);
            sink.gathered.clear();
            sink.written = 0;
            Ok(sink)
        })
        .await
    }

    /// Writes the rest, brings everything to the disk and hands out the checksum of all bytes.
    pub(super) async fn finish(self) -> Result<String, Error> {
        let sink = self.flush().await?;
        on_disk(sink.path.clone(), move || {
            sink.part.file.sync_all()?;
            Ok(sink.part.hasher.finish())
        })
        .await
    }
}

/// Runs file work on a blocking thread; failures are those of `path`.
async fn on_disk<T: Send + 'static>(
    path: PathBuf,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|e| Error::io(path, e)),
        Err(_stopped) => Err(Error::Interrupted { path }),
    }
}
