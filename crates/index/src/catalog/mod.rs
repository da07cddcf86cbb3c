//! The catalogue: documents, pages, text and settings, in SQLite.
//!
//! Write-ahead logging lets readers go on while one writer works, `synchronous=FULL` makes a commit
//! durable before it returns. Readers open the database read-only; where even the side files of the log
//! cannot be made (a folder on read-only media), it is opened as an immutable file instead, for one
//! snapshot at a time.

pub(crate) mod read;
pub(crate) mod schema;
pub(crate) mod write;

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::error::{Error, Result};

/// The name of the catalogue file; SQLite's side files begin with it.
pub(crate) const FILE_NAME: &str = "catalog.sqlite";
/// How long one operation waits for another process that is recovering or merging the log.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection for reading.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) connection: Connection,
    /// The file is taken to never change: good for one snapshot only.
    pub(crate) immutable: bool,
}

/// The catalogue of an index.
#[derive(Clone, Debug)]
pub(crate) struct Catalog {
    path: PathBuf,
}

impl Catalog {
    pub(crate) fn new(dir: &Path) -> Self {
        Self {
            path: dir.join(FILE_NAME),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Creates the database; what an interrupted creation left is thrown away.
    pub(crate) fn create(&self, settings: &crate::Settings) -> Result<()> {
        for suffix in ["", "-wal", "-shm", "-journal"] {
            let path = self.side_file(suffix);
            if let Err(source) = fs_err::remove_file(&path)
                && source.kind() != std::io::ErrorKind::NotFound
            {
                return Err(Error::io("remove", &path)(source));
            }
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection =
            Connection::open_with_flags(&self.path, flags).map_err(self.failed("create"))?;
        configure_writer(&connection)
            .and_then(|()| schema::create(&connection, settings))
            .map_err(self.failed("create"))
    }

    /// Opens the database for writing.
    pub(crate) fn open_writer(&self) -> Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection =
            Connection::open_with_flags(&self.path, flags).map_err(self.failed("open"))?;
        // The version comes first: a newer database is left as it is.
        connection
            .busy_timeout(BUSY_TIMEOUT)
            .map_err(self.failed("open"))?;
        schema::check(&connection, &self.path)?;
        configure_writer(&connection).map_err(self.failed("open"))?;
        Ok(connection)
    }

    /// Opens the database for reading.
    pub(crate) fn open_reader(&self) -> Result<Reader> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let opened = Connection::open_with_flags(&self.path, flags)
            .and_then(|connection| configure_reader(&connection).map(|()| connection));
        match opened {
            Ok(connection) => {
                schema::check(&connection, &self.path)?;
                Ok(Reader {
                    connection,
                    immutable: false,
                })
            }
            Err(error)
                if matches!(
                    error.sqlite_error_code(),
                    Some(
                        ErrorCode::CannotOpen
                            | ErrorCode::ReadOnly
                            | ErrorCode::SystemIoFailure
                            | ErrorCode::DiskFull
                    )
                ) && self.path.is_file() =>
            {
                self.open_immutable()
            }
            Err(error) => Err(self.failed("open")(error)),
        }
    }

    /// The side files cannot be made. Without a log there is nothing in them, and the file can be read as
    /// it is.
    fn open_immutable(&self) -> Result<Reader> {
        let log = self.side_file("-wal");
        if fs_err::metadata(&log).is_ok_and(|metadata| metadata.len() > 0) {
            return Err(Error::UnmergedReadOnly {
                path: self.path.clone(),
            });
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_URI;
        let connection = Connection::open_with_flags(immutable_uri(&self.path), flags)
            .and_then(|connection| configure_reader(&connection).map(|()| connection))
            .map_err(self.failed("open"))?;
        schema::check(&connection, &self.path)?;
        Ok(Reader {
            connection,
            immutable: true,
        })
    }

    /// Names the action and this catalogue.
    pub(crate) fn failed(
        &self,
        action: &'static str,
    ) -> impl FnOnce(rusqlite::Error) -> Error + use<> {
        Error::catalog(action, &self.path)
    }

    /// A value that makes no sense.
    pub(crate) fn damaged(
        &self,
        what: &'static str,
        row: impl ToString,
        found: impl ToString,
    ) -> Error {
        Error::DamagedCatalog {
            path: self.path.clone(),
            what,
            row: row.to_string(),
            found: found.to_string(),
        }
    }

    /// The bytes of the database and its side files.
    pub(crate) fn num_bytes(&self) -> u64 {
        ["", "-wal"]
            .iter()
            .filter_map(|suffix| fs_err::metadata(self.side_file(suffix)).ok())
            .map(|metadata| metadata.len())
            .sum()
    }

    fn side_file(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(suffix);
        name.into()
    }
}

fn configure_writer(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    harden(connection)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // A document of a thousand pages spills to the log instead of filling memory (KiB).
    connection.pragma_update(None, "cache_size", -16_384)?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20)
}

fn configure_reader(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    harden(connection)?;
    connection.pragma_update(None, "query_only", true)?;
    connection.pragma_update(None, "cache_size", -8_192)?;
    // The first real access: this is where a database that cannot be opened says so.
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
}

/// A catalogue may come from anywhere: its schema may not run functions with side effects, and a page of
/// it is checked before it is believed.
fn harden(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "mmap_size", 0)
}

/// `file:` form of a path, as SQLite wants it: `%`, `?` and `#` escaped, slashes forward.
fn immutable_uri(path: &Path) -> String {
    let mut uri = String::from("file:");
    let text = path.to_string_lossy();
    let text = if cfg!(windows) {
        format!("/{}", text.replace('\\', "/"))
    } else {
        text.into_owned()
    };
    for character in text.chars() {
        match character {
            '%' => uri.push_str("%25"),
            '?' => uri.push_str("%3f"),
            '#' => uri.push_str("%23"),
            other => uri.push(other),
        }
    }
    uri.push_str("?mode=ro&immutable=1");
    uri
}
