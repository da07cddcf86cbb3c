//! Changes to the catalogue, each a few statements within a transaction of the caller's.

use rusqlite::{Connection, OptionalExtension as _, params};

use crate::record::{DocumentId, DocumentRecord, PageId, PageRecord};
use crate::settings::Settings;
use crate::stores::{Extent, Location};
use crate::{search_text, words};

/// Bytes kept of a checksum in the catalogue.
const CHECKSUM_BYTES: usize = 16;

pub(crate) fn settings_json(settings: &Settings) -> String {
    serde_json::to_string(settings).expect("plain fields that do not serialise are a bug")
}

pub(crate) fn set_settings(connection: &Connection, settings: &Settings) -> rusqlite::Result<()> {
    connection.execute(
        "UPDATE state SET settings = ?1",
        params![settings_json(settings)],
    )?;
    Ok(())
}

/// Tells readers that what they remember is old.
pub(crate) fn bump_generation(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute("UPDATE state SET generation = generation + 1", [])?;
    Ok(())
}

/// Inserts a document without pages. Its size fits 63 bits, which the caller has checked.
pub(crate) fn insert_document(
    connection: &Connection,
    record: &DocumentRecord,
) -> rusqlite::Result<DocumentId> {
    let metadata = metadata_json(record);
    connection.prepare_cached(
        "INSERT INTO documents (path, content_hash, size_bytes, modified, kind, title, metadata, checksum)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![
        record.path,
        record.content_hash,
        record.size_bytes as i64,
        record.modified,
        record.kind,
        record.title,
        metadata,
        document_checksum(record, &metadata),
    ])?;
    Ok(DocumentId(connection.last_insert_rowid()))
}

/// Changes what is stored of a document, and the names its pages are found by.
pub(crate) fn update_document(
    connection: &Connection,
    id: DocumentId,
    record: &DocumentRecord,
) -> rusqlite::Result<()> {
    let metadata = metadata_json(record);
    connection.execute(
        "UPDATE documents SET path = ?2, content_hash = ?3, size_bytes = ?4, modified = ?5, kind = ?6,
         title = ?7, metadata = ?8, checksum = ?9 WHERE id = ?1",
        params![
            id.0,
            record.path,
            record.content_hash,
            record.size_bytes as i64,
            record.modified,
            record.kind,
            record.title,
            metadata,
            document_checksum(record, &metadata),
        ],
    )?;
    let names = search_text::names(&record.path, &record.title);
    let mut pages = connection.prepare(
        "SELECT pages.id, page_contents.text FROM pages
         JOIN page_contents ON page_contents.page_id = pages.id WHERE document_id = ?1",
    )?;
    let mut rows = pages.query(params![id.0])?;
    while let Some(row) = rows.next()? {
        let (page, text): (i64, String) = (row.get(0)?, row.get(1)?);
        connection.execute("DELETE FROM page_search WHERE rowid = ?1", params![page])?;
        insert_search(connection, "page_search", PageId(page), &text, &names)?;
    }
    Ok(())
}

