//! Reading everything, to find what is damaged.
//!
//! Three layers are compared: SQLite's own structures, the checksums of documents, pages and rows, and the
//! full-text table against a fresh one built from the stored text.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;

use rusqlite::{Connection, params};

use crate::catalog::write::{PageContents, document_checksum, insert_search};
use crate::catalog::{Catalog, schema};
use crate::error::{Error, Result};
use crate::features::Features;
use crate::index::Index;
use crate::record::{DocumentRecord, PageId};
use crate::stores::StoreFault;
use crate::{search_text, words};

/// No more problems of one kind are listed: a broken catalogue could name every page.
const MAX_PER_KIND: usize = 1000;

/// Something wrong in an index.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// The file it is in.
    pub path: PathBuf,
    /// The document concerned, if it is known: removing it and indexing it again repairs the index.
    pub document: Option<String>,
    /// The number of the page concerned, if it is known.
    pub page: Option<u32>,
    /// What kind of thing is wrong.
    pub kind: ProblemKind,
    /// What is wrong, in words.
    pub what: String,
}

/// The kinds of problems.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    /// SQLite finds its own file damaged.
    Database,
    /// What is stored of a document does not match its checksum.
    Document,
    /// The text, words, size or geometry of a page do not match their checksum.
    Page,
    /// The rows of a page are missing or damaged.
    Rows,
    /// A page is not found by its text, or by text that is not its own.
    FullText,
    /// What is kept of a page's look is damaged: it is not used, and compacting removes it.
    Features,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: ", self.path.display())?;
        match (&self.document, self.page) {
            (Some(document), Some(page)) => write!(f, "page {page} of `{document}`: ")?,
            (Some(document), None) => write!(f, "`{document}`: ")?,
            (None, _) => {}
        }
        f.write_str(&self.what)
    }
}

impl Index {
    /// Reads everything and compares every checksum; nothing is wrong if the list is empty.
    ///
    /// # Errors
    /// If the index cannot be read at all.
    pub fn verify(&self) -> Result<Vec<Problem>> {
        let reader = self.catalog.open_reader()?;
        let connection = &reader.connection;
        // The fresh full-text table is a temporary one; the index itself stays open read-only.
        connection
            .pragma_update(None, "query_only", false)
            .map_err(self.catalog.failed("verify"))?;
        let transaction = connection
            .unchecked_transaction()
            .map_err(self.catalog.failed("verify"))?;
        let mut report = Report {
            index: self,
            connection: &transaction,
            problems: Vec::new(),
        };
        for check in [
            Report::database,
            Report::documents,
            Report::pages,
            Report::rows,
            Report::full_text,
            Report::features,
        ] {
            match check(&mut report) {
                Ok(()) => {}
                // A damaged database fails in the middle of a question: that is a finding, not the end.
                Err(error @ (Error::Catalog { .. } | Error::DamagedCatalog { .. })) => {
                    let what = match std::error::Error::source(&error) {
                        Some(source) => format!("{error}: {source}"),
                        None => error.to_string(),
                    };
                    report.add(ProblemKind::Database, None, what);
                }
                Err(other) => return Err(other),
            }
        }
        Ok(report.problems)
    }
}

struct Report<'a> {
    index: &'a Index,
    connection: &'a Connection,
    problems: Vec<Problem>,
}

