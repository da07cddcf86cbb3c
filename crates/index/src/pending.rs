//! A document on its way into the index.
//!
//! Pages go to the disk as they come, so a document of a thousand pages never stands in memory; they
//! become visible all at once with [`PendingDocument::commit`], or not at all.

use std::collections::HashSet;

use crate::catalog::write;
use crate::error::{Error, Result};
use crate::record::{DocumentId, DocumentInfo, DocumentRecord, PageId, PageRecord};
use crate::search_text;
use crate::segment::payload_hash;
use crate::settings::Settings;
use crate::writer::Writer;

/// What a commit did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Added {
    /// The identity of the new document.
    pub document: DocumentId,
    /// Number of its pages.
    pub pages: u32,
    /// Whether an older content at the same path gave way to it.
    pub replaced: bool,
}

/// A document that is being added; dropping it leaves the index as it was.
#[derive(Debug)]
pub struct PendingDocument<'w> {
    writer: &'w mut Writer,
    id: DocumentId,
    path: String,
    names: String,
    numbers: HashSet<u32>,
    replaced: bool,
    settings: Settings,
    committed: bool,
}

impl<'w> PendingDocument<'w> {
    pub(crate) fn begin(writer: &'w mut Writer, record: &DocumentRecord) -> Result<Self> {
        if record.path.is_empty() {
            return Err(Error::NoPath);
        }
        if i64::try_from(record.size_bytes).is_err() {
            return Err(Error::TooLarge {
                what: "a file size of",
                found: record.size_bytes,
            });
        }
        let settings = writer.settings().clone();
        writer.begin()?;
        let mut pending = Self {
            writer,
            id: DocumentId(0),
            path: record.path.clone(),
            names: search_text::names(&record.path, &record.title),
            numbers: HashSet::new(),
            replaced: false,
            settings,
            committed: false,
        };
        // From here on dropping `pending` rolls back.
        let connection = pending.writer.connection();
        let failed = || pending.writer.catalog().failed("add a document to");
        pending.replaced = write::remove_document(connection, &record.path)
            .map_err(failed())?
            .is_some();
        pending.id = write::insert_document(connection, record).map_err(failed())?;
        Ok(pending)
    }

    /// Adds a page; its rows are written at once. After an error the page is not part of the document, and
    /// the others are unharmed.
    ///
    /// # Errors
    /// If the page number is 0 or was used, the rows do not fit the index, or something cannot be written.
    pub fn append_page(&mut self, page: &PageRecord) -> Result<PageId> {
        self.check(page)?;
        let connection = self.writer.connection();
        let failed = || self.writer.catalog().failed("add a page to");
        connection
            .execute_batch("SAVEPOINT page")
            .map_err(failed())?;
        let result = self.insert(page);
        let connection = self.writer.connection();
        if result.is_ok() {
            connection
                .execute_batch("RELEASE page")
                .map_err(self.writer.catalog().failed("add a page to"))?;
            self.numbers.insert(page.number);
        } else {
            // After a full disk SQLite may have rolled back the whole transaction already; `commit` sees it.
            drop(connection.execute_batch("ROLLBACK TO page; RELEASE page"));
        }
        result
    }

    fn insert(&mut self, page: &PageRecord) -> Result<PageId> {
        let id = write::insert_page(self.writer.connection(), self.id, page, &self.names)
            .map_err(self.writer.catalog().failed("add a page to"))?;
        if let Some(rows) = &page.rows {
            let location = self.writer.store().stage(id, rows)?;
            let hash = payload_hash(rows.as_slice());
            write::set_location(self.writer.connection(), id, location, Some(&hash))
                .map_err(self.writer.catalog().failed("add a page to"))?;
            self.settings.dim = Some(rows.dim());
        }
        Ok(id)
    }

    fn check(&self, page: &PageRecord) -> Result<()> {
        let wrong_number = |problem| Error::PageNumber {
            document: self.path.clone(),
            page: page.number,
            problem,
        };
        if page.number == 0 {
            return Err(wrong_number("0, and pages count from 1"));
        }
        if self.numbers.contains(&page.number) {
            return Err(wrong_number("given twice"));
        }
        let Some(rows) = &page.rows else {
            return Ok(());
        };
        if self.settings.is_text_only() {
            return Err(Error::TextOnly {
                path: self.writer.dir().to_owned(),
                document: self.path.clone(),
                page: page.number,
            });
        }
        match self.settings.dim {
            Some(expected) if expected != rows.dim() => Err(Error::DimMismatch {
                expected,
                found: rows.dim(),
            }),
            _ => Ok(()),
        }
    }

    /// Takes over the pages of a document with the same content and commits.
    pub(crate) fn copy_from(mut self, source: &DocumentInfo) -> Result<Added> {
        write::copy_pages(self.writer.connection(), source.id, self.id, &self.names)
            .map_err(self.writer.catalog().failed("copy a document in"))?;
        let settings = self.settings.clone();
        self.writer.commit(&settings)?;
        self.committed = true;
        Ok(Added {
            document: self.id,
            pages: source.num_pages,
            replaced: self.replaced,
        })
    }

    /// Makes the document visible, durably: its rows and their folder are synced, then the catalogue's
    /// transaction is.
    ///
    /// # Errors
    /// If something cannot be written; then the index is as it was before the document was begun.
    pub fn commit(mut self) -> Result<Added> {
        let settings = self.settings.clone();
        self.writer.commit(&settings)?;
        self.committed = true;
        Ok(Added {
            document: self.id,
            pages: self.numbers.len() as u32,
            replaced: self.replaced,
        })
    }

    /// Leaves the index as it was; the same as dropping the document.
    pub fn abort(self) {}
}

impl Drop for PendingDocument<'_> {
    fn drop(&mut self) {
        if !self.committed {
            self.writer.rollback();
        }
    }
}
