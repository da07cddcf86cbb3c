//! The store in the index's own folder: append-only segment files, mapped into memory.
//!
//! One page is one record ([`crate::segment`]). A record never spans segments; a new segment begins when
//! the current one has grown past its limit, or has another dimension. Search reads every candidate where
//! it lies, on all cores; nothing is copied.

use std::collections::{HashMap, HashSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use colibri_kernels::maxsim::maxsim_many;
use colibri_kernels::rows::Rows;
use half::f16;

use super::{Expected, Extent, Location, Record, SEGMENTS, StoreFault, VectorStore, check_query};
use crate::error::{Error, Result};
use crate::mmap::{PageRows, SegmentMap};
use crate::multivector::MultiVector;
use crate::record::PageId;
use crate::segment::{self, SegmentHeader};
use crate::storage::{Storage, StorageFile};
use crate::top::best;

/// A new segment begins when one has reached this size: 1 GiB, 3 800 pages of 1 088 rows of 128.
pub(crate) const SEGMENT_BYTES: u64 = 1 << 30;
const EXTENSION: &str = "vec";

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
        let mut appender = Appender {
            dir: dir.clone(),
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

/// The writing half.
#[derive(Debug)]
struct Appender {
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
    fn append(&mut self, rows: &MultiVector, hash: [u8; 32]) -> Result<Location> {
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
    fn roll(&mut self) {
        if let Some(tail) = self.tail.take() {
            self.done.push(tail);
        }
    }

    fn publish(&mut self) -> Result<Vec<Extent>> {
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

    fn discard(&mut self) {
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

    fn remove_all_but(&mut self, kept: &[Extent]) -> Result<()> {
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
pub(crate) fn segment_path(dir: &Path, id: u64) -> PathBuf {
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