impl Report<'_> {
    fn catalog(&self) -> &Catalog {
        &self.index.catalog
    }

    fn add(&mut self, kind: ProblemKind, place: Option<(String, Option<u32>)>, what: String) {
        let path = self.catalog().path().to_owned();
        self.add_in(path, kind, place, what);
    }

    fn add_in(
        &mut self,
        path: PathBuf,
        kind: ProblemKind,
        place: Option<(String, Option<u32>)>,
        what: String,
    ) {
        if self
            .problems
            .iter()
            .filter(|problem| problem.kind == kind)
            .count()
            >= MAX_PER_KIND
        {
            return;
        }
        let (document, page) =
            place.map_or((None, None), |(document, page)| (Some(document), page));
        self.problems.push(Problem {
            path,
            document,
            page,
            kind,
            what,
        });
    }

    /// SQLite's own checks, and that rows of tables refer to rows that exist.
    fn database(&mut self) -> Result<()> {
        let failed = || self.catalog().failed("verify");
        let mut faults = Vec::new();
        let mut statement = self
            .connection
            .prepare("PRAGMA integrity_check")
            .map_err(failed())?;
        let mut rows = statement.query([]).map_err(failed())?;
        while let Some(row) = rows.next().map_err(failed())? {
            let text: String = row.get(0).map_err(failed())?;
            if text != "ok" {
                faults.push(text);
            }
        }
        for (sql, what) in [
            ("SELECT count(*) FROM pragma_foreign_key_check", "rows refer to rows that do not exist"),
            (
                "SELECT count(*) FROM pages WHERE id NOT IN (SELECT page_id FROM page_contents)",
                "pages have lost their text",
            ),
            (
                "SELECT count(*) FROM pages WHERE (segment IS NULL) <> (rows_hash IS NULL)
                 OR (segment IS NULL) <> (byte_offset IS NULL) OR (segment IS NULL) <> (num_rows = 0)",
                "pages contradict themselves about their rows",
            ),
        ] {
            let count: i64 = self.connection.query_row(sql, [], |row| row.get(0)).map_err(failed())?;
            if count != 0 {
                faults.push(format!("{count} {what}"));
            }
        }
        // A table defined otherwise, by a flipped bit or by hand, answers otherwise.
        if schema::definitions(self.connection).map_err(failed())?
            != schema::expected_definitions().map_err(failed())?
        {
            faults.push("the tables are not defined as they should be".to_owned());
        }
        for fault in faults {
            self.add(ProblemKind::Database, None, fault);
        }
        self.catalog().settings(self.connection).map(drop)
    }

    /// Every document against its checksum.
    fn documents(&mut self) -> Result<()> {
        let failed = || self.catalog().failed("verify the documents in");
        let mut faults = Vec::new();
        let mut statement = self
            .connection
            .prepare(
                "SELECT id, path, content_hash, size_bytes, modified, kind, title, metadata, checksum
                 FROM documents ORDER BY path",
            )
            .map_err(failed())?;
        let mut rows = statement.query([]).map_err(failed())?;
        while let Some(row) = rows.next().map_err(failed())? {
            let read = || -> rusqlite::Result<(DocumentRecord, String, Vec<u8>)> {
                let record = DocumentRecord {
                    path: row.get(1)?,
                    content_hash: row.get(2)?,
                    size_bytes: row.get::<_, i64>(3)?.unsigned_abs(),
                    modified: row.get(4)?,
                    kind: row.get(5)?,
                    title: row.get(6)?,
                    ..DocumentRecord::default()
                };
                Ok((record, row.get(7)?, row.get(8)?))
            };
            let id: i64 = row.get(0).map_err(failed())?;
            match read() {
                Ok((record, metadata, checksum)) => {
                    if document_checksum(&record, &metadata) != checksum {
                        faults.push((
                            Some((record.path, None)),
                            "the document's checksum does not match".to_owned(),
                        ));
                    } else if let Err(error) = self.catalog().metadata(id, &metadata) {
                        faults.push((Some((record.path, None)), error.to_string()));
                    }
                }
                Err(error) => faults.push((None, format!("document {id} cannot be read: {error}"))),
            }
        }
        for (place, what) in faults {
            self.add(ProblemKind::Document, place, what);
        }
        Ok(())
    }

    /// Every page's text, words and geometry against their checksum.
    fn pages(&mut self) -> Result<()> {
        let failed = || self.catalog().failed("verify the pages in");
        let mut faults = Vec::new();
        let mut statement = self
            .connection
            .prepare(
                "SELECT pages.id, path, number, width, height, text, words, geometry, page_contents.checksum,
                 num_words FROM pages JOIN documents ON documents.id = document_id
                 JOIN page_contents ON page_id = pages.id ORDER BY path, number",
            )
            .map_err(failed())?;
        let mut rows = statement.query([]).map_err(failed())?;
        while let Some(row) = rows.next().map_err(failed())? {
            let id: i64 = row.get(0).map_err(failed())?;
            let read = || -> rusqlite::Result<(String, u32, Option<&'static str>)> {
                let (path, number): (String, u32) = (row.get(1)?, row.get(2)?);
                let text: String = row.get(5)?;
                let word_bytes: Vec<u8> = row.get(6)?;
                let geometry: Option<Vec<u8>> = row.get(7)?;
                let contents = PageContents {
                    number,
                    width: row.get::<_, f64>(3)? as f32,
                    height: row.get::<_, f64>(4)? as f32,
                    text: &text,
                    words: &word_bytes,
                    geometry: geometry.as_deref(),
                };
                let fault = if contents.checksum() != row.get::<_, Vec<u8>>(8)? {
                    Some("the page's checksum does not match")
                } else if text.split_whitespace().count() as i64 != row.get::<_, i64>(9)? {
                    Some("the number of words is wrong")
                } else {
                    words::decode(&word_bytes).err()
                };
                Ok((path, number, fault))
            };
            match read() {
                Ok((_, _, None)) => {}
                Ok((path, number, Some(fault))) => {
                    faults.push((Some((path, Some(number))), fault.to_owned()));
                }
                Err(error) => faults.push((None, format!("page {id} cannot be read: {error}"))),
            }
        }
        for (place, what) in faults {
            self.add(ProblemKind::Page, place, what);
        }
        Ok(())
    }

    /// Every record of every segment, and that every page's rows are the ones it should have.
    fn rows(&mut self) -> Result<()> {
        let extents = self.catalog().extents(self.connection)?;
        let expected = self.catalog().expected(self.connection)?;
        let mut faults = Vec::<StoreFault>::new();
        self.index.store.check(&extents, &expected, &mut |fault| {
            if faults.len() < MAX_PER_KIND {
                faults.push(fault);
            }
        });
        if faults.is_empty() {
            return Ok(());
        }
        let names = self.page_names()?;
        for StoreFault { path, page, what } in faults {
            let place = page.and_then(|page| names.get(&page).cloned());
            self.add_in(path, ProblemKind::Rows, place, what);
        }
        Ok(())
    }

    fn page_names(&self) -> Result<HashMap<PageId, (String, Option<u32>)>> {
        let failed = || self.catalog().failed("verify the pages in");
        let mut statement = self
            .connection
            .prepare("SELECT pages.id, path, number FROM pages JOIN documents ON documents.id = document_id")
            .map_err(failed())?;
        let names = statement
            .query_map([], |row| {
                Ok((PageId(row.get(0)?), (row.get(1)?, Some(row.get(2)?))))
            })
            .map_err(failed())?;
        names.collect::<rusqlite::Result<_>>().map_err(failed())
    }

    /// Every file of what is kept of pages.
    #[expect(
        clippy::unnecessary_wraps,
        reason = "one of a list of checks, the others of which can fail"
    )]
    fn features(&mut self) -> Result<()> {
        for path in Features::new(self.index.dir(), 0).damaged() {
            let what = "is damaged and not used; `compact` removes it".to_owned();
            self.add_in(path, ProblemKind::Features, None, what);
        }
        Ok(())
    }

    /// The full-text table against one built now from the stored text.
    fn full_text(&mut self) -> Result<()> {
        let index = self.index;
        let failed = || index.catalog.failed("verify the full text in");
        self.connection
            .execute_batch(&schema::full_text_table("temp.fresh_search"))
            .map_err(failed())?;
        let mut statement = self
            .connection
            .prepare(
                "SELECT pages.id, text, path, title FROM pages
                 JOIN documents ON documents.id = document_id JOIN page_contents ON page_id = pages.id",
            )
            .map_err(failed())?;
        let mut rows = statement.query([]).map_err(failed())?;
        while let Some(row) = rows.next().map_err(failed())? {
            let text: String = row.get(1).map_err(failed())?;
            let (path, title): (String, String) =
                (row.get(2).map_err(failed())?, row.get(3).map_err(failed())?);
            let page = PageId(row.get(0).map_err(failed())?);
            let names = search_text::names(&path, &title);
            insert_search(self.connection, "temp.fresh_search", page, &text, &names)
                .map_err(failed())?;
        }
        drop(rows);
        self.connection
            .execute_batch(
                "CREATE VIRTUAL TABLE temp.stored_terms USING fts5vocab(main, page_search, instance);
                 CREATE VIRTUAL TABLE temp.fresh_terms USING fts5vocab(temp, fresh_search, instance);",
            )
            .map_err(failed())?;
        let names = self.page_names()?;
        for (sql, what) in [
            (
                "SELECT DISTINCT doc FROM (SELECT * FROM temp.fresh_terms EXCEPT SELECT * FROM temp.stored_terms)",
                "words of the page are missing from the full-text search",
            ),
            (
                "SELECT DISTINCT doc FROM (SELECT * FROM temp.stored_terms EXCEPT SELECT * FROM temp.fresh_terms)",
                "the full-text search has words the page does not have",
            ),
        ] {
            let mut pages = Vec::new();
            let mut statement = self.connection.prepare(sql).map_err(failed())?;
            let mut rows = statement.query(params![]).map_err(failed())?;
            while let Some(row) = rows.next().map_err(failed())? {
                pages.push(PageId(row.get(0).map_err(failed())?));
            }
            for page in pages {
                self.add(
                    ProblemKind::FullText,
                    names.get(&page).cloned(),
                    what.to_owned(),
                );
            }
        }
        Ok(())
    }
}