/// Inserts a page without rows.
pub(crate) fn insert_page(
    connection: &Connection,
    document: DocumentId,
    page: &PageRecord,
    names: &str,
) -> rusqlite::Result<PageId> {
    connection
        .prepare_cached(
            "INSERT INTO pages (document_id, number, width, height, num_words, num_rows)
         VALUES (?1, ?2, ?3, ?4, ?5, 0)",
        )?
        .execute(params![
            document.0,
            page.number,
            f64::from(page.width),
            f64::from(page.height),
            page.text.split_whitespace().count() as i64,
        ])?;
    let id = PageId(connection.last_insert_rowid());
    let words = words::encode(&page.words);
    let contents = PageContents {
        number: page.number,
        width: page.width,
        height: page.height,
        text: &page.text,
        words: &words,
        geometry: page.geometry.as_deref(),
    };
    connection.prepare_cached(
        "INSERT INTO page_contents (page_id, text, words, geometry, checksum) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![id.0, page.text, words, page.geometry, contents.checksum()])?;
    insert_search(connection, "page_search", id, &page.text, names)?;
    Ok(id)
}

/// Puts a page into a full-text table.
pub(crate) fn insert_search(
    connection: &Connection,
    table: &str,
    page: PageId,
    text: &str,
    names: &str,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(&format!(
            "INSERT INTO {table} (rowid, body, names) VALUES (?1, ?2, ?3)"
        ))?
        .execute(params![page.0, search_text::body(text), names])?;
    Ok(())
}

/// Says where the rows of a page are.
pub(crate) fn set_location(
    connection: &Connection,
    page: PageId,
    location: Location,
    hash: Option<&[u8; 32]>,
) -> rusqlite::Result<()> {
    connection.prepare_cached(
        "UPDATE pages SET segment = ?2, byte_offset = ?3, num_rows = ?4, rows_hash = coalesce(?5, rows_hash)
         WHERE id = ?1",
    )?
    .execute(params![
        page.0,
        location.segment as i64,
        location.offset as i64,
        location.num_rows,
        hash.map(<[u8; 32]>::as_slice),
    ])?;
    Ok(())
}

/// Copies the pages of one document to another, rows and all; the rows themselves are shared.
pub(crate) fn copy_pages(
    connection: &Connection,
    from: DocumentId,
    to: DocumentId,
    names: &str,
) -> rusqlite::Result<()> {
    let mut pages =
        connection.prepare("SELECT id FROM pages WHERE document_id = ?1 ORDER BY number")?;
    let ids = pages.query_map(params![from.0], |row| row.get::<_, i64>(0))?;
    for id in ids.collect::<rusqlite::Result<Vec<i64>>>()? {
        connection.execute(
            "INSERT INTO pages
             (document_id, number, width, height, num_words, segment, byte_offset, num_rows, rows_hash)
             SELECT ?2, number, width, height, num_words, segment, byte_offset, num_rows, rows_hash
             FROM pages WHERE id = ?1",
            params![id, to.0],
        )?;
        let copy = connection.last_insert_rowid();
        connection.execute(
            "INSERT INTO page_contents (page_id, text, words, geometry, checksum)
             SELECT ?2, text, words, geometry, checksum FROM page_contents WHERE page_id = ?1",
            params![id, copy],
        )?;
        let text: String = connection.query_row(
            "SELECT text FROM page_contents WHERE page_id = ?1",
            params![id],
            |row| row.get(0),
        )?;
        insert_search(connection, "page_search", PageId(copy), &text, names)?;
    }
    Ok(())
}

/// Removes a document with its pages; how many pages those were, or `None` if there is no such document.
pub(crate) fn remove_document(
    connection: &Connection,
    path: &str,
) -> rusqlite::Result<Option<u32>> {
    const PAGES: &str = "(SELECT id FROM pages WHERE document_id = ?1)";
    let id: Option<i64> = connection
        .query_row(
            "SELECT id FROM documents WHERE path = ?1",
            params![path],
            |row| row.get(0),
        )
        .optional()?;
    let Some(id) = id else { return Ok(None) };
    connection.execute(
        &format!("DELETE FROM page_search WHERE rowid IN {PAGES}"),
        params![id],
    )?;
    connection.execute(
        &format!("DELETE FROM page_contents WHERE page_id IN {PAGES}"),
        params![id],
    )?;
    let pages = connection.execute("DELETE FROM pages WHERE document_id = ?1", params![id])?;
    connection.execute("DELETE FROM documents WHERE id = ?1", params![id])?;
    Ok(Some(pages as u32))
}

/// Remembers how far segments have grown.
pub(crate) fn set_extents(connection: &Connection, extents: &[Extent]) -> rusqlite::Result<()> {
    for extent in extents {
        connection.execute(
            "INSERT OR REPLACE INTO segments (id, dim, num_bytes) VALUES (?1, ?2, ?3)",
            params![extent.segment as i64, extent.dim, extent.num_bytes as i64],
        )?;
    }
    Ok(())
}

/// Forgets segments no page refers to any more.
pub(crate) fn remove_unused_extents(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute(
        "DELETE FROM segments
         WHERE NOT EXISTS (SELECT 1 FROM pages WHERE pages.segment = segments.id)",
        [],
    )?;
    Ok(())
}

fn metadata_json(record: &DocumentRecord) -> String {
    serde_json::to_string(&record.metadata).expect("a JSON object that does not serialise is a bug")
}

/// What the checksum of a page covers.
pub(crate) struct PageContents<'a> {
    pub(crate) number: u32,
    pub(crate) width: f32,
    pub(crate) height: f32,
    pub(crate) text: &'a str,
    pub(crate) words: &'a [u8],
    pub(crate) geometry: Option<&'a [u8]>,
}

impl PageContents<'_> {
    pub(crate) fn checksum(&self) -> Vec<u8> {
        let numbers = [
            self.number.to_le_bytes(),
            self.width.to_le_bytes(),
            self.height.to_le_bytes(),
            [u8::from(self.geometry.is_some()), 0, 0, 0],
        ];
        checksum(&[
            numbers.as_flattened(),
            self.text.as_bytes(),
            self.words,
            self.geometry.unwrap_or_default(),
        ])
    }
}

/// What the checksum of a document covers: everything but its identity.
pub(crate) fn document_checksum(record: &DocumentRecord, metadata: &str) -> Vec<u8> {
    let numbers = [
        record.size_bytes.to_le_bytes(),
        record.modified.to_le_bytes(),
    ];
    checksum(&[
        numbers.as_flattened(),
        record.path.as_bytes(),
        record.content_hash.as_bytes(),
        record.kind.as_bytes(),
        record.title.as_bytes(),
        metadata.as_bytes(),
    ])
}

fn checksum(parts: &[&[u8]]) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        // The length before each part keeps "ab", "c" apart from "a", "bc".
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().as_bytes()[..CHECKSUM_BYTES].to_vec()
}
