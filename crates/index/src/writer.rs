//! The index as the one writer sees it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;

use crate::catalog::{BUSY_TIMEOUT, Catalog, write};
use crate::error::{Error, Result};
use crate::features::Features;
use crate::filter::Filter;
use crate::format;
use crate::index::Index;
use crate::lock::Lock;
use crate::pending::{Added, PendingDocument};
use crate::record::{Change, DocumentInfo, DocumentRecord, PageRecord};
use crate::settings::Settings;
use crate::storage::{FileSystem, Storage, sync_dir};
use crate::stores::{self, StoreKind, VectorStore};
use crate::verify::Problem;

/// How an index is written.
#[derive(Clone, Debug)]
pub struct WriterOptions {
    /// What this process was started to do, for the message a second writer gets.
    pub command: Option<String>,
    /// A new segment file begins when one has reached this size.
    pub segment_bytes: u64,
    /// What segments are written with.
    pub storage: Arc<dyn Storage>,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            command: None,
            segment_bytes: stores::SEGMENT_BYTES,
            storage: Arc::new(FileSystem),
        }
    }
}

/// What [`Writer::remove`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Number of documents removed.
    pub documents: u64,
    /// Number of their pages.
    pub pages: u64,
}

/// What [`Writer::compact`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compaction {
    /// Bytes of the index before.
    pub bytes_before: u64,
    /// Bytes of the index after.
    pub bytes_after: u64,
}

impl Compaction {
    /// Bytes given back.
    pub fn reclaimed(&self) -> u64 {
        self.bytes_before.saturating_sub(self.bytes_after)
    }
}

/// An index, open for writing. There is one at a time; readers go on meanwhile.
#[derive(Debug)]
pub struct Writer {
    dir: PathBuf,
    catalog: Catalog,
    // The connection is closed before the lock is given back: fields are dropped in this order.
    connection: Connection,
    store: Box<dyn VectorStore>,
    settings: Settings,
    _lock: Lock,
}

impl Writer {
    /// As [`Index::create`], with options.
    ///
    /// # Errors
    /// As [`Index::create`].
    pub fn create(dir: &Path, settings: &Settings, options: WriterOptions) -> Result<Self> {
        if format::exists(dir) {
            return Err(Error::AlreadyExists {
                path: dir.to_owned(),
            });
        }
        let new = !dir.exists();
        fs_err::create_dir_all(dir).map_err(Error::io("create the folder", dir))?;
        format::check_free(dir)?;
        let lock = Lock::take(dir, options.command.as_deref())?;
        // Looked at again under the lock: another process may have created it in between.
        if format::exists(dir) {
            return Err(Error::AlreadyExists {
                path: dir.to_owned(),
            });
        }
        let catalog = Catalog::new(dir);
        catalog.create(settings)?;
        let segments = dir.join(stores::SEGMENTS);
        options
            .storage
            .create_dir(&segments)
            .map_err(Error::io("create the folder", &segments))?;
        sync_dir(dir).map_err(Error::io("sync the folder", dir))?;
        if new && let Some(parent) = dir.parent() {
            let parent = if parent.as_os_str().is_empty() {
                Path::new(".")
            } else {
                parent
            };
            sync_dir(parent).map_err(Error::io("sync the folder", parent))?;
        }
        format::write(dir)?;
        Self::open_locked(dir, None, options, lock)
    }

    /// As [`Index::open_writer`] (or, without settings, [`Index::open_writer_as_it_is`]), with options.
    ///
    /// # Errors
    /// As [`Index::open_writer`].
    pub fn open(dir: &Path, settings: Option<&Settings>, options: WriterOptions) -> Result<Self> {
        format::check(dir)?;
        let lock = Lock::take(dir, options.command.as_deref())?;
        Self::open_locked(dir, settings, options, lock)
    }

