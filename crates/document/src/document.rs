//! A file, its pages, and what keeps it open.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fs_err::File;
use hayro_syntax::Pdf;
use image::RgbImage;

use crate::error::{Error, ImageError, Result, Trouble};
use crate::image_file;
use crate::limits::{Limits, RenderSize};
use crate::pdf::{self, Caches, OpenFailure, PdfPage, Want};
use crate::sniff::{Kind, SNIFF_BYTES, sniff};
use crate::text::PageText;
use crate::video::Video;
use crate::worker::WorkerCommand;
use crate::worker::client::{Client, StartFailure};

/// How a document is to be opened.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// What it may cost.
    pub limits: Limits,
    /// The password of an encrypted PDF. The empty password is tried without being asked.
    pub password: Option<String>,
    /// The process PDFs are opened in. `None` opens them in this process, where panics are caught
    /// but neither memory nor time is bounded: for tests and fuzzing, not for files from elsewhere.
    pub worker: Option<WorkerCommand>,
}

/// An open document.
#[derive(Debug)]
pub struct Document {
    path: PathBuf,
    kind: Kind,
    num_pages: usize,
    title: Option<String>,
    limits: Limits,
    source: Source,
}

/// One page: its picture and its words.
#[derive(Clone, Debug)]
pub struct Page {
    /// Its number, from 1.
    pub number: usize,
    /// The page as displayed, on white.
    pub image: RgbImage,
    /// The words of its text layer; none for pictures.
    pub text: PageText,
    /// Width as displayed, in points (1/72 inch); of a picture, in pixels.
    pub width_points: f32,
    /// Height as displayed, in points (1/72 inch); of a picture, in pixels.
    pub height_points: f32,
}

enum Source {
    /// A picture, or a TIFF of several; its bytes.
    Picture(Vec<u8>),
    /// A video: a page is the frame at every so many seconds.
    Video(Box<Video>, f64),
    /// A PDF in this process.
    Here(Box<Pdf>),
    /// A PDF in a process of its own.
    Worker(Box<Remote>),
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Picture(_) => "Picture",
            Self::Video(..) => "Video",
            Self::Here(_) => "Here",
            Self::Worker(_) => "Worker",
        })
    }
}

/// What is needed to start the worker, and to start it again.
struct Remote {
    command: WorkerCommand,
    /// Kept open, so that a worker started again reads the same file.
    file: File,
    file_bytes: u64,
    password: Option<String>,
    client: Option<Client>,
    failed_pages: usize,
    time_spent: Duration,
}

impl Document {
    /// Opens a file: a PDF as far as its page tree, a picture as far as its header.
    ///
    /// # Errors
    /// Where the file cannot be read, is of no supported kind, exceeds a limit, is encrypted, or
    /// is damaged beyond opening.
    pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let limits = &options.limits;
        // Before opening: opening a pipe waits for its other end.
        if !fs_err::metadata(&path).map_err(Error::Io)?.is_file() {
            return Err(Error::NotAFile { path });
        }
        let mut file = File::open(&path).map_err(Error::Io)?;
        let bytes = file.metadata().map_err(Error::Io)?.len();
        if bytes == 0 {
            return Err(Error::Empty { path });
        }
        if bytes > limits.max_file_bytes {
            let limit = limits.max_file_bytes;
            return Err(Error::FileTooLarge { path, bytes, limit });
        }
        let mut data = Vec::new();
        let head = SNIFF_BYTES as u64;
        file.by_ref()
            .take(head)
            .read_to_end(&mut data)
            .map_err(Error::Io)?;
        let Some(kind) = sniff(&data) else {
            return Err(Error::Unsupported { path });
        };
        let (source, num_pages, title) = match (kind, &options.worker) {
            (Kind::Pdf, Some(command)) => {
                let mut remote = Box::new(Remote {
                    command: command.clone(),
                    file,
                    file_bytes: bytes,
                    password: options.password.clone(),
                    client: None,
                    failed_pages: 0,
                    time_spent: Duration::ZERO,
                });
                let (pages, title) = remote.start(&path, limits)?;
                (Source::Worker(remote), pages, title)
            }
            (Kind::Pdf, None) => {
                read_rest(&mut file, &mut data, limits)?;
                let pdf = pdf::open(data, options.password.as_deref())
                    .map_err(|failure| open_error(&path, failure))?;
                let (pages, title) = (pdf.pages().len(), pdf::title(&pdf));
                (Source::Here(Box::new(pdf)), pages, title)
            }
            (Kind::Png | Kind::Jpeg | Kind::WebP | Kind::Tiff | Kind::Gif | Kind::Bmp, _) => {
                read_rest(&mut file, &mut data, limits)?;
                let pages = image_file::num_pages(&data, limits).map_err(|reason| {
                    let path = path.clone();
                    Error::Image {
                        path,
                        page: 1,
                        reason,
                    }
                })?;
                (Source::Picture(data), pages, None)
            }
            (Kind::Video, _) => {
                let video = Box::new(Video::open(&path, options)?);
                let seconds = seconds_per_page(video.duration());
                let pages = ((video.duration() / seconds).ceil() as usize).clamp(1, MOST_FRAMES);
                (Source::Video(video, seconds), pages, None)
            }
        };
        if num_pages == 0 {
            return Err(Error::NoPages { path });
        }
        if num_pages > limits.max_pages {
            return Err(Error::TooManyPages {
                path,
                pages: num_pages,
                limit: limits.max_pages,
            });
        }
        Ok(Self {
            path,
            kind,
            num_pages,
            title,
            limits: limits.clone(),
            source,
        })
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Number of pages, at least 1.
    pub fn num_pages(&self) -> usize {
        self.num_pages
    }

