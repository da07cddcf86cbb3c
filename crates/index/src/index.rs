//! The index as readers see it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;

use crate::catalog::read::Candidate;
use crate::catalog::{Catalog, Reader};
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::format;
use crate::mmap::PageRows;
use crate::record::{DocumentInfo, PageId, PageInfo, WordBox};
use crate::settings::Settings;
use crate::stores::{self, Record, StoreKind, VectorStore};
use crate::writer::{Writer, WriterOptions};

/// Connections kept for the next question.
const KEPT_CONNECTIONS: usize = 16;
/// A compaction moves rows at most once in a while; this many in a row is something else.
const ATTEMPTS: u32 = 8;

/// An index, open for reading and searching; share it between threads by reference.
///
/// Every call sees the last commit as of its beginning, and goes on seeing it while a writer changes the
/// index.
#[derive(Debug)]
pub struct Index {
    dir: PathBuf,
    pub(crate) catalog: Catalog,
    pub(crate) store: Box<dyn VectorStore>,
    idle: Mutex<Vec<Connection>>,
    known: Mutex<Option<Arc<Snapshot>>>,
}

/// Every page with rows, as of one commit.
#[derive(Debug)]
pub(crate) struct Snapshot {
    generation: i64,
    /// By path and number: the order in which equal scores are given.
    pub(crate) candidates: Vec<Candidate>,
}

impl Index {
    /// Creates an index in a folder that is empty or does not exist yet, and opens it for writing.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], [`Error::FolderNotEmpty`], [`Error::Locked`], or what the system says.
    pub fn create(dir: impl AsRef<Path>, settings: &Settings) -> Result<Writer> {
        Writer::create(dir.as_ref(), settings, WriterOptions::default())
    }

