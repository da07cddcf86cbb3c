//! What can go wrong, one variant per cause.
//!
//! Each message is the whole story on one line: what was tried, on which file and page, and what
//! was wrong. Nothing is repeated through [`std::error::Error::source`], so printing the chain of
//! causes says it once.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::sniff::Kind;

/// What another library says, without line breaks and control characters, and no longer than a
/// line should be: it may quote the file.
pub(crate) fn one_line(text: impl ToString) -> String {
    const LONGEST: usize = 200;
    let text = text.to_string();
    let words: Vec<&str> = text.split_whitespace().collect();
    let line = words.join(" ");
    line.chars()
        .filter(|c| !c.is_control())
        .take(LONGEST)
        .collect()
}

/// The result of opening or reading a document.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a file or one of its pages could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be opened or read; the message names the path.
    #[error("{0}")]
    Io(io::Error),
    /// A folder could not be walked; the message names the path.
    #[error("cannot look through `{path}`: {}", one_line(reason))]
    Walk {
        /// The path that was asked for.
        path: PathBuf,
        /// What the walk met.
        reason: ignore::Error,
    },
    /// A pattern of the caller is not a glob.
    #[error("`{pattern}` is not a usable pattern: {}", one_line(reason))]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: ignore::Error,
    },
    /// The path is a folder, a device, a pipe or a socket.
    #[error("`{path}` is not a regular file")]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The file has no bytes.
    #[error("`{path}` is empty")]
    Empty {
        /// The path.
        path: PathBuf,
    },
    /// The first bytes are those of none of the kinds in [`Kind`].
    #[error(
        "`{path}` is neither a PDF nor a picture (PNG, JPEG, WebP, TIFF, GIF, BMP) nor a video by its first bytes"
    )]
    Unsupported {
        /// The path.
        path: PathBuf,
    },
    /// The file is larger than [`Limits::max_file_bytes`](crate::Limits::max_file_bytes).
    #[error("`{path}` has {bytes} bytes, more than the limit of {limit}")]
    FileTooLarge {
        /// The path.
        path: PathBuf,
        /// Its size in bytes.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The document has more pages than [`Limits::max_pages`](crate::Limits::max_pages).
    #[error("`{path}` has {pages} pages, more than the limit of {limit}")]
    TooManyPages {
        /// The path.
        path: PathBuf,
        /// Pages found.
        pages: usize,
        /// The limit.
        limit: usize,
    },
    /// The document has no page.
    #[error("`{path}` has no pages")]
    NoPages {
        /// The path.
        path: PathBuf,
    },
    /// A page was asked for that the document does not have.
    #[error("`{path}` has no page {page}: its pages are numbered 1 to {pages}")]
    NoSuchPage {
        /// The path.
        path: PathBuf,
        /// The page asked for.
        page: usize,
        /// Pages the document has.
        pages: usize,
    },
    /// The PDF asks for a password and none was given.
    #[error("`{path}` is encrypted: pass --password")]
    Encrypted {
        /// The path.
        path: PathBuf,
    },
    /// The PDF is encrypted and the password given does not open it.
    #[error("`{path}` is encrypted and the password given does not open it")]
    WrongPassword {
        /// The path.
        path: PathBuf,
    },
    /// The PDF is encrypted in a way that cannot be undone.
    #[error("`{path}` is encrypted in a way this program cannot read ({found})")]
    UnsupportedEncryption {
        /// The path.
        path: PathBuf,
        /// What was found.
        found: String,
    },
    /// The PDF's structure cannot be read.
    #[error("`{path}` is not a readable PDF: it is damaged or cut off")]
    CorruptPdf {
        /// The path.
        path: PathBuf,
    },
    /// What is to be shown as a video is none.
    #[error(
        "`{path}` is neither a video, nor an animated picture (GIF, WebP), nor a folder of pictures"
    )]
    NotAVideo {
        /// The path.
        path: PathBuf,
    },
    /// A video without a picture.
    #[error("`{path}` holds no frame that can be read")]
    NoFrames {
        /// The path.
        path: PathBuf,
    },
    /// A video, and no program that could decode it.
    #[error("`{path}` is a video, which `{tool}` is needed to read, and it is not installed")]
    NoVideoTool {
        /// The path.
        path: PathBuf,
        /// `ffprobe` or `ffmpeg`.
        tool: &'static str,
    },
    /// The picture, or a page of the TIFF, could not be decoded.
    #[error("cannot read page {page} of `{path}`: {reason}")]
    Image {
        /// The path.
        path: PathBuf,
        /// The page, from 1.
        page: usize,
        /// What was wrong.
        reason: ImageError,
    },
    /// The PDF could not be opened because its worker failed.
    #[error("cannot open `{path}`: {reason}")]
    Open {
        /// The path.
        path: PathBuf,
        /// What happened to the worker.
        reason: Trouble,
    },
    /// A page of the PDF could not be drawn. Other pages may still be read.
    #[error("cannot draw page {page} of `{path}`: {reason}")]
    Page {
        /// The path.
        path: PathBuf,
        /// The page, from 1.
        page: usize,
        /// What happened.
        reason: Trouble,
    },
    /// The worker program could not be started.
    #[error("cannot start `{program}` to open `{path}`: {reason}")]
    WorkerStart {
        /// The document.
        path: PathBuf,
        /// The program of the [`WorkerCommand`](crate::WorkerCommand).
        program: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
}

