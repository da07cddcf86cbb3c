//! The store in the index's own folder: append-only segment files, mapped into memory.
//!
//! One page is one record ([`crate::segment`]). A record never spans segments; a new segment begins when
//! the current one has grown past its limit, or has another dimension. Search reads every candidate where
//! it lies, on all cores; nothing is copied.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use colibri_kernels::maxsim::maxsim_many;
use colibri_kernels::rows::Rows;
use half::f16;

use super::append::{Appender, segment_path};
use super::{Expected, Extent, Location, Record, SEGMENTS, StoreFault, VectorStore, check_query};
use crate::error::{Error, Result};
use crate::mmap::{PageRows, SegmentMap};
use crate::multivector::MultiVector;
use crate::record::PageId;
use crate::segment;
use crate::storage::Storage;
use crate::top::best;

/// A new segment begins when one has reached this size: 1 GiB, 3 800 pages of 1 088 rows of 128.
pub(crate) const SEGMENT_BYTES: u64 = 1 << 30;

/// Segment files in a folder.
#[derive(Debug)]
pub struct LocalStore {
    dir: PathBuf,
    maps: RwLock<HashMap<u64, Arc<SegmentMap>>>,
    appender: Option<Appender>,
}

impl LocalStore {
    /// The store of the index in `index_dir`, for reading.
    pub fn open(index_dir: &Path) -> Self {
        Self {
            dir: index_dir.join(SEGMENTS),
            maps: RwLock::default(),
            appender: None,
        }
    }

    /// The store of the index in `index_dir`, for writing. Removes what an unfinished writer left behind:
    /// segments that are not among `extents`, and bytes beyond them.
    ///
    /// # Errors
    /// If the folder cannot be read or written.
    pub fn open_writer(
        index_dir: &Path,
        storage: Arc<dyn Storage>,
        segment_bytes: u64,
        extents: &[Extent],
    ) -> Result<Self> {
        let dir = index_dir.join(SEGMENTS);
        storage
            .create_dir(&dir)
            .map_err(Error::io("create the folder", &dir))?;
        let appender = Appender::open(&dir, storage, segment_bytes, extents)?;
        Ok(Self {
            dir,
            maps: RwLock::default(),
            appender: Some(appender),
        })
    }

    fn appender(&mut self) -> &mut Appender {
        self.appender
            .as_mut()
            .expect("staging in a store opened for reading is a bug")
    }

    /// Segment `id`, mapped at least `needed` bytes far if the file has them.
    fn map(&self, id: u64, needed: u64) -> Result<Arc<SegmentMap>> {
        let known = self
            .maps
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&id)
            .cloned();
        if let Some(map) = known
            && map.num_bytes() >= needed
        {
            return Ok(map);
        }
        let map = Arc::new(SegmentMap::open(&segment_path(&self.dir, id), id)?);
        self.maps
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, Arc::clone(&map));
        Ok(map)
    }

    /// The segments the candidates are in, each mapped far enough.
    fn maps_for(&self, candidates: &[Record], dim: u32) -> Result<HashMap<u64, Arc<SegmentMap>>> {
        let mut needed = HashMap::<u64, u64>::new();
        for Record { location, .. } in candidates {
            let end = location
                .offset
                .saturating_add(segment::record_bytes(location.num_rows, dim));
            let most = needed.entry(location.segment).or_default();
            *most = (*most).max(end);
        }
        needed
            .into_iter()
            .map(|(id, needed)| Ok((id, self.map(id, needed)?)))
            .collect()
    }
}

impl VectorStore for LocalStore {
    fn stage(&mut self, _page: PageId, rows: &MultiVector) -> Result<Location> {
        let hash = segment::payload_hash(rows.as_slice());
        self.appender().append(rows, hash)
    }

    fn publish(&mut self) -> Result<Vec<Extent>> {
        self.appender().publish()
    }

    fn discard(&mut self) {
        self.appender().discard();
    }

    fn search(
        &self,
        query: &[f32],
        dim: usize,
        candidates: &[Record],
        k: usize,
    ) -> Result<Vec<(usize, f32)>> {
        check_query(query, dim)?;
        let maps = self.maps_for(candidates, dim as u32)?;
        if let Some(map) = maps.values().find(|map| map.dim() as usize != dim) {
            return Err(Error::DimMismatch {
                expected: map.dim() as usize,
                found: dim,
            });
        }
        let pages = candidates
            .iter()
            .map(|Record { location, .. }| {
                let map = maps
                    .get(&location.segment)
                    .expect("a candidate without its map is a bug");
                map.rows(location.offset, location.num_rows)
            })
            .collect::<Result<Vec<&[f16]>>>()?;
        let scores = maxsim_many(Rows::new(query, query.len() / dim, dim), &pages);
        Ok(best(&scores, k))
    }

