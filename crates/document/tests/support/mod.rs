//! What the tests share: a small PDF writer, and where the real documents are.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(unreachable_pub, reason = "a module of several test crates")]
#![allow(clippy::print_stderr, reason = "a test that is skipped says so")]

pub mod pdf;

use std::path::PathBuf;

use colibri_document::{Document, OpenOptions};

/// A page size in points.
pub const LETTER: [f32; 4] = [0.0, 0.0, 612.0, 792.0];

/// The folder of real documents beside the checkout; says so and gives `None` where it is absent.
pub fn corpus(test: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus");
    if path.is_dir() {
        return Some(path);
    }
    eprintln!("skipped: {test} needs the documents in {}", path.display());
    None
}

/// Writes bytes to a file of a temporary folder, which lives as long as what is returned.
pub fn file(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs_err::write(&path, bytes).unwrap();
    (folder, path)
}

/// Opens bytes as a document in this process.
pub fn open(bytes: &[u8]) -> colibri_document::Result<Document> {
    open_with(bytes, &OpenOptions::default())
}

/// Opens bytes as a document.
pub fn open_with(bytes: &[u8], options: &OpenOptions) -> colibri_document::Result<Document> {
    let (_folder, path) = file(bytes);
    Document::open(path, options)
}
