//! The first thread of an ingest: files to pictures and words.

use std::{
    io::Read,
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::SyncSender,
    },
    time::UNIX_EPOCH,
};

use colibri_document::{Document, Page, PageText, RenderSize, walk::Collected};
use colibri_index::{DocumentInfo, DocumentRecord, Index, PageRecord, WordBox};
use image::RgbImage;

use super::IngestOptions;
use crate::{Error, Result, error::chain};

/// A page as it leaves this thread: everything but its rows.
pub(super) struct Drawn {
    pub(super) record: PageRecord,
    /// Only where there is a retriever to look at it.
    pub(super) image: Option<RgbImage>,
}

/// What this thread sends; a document's messages come one after another.
pub(super) enum FromSource {
    Begin(Box<DocumentRecord>, usize),
    Page(Box<Drawn>),
    BadPage(String),
    End,
    Abort(String),
    /// Known content at a known place.
    Same(Box<DocumentInfo>),
    /// Known content whose file left its old place.
    Moved {
        from: String,
        record: Box<DocumentRecord>,
    },
    /// Known content at a second place.
    Copied {
        from: String,
        record: Box<DocumentRecord>,
    },
    Failed {
        path: String,
        reason: String,
    },
}

/// The receiver has gone: nothing more is wanted.
struct Closed;

pub(super) fn run(
    work: Collected,
    index: &Index,
    longest_edge: u32,
    options: &IngestOptions,
    stop: &AtomicBool,
    out: &SyncSender<FromSource>,
) {
    let source = Source {
        index,
        longest_edge,
        options,
        stop,
        out,
    };
    for found in work.found {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let sent = match found {
            Ok(found) => source.file(&found.path),
            Err(error) => source.send(FromSource::Failed {
                path: named_path(&error),
                reason: chain(&error),
            }),
        };
        if sent.is_err() {
            return;
        }
    }
}

/// The path an error of the walk is about, as far as it tells.
fn named_path(error: &colibri_document::Error) -> String {
    let text = error.to_string();
    text.split('`').nth(1).unwrap_or_default().to_owned()
}

struct Source<'a> {
    index: &'a Index,
    /// 0 where there is no retriever: then nothing is drawn.
    longest_edge: u32,
    options: &'a IngestOptions,
    stop: &'a AtomicBool,
    out: &'a SyncSender<FromSource>,
}

