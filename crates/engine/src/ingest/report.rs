//! What an ingest tells while it runs.

/// What became of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DocumentStatus {
    /// New here, or known content at a new place.
    Indexed,
    /// As it was.
    Unchanged,
    /// New content at a known place.
    Replaced,
    /// No longer there.
    Removed,
    /// Could not be read.
    Failed,
}

/// One event of an ingest; serialised as one line of `index --json`.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum IndexEvent {
    /// The files are known.
    Found {
        /// Documents to look at.
        documents: usize,
        /// Files in folders that are no documents.
        skipped: usize,
    },
    /// A page is written (not yet visible).
    Page {
        /// Its document.
        path: String,
        /// Its number, from 1.
        page: usize,
        /// Pages of the document.
        pages: usize,
    },
    /// A document is done.
    Document {
        /// Its path.
        path: String,
        /// What became of it.
        status: DocumentStatus,
        /// Its pages in the index.
        pages: usize,
        /// Why it, or some of its pages, could not be read.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// Everything is done.
    Done(Summary),
}

impl IndexEvent {
    pub(super) fn failed(path: String, reason: String) -> Self {
        Self::Document {
            path,
            status: DocumentStatus::Failed,
            pages: 0,
            error: Some(reason),
        }
    }
}

/// Counts of a whole run.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Summary {
    /// Documents that are in the index now, of those that were looked at.
    pub documents: usize,
    /// Their pages.
    pub pages: usize,
    /// Documents that could not be read, or not wholly.
    pub failed: usize,
    /// Documents that left the index.
    pub removed: usize,
    /// How long it took.
    pub seconds: f64,
}

impl Summary {
    pub(super) fn count(&mut self, pages: usize, incomplete: bool) {
        self.documents += 1;
        self.pages += pages;
        self.failed += usize::from(incomplete);
    }
}
