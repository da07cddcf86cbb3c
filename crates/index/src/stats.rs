//! How much is in an index.

use rusqlite::Connection;

use crate::error::Result;
use crate::features::{FeatureStats, Features};
use crate::index::Index;
use crate::segment::{HEADER_BYTES, record_bytes};
use crate::settings::Settings;

/// Counts and sizes.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Stats {
    /// Number of documents.
    pub documents: u64,
    /// Number of pages.
    pub pages: u64,
    /// Pages that can be found by their rows.
    pub pages_with_rows: u64,
    /// Pages that have a text layer.
    pub pages_with_text: u64,
    /// Rows over all pages.
    pub rows: u64,
    /// Values a row, once there are rows.
    pub dim: Option<usize>,
    /// Number of segment files.
    pub segments: u64,
    /// Bytes of rows in use, with their headers.
    pub live_bytes: u64,
    /// Bytes in segments no page refers to any more; `compact` gives them back.
    pub dead_bytes: u64,
    /// Bytes of the catalogue: text, word boxes, full-text search.
    pub catalog_bytes: u64,
    /// Bytes of everything but what is cached of pages.
    pub total_bytes: u64,
    /// What models saw on pages: a cache with a bound of its own.
    pub features: FeatureStats,
    /// Bytes of everything over the number of pages; 0 without pages.
    pub bytes_per_page: f64,
    /// What the index was made with.
    pub settings: Settings,
}

impl Index {
    /// Counts and sizes as of now.
    ///
    /// # Errors
    /// If the catalogue cannot be read.
    pub fn stats(&self) -> Result<Stats> {
        self.read(|connection| self.stats_in(connection))
    }

    fn stats_in(&self, connection: &Connection) -> Result<Stats> {
        let failed = || self.catalog.failed("count what is in");
        let settings = self.catalog.settings(connection)?;
        let count = |sql: &str| -> Result<u64> {
            let count: i64 = connection
                .query_row(sql, [], |row| row.get(0))
                .map_err(failed())?;
            Ok(count.unsigned_abs())
        };
        let extents = self.catalog.extents(connection)?;
        let segment_bytes: u64 = extents.iter().map(|extent| extent.num_bytes).sum();
        let mut live_bytes = extents.len() as u64 * HEADER_BYTES;
        // Copies of a document share their rows: each record counts once.
        let mut statement = connection
            .prepare(
                "SELECT DISTINCT segment, byte_offset, num_rows, dim FROM pages
                 JOIN segments ON segments.id = segment",
            )
            .map_err(failed())?;
        let mut rows = statement.query([]).map_err(failed())?;
        while let Some(row) = rows.next().map_err(failed())? {
            live_bytes +=
                record_bytes(row.get(2).map_err(failed())?, row.get(3).map_err(failed())?);
        }
        let pages = count("SELECT count(*) FROM pages")?;
        let catalog_bytes = self.catalog.num_bytes();
        let total_bytes = catalog_bytes + segment_bytes;
        Ok(Stats {
            documents: count("SELECT count(*) FROM documents")?,
            pages,
            pages_with_rows: count("SELECT count(*) FROM pages WHERE segment IS NOT NULL")?,
            pages_with_text: count("SELECT count(*) FROM pages WHERE num_words > 0")?,
            rows: count("SELECT coalesce(sum(num_rows), 0) FROM pages")?,
            dim: settings.dim,
            segments: extents.len() as u64,
            live_bytes,
            dead_bytes: segment_bytes.saturating_sub(live_bytes),
            catalog_bytes,
            total_bytes,
            features: Features::new(self.dir(), 0).stats(),
            bytes_per_page: if pages == 0 {
                0.0
            } else {
                total_bytes as f64 / pages as f64
            },
            settings,
        })
    }
}
