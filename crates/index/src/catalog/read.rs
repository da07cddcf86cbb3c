//! Questions to the catalogue.
//!
//! A catalogue may be damaged or made by someone else: every number is checked before it becomes an
//! identity, a length or an offset.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::Catalog;
use crate::error::Result;
use crate::record::{
    DocumentId, DocumentInfo, DocumentRecord, Metadata, PageId, PageInfo, WordBox,
};
use crate::settings::Settings;
use crate::stores::{Expected, Extent, Location, Record};
use crate::words;

/// A page that can be searched by its rows, with what is needed to name it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    pub(crate) record: Record,
    pub(crate) document: DocumentId,
}

const DOCUMENT_COLUMNS: &str =
    "documents.id, documents.path, documents.content_hash, documents.size_bytes,
    documents.modified, documents.kind, documents.title, documents.metadata,
    (SELECT count(*) FROM pages WHERE document_id = documents.id),
    (SELECT count(*) FROM pages WHERE document_id = documents.id AND segment IS NOT NULL),
    (SELECT coalesce(sum(num_rows), 0) FROM pages WHERE document_id = documents.id)";

impl Catalog {
    /// What the index was made with.
    pub(crate) fn settings(&self, connection: &Connection) -> Result<Settings> {
        let text: String = connection
            .query_row("SELECT settings FROM state", [], |row| row.get(0))
            .map_err(self.failed("read the settings in"))?;
        serde_json::from_str(&text)
            .map_err(|_| self.damaged("the settings", "the index", shorten(&text)))
    }

    /// Counts commits.
    pub(crate) fn generation(&self, connection: &Connection) -> Result<i64> {
        connection
            .prepare_cached("SELECT generation FROM state")
            .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
            .map_err(self.failed("read the state of"))
    }

    /// The parts of the local store.
    pub(crate) fn extents(&self, connection: &Connection) -> Result<Vec<Extent>> {
        let mut statement = connection
            .prepare("SELECT id, dim, num_bytes FROM segments ORDER BY id")
            .map_err(self.failed("read the segments in"))?;
        let mut rows = statement
            .query([])
            .map_err(self.failed("read the segments in"))?;
        let mut extents = Vec::new();
        while let Some(row) = rows.next().map_err(self.failed("read the segments in"))? {
            let (id, dim, bytes) = three(row).map_err(self.failed("read the segments in"))?;
            extents.push(Extent {
                segment: self.number("the number", "a segment", id)?,
                dim: self.number("the row length", format!("segment {id}"), dim)?,
                num_bytes: self.number("the length", format!("segment {id}"), bytes)?,
            });
        }
        Ok(extents)
    }

    /// Every page that has rows, by path and number.
    pub(crate) fn candidates(&self, connection: &Connection) -> Result<Vec<Candidate>> {
        let failed = || self.failed("list the pages in");
        let mut statement = connection
            .prepare_cached(
                "SELECT pages.id, document_id, segment, byte_offset, num_rows
                 FROM documents JOIN pages ON document_id = documents.id
                 WHERE segment IS NOT NULL ORDER BY path, number",
            )
            .map_err(failed())?;
        let mut rows = statement.query([]).map_err(failed())?;
        let mut candidates = Vec::new();
        while let Some(row) = rows.next().map_err(failed())? {
            let page: i64 = row.get(0).map_err(failed())?;
            let document: i64 = row.get(1).map_err(failed())?;
            let location = self.location(row, page, 2)?;
            candidates.push(Candidate {
                record: Record {
                    page: PageId(page),
                    location,
                },
                document: DocumentId(document),
            });
        }
        Ok(candidates)
    }

    /// Every page that has rows with their checksum, by segment and place.
    pub(crate) fn expected(&self, connection: &Connection) -> Result<Vec<Expected>> {
        let failed = || self.failed("list the pages in");
        let mut statement = connection
            .prepare(
                "SELECT id, rows_hash, segment, byte_offset, num_rows FROM pages
                 WHERE segment IS NOT NULL ORDER BY segment, byte_offset, id",
            )
            .map_err(failed())?;
        let mut rows = statement.query([]).map_err(failed())?;
        let mut expected = Vec::new();
        while let Some(row) = rows.next().map_err(failed())? {
            let page: i64 = row.get(0).map_err(failed())?;
            let hash: Option<Vec<u8>> = row.get(1).map_err(failed())?;
            let hash = hash.unwrap_or_default();
            let hash = <[u8; 32]>::try_from(hash.as_slice()).map_err(|_| {
                self.damaged(
                    "the rows' checksum",
                    format!("page {page}"),
                    format!("{} bytes", hash.len()),
                )
            })?;
            let location = self.location(row, page, 2)?;
            expected.push(Expected {
                record: Record {
                    page: PageId(page),
                    location,
                },
                hash,
            });
        }
        Ok(expected)
    }