    fn read(&self, record: Record) -> Result<PageRows> {
        let Location {
            segment,
            offset,
            num_rows,
        } = record.location;
        let mut map = self.map(segment, offset.saturating_add(segment::RECORD_HEADER_BYTES))?;
        let end = offset.saturating_add(segment::record_bytes(num_rows, map.dim()));
        if map.num_bytes() < end {
            map = self.map(segment, end)?;
        }
        PageRows::open(map, offset, num_rows)
    }

    fn keep_only(&self, parts: &HashSet<u64>) {
        self.maps
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|id, _| parts.contains(id));
    }

    fn compact(&mut self, live: &[Record]) -> Result<Vec<Location>> {
        self.appender().roll();
        // Documents with the same content share their rows: they are copied once.
        let mut copied = HashMap::<Location, Location>::new();
        let mut locations = Vec::with_capacity(live.len());
        for record in live {
            let location = if let Some(location) = copied.get(&record.location) {
                *location
            } else {
                let rows = self.read(*record)?;
                let rows = MultiVector::new(rows.dim(), rows.to_vec())?;
                let location = self.stage(record.page, &rows)?;
                copied.insert(record.location, location);
                location
            };
            locations.push(location);
        }
        Ok(locations)
    }

    fn reclaim(&mut self, kept: &[Extent]) -> Result<()> {
        self.maps
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|id, _| kept.iter().any(|extent| extent.segment == *id));
        self.appender().remove_all_but(kept)
    }

    fn check(&self, extents: &[Extent], expected: &[Expected], report: &mut dyn FnMut(StoreFault)) {
        for extent in extents {
            self.check_segment(*extent, expected, report);
        }
        for Expected { record, .. } in expected {
            if !extents
                .iter()
                .any(|extent| extent.segment == record.location.segment)
            {
                report(StoreFault {
                    path: segment_path(&self.dir, record.location.segment),
                    page: Some(record.page),
                    what: "the page refers to a segment the catalogue does not know".to_owned(),
                });
            }
        }
    }
}

impl LocalStore {
    /// Walks the records of one segment, then looks up each page that should be in it.
    fn check_segment(
        &self,
        extent: Extent,
        expected: &[Expected],
        report: &mut dyn FnMut(StoreFault),
    ) {
        let path = segment_path(&self.dir, extent.segment);
        let mut fault = |page: Option<PageId>, what: String| {
            report(StoreFault {
                path: path.clone(),
                page,
                what,
            });
        };
        let pages = || {
            expected
                .iter()
                .filter(move |expected| expected.record.location.segment == extent.segment)
        };
        let map = match SegmentMap::open(&path, extent.segment) {
            Ok(map) => map,
            Err(error) => {
                fault(None, error.to_string());
                for page in pages() {
                    fault(
                        Some(page.record.page),
                        "the rows are in a segment that cannot be read".to_owned(),
                    );
                }
                return;
            }
        };
        if map.dim() != extent.dim {
            fault(
                None,
                format!(
                    "rows of {} values, the catalogue says {}",
                    map.dim(),
                    extent.dim
                ),
            );
        }
        if map.num_bytes() < extent.num_bytes {
            fault(
                None,
                format!(
                    "{} bytes, the catalogue says {}",
                    map.num_bytes(),
                    extent.num_bytes
                ),
            );
        }
        // Record after record, the dead ones too. Hashes of live ones are kept for the second step.
        let end = extent.num_bytes.min(map.num_bytes());
        let mut hashes = HashMap::new();
        let mut offset = segment::HEADER_BYTES;
        while offset < end {
            let bytes = map
                .bytes()
                .get(offset as usize..end as usize)
                .unwrap_or_default();
            let header = match segment::RecordHeader::decode(bytes) {
                Ok(header) => header,
                Err(what) => {
                    fault(None, format!("byte {offset}: {what}"));
                    break;
                }
            };
            match map.checked_rows(offset, header.num_rows) {
                Ok((_, hash)) => {
                    hashes.insert((offset, header.num_rows), hash);
                }
                Err(error) => fault(None, error.to_string()),
            }
            let next = offset.saturating_add(segment::record_bytes(header.num_rows, header.dim));
            let padding = offset + segment::RECORD_HEADER_BYTES + header.payload_bytes();
            if map
                .bytes()
                .get(padding as usize..next as usize)
                .is_none_or(|bytes| bytes.iter().any(|b| *b != 0))
            {
                fault(None, format!("byte {padding}: the padding is not zero"));
            }
            offset = next;
        }
        for Expected { record, hash } in pages() {
            let Location {
                offset, num_rows, ..
            } = record.location;
            // A record the walk did not reach (after a damaged header) is looked up on its own.
            let found = match hashes.get(&(offset, num_rows)) {
                Some(found) => Ok(*found),
                None => map.checked_rows(offset, num_rows).map(|(_, found)| found),
            };
            match found {
                Ok(found) if found == *hash => {}
                Ok(_) => fault(
                    Some(record.page),
                    format!("byte {offset}: the rows are not those the catalogue knows"),
                ),
                Err(error) => fault(Some(record.page), error.to_string()),
            }
        }
    }
}