impl Source<'_> {
    fn send(&self, message: FromSource) -> Result<(), Closed> {
        self.out.send(message).map_err(|_| Closed)
    }

    fn file(&self, path: &Path) -> Result<(), Closed> {
        match self.look(path) {
            Ok(Known::Same(document)) => self.send(FromSource::Same(document)),
            Ok(Known::Moved { from, record }) => self.send(FromSource::Moved { from, record }),
            Ok(Known::Copied { from, record }) => self.send(FromSource::Copied { from, record }),
            Ok(Known::New(record, path)) => self.document(record, &path),
            Err(error) => self.send(FromSource::Failed {
                path: path.display().to_string(),
                reason: chain(&error),
            }),
        }
    }

    /// Hashes a file and asks the index what it knows of it.
    fn look(&self, path: &Path) -> Result<Known> {
        let io = |source| Error::Io {
            path: path.to_owned(),
            source,
        };
        let path = fs_err::canonicalize(path).map_err(io)?;
        let name = path
            .to_str()
            .ok_or_else(|| Error::PathName { path: path.clone() })?
            .to_owned();
        let metadata = fs_err::metadata(&path).map_err(io)?;
        let modified = metadata
            .modified()
            .ok()
            .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let limit = self.options.open.limits.max_file_bytes;
        if metadata.len() > limit {
            return Err(colibri_document::Error::FileTooLarge {
                path,
                bytes: metadata.len(),
                limit,
            }
            .into());
        }
        let mut record = Box::new(DocumentRecord {
            path: name,
            content_hash: hash(&path).map_err(io)?,
            size_bytes: metadata.len(),
            modified: modified.map_or(0, |time| time.as_nanos().min(i64::MAX as u128) as i64),
            kind: String::new(),
            metadata: self.options.metadata.clone(),
            title: String::new(),
        });
        if let Some(sidecar) = sidecar(&path)? {
            for (key, value) in sidecar {
                // What is said on the command line goes before what lies beside the file.
                record.metadata.entry(key).or_insert(value);
            }
        }
        let has_rows = |document: &DocumentInfo| {
            self.longest_edge == 0 || document.num_pages_with_rows == document.num_pages
        };
        if let Some(here) = self.index.document(&record.path)?
            && here.record.content_hash == record.content_hash
            && has_rows(&here)
        {
            let said = &record.metadata;
            let mut merged = here.record.metadata.clone();
            merged.extend(said.clone());
            if merged == here.record.metadata {
                return Ok(Known::Same(Box::new(here)));
            }
            // The same file, of which more is said now.
            let from = here.record.path.clone();
            let mut changed = here.record;
            changed.metadata = merged;
            return Ok(Known::Moved {
                from,
                record: Box::new(changed),
            });
        }
        let known = self.index.documents_with_hash(&record.content_hash)?;
        if let Some(known) = known
            .into_iter()
            .find(|known| has_rows(known) && known.record.path != record.path)
        {
            record.kind = known.record.kind;
            record.title = known.record.title;
            let mut merged = known.record.metadata;
            merged.extend(record.metadata);
            record.metadata = merged;
            let from = known.record.path;
            return Ok(if Path::new(&from).exists() {
                Known::Copied { from, record }
            } else {
                Known::Moved { from, record }
            });
        }
        Ok(Known::New(record, path))
    }

    fn document(&self, mut record: Box<DocumentRecord>, path: &Path) -> Result<(), Closed> {
        let mut document = match Document::open(path, &self.options.open) {
            Ok(document) => document,
            Err(error) => {
                return self.send(FromSource::Failed {
                    path: record.path,
                    reason: chain(&error),
                });
            }
        };
        document.kind().name().clone_into(&mut record.kind);
        document
            .title()
            .unwrap_or_default()
            .clone_into(&mut record.title);
        if let Some(seconds) = document.seconds_per_page() {
            // With it a page's number is a time.
            let key = "seconds_per_page".to_owned();
            record.metadata.entry(key).or_insert(seconds.into());
        }
        let num_pages = document.num_pages();
        self.send(FromSource::Begin(record, num_pages))?;
        for number in 1..=num_pages {
            if self.stop.load(Ordering::Relaxed) {
                return Err(Closed);
            }
            match self.page(&mut document, number) {
                Ok(drawn) => self.send(FromSource::Page(Box::new(drawn)))?,
                Err(error) if error.concerns_one_page() => {
                    self.send(FromSource::BadPage(chain(&error)))?;
                }
                Err(error) => return self.send(FromSource::Abort(chain(&error))),
            }
        }
        self.send(FromSource::End)
    }

    fn page(&self, document: &mut Document, number: usize) -> colibri_document::Result<Drawn> {
        if self.longest_edge == 0 {
            let text = document.page_text(number)?;
            return Ok(Drawn {
                record: page_record(number, (1.0, 1.0), &text),
                image: None,
            });
        }
        let Page {
            number,
            image,
            text,
            width_points,
            height_points,
        } = document.page(
            number,
            &RenderSize {
                longest_edge: self.longest_edge,
            },
        )?;
        let record = page_record(number, (width_points, height_points), &text);
        Ok(Drawn {
            record,
            image: Some(image),
        })
    }
}

enum Known {
    Same(Box<DocumentInfo>),
    Moved {
        from: String,
        record: Box<DocumentRecord>,
    },
    Copied {
        from: String,
        record: Box<DocumentRecord>,
    },
    New(Box<DocumentRecord>, PathBuf),
}

/// Word boxes are kept in fractions of the page, as `document` gives them.
fn page_record(number: usize, (width, height): (f32, f32), text: &PageText) -> PageRecord {
    let word = |word: &colibri_document::Word| WordBox {
        text: word.text.clone(),
        bounds: word.bbox.into(),
        line: word.line,
    };
    PageRecord {
        number: number as u32,
        width,
        height,
        text: text.searchable(),
        words: text.words.iter().map(word).collect(),
        rows: None,
        geometry: None,
    }
}

pub(crate) fn hash(path: &Path) -> std::io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    let mut file = fs_err::File::open(path)?;
    let mut buffer = vec![0; 1 << 18];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(hasher.finalize().to_hex().to_string());
        }
        hasher.update(&buffer[..read]);
    }
}

/// A sidecar is small; more is not metadata.
const MAX_SIDECAR_BYTES: u64 = 1 << 20;

/// `report.pdf.json` beside `report.pdf`: a JSON object of metadata.
fn sidecar(path: &Path) -> Result<Option<colibri_index::Metadata>> {
    let mut name = path.as_os_str().to_owned();
    name.push(".json");
    let path = PathBuf::from(name);
    let bytes = match fs_err::metadata(&path) {
        Ok(metadata) if metadata.is_file() && metadata.len() <= MAX_SIDECAR_BYTES => {
            fs_err::read(&path).map_err(|source| Error::Io {
                path: path.clone(),
                source,
            })?
        }
        _ => return Ok(None),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| Error::Io {
            path,
            source: std::io::Error::new(std::io::ErrorKind::InvalidData, error),
        })
}
