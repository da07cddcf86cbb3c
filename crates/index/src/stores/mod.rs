//! Where multi-vectors live.
//!
//! A [`VectorStore`] keeps the rows of pages and finds those most like a query; which pages exist, what
//! they are called and which of them a filter lets through is the catalogue's business. Writing is in two
//! steps, because a document becomes visible in the catalogue's transaction and not before: rows are
//! *staged*, then *published* (durable from then on), then the transaction commits their [`Location`]s.
//! Rows that no location refers to may be overwritten or dropped at any time by the store.

mod append;
mod local;

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use local::LocalStore;
pub(crate) use local::SEGMENT_BYTES;

use colibri_kernels::{maxsim::maxsim_f16_argmax, rows::Rows};
use half::f16;

use crate::error::{Error, Result};
use crate::mmap::PageRows;
use crate::multivector::MultiVector;
use crate::record::PageId;
use crate::storage::Storage;

/// The folder of the local store within an index.
pub(crate) const SEGMENTS: &str = "segments";

/// Which store an index keeps its rows in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreKind {
    /// Segment files in the index's own folder.
    #[default]
    Local,
}

/// Opens a store of the index in `dir` for reading.
pub(crate) fn open(kind: &StoreKind, dir: &Path) -> Box<dyn VectorStore> {
    match kind {
        StoreKind::Local => Box::new(LocalStore::open(dir)),
    }
}

/// Opens a store of the index in `dir` for writing, with what the catalogue remembers of it.
pub(crate) fn open_writer(
    kind: &StoreKind,
    dir: &Path,
    storage: Arc<dyn Storage>,
    segment_bytes: u64,
    extents: &[Extent],
) -> Result<Box<dyn VectorStore>> {
    match kind {
        StoreKind::Local => Ok(Box::new(LocalStore::open_writer(
            dir,
            storage,
            segment_bytes,
            extents,
        )?)),
    }
}

/// Where the rows of a page are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Location {
    /// The part of the store: a segment's number.
    pub segment: u64,
    /// The place in it, in bytes.
    pub offset: u64,
    /// Number of rows.
    pub num_rows: u32,
}

/// A page and where its rows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The page.
    pub page: PageId,
    /// Its rows.
    pub location: Location,
}

/// A part of a store and how much of it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The part: a segment's number.
    pub segment: u64,
    /// Values a row.
    pub dim: u32,
    /// Bytes that were published; anything beyond is left over.
    pub num_bytes: u64,
}

/// The rows of a query: `(row, dim)`.
#[derive(Clone, Debug, PartialEq)]
pub struct QueryRows {
    /// Values a row.
    pub dim: usize,
    /// All values, row after row.
    pub values: Vec<f32>,
}

impl QueryRows {
    /// Rows of `dim` values.
    ///
    /// # Errors
    /// If `values` are not whole rows, or one of them is not finite.
    pub fn new(dim: usize, values: Vec<f32>) -> Result<Self> {
        check_query(&values, dim)?;
        Ok(Self { dim, values })
    }

    /// For each of these rows the row of a page that is most like it (the first of equals) and their dot product.
    /// The products are the terms of MaxSim, the rows what it rests on. Empty where the page has no rows.
    ///
    /// # Errors
    /// If the rows of the page (`(row, dim)`) are ragged or of another dimension.
    pub fn best_of(&self, dim: usize, page: &[f16]) -> Result<Vec<(u32, f32)>> {
        if dim != self.dim {
            return Err(Error::DimMismatch {
                expected: dim,
                found: self.dim,
            });
        }
        check_query(&self.values, dim)?;
        if !page.len().is_multiple_of(dim) {
            let len = page.len();
            return Err(Error::RaggedRows { len, dim });
        }
        let query = Rows::new(&self.values, self.values.len() / dim, dim);
        Ok(maxsim_f16_argmax(query, page))
    }
}

/// Refuses query rows that are ragged or not finite: a NaN would make every comparison false.
pub(crate) fn check_query(values: &[f32], dim: usize) -> Result<()> {
    if dim == 0 || values.is_empty() || !values.len().is_multiple_of(dim) {
        return Err(Error::RaggedRows {
            len: values.len(),
            dim,
        });
    }
    match values.iter().position(|value| !value.is_finite()) {
        Some(at) => Err(Error::RowNotFinite {
            row: at / dim,
            column: at % dim,
            value: values[at],
        }),
        None => Ok(()),
    }
}

