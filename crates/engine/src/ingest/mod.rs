//! Files into the index: render ‖ encode ‖ write.
//!
//! Three threads with bounded channels between them. The first walks the files, hashes them, and draws the
//! pages of those that are new; the second makes rows of the pictures; the third, the caller's, writes.
//! Each document becomes visible whole, in one transaction, so that a run that is stopped or killed leaves
//! an index to go on from: what is committed is recognised by its content and passed over.

mod plan;
mod report;
mod source;

use std::{
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::Instant,
};

use colibri_document::{
    OpenOptions,
    walk::{self, WalkOptions},
};
use colibri_index::{
    DocumentRecord, Index, Metadata, MultiVector, PageRecord, Settings, Writer, WriterOptions,
};

pub use report::{DocumentStatus, IndexEvent, Summary};

use crate::{Error, Result, checkpoints::LoadedRetriever, geometry, seen::Seen};
pub(crate) use source::hash as content_hash;
use source::{Drawn, FromSource};

/// Pages drawn and waiting to be encoded, besides the one that was drawn since. A page is at most a few tens of megabytes,
/// encoding it takes a hundred times longer than drawing it: one is enough to never wait.
const PAGES_DRAWN: usize = 1;
/// Pages encoded and waiting to be written, which are small.
const PAGES_WAITING: usize = 2;

/// What to index, and how.
#[derive(Clone, Debug, Default)]
pub struct IngestOptions {
    /// Which files in folders.
    pub walk: WalkOptions,
    /// What documents may cost, and their password.
    pub open: OpenOptions,
    /// Said about every document of this run.
    pub metadata: Metadata,
    /// What this process was started to do, for a second writer to be told.
    pub command: Option<String>,
    /// Documents of named folders that are no longer there leave the index.
    pub remove_missing: bool,
}

/// Adds or refreshes the documents at and under `paths`.
///
/// `on_event` sees every document and page as it is done; `stop` ends the run after the page at hand.
///
/// # Errors
/// When the index cannot be written or the retriever fails. A document that cannot be read is not an
/// error: it is reported, counted, and the others go on.
pub fn ingest(
    index: &Path,
    paths: &[PathBuf],
    retriever: Option<&LoadedRetriever>,
    options: &IngestOptions,
    stop: &AtomicBool,
    on_event: &mut dyn FnMut(IndexEvent),
) -> Result<Summary> {
    let started = Instant::now();
    let settings = retriever.map_or_else(Settings::text_only, LoadedRetriever::index_settings);
    let writer_options = WriterOptions {
        command: options.command.clone(),
        ..WriterOptions::default()
    };
    let mut writer = Index::open_or_create(index, &settings, writer_options)?;
    let mut summary = Summary::default();
    let reader = writer.index()?;
    let work = walk::collect(paths, &options.walk);
    on_event(IndexEvent::Found {
        documents: work.found.len(),
        skipped: work.num_skipped,
    });
    let longest_edge = retriever.map_or(0, |retriever| retriever.model.settings().longest_edge);
    std::thread::scope(|scope| {
        let (drawn_in, drawn_out) = sync_channel(PAGES_DRAWN);
        let (ready_in, ready_out) = sync_channel(PAGES_WAITING);
        let source =
            scope.spawn(move || source::run(work, &reader, longest_edge, options, stop, &drawn_in));
        let seen = Seen::by_retriever(index, retriever);
        let encoder = Encoder {
            retriever,
            seen,
            stop,
        };
        let encode = scope.spawn(move || encoder.run(&drawn_out, &ready_in));
        let written = write(&mut writer, &ready_out, &mut summary, on_event);
        // Closing the channel makes the others stop at their next send.
        drop(ready_out);
        if written.is_err() {
            stop.store(true, Ordering::Relaxed);
        }
        let encoded = encode.join().map_err(|_| Error::Thread {
            doing: "encoding pages",
        })?;
        source.join().map_err(|_| Error::Thread {
            doing: "drawing pages",
        })?;
        written.and(encoded)
    })?;
    if options.remove_missing && !stop.load(Ordering::Relaxed) {
        plan::remove_missing(&mut writer, paths, &mut summary, on_event)?;
    }
    summary.seconds = started.elapsed().as_secs_f64();
    if stop.load(Ordering::Relaxed) {
        return Err(Error::Cancelled);
    }
    on_event(IndexEvent::Done(summary.clone()));
    Ok(summary)
}

