//! What a file may cost, and how large a page is drawn.

use serde::{Deserialize, Serialize};

/// Bounds on what one file may cost. Every field is a plain number to be set by the caller; the
/// defaults admit a 10 000-page PDF and an A0 scan at 200 dpi, and stop everything a person did
/// not mean to index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Largest file read, in bytes.
    pub max_file_bytes: u64,
    /// Most pages a document may have. A document with more is refused as a whole.
    pub max_pages: usize,
    /// Most pixels in one page or picture. A picture with more is refused; a PDF page, whose size
    /// is free, is drawn smaller.
    pub max_pixels: u64,
    /// Most glyphs kept of one page. Further glyphs are dropped and the page's
    /// [`TextLayer`](crate::TextLayer) says so.
    pub max_glyphs_per_page: usize,
    /// Wall-clock seconds for one page of a PDF, and for opening one, before its worker process
    /// is killed.
    pub max_seconds_per_page: u64,
    /// Wall-clock seconds that the worker processes of one PDF may spend in all.
    pub max_seconds_per_file: u64,
    /// Pages of one PDF whose worker process may crash, be killed or run out of memory before the
    /// rest of the file is given up.
    pub max_failed_pages: usize,
    /// Memory a PDF's worker process may take beyond what it starts with and the file itself, in
    /// bytes of address space.
    pub worker_memory_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_file_bytes: 1 << 30,
            max_pages: 10_000,
            max_pixels: 100_000_000,
            max_glyphs_per_page: 200_000,
            max_seconds_per_page: 30,
            max_seconds_per_file: 3600,
            max_failed_pages: 10,
            worker_memory_bytes: 2 << 30,
        }
    }
}

/// How large a page is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenderSize {
    /// Length of the longer edge in pixels. A PDF page is drawn at exactly this size (less where
    /// [`Limits::max_pixels`] asks for it); a picture keeps its own size.
    pub longest_edge: u32,
}

impl Default for RenderSize {
    /// 2048 pixels: the size ColIdefics3 and SmolVLM processors scale a page to before tiling.
    fn default() -> Self {
        Self { longest_edge: 2048 }
    }
}
