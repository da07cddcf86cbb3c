//! Exact search over made-up rows.

use std::{path::Path, time::Instant};

use colibri_index::{DocumentRecord, Filter, Index, MultiVector, PageRecord, Settings};
use colibri_models::machine;

use super::Figures;
use crate::{Result, memory, threads};

/// Pages a made-up document has.
const DOCUMENT_PAGES: usize = 100;
/// Width of a row, that of every retriever here.
const DIM: usize = 128;

/// How large an index is searched.
#[derive(Clone, Copy, Debug)]
pub struct SearchOptions {
    /// Pages in the index.
    pub pages: usize,
    /// Rows of a page.
    pub rows: usize,
    /// Rows of the question.
    pub query_rows: usize,
    /// Searches, of which the best counts.
    pub runs: usize,
}

impl Default for SearchOptions {
    fn default() -> Self {
        Self {
            pages: 1000,
            rows: 1088,
            query_rows: 20,
            runs: 5,
        }
    }
}

/// Seconds of a visual search over an index written below `scratch`.
///
/// # Errors
/// When the index cannot be written or read.
pub fn search(scratch: &Path, options: SearchOptions) -> Result<Figures> {
    let dir = scratch.join("index");
    let settings = Settings {
        retriever: Some("made up".to_owned()),
        dim: Some(DIM),
        ..Settings::default()
    };
    let mut writer = Index::create(&dir, &settings)?;
    for first in (0..options.pages).step_by(DOCUMENT_PAGES) {
        let mut pending = writer.begin_document(&DocumentRecord {
            path: format!("/made-up/{first:06}.pdf"),
            content_hash: format!("{first:064x}"),
            ..DocumentRecord::default()
        })?;
        for page in first..(first + DOCUMENT_PAGES).min(options.pages) {
            let rows = values(page as u64, options.rows * DIM);
            pending.append_page(&PageRecord {
                number: (page - first) as u32 + 1,
                width: 612.0,
                height: 792.0,
                rows: Some(MultiVector::from_f32(DIM, &rows)?),
                ..PageRecord::default()
            })?;
        }
        pending.commit()?;
    }
    drop(writer);
    let index = Index::open(&dir)?;
    let query = values(u64::MAX, options.query_rows * DIM);
    let mut best = f64::INFINITY;
    for _ in 0..options.runs.max(1) {
        let started = Instant::now();
        index.search_visual(&query, DIM, 10, &Filter::default())?;
        best = best.min(started.elapsed().as_secs_f64());
    }
    let peak_memory_bytes = memory::peak_bytes();
    let bytes = (options.pages * options.rows * DIM * 2) as f64;
    let operations = 2.0 * (options.pages * options.rows * DIM * options.query_rows) as f64;
    let bandwidth = machine::bytes_per_second();
    Ok(Figures {
        work: "search",
        threads: threads::count(),
        tokens: Some(options.pages * options.rows),
        seconds_per_query: Some(best),
        gflops: Some(operations / best / 1e9),
        gigabytes_per_second: Some(bytes / best / 1e9),
        peak_share: Some(bytes / best / bandwidth),
        peak_gigabytes_per_second: Some(bandwidth / 1e9),
        peak_memory_bytes,
        ..Figures::default()
    })
}

/// Values in (-1, 1), the same for the same seed (xorshift).
fn values(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_index_is_searched() {
        let scratch = tempfile::tempdir().unwrap();
        let options = SearchOptions {
            pages: 3,
            rows: 4,
            query_rows: 2,
            runs: 1,
        };
        let figures = search(scratch.path(), options).unwrap();
        assert_eq!(figures.tokens, Some(12));
        assert!(figures.seconds_per_query.unwrap() > 0.0);
    }
}