/// What reaches the writer.
enum Ready {
    /// A document begins.
    Begin(Box<DocumentRecord>, usize),
    /// One of its pages.
    Page(Box<PageRecord>),
    /// One of its pages cannot be read.
    BadPage(String),
    /// It is complete.
    End,
    /// The rest of it cannot be read.
    Abort(String),
    /// Anything that needs no encoding.
    Other(FromSource),
}

/// The second thread: pictures to rows.
struct Encoder<'a> {
    retriever: Option<&'a LoadedRetriever>,
    /// Where what is seen on pages is kept.
    seen: Option<Seen>,
    stop: &'a AtomicBool,
}

impl Encoder<'_> {
    fn run(&self, drawn: &Receiver<FromSource>, ready: &SyncSender<Ready>) -> Result<()> {
        let mut content_hash = String::new();
        for message in drawn {
            let next = match message {
                FromSource::Begin(record, pages) => {
                    content_hash.clone_from(&record.content_hash);
                    Ready::Begin(record, pages)
                }
                FromSource::Page(page) => match self.page(&content_hash, *page) {
                    Ok(page) => Ready::Page(Box::new(page)),
                    // A picture that the processor refuses (a line one pixel high and a mile wide)
                    // concerns its page; anything else would meet every page.
                    Err(Error::Model(colibri_models::Error::Processor(error))) => {
                        Ready::BadPage(error.to_string())
                    }
                    Err(error) => return Err(error),
                },
                FromSource::BadPage(reason) => Ready::BadPage(reason),
                FromSource::End => Ready::End,
                FromSource::Abort(reason) => Ready::Abort(reason),
                other @ (FromSource::Same(_)
                | FromSource::Moved { .. }
                | FromSource::Copied { .. }
                | FromSource::Failed { .. }) => Ready::Other(other),
            };
            if ready.send(next).is_err() {
                break;
            }
        }
        Ok(())
    }

    fn page(&self, content_hash: &str, drawn: Drawn) -> Result<PageRecord> {
        let Drawn { mut record, image } = drawn;
        let (Some(retriever), Some(image)) = (self.retriever, image) else {
            return Ok(record);
        };
        let mut go_on = |_, _| !self.stop.load(Ordering::Relaxed);
        let embedded = match &self.seen {
            Some(_) => retriever.model.embed_page_seen(&image, &mut go_on),
            None => retriever
                .model
                .embed_page(&image, &mut go_on)
                .map(|embedding| (embedding, None)),
        };
        let (embedding, tokens) = match embedded {
            Ok(embedded) => embedded,
            Err(colibri_models::Error::Cancelled) => return Err(Error::Cancelled),
            Err(error) => return Err(error.into()),
        };
        if let (Some(seen), Some(tokens)) = (&self.seen, tokens) {
            seen.keep(content_hash, record.number, tokens);
        }
        record.rows = Some(MultiVector::from_f32(
            embedding.rows.dim,
            &embedding.rows.values,
        )?);
        record.geometry = Some(geometry::pack(&embedding.geometry));
        Ok(record)
    }
}