    fn open_locked(
        dir: &Path,
        asked: Option<&Settings>,
        options: WriterOptions,
        lock: Lock,
    ) -> Result<Self> {
        let catalog = Catalog::new(dir);
        let connection = catalog.open_writer()?;
        let own = catalog.settings(&connection)?;
        let settings = match asked {
            Some(asked) => own.adopt(asked, dir)?,
            None => own.clone(),
        };
        let extents = catalog.extents(&connection)?;
        let store = stores::open_writer(
            &StoreKind::Local,
            dir,
            options.storage,
            options.segment_bytes,
            &extents,
        )?;
        let mut writer = Self {
            dir: dir.to_owned(),
            catalog,
            connection,
            store,
            settings: own,
            _lock: lock,
        };
        if writer.settings != settings {
            writer.change(|writer| {
                write::set_settings(&writer.connection, &settings)
                    .map_err(writer.catalog.failed("change the settings in"))
            })?;
            writer.settings = settings;
        }
        Ok(writer)
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What the index was made with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Opens the same index for reading; it sees what is committed.
    ///
    /// # Errors
    /// As [`Index::open`].
    pub fn index(&self) -> Result<Index> {
        Index::open(&self.dir)
    }

    /// The document at a path.
    ///
    /// # Errors
    /// If the catalogue cannot be read.
    pub fn lookup_path(&self, path: &str) -> Result<Option<DocumentInfo>> {
        self.catalog.document(&self.connection, path)
    }

    /// The documents with a content, by path.
    ///
    /// # Errors
    /// If the catalogue cannot be read.
    pub fn lookup_hash(&self, content_hash: &str) -> Result<Vec<DocumentInfo>> {
        self.catalog
            .documents_with_hash(&self.connection, content_hash)
    }

    /// What indexing this content at this path would do.
    ///
    /// # Errors
    /// If the catalogue cannot be read.
    pub fn change_of(&self, path: &str, content_hash: &str) -> Result<Change> {
        let here = self.lookup_path(path)?;
        if here
            .as_ref()
            .is_some_and(|document| document.record.content_hash == content_hash)
        {
            return Ok(Change::Unchanged);
        }
        if let Some(other) = self.lookup_hash(content_hash)?.into_iter().next() {
            return Ok(Change::Moved {
                from: other.record.path,
            });
        }
        Ok(if here.is_some() {
            Change::Replaced
        } else {
            Change::New
        })
    }

    /// Adds a document with all its pages in one commit; an older content at the same path gives way.
    ///
    /// # Errors
    /// As [`PendingDocument::append_page`] and [`PendingDocument::commit`].
    pub fn add_document(
        &mut self,
        document: &DocumentRecord,
        pages: &[PageRecord],
    ) -> Result<Added> {
        let mut pending = self.begin_document(document)?;
        for page in pages {
            pending.append_page(page)?;
        }
        pending.commit()
    }

    /// Begins to add a document page by page.
    ///
    /// # Errors
    /// If the document has no path, or the catalogue cannot be written.
    pub fn begin_document(&mut self, document: &DocumentRecord) -> Result<PendingDocument<'_>> {
        PendingDocument::begin(self, document)
    }

    /// Adds a document with the same content as one that is indexed, without encoding anything: pages are
    /// copied, rows are shared.
    ///
    /// # Errors
    /// [`Error::UnknownDocument`], or if the catalogue cannot be written.
    pub fn copy_document(&mut self, from: &str, document: &DocumentRecord) -> Result<Added> {
        let source = self.known(from)?;
        if source.record.path == document.path {
            let id = source.id;
            self.update_document(from, document)?;
            return Ok(Added {
                document: id,
                pages: source.num_pages,
                replaced: true,
            });
        }
        PendingDocument::begin(self, document)?.copy_from(&source)
    }

    /// The file was moved: its pages are found under the new path from now on. A document that was at the
    /// new path gives way.
    ///
    /// # Errors
    /// [`Error::UnknownDocument`], or if the catalogue cannot be written.
    pub fn mark_moved(&mut self, path: &str, new_path: &str) -> Result<()> {
        let mut record = self.known(path)?.record;
        new_path.clone_into(&mut record.path);
        self.update_document(path, &record)
    }

    /// Changes what is stored of a document but its pages: path, time, title, metadata. The content must be
    /// the same: another hash is stored, but nothing is encoded again.
    ///
    /// # Errors
    /// [`Error::UnknownDocument`], [`Error::NoPath`], or if the catalogue cannot be written.
    pub fn update_document(&mut self, path: &str, record: &DocumentRecord) -> Result<()> {
        let known = self.known(path)?;
        if record.path.is_empty() {
            return Err(Error::NoPath);
        }
        if i64::try_from(record.size_bytes).is_err() {
            return Err(Error::TooLarge {
                what: "a file size of",
                found: record.size_bytes,
            });
        }
        self.change(|writer| {
            let failed = || writer.catalog.failed("change a document in");
            if record.path != path {
                write::remove_document(&writer.connection, &record.path).map_err(failed())?;
            }
            write::update_document(&writer.connection, known.id, record).map_err(failed())
        })
    }

    /// Removes documents by path in one commit; paths that are not in the index are passed over.
    ///
    /// # Errors
    /// If the catalogue cannot be written; then nothing was removed.
    pub fn remove<S: AsRef<str>>(&mut self, paths: &[S]) -> Result<Removed> {
        self.change(|writer| {
            let mut removed = Removed::default();
            for path in paths {
                let pages = write::remove_document(&writer.connection, path.as_ref())
                    .map_err(writer.catalog.failed("remove a document from"))?;
                if let Some(pages) = pages {
                    removed.documents += 1;
                    removed.pages += u64::from(pages);
                }
            }
            Ok(removed)
        })
    }

    /// Removes the documents that pass the filter in one commit; an empty filter removes all.
    ///
    /// # Errors
    /// If the catalogue cannot be written; then nothing was removed.
    pub fn remove_where(&mut self, filter: &Filter) -> Result<Removed> {
        let mut documents = self.catalog.documents(&self.connection)?;
        documents.retain(|document| filter.matches(&document.record));
        let paths: Vec<String> = documents
            .into_iter()
            .map(|document| document.record.path)
            .collect();
        self.remove(&paths)
    }