    /// The documents, by path.
    pub(crate) fn documents(&self, connection: &Connection) -> Result<Vec<DocumentInfo>> {
        self.document_query(connection, "ORDER BY path", params![])
    }

    /// The document at a path.
    pub(crate) fn document(
        &self,
        connection: &Connection,
        path: &str,
    ) -> Result<Option<DocumentInfo>> {
        Ok(self
            .document_query(connection, "WHERE path = ?1", params![path])?
            .pop())
    }

    /// The documents with a content, by path.
    pub(crate) fn documents_with_hash(
        &self,
        connection: &Connection,
        hash: &str,
    ) -> Result<Vec<DocumentInfo>> {
        self.document_query(
            connection,
            "WHERE content_hash = ?1 ORDER BY path",
            params![hash],
        )
    }

    fn document_query(
        &self,
        connection: &Connection,
        rest: &str,
        values: &[&dyn rusqlite::ToSql],
    ) -> Result<Vec<DocumentInfo>> {
        let failed = || self.failed("list the documents in");
        let mut statement = connection
            .prepare_cached(&format!("SELECT {DOCUMENT_COLUMNS} FROM documents {rest}"))
            .map_err(failed())?;
        let mut rows = statement.query(values).map_err(failed())?;
        let mut documents = Vec::new();
        while let Some(row) = rows.next().map_err(failed())? {
            documents.push(self.document_info(row)?);
        }
        Ok(documents)
    }

    fn document_info(&self, row: &Row<'_>) -> Result<DocumentInfo> {
        let failed = || self.failed("read a document in");
        let id: i64 = row.get(0).map_err(failed())?;
        let of = || format!("document {id}");
        let metadata: String = row.get(7).map_err(failed())?;
        Ok(DocumentInfo {
            id: DocumentId(id),
            record: DocumentRecord {
                path: row.get(1).map_err(failed())?,
                content_hash: row.get(2).map_err(failed())?,
                size_bytes: self.number("the size", of(), row.get(3).map_err(failed())?)?,
                modified: row.get(4).map_err(failed())?,
                kind: row.get(5).map_err(failed())?,
                title: row.get(6).map_err(failed())?,
                metadata: self.metadata(id, &metadata)?,
            },
            num_pages: self.number("the page count", of(), row.get(8).map_err(failed())?)?,
            num_pages_with_rows: self.number(
                "the page count",
                of(),
                row.get(9).map_err(failed())?,
            )?,
            num_rows: self.number("the row count", of(), row.get(10).map_err(failed())?)?,
        })
    }

    /// Metadata as stored.
    pub(crate) fn metadata(&self, document: i64, text: &str) -> Result<Metadata> {
        serde_json::from_str(text).map_err(|_| {
            self.damaged(
                "the metadata",
                format!("document {document}"),
                shorten(text),
            )
        })
    }

    /// A page by its identity.
    pub(crate) fn page(&self, connection: &Connection, page: PageId) -> Result<Option<PageInfo>> {
        let failed = || self.failed("read a page in");
        let found = connection
            .prepare_cached(
                "SELECT document_id, path, number, width, height, text, num_rows
                 FROM pages JOIN documents ON documents.id = document_id
                 JOIN page_contents ON page_id = pages.id WHERE pages.id = ?1",
            )
            .and_then(|mut statement| {
                statement
                    .query_row(params![page.0], |row| {
                        Ok((
                            row.get::<_, i64>(0)?,
                            row.get::<_, String>(1)?,
                            row.get::<_, i64>(2)?,
                            row.get::<_, f64>(3)?,
                            row.get::<_, f64>(4)?,
                            row.get::<_, String>(5)?,
                            row.get::<_, i64>(6)?,
                        ))
                    })
                    .optional()
            })
            .map_err(failed())?;
        let Some((document_id, document, number, width, height, text, num_rows)) = found else {
            return Ok(None);
        };
        let of = || format!("page {}", page.0);
        Ok(Some(PageInfo {
            id: page,
            document_id: DocumentId(document_id),
            document,
            number: self.number("the number", of(), number)?,
            width: width as f32,
            height: height as f32,
            text,
            num_rows: self.number("the row count", of(), num_rows)?,
        }))
    }

