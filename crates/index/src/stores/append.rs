//! The writing half of the local store: appending, syncing, taking back.
//!
//! Everything goes through [`Storage`], in this order: bytes, sync of the file, sync of the folder if a file
//! is new. Only then the store says how far its segments count. What is beyond that is written over or
//! cut off.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Extent, Location};
use crate::error::{Error, Result};
use crate::multivector::MultiVector;
use crate::segment::{self, SegmentHeader};
use crate::storage::{Storage, StorageFile};

const EXTENSION: &str = "vec";

/// The segments being written and what is known of them.
#[derive(Debug)]
pub(super) struct Appender {
    dir: PathBuf,
    storage: Arc<dyn Storage>,
    segment_bytes: u64,
    tail: Option<Tail>,
    /// Segments that were filled since the last publish, not synced yet.
    done: Vec<Tail>,
    next_id: u64,
    /// Whether a file was created since the folder was last synced.
    new_names: bool,
}

/// The segment that is being appended to.
#[derive(Debug)]
struct Tail {
    id: u64,
    dim: u32,
    path: PathBuf,
    file: Box<dyn StorageFile>,
    /// Where the next record goes.
    end: u64,
    /// What was published.
    published: u64,
}

impl Appender {
    /// Goes on where the parts a catalogue knows end; everything else in the folder is removed.
    pub(super) fn open(
        dir: &Path,
        storage: Arc<dyn Storage>,
        segment_bytes: u64,
        extents: &[Extent],
    ) -> Result<Self> {
        let mut appender = Self {
            dir: dir.to_owned(),
            storage,
            segment_bytes,
            tail: None,
            done: Vec::new(),
            next_id: extents
                .iter()
                .map(|extent| extent.segment)
                .max()
                .unwrap_or(0)
                + 1,
            new_names: false,
        };
        appender.remove_all_but(extents)?;
        if let Some(last) = extents.iter().max_by_key(|extent| extent.segment) {
            appender.tail = appender.resume(*last)?;
        }
        Ok(appender)
    }

    pub(super) fn append(&mut self, rows: &MultiVector, hash: [u8; 32]) -> Result<Location> {
        let dim = rows.dim() as u32;
        if let Some(tail) = self
            .tail
            .take_if(|tail| tail.dim != dim || tail.end >= self.segment_bytes)
        {
            self.done.push(tail);
        }
        let mut tail = match self.tail.take() {
            Some(tail) => tail,
            None => self.create(dim)?,
        };
        let record = segment::encode_record(rows, hash);
        let written = tail
            .file
            .write_at(tail.end, &record)
            .map_err(Error::io("append to", &tail.path));
        let location = Location {
            segment: tail.id,
            offset: tail.end,
            num_rows: rows.num_rows() as u32,
        };
        // A failed write leaves `end` where it was: the next record goes over whatever was written.
        if written.is_ok() {
            tail.end += record.len() as u64;
        }
        self.tail = Some(tail);
        written.map(|()| location)
    }

    fn create(&mut self, dim: u32) -> Result<Tail> {
        let id = self.next_id;
        let path = segment_path(&self.dir, id);
        let mut file = self
            .storage
            .open(&path, true)
            .map_err(Error::io("create", &path))?;
        // Counted even if the header fails: the name is taken.
        self.next_id += 1;
        self.new_names = true;
        let header = SegmentHeader { id, dim }.encode();
        file.write_at(0, &header)
            .map_err(Error::io("write the header of", &path))?;
        Ok(Tail {
            id,
            dim,
            path,
            file,
            end: segment::HEADER_BYTES,
            published: 0,
        })
    }

    /// Makes the next record begin a new segment.
    pub(super) fn roll(&mut self) {
        if let Some(tail) = self.tail.take() {
            self.done.push(tail);
        }
    }