    /// The title in the PDF's metadata, if it says anything.
    pub fn title(&self) -> Option<&str> {
        self.title.as_deref()
    }

    /// Of a video, the seconds from one page to the next: page *n* shows the moment (*n* - 1) times as late.
    pub fn seconds_per_page(&self) -> Option<f64> {
        match &self.source {
            Source::Video(_, seconds) => Some(*seconds),
            Source::Picture(_) | Source::Here(_) | Source::Worker(_) => None,
        }
    }

    /// Reads page `number`, counting from 1, with its picture.
    ///
    /// # Errors
    /// Where there is no such page, or it cannot be read. After most failures other pages can
    /// still be read ([`Error::concerns_one_page`]).
    pub fn page(&mut self, number: usize, size: &RenderSize) -> Result<Page> {
        let longest_edge = size.longest_edge;
        let (image, text, points) = match &mut self.source {
            Source::Picture(bytes) => {
                check_number(&self.path, number, self.num_pages)?;
                let image = image_file::decode_page(bytes, number, &self.limits)
                    .map_err(|reason| image_error(&self.path, number, reason))?;
                let points = (image.width() as f32, image.height() as f32);
                (image, PageText::default(), points)
            }
            Source::Video(video, seconds) => {
                check_number(&self.path, number, self.num_pages)?;
                let image = video.at((number - 1) as f64 * *seconds, number)?;
                let points = (image.width() as f32, image.height() as f32);
                (image, PageText::default(), points)
            }
            Source::Here(_) | Source::Worker(_) => {
                let page = self.pdf_page(number, Want::Picture { longest_edge })?;
                let image = page.image.ok_or_else(|| Error::Page {
                    path: self.path.clone(),
                    page: number,
                    reason: Trouble::BadAnswer {
                        found: "a page without its picture".to_owned(),
                    },
                })?;
                (image, page.text, page.points)
            }
        };
        Ok(Page {
            number,
            image,
            text,
            width_points: points.0,
            height_points: points.1,
        })
    }

    /// Reads the words of page `number`, counting from 1, without drawing it. Pictures have none.
    ///
    /// # Errors
    /// As [`Self::page`].
    pub fn page_text(&mut self, number: usize) -> Result<PageText> {
        match &self.source {
            Source::Picture(_) | Source::Video(..) => {
                check_number(&self.path, number, self.num_pages)?;
                Ok(PageText::default())
            }
            Source::Here(_) | Source::Worker(_) => Ok(self.pdf_page(number, Want::Text)?.text),
        }
    }