/// Something wrong in a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreFault {
    /// The file.
    pub path: PathBuf,
    /// The page concerned, if it is known.
    pub page: Option<PageId>,
    /// What is wrong.
    pub what: String,
}

/// A page and its rows' checksum, as the catalogue knows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The page and where its rows are.
    pub record: Record,
    /// BLAKE3 of its rows as they are stored.
    pub hash: [u8; 32],
}

/// A home of multi-vectors.
///
/// # Laws
/// `tests/store_contract.rs` checks them on every store.
/// 1. What was staged and published is read back bit for bit, by this value and by one opened later.
/// 2. `search` is exact: its scores are MaxSim of the query with the rows, its order is by falling score
///    and then by position among the candidates, and nothing but a candidate is found.
/// 3. After `discard`, earlier published rows are unharmed, and staging goes on.
/// 4. After `compact`, the new locations hold the same rows, and the old ones do until `reclaim`.
pub trait VectorStore: fmt::Debug + Send + Sync {
    /// Keeps the rows of a page; they are durable after the next [`VectorStore::publish`].
    ///
    /// # Errors
    /// If the rows cannot be written; then nothing was staged.
    fn stage(&mut self, page: PageId, rows: &MultiVector) -> Result<Location>;

    /// Makes everything staged durable and says what the catalogue must remember for
    /// [`VectorStore::check`] and for the next writer: every part that grew.
    ///
    /// # Errors
    /// If it cannot be made durable; then everything staged is lost.
    fn publish(&mut self) -> Result<Vec<Extent>>;

    /// Forgets what was staged since the last [`VectorStore::publish`].
    fn discard(&mut self);

    /// The `k` candidates with the greatest MaxSim, best first, as positions in `candidates` with their
    /// scores; equal scores in the order of the candidates.
    ///
    /// # Errors
    /// If rows cannot be read, or have another dimension than the query.
    fn search(
        &self,
        query: &[f32],
        dim: usize,
        candidates: &[Record],
        k: usize,
    ) -> Result<Vec<(usize, f32)>>;

    /// The rows of a page, checked against their checksum.
    ///
    /// # Errors
    /// If they cannot be read or are damaged.
    fn read(&self, record: Record) -> Result<PageRows>;

    /// The catalogue has changed: only these parts are still referred to, and what a reader holds of
    /// others may be let go.
    fn keep_only(&self, parts: &HashSet<u64>);

    /// Stages copies of the live rows so that their old parts are no longer needed; the new locations in
    /// the order of `live`. To be followed by [`VectorStore::publish`] and, once the catalogue refers to
    /// the new locations, by [`VectorStore::reclaim`].
    ///
    /// # Errors
    /// If rows cannot be read, are damaged, or cannot be written.
    fn compact(&mut self, live: &[Record]) -> Result<Vec<Location>>;

    /// Gives back every part that is not among `kept`.
    ///
    /// # Errors
    /// If a part cannot be removed.
    fn reclaim(&mut self, kept: &[Extent]) -> Result<()>;

    /// Reads everything that was published and reports what is wrong with it.
    fn check(&self, extents: &[Extent], expected: &[Expected], report: &mut dyn FnMut(StoreFault));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_row_of_a_page_is_found_for_each_row_of_a_query() {
        let query = QueryRows::new(2, vec![1.0, 0.0, 0.0, 1.0]).unwrap();
        let page = MultiVector::from_f32(2, &[0.5, 0.75, 1.0, 0.0, 1.0, 0.5]).unwrap();
        let best = query.best_of(2, page.as_slice()).unwrap();
        assert_eq!(best, [(1, 1.0), (0, 0.75)]);
        assert_eq!(query.best_of(2, &[]).unwrap(), []);
        let wide = MultiVector::from_f32(3, &[1.0; 3]).unwrap();
        let refused = query.best_of(3, wide.as_slice()).unwrap_err();
        assert!(matches!(refused, Error::DimMismatch { .. }), "{refused}");
        let refused = query.best_of(2, wide.as_slice()).unwrap_err();
        assert!(matches!(refused, Error::RaggedRows { .. }), "{refused}");
    }
}