    /// The identity of a page.
    pub(crate) fn page_id(
        &self,
        connection: &Connection,
        document: &str,
        number: u32,
    ) -> Result<Option<PageId>> {
        connection
            .prepare_cached(
                "SELECT pages.id FROM documents JOIN pages ON document_id = documents.id
                 WHERE path = ?1 AND number = ?2",
            )
            .and_then(|mut statement| {
                statement
                    .query_row(params![document, number], |row| row.get(0).map(PageId))
                    .optional()
            })
            .map_err(self.failed("find a page in"))
    }

    /// The words of a page.
    pub(crate) fn words(
        &self,
        connection: &Connection,
        page: PageId,
    ) -> Result<Option<Vec<WordBox>>> {
        let bytes: Option<Vec<u8>> = connection
            .prepare_cached("SELECT words FROM page_contents WHERE page_id = ?1")
            .and_then(|mut statement| {
                statement
                    .query_row(params![page.0], |row| row.get(0))
                    .optional()
            })
            .map_err(self.failed("read the words of a page in"))?;
        bytes
            .map(|bytes| {
                words::decode(&bytes).map_err(|fault| {
                    self.damaged("the word boxes", format!("page {}", page.0), fault)
                })
            })
            .transpose()
    }

    /// The geometry of a page's rows.
    #[expect(
        clippy::option_option,
        reason = "no such page, a page without, a page with"
    )]
    pub(crate) fn geometry(
        &self,
        connection: &Connection,
        page: PageId,
    ) -> Result<Option<Option<Vec<u8>>>> {
        connection
            .prepare_cached("SELECT geometry FROM page_contents WHERE page_id = ?1")
            .and_then(|mut statement| {
                statement
                    .query_row(params![page.0], |row| row.get(0))
                    .optional()
            })
            .map_err(self.failed("read the geometry of a page in"))
    }

    /// Where the rows of a page are: `None` for an unknown page, `Some(None)` for one without rows.
    #[expect(
        clippy::option_option,
        reason = "no such page, a page without, a page with"
    )]
    pub(crate) fn page_location(
        &self,
        connection: &Connection,
        page: PageId,
    ) -> Result<Option<Option<Location>>> {
        let failed = || self.failed("find the rows of a page in");
        let mut statement = connection
            .prepare_cached("SELECT segment, byte_offset, num_rows FROM pages WHERE id = ?1")
            .map_err(failed())?;
        let mut rows = statement.query(params![page.0]).map_err(failed())?;
        let Some(row) = rows.next().map_err(failed())? else {
            return Ok(None);
        };
        if row.get::<_, Option<i64>>(0).map_err(failed())?.is_none() {
            return Ok(Some(None));
        }
        self.location(row, page.0, 0).map(Some).map(Some)
    }

    fn location(&self, row: &Row<'_>, page: i64, first: usize) -> Result<Location> {
        let failed = || self.failed("find the rows of a page in");
        let of = || format!("page {page}");
        let offset: Option<i64> = row.get(first + 1).map_err(failed())?;
        Ok(Location {
            segment: self.number("the segment", of(), row.get(first).map_err(failed())?)?,
            offset: self.number("the place", of(), offset.unwrap_or(-1))?,
            num_rows: self.number("the row count", of(), row.get(first + 2).map_err(failed())?)?,
        })
    }

    /// A number that must not be negative, nor beyond its type.
    fn number<T: TryFrom<i64>>(
        &self,
        what: &'static str,
        row: impl ToString,
        value: i64,
    ) -> Result<T> {
        T::try_from(value).map_err(|_| self.damaged(what, row, value))
    }
}

fn three(row: &Row<'_>) -> rusqlite::Result<(i64, i64, i64)> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
}

/// The beginning of a text that makes no sense, for a message.
fn shorten(text: &str) -> String {
    format!(
        "`{}`",
        text.chars().take(60).collect::<String>().escape_debug()
    )
}