    /// Gives the space of removed documents back.
    ///
    /// Live rows are copied to new segments and synced, one transaction switches to them, and only then
    /// the old segments are removed: a crash at any instant leaves a whole index. Readers go on meanwhile.
    ///
    /// # Errors
    /// If rows are damaged or something cannot be written; then the index is as it was, or already
    /// compacted with some old files left for the next writer to remove.
    pub fn compact(&mut self) -> Result<Compaction> {
        let index = self.index()?;
        let before = index.stats()?;
        if before.dead_bytes > 0 {
            self.change(Self::move_rows)?;
        }
        self.change(|writer| {
            writer
                .connection
                .execute_batch("INSERT INTO page_search (page_search) VALUES ('optimize')")
                .map_err(writer.catalog.failed("compact"))
        })?;
        let extents = self.catalog.extents(&self.connection)?;
        self.store.reclaim(&extents)?;
        let failed = || self.catalog.failed("compact");
        self.connection.execute_batch("VACUUM").map_err(failed())?;
        // A reader in the middle of a question keeps the log from being emptied; that is no failure, and
        // nothing to wait for.
        self.connection
            .busy_timeout(Duration::ZERO)
            .map_err(failed())?;
        let emptied = self
            .connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        self.connection
            .busy_timeout(BUSY_TIMEOUT)
            .map_err(failed())?;
        if let Err(error) = emptied
            && error.sqlite_error_code() != Some(rusqlite::ErrorCode::DatabaseBusy)
        {
            return Err(failed()(error));
        }
        let mut hashes = Vec::new();
        for document in index.list(&Filter::default())? {
            hashes.push(document.record.content_hash);
        }
        Features::new(&self.dir, 0).retain(hashes)?;
        let after = index.stats()?;
        Ok(Compaction {
            bytes_before: before.total_bytes,
            bytes_after: after.total_bytes,
        })
    }

    fn move_rows(&mut self) -> Result<()> {
        let candidates = self.catalog.candidates(&self.connection)?;
        let live: Vec<_> = candidates
            .into_iter()
            .map(|candidate| candidate.record)
            .collect();
        let locations = self.store.compact(&live)?;
        let failed = || self.catalog.failed("compact");
        for (record, location) in live.iter().zip(locations) {
            write::set_location(&self.connection, record.page, location, None).map_err(failed())?;
        }
        write::remove_unused_extents(&self.connection).map_err(failed())
    }

    /// Reads everything and compares every checksum; nothing is wrong if the list is empty.
    ///
    /// # Errors
    /// If the index cannot be read at all.
    pub fn verify(&self) -> Result<Vec<Problem>> {
        self.index()?.verify()
    }

    fn known(&self, path: &str) -> Result<DocumentInfo> {
        self.lookup_path(path)?
            .ok_or_else(|| Error::UnknownDocument {
                path: self.dir.clone(),
                document: path.to_owned(),
            })
    }

    /// Runs `change` in one transaction.
    fn change<T>(&mut self, change: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.begin()?;
        let settings = self.settings.clone();
        let changed = change(self).and_then(|value| {
            // What `change` wrote to the settings itself stands.
            self.finish(&settings)?;
            Ok(value)
        });
        if changed.is_err() {
            self.rollback();
        }
        changed
    }

    pub(crate) fn begin(&mut self) -> Result<()> {
        self.connection
            .execute_batch("BEGIN IMMEDIATE")
            .map_err(self.catalog.failed("write"))
    }

    /// Syncs the rows and commits.
    pub(crate) fn commit(&mut self, settings: &Settings) -> Result<()> {
        if self.connection.is_autocommit() {
            // SQLite gave the transaction up by itself, as it does when the disk is full.
            return Err(Error::DiskFull {
                path: self.catalog.path().to_owned(),
            });
        }
        if *settings != self.settings {
            write::set_settings(&self.connection, settings)
                .map_err(self.catalog.failed("write"))?;
        }
        self.finish(settings)
    }

    fn finish(&mut self, settings: &Settings) -> Result<()> {
        let extents = self.store.publish()?;
        let failed = || self.catalog.failed("commit to");
        write::set_extents(&self.connection, &extents).map_err(failed())?;
        write::bump_generation(&self.connection).map_err(failed())?;
        self.connection.execute_batch("COMMIT").map_err(failed())?;
        self.settings = settings.clone();
        Ok(())
    }

    pub(crate) fn rollback(&mut self) {
        if !self.connection.is_autocommit() {
            // If even this fails, closing the connection rolls back.
            drop(self.connection.execute_batch("ROLLBACK"));
        }
        self.store.discard();
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(crate) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    pub(crate) fn store(&mut self) -> &mut dyn VectorStore {
        self.store.as_mut()
    }
}
