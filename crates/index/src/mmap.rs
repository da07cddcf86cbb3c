//! Segments mapped into memory.
//!
//! The one place of this crate with `unsafe`: a mapping is sound as long as nobody shortens or rewrites the
//! mapped bytes. Segments are append-only, a writer truncates only what no catalogue refers to, and
//! [`SegmentMap::rows`] hands out nothing but whole records whose header checksum matches; so the bytes
//! that are read do not change while they are mapped. Someone who overwrites a segment with other tools
//! while a search runs can at worst make that search wrong, or end the process if the file is cut.
#![expect(unsafe_code, reason = "a file can only be mapped by an unsafe call")]

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::f16;
use memmap2::{Mmap, MmapOptions};

use crate::error::{Error, Result};
use crate::segment::{self, HeaderFault, RecordHeader, SegmentHeader};

/// One segment file, mapped as far as it reached when it was opened.
#[derive(Debug)]
pub(crate) struct SegmentMap {
    path: PathBuf,
    map: Mmap,
    header: SegmentHeader,
}

impl SegmentMap {
    /// Maps the file at `path`, which must be segment `id`.
    pub(crate) fn open(path: &Path, id: u64) -> Result<Self> {
        let file = fs_err::File::open(path).map_err(|source| {
            if source.kind() == std::io::ErrorKind::NotFound {
                Error::SegmentMissing {
                    path: path.to_owned(),
                }
            } else {
                Error::io("open the segment", path)(source)
            }
        })?;
        let len = file
            .metadata()
            .map_err(Error::io("read the length of", path))?
            .len();
        if len < segment::HEADER_BYTES {
            return Err(Error::SegmentTruncated {
                path: path.to_owned(),
                expected: segment::HEADER_BYTES,
                found: len,
            });
        }
        let len = usize::try_from(len).map_err(|_| Error::TooLarge {
            what: "a segment of",
            found: len,
        })?;
        // SAFETY: `len` is the length of the file as it is now, so the mapping does not reach beyond its
        // end; the bytes in use do not change as explained at the top of this file.
        let map =
            unsafe { MmapOptions::new().len(len).map(&file) }.map_err(Error::io("map", path))?;
        let header = SegmentHeader::decode(&map).map_err(|fault| header_error(path, fault))?;
        if header.id != id {
            return Err(Error::SegmentDamaged {
                path: path.to_owned(),
                offset: 0,
                what: "the header belongs to another segment",
            });
        }
        Ok(Self {
            path: path.to_owned(),
            map,
            header,
        })
    }

    /// How many bytes are mapped.
    pub(crate) fn num_bytes(&self) -> u64 {
        self.map.len() as u64
    }

    /// Values a row.
    pub(crate) fn dim(&self) -> u32 {
        self.header.dim
    }

    /// All mapped bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// The rows of the record at `offset`: its header checksum is checked, its payload is not.
    pub(crate) fn rows(&self, offset: u64, num_rows: u32) -> Result<&[f16]> {
        let (_, range) = self.locate(offset, num_rows)?;
        self.values(offset, range)
    }

    /// The rows of the record at `offset` after comparing their checksum, with that checksum.
    pub(crate) fn checked_rows(&self, offset: u64, num_rows: u32) -> Result<(&[f16], [u8; 32])> {
        let (header, range) = self.locate(offset, num_rows)?;
        let rows = self.values(offset, range)?;
        if segment::payload_hash(rows) != header.hash {
            return Err(self.damaged(offset, "the checksum of the rows does not match"));
        }
        Ok((rows, header.hash))
    }

    fn locate(&self, offset: u64, num_rows: u32) -> Result<(RecordHeader, Range<usize>)> {
        let end = offset.saturating_add(segment::record_bytes(num_rows, self.header.dim));
        if end > self.num_bytes() {
            return Err(Error::SegmentTruncated {
                path: self.path.clone(),
                expected: end,
                found: self.num_bytes(),
            });
        }
        segment::locate(&self.map, offset, num_rows, self.header.dim)
            .map_err(|what| self.damaged(offset, what))
    }

    fn values(&self, offset: u64, range: Range<usize>) -> Result<&[f16]> {
        bytemuck::try_cast_slice(&self.map[range])
            .map_err(|_| self.damaged(offset, "the rows are not aligned"))
    }

    fn damaged(&self, offset: u64, what: &'static str) -> Error {
        Error::SegmentDamaged {
            path: self.path.clone(),
            offset,
            what,
        }
    }
}

/// What is wrong with the header of the segment at `path`.
pub(crate) fn header_error(path: &Path, fault: HeaderFault) -> Error {
    let path = path.to_owned();
    match fault {
        HeaderFault::Short => Error::SegmentTruncated {
            path,
            expected: segment::HEADER_BYTES,
            found: 0,
        },
        HeaderFault::Magic(found) => Error::NotAnIndex {
            path,
            expected: "`COLIBVEC`",
            found: format!("`{found}`"),
        },
        HeaderFault::Version(found) if found > segment::VERSION => Error::NewerFormat {
            path,
            found: u64::from(found),
            supported: segment::VERSION,
        },
        HeaderFault::Version(found) => Error::NotAnIndex {
            path,
            expected: "format version 1",
            found: format!("version {found}"),
        },
        HeaderFault::Damaged(what) => Error::SegmentDamaged {
            path,
            offset: 0,
            what,
        },
    }
}

/// The rows of one page, read in place.
#[derive(Clone, Debug)]
pub struct PageRows {
    map: Arc<SegmentMap>,
    range: Range<usize>,
}

impl PageRows {
    /// The record at `offset`, its checksum compared.
    pub(crate) fn open(map: Arc<SegmentMap>, offset: u64, num_rows: u32) -> Result<Self> {
        let (_, range) = map.locate(offset, num_rows)?;
        map.checked_rows(offset, num_rows)?;
        Ok(Self { map, range })
    }

    /// Values a row.
    pub fn dim(&self) -> usize {
        self.map.header.dim as usize
    }

    /// Number of rows.
    pub fn num_rows(&self) -> usize {
        self.as_slice().len() / self.dim().max(1)
    }

    /// All values, row after row: `(row, dim)`.
    pub fn as_slice(&self) -> &[f16] {
        bytemuck::try_cast_slice(&self.map.map[self.range.clone()]).unwrap_or_default()
    }
}

impl std::ops::Deref for PageRows {
    type Target = [f16];

    fn deref(&self) -> &[f16] {
        self.as_slice()
    }
}