impl Error {
    /// Whether the error concerns one page only, so that other pages of the same document may
    /// still be read.
    pub fn concerns_one_page(&self) -> bool {
        match self {
            Self::Image { .. } | Self::NoSuchPage { .. } => true,
            Self::Page { reason, .. } => !reason.is_final(),
            Self::Io(_)
            | Self::Walk { .. }
            | Self::Pattern { .. }
            | Self::NotAFile { .. }
            | Self::Empty { .. }
            | Self::Unsupported { .. }
            | Self::FileTooLarge { .. }
            | Self::TooManyPages { .. }
            | Self::NoPages { .. }
            | Self::Encrypted { .. }
            | Self::WrongPassword { .. }
            | Self::UnsupportedEncryption { .. }
            | Self::CorruptPdf { .. }
            | Self::NotAVideo { .. }
            | Self::NoFrames { .. }
            | Self::NoVideoTool { .. }
            | Self::Open { .. }
            | Self::WorkerStart { .. } => false,
        }
    }
}

/// What happened to a worker, or to the drawing of a page within it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Trouble {
    /// It took longer than [`Limits::max_seconds_per_page`](crate::Limits::max_seconds_per_page)
    /// and was killed.
    #[error("it took longer than {seconds} s and was stopped")]
    TimedOut {
        /// The limit.
        seconds: u64,
    },
    /// It wanted more than [`Limits::worker_memory_bytes`](crate::Limits::worker_memory_bytes).
    #[error("it needs more than {limit_bytes} bytes of memory")]
    OutOfMemory {
        /// The limit.
        limit_bytes: u64,
    },
    /// The worker process ended by itself.
    #[error("the process reading it ended early ({how})")]
    Crashed {
        /// Exit status or signal, and the last line it printed.
        how: String,
    },
    /// The PDF library panicked; the worker went on.
    #[error("the PDF library failed on it ({message})")]
    Panicked {
        /// The panic's message.
        message: String,
    },
    /// The page has no usable size.
    #[error("its size is {width} x {height} points")]
    BadSize {
        /// Width in points.
        width: String,
        /// Height in points.
        height: String,
    },
    /// The worker answered something that is not an answer.
    #[error("the process reading it answered nonsense ({found})")]
    BadAnswer {
        /// What was wrong with it.
        found: String,
    },
    /// Earlier pages used up
    /// [`Limits::max_seconds_per_file`](crate::Limits::max_seconds_per_file).
    #[error("the file has taken more than {seconds} s in all and was given up")]
    FileTimedOut {
        /// The limit.
        seconds: u64,
    },
    /// [`Limits::max_failed_pages`](crate::Limits::max_failed_pages) pages have failed before.
    #[error("{failed} earlier pages failed and the file was given up")]
    GivenUp {
        /// Pages that failed.
        failed: usize,
    },
}

impl Trouble {
    /// Whether no further page of the document will be tried.
    fn is_final(&self) -> bool {
        matches!(self, Self::FileTimedOut { .. } | Self::GivenUp { .. })
    }
}

/// Why bytes could not be decoded as a picture.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// There are no bytes.
    #[error("the picture is empty")]
    Empty,
    /// The first bytes are not those of a picture.
    #[error("not a picture (PNG, JPEG, WebP, TIFF, GIF, BMP) by its first bytes")]
    Unsupported,
    /// More pixels than [`Limits::max_pixels`](crate::Limits::max_pixels), by the header.
    #[error("the picture is {width} x {height} pixels, more than the limit of {limit} pixels")]
    TooLarge {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// The limit on width times height.
        limit: u64,
    },
    /// A side is zero.
    #[error("the picture is {width} x {height} pixels")]
    NoPixels {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// The data end before the picture does.
    #[error("the {} data are cut off", kind.name())]
    CutOff {
        /// The kind by the first bytes.
        kind: Kind,
    },
    /// The decoder refused the data.
    #[error("not a readable {}: {}", kind.name(), one_line(reason))]
    Decode {
        /// The kind by the first bytes.
        kind: Kind,
        /// What the decoder said.
        reason: image::ImageError,
    },
    /// The TIFF decoder refused the data.
    #[error("not a readable TIFF: {}", one_line(.0))]
    Tiff(tiff::TiffError),
    /// A TIFF in a colour model that is not converted.
    #[error("the TIFF's colours ({found}) are of a kind that is not supported")]
    TiffColours {
        /// Colour model and sample type.
        found: String,
    },
    /// The decoder panicked.
    #[error("the {} decoder failed on it ({message})", kind.name())]
    Panicked {
        /// The kind by the first bytes.
        kind: Kind,
        /// The panic's message.
        message: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_say_fits_on_a_line() {
        assert_eq!(one_line("no \n\t such\u{7} luck "), "no such luck");
        assert_eq!(one_line("x".repeat(999)).len(), 200);
    }

    #[test]
    fn messages_name_file_page_and_reason() {
        let error = Error::Page {
            path: "a/b.pdf".into(),
            page: 3,
            reason: Trouble::TimedOut { seconds: 30 },
        };
        assert_eq!(
            error.to_string(),
            "cannot draw page 3 of `a/b.pdf`: it took longer than 30 s and was stopped"
        );
        // Said once: nothing is left for a chain of causes to repeat.
        assert!(std::error::Error::source(&error).is_none());
    }
}
