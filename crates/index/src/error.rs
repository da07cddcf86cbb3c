//! Everything that can go wrong in an index, one variant per cause.
//!
//! A message says what was tried, on which file (in backticks), and what was wrong; what to do about it is
//! in [`Error::hint`], so that a front end can print it apart.

use std::io;
use std::path::{Path, PathBuf};

use crate::filter::FilterError;
use crate::lock::Holder;

/// The result of an index operation.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an index operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no index in the folder.
    #[error("there is no index in `{}`", path.display())]
    NoIndex {
        /// The folder that was to be opened.
        path: PathBuf,
    },
    /// An index was to be created where one already is.
    #[error("there is already an index in `{}`", path.display())]
    AlreadyExists {
        /// The folder.
        path: PathBuf,
    },
    /// An index was to be created in a folder that holds something else.
    #[error("cannot create an index in `{}`: it already holds `{entry}`", path.display())]
    FolderNotEmpty {
        /// The folder.
        path: PathBuf,
        /// The name of something in it that is no part of an index.
        entry: String,
    },
    /// A file does not begin the way a file of an index does.
    #[error("`{}` is not a file of an index: expected {expected}, found {found}", path.display())]
    NotAnIndex {
        /// The file.
        path: PathBuf,
        /// What it should begin with.
        expected: &'static str,
        /// What it begins with.
        found: String,
    },
    /// A file was written by a newer program.
    #[error(
        "`{}` has format version {found}, and this program reads versions up to {supported}",
        path.display()
    )]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u64,
        /// The newest version this program knows.
        supported: u32,
    },
    /// Another process is writing.
    #[error("the index in `{}` is being written by {holder}", path.display())]
    Locked {
        /// The folder of the index.
        path: PathBuf,
        /// Who holds the lock.
        holder: Holder,
    },
    /// The index was made with other settings.
    #[error("the index in `{}` was made with {what} `{index}`, not `{asked}`", path.display())]
    SettingsMismatch {
        /// The folder of the index.
        path: PathBuf,
        /// Which setting differs.
        what: &'static str,
        /// Its value in the index.
        index: String,
        /// The value that was asked for.
        asked: String,
    },
    /// A file operation failed.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The disk is full, or a quota is used up.
    #[error("no space left on the disk while writing `{}`", path.display())]
    DiskFull {
        /// The file that was being written.
        path: PathBuf,
    },
    /// SQLite refused an operation on the catalogue.
    #[error("cannot {action} the catalogue `{}`", path.display())]
    Catalog {
        /// What was tried.
        action: &'static str,
        /// The catalogue file.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// A value in the catalogue makes no sense.
    #[error("the catalogue `{}` is damaged: {what} of {row} is {found}", path.display())]
    DamagedCatalog {
        /// The catalogue file.
        path: PathBuf,
        /// Which value.
        what: &'static str,
        /// In which row.
        row: String,
        /// What stands there.
        found: String,
    },
    /// The catalogue has changes that only a process allowed to write can merge.
    #[error("the catalogue `{}` has unmerged changes, and its folder cannot be written", path.display())]
    UnmergedReadOnly {
        /// The catalogue file.
        path: PathBuf,
    },
    /// A segment file is missing.
    #[error("the segment `{}` is missing", path.display())]
    SegmentMissing {
        /// The segment file.
        path: PathBuf,
    },
    /// A segment is shorter than the catalogue says.
    #[error("the segment `{}` is cut short: expected {expected} bytes, found {found}", path.display())]
    SegmentTruncated {
        /// The segment file.
        path: PathBuf,
        /// Bytes the catalogue knows of.
        expected: u64,
        /// Bytes in the file.
        found: u64,
    },
    /// A checksum in a segment does not match.
    #[error("the segment `{}` is damaged at byte {offset}: {what}", path.display())]
    SegmentDamaged {
        /// The segment file.
        path: PathBuf,
        /// Where the damaged record (or the header, 0) begins.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// Rows whose number of values is not a multiple of their dimension.
    #[error("{len} values are not whole rows of {dim}")]
    RaggedRows {
        /// Number of values.
        len: usize,
        /// Values a row.
        dim: usize,
    },
    /// Rows of another dimension than the index holds.
    #[error("rows of {found} values do not fit an index of {expected}")]
    DimMismatch {
        /// Values a row in the index.
        expected: usize,
        /// Values a row given.
        found: usize,
    },
    /// A row holds a value that is not a number, or is too large for 16 bits.
    #[error("row {row} holds {value} at column {column}, which cannot be stored")]
    RowNotFinite {
        /// Which row, from 0.
        row: usize,
        /// Which column, from 0.
        column: usize,
        /// The value.
        value: f32,
    },
    /// More rows in one page than a record holds.
    #[error("{num_rows} rows of {dim} are more than one page may have ({limit} bytes)")]
    TooManyRows {
        /// Number of rows.
        num_rows: usize,
        /// Values a row.
        dim: usize,
        /// The limit in bytes.
        limit: u64,
    },
    /// Rows were given to an index that has no retriever.
    #[error("page {page} of `{document}` has rows, and the index in `{}` is for text only", path.display())]
    TextOnly {
        /// The folder of the index.
        path: PathBuf,
        /// The document.
        document: String,
        /// The page.
        page: u32,
    },
    /// A page number was given twice, or is 0.
    #[error("page number {page} of `{document}` is {problem}")]
    PageNumber {
        /// The document.
        document: String,
        /// The number.
        page: u32,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A document has no path.
    #[error("a document must have a path")]
    NoPath,
    /// There is no such document.
    #[error("there is no document `{document}` in the index `{}`", path.display())]
    UnknownDocument {
        /// The folder of the index.
        path: PathBuf,
        /// The document's path.
        document: String,
    },
    /// There is no such page.
    #[error("there is no page {page} in the index `{}`", path.display())]
    UnknownPage {
        /// The folder of the index.
        path: PathBuf,
        /// The page's identity.
        page: i64,
    },
    /// A page has no rows: it was indexed for text only.
    #[error("page {page} of the index `{}` has no rows", path.display())]
    PageWithoutRows {
        /// The folder of the index.
        path: PathBuf,
        /// The page's identity.
        page: i64,
    },
    /// A visual search was asked for without query rows.
    #[error("a visual search needs the rows of the query")]
    QueryWithoutRows,
    /// A filter could not be understood.
    #[error("cannot understand the filter `{expression}`")]
    Filter {
        /// The expression as given.
        expression: String,
        /// What is wrong with it.
        #[source]
        source: FilterError,
    },
    /// The index changed on every attempt to read it.
    #[error("the index in `{}` changed during {attempts} attempts to read it", path.display())]
    Unsettled {
        /// The folder of the index.
        path: PathBuf,
        /// How many attempts were made.
        attempts: u32,
    },
    /// A value does not fit what the catalogue can store.
    #[error("{what} {found} is larger than the catalogue can store")]
    TooLarge {
        /// Which value.
        what: &'static str,
        /// The value.
        found: u64,
    },
}

impl Error {
    /// What the person can do about it, where there is something.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::NoIndex { .. } => {
                "index some documents first, or name another folder with --index"
            }
            Self::AlreadyExists { .. } => "open it, or choose another folder with --index",
            Self::FolderNotEmpty { .. } => "choose an empty or a new folder with --index",
            Self::NewerFormat { .. } => {
                "use a newer version of this program, or build the index again"
            }
            Self::Locked { .. } => "wait until it has finished, or use another folder with --index",
            Self::SettingsMismatch { what, index, .. } => {
                return Some(format!(
                    "use {what} `{index}`, choose another folder with --index, or remove this index and build \
                     it again"
                ));
            }
            Self::DiskFull { .. } => {
                "free some space and run the command again; what was indexed is kept"
            }
            Self::UnmergedReadOnly { .. } => {
                "open the index once where its folder can be written, then copy it"
            }
            Self::DamagedCatalog { .. }
            | Self::SegmentMissing { .. }
            | Self::SegmentTruncated { .. }
            | Self::SegmentDamaged { .. } => {
                "`verify` lists the documents concerned; remove them and index them again"
            }
            Self::TextOnly { .. } => "open the index with a retriever, or leave the rows out",
            Self::PageWithoutRows { .. } => "index the document again with a retriever",
            Self::QueryWithoutRows => {
                "use text mode, or encode the query with the index's retriever"
            }
            Self::Filter { .. } => {
                "write KEY=VALUE, KEY!=VALUE, KEY<VALUE, KEY>VALUE or KEY~PATTERN"
            }
            Self::NotAnIndex { .. }
            | Self::Io { .. }
            | Self::Catalog { .. }
            | Self::RaggedRows { .. }
            | Self::DimMismatch { .. }
            | Self::RowNotFinite { .. }
            | Self::TooManyRows { .. }
            | Self::PageNumber { .. }
            | Self::NoPath
            | Self::UnknownDocument { .. }
            | Self::UnknownPage { .. }
            | Self::Unsettled { .. }
            | Self::TooLarge { .. } => return None,
        };
        Some(text.to_owned())
    }

    /// Names the action and the file of a failed file operation; a full disk has its own variant.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| {
            if matches!(
                source.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            ) {
                Self::DiskFull { path }
            } else {
                Self::Io {
                    action,
                    path,
                    source,
                }
            }
        }
    }

    /// Names the action and the catalogue of a failed SQLite operation.
    pub(crate) fn catalog(
        action: &'static str,
        path: &Path,
    ) -> impl FnOnce(rusqlite::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| {
            if source.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull) {
                Self::DiskFull { path }
            } else {
                Self::Catalog {
                    action,
                    path,
                    source,
                }
            }
        }
    }
}
