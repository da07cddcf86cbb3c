//! The tables, and their version.
//!
//! Wide columns (text, word boxes) stand in a table of their own, so that going through all pages for a
//! search touches a few hundred kilobytes. The full-text table keeps no copy of the text: it is built
//! from `page_contents` and can be built again.

use std::path::Path;

use rusqlite::{Connection, params};

use crate::error::{Error, Result};
use crate::settings::Settings;

/// `PRAGMA user_version` of the tables below.
pub(crate) const VERSION: u32 = 1;
/// `PRAGMA application_id`: "CLBR".
const APPLICATION_ID: i32 = 0x434c_4252;

/// What the text is cut into: words without case and accents, by their stems.
pub(crate) const TOKENIZER: &str = "porter unicode61 remove_diacritics 2";

const TABLES: &str = "
CREATE TABLE state (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  settings TEXT NOT NULL,
  -- counts commits: what a reader remembers is good while it stays the same
  generation INTEGER NOT NULL
) STRICT;

CREATE TABLE documents (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  path TEXT NOT NULL UNIQUE,
  content_hash TEXT NOT NULL,
  size_bytes INTEGER NOT NULL,
  modified INTEGER NOT NULL,
  kind TEXT NOT NULL,
  title TEXT NOT NULL,
  metadata TEXT NOT NULL,
  checksum BLOB NOT NULL
) STRICT;
CREATE INDEX documents_by_hash ON documents (content_hash);

CREATE TABLE pages (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  document_id INTEGER NOT NULL REFERENCES documents (id),
  number INTEGER NOT NULL CHECK (number > 0),
  width REAL NOT NULL,
  height REAL NOT NULL,
  num_words INTEGER NOT NULL,
  -- where the rows are; no segment, no rows
  segment INTEGER,
  byte_offset INTEGER,
  num_rows INTEGER NOT NULL,
  rows_hash BLOB,
  UNIQUE (document_id, number)
) STRICT;

CREATE TABLE page_contents (
  page_id INTEGER PRIMARY KEY REFERENCES pages (id),
  text TEXT NOT NULL,
  words BLOB NOT NULL,
  geometry BLOB,
  checksum BLOB NOT NULL
) STRICT;

CREATE TABLE segments (
  id INTEGER PRIMARY KEY,
  dim INTEGER NOT NULL,
  num_bytes INTEGER NOT NULL
) STRICT;
";

/// The statement that creates the full-text table under a name.
pub(crate) fn full_text_table(name: &str) -> String {
    format!(
        "CREATE VIRTUAL TABLE {name} USING fts5(body, names, content='', contentless_delete=1, \
         tokenize='{TOKENIZER}')"
    )
}

/// Creates the tables.
pub(crate) fn create(connection: &Connection, settings: &Settings) -> rusqlite::Result<()> {
    let transaction = connection.unchecked_transaction()?;
    transaction.execute_batch(TABLES)?;
    transaction.execute_batch(&full_text_table("page_search"))?;
    transaction.execute(
        "INSERT INTO state (id, settings, generation) VALUES (1, ?1, 0)",
        params![super::write::settings_json(settings)],
    )?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}

/// Every table and index with the statement that defines it, by name.
pub(crate) fn definitions(
    connection: &Connection,
) -> rusqlite::Result<Vec<(String, Option<String>)>> {
    let mut statement = connection
        .prepare("SELECT type || ' ' || name, sql FROM main.sqlite_schema ORDER BY name")?;
    let definitions = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    definitions.collect()
}

/// What [`definitions`] gives for a catalogue of this version.
pub(crate) fn expected_definitions() -> rusqlite::Result<Vec<(String, Option<String>)>> {
    let connection = Connection::open_in_memory()?;
    create(&connection, &Settings::default())?;
    definitions(&connection)
}

/// Refuses a database that is not a catalogue, or a newer one.
pub(crate) fn check(connection: &Connection, path: &Path) -> Result<()> {
    let pragma = |name: &str| {
        connection
            .pragma_query_value(None, name, |row| row.get::<_, i64>(0))
            .map_err(Error::catalog("read the version of", path))
    };
    let application = pragma("application_id")?;
    if application != i64::from(APPLICATION_ID) {
        return Err(Error::NotAnIndex {
            path: path.to_owned(),
            expected: "a catalogue",
            found: format!("a database of application {application:#x}"),
        });
    }
    let version = pragma("user_version")?;
    if version > i64::from(VERSION) {
        return Err(Error::NewerFormat {
            path: path.to_owned(),
            found: version.unsigned_abs(),
            supported: VERSION,
        });
    }
    if version != i64::from(VERSION) {
        return Err(Error::NotAnIndex {
            path: path.to_owned(),
            expected: "a catalogue of version 1",
            found: format!("version {version}"),
        });
    }
    Ok(())
}