    fn pdf_page(&mut self, number: usize, want: Want) -> Result<PdfPage> {
        check_number(&self.path, number, self.num_pages)?;
        let index = number - 1;
        let read = match &mut self.source {
            // Fonts are read anew for each page here: the caches borrow the document.
            Source::Here(pdf) => pdf::read_page(pdf, &Caches::new(), index, want, &self.limits),
            Source::Worker(remote) => remote.page(&self.path, index, want, &self.limits)?,
            Source::Picture(_) | Source::Video(..) => Err(Trouble::BadAnswer {
                found: "a picture".to_owned(),
            }),
        };
        read.map_err(|reason| Error::Page {
            path: self.path.clone(),
            page: number,
            reason,
        })
    }
}

impl Remote {
    /// Starts the worker; number of pages and title.
    fn start(&mut self, path: &Path, limits: &Limits) -> Result<(usize, Option<String>)> {
        let started = Instant::now();
        let password = self.password.as_deref();
        let result = Client::start(
            &self.command,
            &mut self.file,
            self.file_bytes,
            password,
            limits,
        );
        self.time_spent += started.elapsed();
        match result {
            Ok((client, opened)) => {
                self.client = Some(client);
                Ok((opened.pages, opened.title))
            }
            Err(StartFailure::Open(failure)) => Err(open_error(path, failure)),
            Err(StartFailure::File(reason)) => Err(Error::Io(reason)),
            Err(StartFailure::Spawn(reason)) => Err(Error::WorkerStart {
                path: path.to_path_buf(),
                program: self.command.program.clone(),
                reason,
            }),
        }
    }

    /// Reads a page, starting the worker again where an earlier page brought it down.
    fn page(
        &mut self,
        path: &Path,
        index: usize,
        want: Want,
        limits: &Limits,
    ) -> Result<std::result::Result<PdfPage, Trouble>> {
        if self.failed_pages >= limits.max_failed_pages.max(1) {
            return Ok(Err(Trouble::GivenUp {
                failed: self.failed_pages,
            }));
        }
        if self.time_spent > Duration::from_secs(limits.max_seconds_per_file) {
            return Ok(Err(Trouble::FileTimedOut {
                seconds: limits.max_seconds_per_file,
            }));
        }
        if self.client.is_none() {
            self.start(path, limits)?;
        }
        let Some(client) = &mut self.client else {
            return Ok(Err(Trouble::BadAnswer {
                found: "no worker".to_owned(),
            }));
        };
        let started = Instant::now();
        let read = client.page(index, want);
        self.time_spent += started.elapsed();
        Ok(read.map_err(|(trouble, alive)| {
            if !alive {
                self.client = None;
                self.failed_pages += 1;
            }
            trouble
        }))
    }
}

/// Pages of a video at most: more than an hour has scenes, and few enough to be looked at in a quarter of
/// an hour.
const MOST_FRAMES: usize = 120;

/// One second, or more where that would be too many pages.
fn seconds_per_page(duration: f64) -> f64 {
    (duration / MOST_FRAMES as f64).max(1.0)
}

/// Reads what follows the bytes looked at so far.
fn read_rest(file: &mut File, data: &mut Vec<u8>, limits: &Limits) -> Result<()> {
    // The file may have grown since it was measured.
    let left = limits.max_file_bytes.saturating_sub(data.len() as u64);
    file.take(left).read_to_end(data).map_err(Error::Io)?;
    Ok(())
}

fn check_number(path: &Path, number: usize, num_pages: usize) -> Result<()> {
    if (1..=num_pages).contains(&number) {
        return Ok(());
    }
    Err(Error::NoSuchPage {
        path: path.to_path_buf(),
        page: number,
        pages: num_pages,
    })
}

fn image_error(path: &Path, page: usize, reason: ImageError) -> Error {
    Error::Image {
        path: path.to_path_buf(),
        page,
        reason,
    }
}

fn open_error(path: &Path, failure: OpenFailure) -> Error {
    let path = path.to_path_buf();
    match failure {
        OpenFailure::Encrypted => Error::Encrypted { path },
        OpenFailure::WrongPassword => Error::WrongPassword { path },
        OpenFailure::UnsupportedEncryption(found) => Error::UnsupportedEncryption { path, found },
        OpenFailure::Corrupt => Error::CorruptPdf { path },
        OpenFailure::Trouble(reason) => Error::Open { path, reason },
    }
}
