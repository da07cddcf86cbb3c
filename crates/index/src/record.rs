//! What is stored of a document and of a page, on the way in and on the way out.

use crate::multivector::MultiVector;

/// Metadata of a document: a JSON object.
pub type Metadata = serde_json::Map<String, serde_json::Value>;

/// The identity of a document within one index; never used twice.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct DocumentId(pub i64);

/// The identity of a page within one index; never used twice.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct PageId(pub i64);

/// A document as it goes into the index.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DocumentRecord {
    /// Where the document is; the index holds one document a path.
    pub path: String,
    /// BLAKE3 of the file's bytes, in hexadecimal.
    pub content_hash: String,
    /// Size of the file.
    pub size_bytes: u64,
    /// Time of the last change in nanoseconds since 1970, 0 if not known.
    pub modified: i64,
    /// The kind of file, such as `pdf` or `png`.
    pub kind: String,
    /// What the person said about it, for filters.
    pub metadata: Metadata,
    /// The title the document gives itself, or nothing.
    pub title: String,
}

/// A page as it goes into the index.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PageRecord {
    /// Counts from 1 within its document.
    pub number: u32,
    /// Width in the unit of the word boxes (points for a PDF, pixels for a picture).
    pub width: f32,
    /// Height in the same unit.
    pub height: f32,
    /// The text layer in reading order; empty if there is none.
    pub text: String,
    /// The words of the text layer with their places.
    pub words: Vec<WordBox>,
    /// The rows of the page, or `None` in a text-only index.
    pub rows: Option<MultiVector>,
    /// Where each row comes from on the page; kept and handed back as it is.
    pub geometry: Option<Vec<u8>>,
}

/// A word and its place on the page.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct WordBox {
    /// The word.
    pub text: String,
    /// Left, top, right, bottom in the unit of the page's width and height.
    #[serde(rename = "box")]
    pub bounds: [f32; 4],
    /// The line the word stands in, from 0.
    pub line: u32,
}

/// A document as the index knows it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct DocumentInfo {
    /// Its identity.
    pub id: DocumentId,
    /// What was stored of it.
    #[serde(flatten)]
    pub record: DocumentRecord,
    /// Number of its pages.
    pub num_pages: u32,
    /// Number of its pages that have rows.
    pub num_pages_with_rows: u32,
    /// Number of its rows over all pages.
    pub num_rows: u64,
}

/// A page as the index knows it; its words, rows and geometry are read on their own.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct PageInfo {
    /// Its identity.
    pub id: PageId,
    /// The document it belongs to.
    pub document_id: DocumentId,
    /// The path of that document.
    pub document: String,
    /// Counts from 1.
    pub number: u32,
    /// Width in the unit of the word boxes.
    pub width: f32,
    /// Height in the same unit.
    pub height: f32,
    /// The text layer.
    pub text: String,
    /// Number of rows; 0 if the page has none.
    pub num_rows: u32,
}

/// What indexing a file with a given content would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The index holds this content at this path.
    Unchanged,
    /// The index holds this content at another path. If that file still exists it is a copy
    /// ([`crate::Writer::copy_document`]), else it was moved ([`crate::Writer::mark_moved`]).
    Moved {
        /// The path the content is known under.
        from: String,
    },
    /// The index holds another content at this path.
    Replaced,
    /// Neither the path nor the content is known.
    New,
}