    pub(super) fn publish(&mut self) -> Result<Vec<Extent>> {
        match self.sync() {
            Ok(extents) => Ok(extents),
            Err(error) => {
                // After a failed sync nobody knows what is on the disk: never append to those files again.
                self.tail = None;
                self.done.clear();
                Err(error)
            }
        }
    }

    fn sync(&mut self) -> Result<Vec<Extent>> {
        let mut extents = Vec::new();
        for tail in self.done.iter_mut().chain(&mut self.tail) {
            if tail.end == tail.published {
                continue;
            }
            tail.file.sync().map_err(Error::io("sync", &tail.path))?;
            extents.push(Extent {
                segment: tail.id,
                dim: tail.dim,
                num_bytes: tail.end,
            });
        }
        if self.new_names {
            self.storage
                .sync_dir(&self.dir)
                .map_err(Error::io("sync the folder", &self.dir))?;
            self.new_names = false;
        }
        if let Some(tail) = &mut self.tail {
            tail.published = tail.end;
        }
        self.done.clear();
        Ok(extents)
    }

    pub(super) fn discard(&mut self) {
        for mut tail in self.done.drain(..).chain(self.tail.take()) {
            if tail.published == 0 {
                // Best effort: a file that stays behind is removed by the next writer.
                let Tail { path, file, .. } = tail;
                drop(file);
                drop(self.storage.remove(&path));
            } else if tail.published < self.segment_bytes {
                tail.end = tail.published;
                self.tail = Some(tail);
            }
        }
    }

    /// Opens the last segment for appending, cutting off what was not published. `None` if it is full or
    /// damaged: then a new one is begun and the damage stays for `verify` to report.
    fn resume(&mut self, extent: Extent) -> Result<Option<Tail>> {
        let path = segment_path(&self.dir, extent.segment);
        let header = read_header(&path);
        let expected = SegmentHeader {
            id: extent.segment,
            dim: extent.dim,
        };
        if extent.num_bytes >= self.segment_bytes
            || extent.num_bytes < segment::HEADER_BYTES
            || header.as_deref().map(SegmentHeader::decode) != Some(Ok(expected))
        {
            return Ok(None);
        }
        let mut file = self
            .storage
            .open(&path, false)
            .map_err(Error::io("open", &path))?;
        let len = file
            .num_bytes()
            .map_err(Error::io("read the length of", &path))?;
        if len < extent.num_bytes {
            return Ok(None);
        }
        if len > extent.num_bytes {
            file.truncate(extent.num_bytes)
                .map_err(Error::io("cut off the unfinished end of", &path))?;
        }
        let Extent {
            segment: id,
            dim,
            num_bytes,
        } = extent;
        Ok(Some(Tail {
            id,
            dim,
            path,
            file,
            end: num_bytes,
            published: num_bytes,
        }))
    }

    pub(super) fn remove_all_but(&mut self, kept: &[Extent]) -> Result<()> {
        let files = self
            .storage
            .list(&self.dir)
            .map_err(Error::io("list", &self.dir))?;
        for file in files {
            let Some(id) = segment_id(&file) else {
                continue;
            };
            self.next_id = self.next_id.max(id + 1);
            if !kept.iter().any(|extent| extent.segment == id) {
                let removed = self.storage.remove(&file);
                // Windows keeps a file that a reader has mapped; the next writer tries again.
                if cfg!(unix) {
                    removed.map_err(Error::io("remove", &file))?;
                }
            }
        }
        Ok(())
    }
}

fn read_header(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = fs_err::File::open(path).ok()?;
    file.take(segment::HEADER_BYTES)
        .read_to_end(&mut bytes)
        .ok()?;
    Some(bytes)
}

/// The file of segment `id`.
pub(super) fn segment_path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:08}.{EXTENSION}"))
}

fn segment_id(path: &Path) -> Option<u64> {
    if path.extension()? != EXTENSION {
        return None;
    }
    path.file_stem()?
        .to_str()?
        .parse()
        .ok()
        .filter(|id| *id < u64::MAX)
}