/// The third thread: the one that owns the index.
fn write(
    writer: &mut Writer,
    ready: &Receiver<Ready>,
    summary: &mut Summary,
    on_event: &mut dyn FnMut(IndexEvent),
) -> Result<()> {
    while let Ok(message) = ready.recv() {
        match message {
            Ready::Begin(record, num_pages) => {
                let path = record.path.clone();
                match write_document(writer, &record, num_pages, ready, on_event)? {
                    Written::Whole {
                        pages,
                        replaced,
                        error,
                    } => {
                        summary.count(pages, error.is_some());
                        let status = if replaced {
                            DocumentStatus::Replaced
                        } else {
                            DocumentStatus::Indexed
                        };
                        on_event(IndexEvent::Document {
                            path,
                            status,
                            pages,
                            error,
                        });
                    }
                    Written::Failed(reason) => {
                        summary.failed += 1;
                        on_event(IndexEvent::failed(path, reason));
                    }
                    Written::Interrupted => return Ok(()),
                }
            }
            Ready::Other(FromSource::Same(document)) => {
                summary.count(document.num_pages as usize, false);
                let pages = document.num_pages as usize;
                let status = DocumentStatus::Unchanged;
                on_event(IndexEvent::Document {
                    path: document.record.path,
                    status,
                    pages,
                    error: None,
                });
            }
            Ready::Other(FromSource::Moved { from, record }) => {
                let status = status_at(writer, &from, &record.path)?;
                writer.update_document(&from, &record)?;
                report_known(writer, &record.path, status, summary, on_event)?;
            }
            Ready::Other(FromSource::Copied { from, record }) => {
                let status = status_at(writer, &from, &record.path)?;
                writer.copy_document(&from, &record)?;
                report_known(writer, &record.path, status, summary, on_event)?;
            }
            Ready::Other(FromSource::Failed { path, reason }) => {
                summary.failed += 1;
                on_event(IndexEvent::failed(path, reason));
            }
            // A document's parts come between its beginning and its end, which `write_document` reads.
            Ready::Page(_) | Ready::BadPage(_) | Ready::End | Ready::Abort(_) | Ready::Other(_) => {
            }
        }
    }
    Ok(())
}

/// What known content from `from` is at `path`: another document may have been there.
fn status_at(writer: &Writer, from: &str, path: &str) -> Result<DocumentStatus> {
    let replaces = from != path && writer.lookup_path(path)?.is_some();
    Ok(if replaces {
        DocumentStatus::Replaced
    } else {
        DocumentStatus::Indexed
    })
}

fn report_known(
    writer: &Writer,
    path: &str,
    status: DocumentStatus,
    summary: &mut Summary,
    on_event: &mut dyn FnMut(IndexEvent),
) -> Result<()> {
    let pages = writer
        .lookup_path(path)?
        .map_or(0, |document| document.num_pages as usize);
    summary.count(pages, false);
    on_event(IndexEvent::Document {
        path: path.to_owned(),
        status,
        pages,
        error: None,
    });
    Ok(())
}

enum Written {
    Whole {
        pages: usize,
        replaced: bool,
        error: Option<String>,
    },
    Failed(String),
    Interrupted,
}

/// Writes one document; whatever happens before its commit leaves nothing behind.
fn write_document(
    writer: &mut Writer,
    record: &DocumentRecord,
    num_pages: usize,
    ready: &Receiver<Ready>,
    on_event: &mut dyn FnMut(IndexEvent),
) -> Result<Written> {
    let mut pending = writer.begin_document(record)?;
    let mut pages = 0;
    let mut errors: Vec<String> = Vec::new();
    while let Ok(message) = ready.recv() {
        match message {
            Ready::Page(page) => {
                pending.append_page(&page)?;
                pages += 1;
                on_event(IndexEvent::Page {
                    path: record.path.clone(),
                    page: page.number as usize,
                    pages: num_pages,
                });
            }
            Ready::BadPage(reason) => errors.push(reason),
            Ready::Abort(reason) => {
                errors.push(reason);
                return Ok(Written::Failed(errors.join("; ")));
            }
            Ready::End if pages == 0 => return Ok(Written::Failed(errors.join("; "))),
            Ready::End => {
                let added = pending.commit()?;
                let error = (!errors.is_empty()).then(|| errors.join("; "));
                return Ok(Written::Whole {
                    pages,
                    replaced: added.replaced,
                    error,
                });
            }
            Ready::Begin(..) | Ready::Other(_) => break,
        }
    }
    Ok(Written::Interrupted)
}