    /// Opens an index for reading; nothing is written, and the folder may be on read-only media.
    ///
    /// # Errors
    /// [`Error::NoIndex`], [`Error::NewerFormat`], [`Error::NotAnIndex`], or what the system says.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        format::check(dir)?;
        let catalog = Catalog::new(dir);
        let index = Self {
            dir: dir.to_owned(),
            store: stores::open(&StoreKind::Local, dir),
            catalog,
            idle: Mutex::default(),
            known: Mutex::default(),
        };
        index.settings()?;
        Ok(index)
    }

    /// Opens an index for writing with the retriever to be used; a text-only index takes on `settings`.
    ///
    /// # Errors
    /// [`Error::SettingsMismatch`], [`Error::Locked`], and as [`Index::open`].
    pub fn open_writer(dir: impl AsRef<Path>, settings: &Settings) -> Result<Writer> {
        Writer::open(dir.as_ref(), Some(settings), WriterOptions::default())
    }

    /// Opens an index for writing whatever it was made with: to remove, compact or rename.
    ///
    /// # Errors
    /// [`Error::Locked`], and as [`Index::open`].
    pub fn open_writer_as_it_is(dir: impl AsRef<Path>) -> Result<Writer> {
        Writer::open(dir.as_ref(), None, WriterOptions::default())
    }

    /// Opens an index for writing, creating it if there is none.
    ///
    /// # Errors
    /// As [`Index::create`] and [`Index::open_writer`].
    pub fn open_or_create(
        dir: impl AsRef<Path>,
        settings: &Settings,
        options: WriterOptions,
    ) -> Result<Writer> {
        let dir = dir.as_ref();
        if format::exists(dir) {
            return Writer::open(dir, Some(settings), options);
        }
        match Writer::create(dir, settings, options.clone()) {
            // Another process was quicker.
            Err(Error::AlreadyExists { .. }) => Writer::open(dir, Some(settings), options),
            other => other,
        }
    }

    /// Whether there is an index in the folder.
    pub fn exists(dir: impl AsRef<Path>) -> bool {
        format::exists(dir.as_ref())
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What the index was made with.
    ///
    /// # Errors
    /// If the catalogue cannot be read.
    pub fn settings(&self) -> Result<Settings> {
        self.read(|connection| self.catalog.settings(connection))
    }

    /// Counts commits: as long as it stays the same, so does everything in the index.
    ///
    /// # Errors
    /// If the catalogue cannot be read.
    pub fn generation(&self) -> Result<i64> {
        self.read(|connection| self.catalog.generation(connection))
    }

    /// The documents that pass `filter`, by path.
    ///
    /// # Errors
    /// If the catalogue cannot be read.
    pub fn list(&self, filter: &Filter) -> Result<Vec<DocumentInfo>> {
        let mut documents = self.read(|connection| self.catalog.documents(connection))?;
        documents.retain(|document| filter.matches(&document.record));
        Ok(documents)
    }

    /// The document at a path, if there is one.
    ///
    /// # Errors
    /// If the catalogue cannot be read.
    pub fn document(&self, path: &str) -> Result<Option<DocumentInfo>> {
        self.read(|connection| self.catalog.document(connection, path))
    }

    /// The documents with a content, by path.
    ///
    /// # Errors
    /// If the catalogue cannot be read.
    pub fn documents_with_hash(&self, content_hash: &str) -> Result<Vec<DocumentInfo>> {
        self.read(|connection| self.catalog.documents_with_hash(connection, content_hash))
    }

    /// The documents some of whose pages have no rows: what has to be encoded after a text-only index was
    /// given a retriever.
    ///
    /// # Errors
    /// If the catalogue cannot be read.
    pub fn documents_without_rows(&self) -> Result<Vec<DocumentInfo>> {
        let mut documents = self.list(&Filter::default())?;
        documents.retain(|document| document.num_pages_with_rows < document.num_pages);
        Ok(documents)
    }

    /// A page by its identity.
    ///
    /// # Errors
    /// [`Error::UnknownPage`], or if the catalogue cannot be read.
    pub fn page(&self, page: PageId) -> Result<PageInfo> {
        let found = self.read(|connection| self.catalog.page(connection, page))?;
        found.ok_or_else(|| self.unknown(page))
    }

    /// The identity of a page of a document, if there is such a page.
    ///
    /// # Errors
    /// If the catalogue cannot be read.
    pub fn page_id(&self, document: &str, number: u32) -> Result<Option<PageId>> {
        self.read(|connection| self.catalog.page_id(connection, document, number))
    }

    /// The words of a page with their places.
    ///
    /// # Errors
    /// [`Error::UnknownPage`], or if the catalogue cannot be read.
    pub fn page_words(&self, page: PageId) -> Result<Vec<WordBox>> {
        let found = self.read(|connection| self.catalog.words(connection, page))?;
        found.ok_or_else(|| self.unknown(page))
    }

    /// The geometry of a page's rows, as it was given.
    ///
    /// # Errors
    /// [`Error::UnknownPage`], or if the catalogue cannot be read.
    pub fn page_geometry(&self, page: PageId) -> Result<Option<Vec<u8>>> {
        let found = self.read(|connection| self.catalog.geometry(connection, page))?;
        found.ok_or_else(|| self.unknown(page))
    }

    /// The rows of a page, their checksum compared.
    ///
    /// # Errors
    /// [`Error::UnknownPage`], [`Error::PageWithoutRows`], or if the rows cannot be read or are damaged.
    pub fn rows(&self, page: PageId) -> Result<PageRows> {
        self.read(|connection| {
            let location = self
                .catalog
                .page_location(connection, page)?
                .ok_or_else(|| self.unknown(page))?
                .ok_or_else(|| Error::PageWithoutRows {
                    path: self.dir.clone(),
                    page: page.0,
                })?;
            self.store.read(Record { page, location })
        })
    }

    fn unknown(&self, page: PageId) -> Error {
        Error::UnknownPage {
            path: self.dir.clone(),
            page: page.0,
        }
    }

    /// Every page with rows, remembered from the last call if nothing was committed since.
    pub(crate) fn snapshot(&self, connection: &Connection) -> Result<Arc<Snapshot>> {
        let generation = self.catalog.generation(connection)?;
        let known = self
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some(known) = known
            && known.generation == generation
        {
            return Ok(known);
        }
        let candidates = self.catalog.candidates(connection)?;
        let snapshot = Arc::new(Snapshot {
            generation,
            candidates,
        });
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // A search that began earlier must not put its older state back.
        if known
            .as_ref()
            .is_none_or(|known| known.generation < generation)
        {
            let parts = snapshot
                .candidates
                .iter()
                .map(|candidate| candidate.record.location.segment);
            self.store.keep_only(&parts.collect());
            *known = Some(Arc::clone(&snapshot));
        }
        Ok(snapshot)
    }

    /// Runs `question` within one read transaction, so that everything it reads belongs together.
    ///
    /// A compaction may remove a segment between the moment the catalogue names it and the moment it is
    /// opened; then the question is asked again of the newer state.
    pub(crate) fn read<T>(&self, question: impl Fn(&Connection) -> Result<T>) -> Result<T> {
        for _ in 0..ATTEMPTS {
            let reader = self.reader()?;
            let before = self.catalog.generation(&reader.connection);
            let answer = in_transaction(&self.catalog, &reader.connection, &question);
            let moved = match &answer {
                Err(Error::SegmentMissing { .. }) => {
                    before.ok() != self.catalog.generation(&reader.connection).ok()
                }
                _ => false,
            };
            if !moved {
                self.give_back(reader);
                return answer;
            }
        }
        Err(Error::Unsettled {
            path: self.dir.clone(),
            attempts: ATTEMPTS,
        })
    }

    fn reader(&self) -> Result<Reader> {
        let idle = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        match idle {
            Some(connection) => Ok(Reader {
                connection,
                immutable: false,
            }),
            None => self.catalog.open_reader(),
        }
    }

    fn give_back(&self, reader: Reader) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if !reader.immutable && idle.len() < KEPT_CONNECTIONS {
            idle.push(reader.connection);
        }
    }
}

fn in_transaction<T>(
    catalog: &Catalog,
    connection: &Connection,
    question: impl Fn(&Connection) -> Result<T>,
) -> Result<T> {
    // Dropping it ends it; there is nothing to commit.
    let transaction = connection
        .unchecked_transaction()
        .map_err(catalog.failed("read"))?;
    question(&transaction)
}
