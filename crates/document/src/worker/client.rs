//! The parent's side: one worker process for one document, asked for one page after the other.
//!
//! Every exchange has a deadline, kept by the process's watchdog: when it passes the pipes close,
//! and what is left to find out is why. What comes back is checked, for it was made from hostile
//! bytes.

use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::process::{ChildStdin, ChildStdout};

use fs_err::File;
use image::RgbImage;

use super::WorkerCommand;
use super::process::Process;
use super::protocol::{self, Answer, Hello, PROTOCOL, Request};
use crate::error::{Trouble, one_line};
use crate::limits::Limits;
use crate::pdf::{OpenFailure, PdfPage, Want};
use crate::text::PageText;

/// A running worker with its document open.
#[derive(Debug)]
pub(crate) struct Client {
    process: Process,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    limits: Limits,
}

/// What a worker found when it opened the document.
#[derive(Debug)]
pub(crate) struct Opened {
    /// Number of pages.
    pub(crate) pages: usize,
    /// The document's title.
    pub(crate) title: Option<String>,
}

/// Why there is no worker.
#[derive(Debug)]
pub(crate) enum StartFailure {
    /// The program could not be started.
    Spawn(std::io::Error),
    /// The file could not be read.
    File(std::io::Error),
    /// The document could not be opened.
    Open(OpenFailure),
}

impl Client {
    /// Starts a worker and has it open `file`, of `file_bytes`.
    pub(crate) fn start(
        command: &WorkerCommand,
        file: &mut File,
        file_bytes: u64,
        password: Option<&str>,
        limits: &Limits,
    ) -> Result<(Self, Opened), StartFailure> {
        let (process, input, output) = Process::spawn(command).map_err(StartFailure::Spawn)?;
        let mut client = Self {
            process,
            input,
            output,
            limits: limits.clone(),
        };
        file.seek(SeekFrom::Start(0)).map_err(StartFailure::File)?;
        let hello = Hello {
            protocol: PROTOCOL,
            limits: limits.clone(),
            password: password.map(str::to_owned),
        };
        client.process.set_deadline(limits.max_seconds_per_page);
        let sent = client.send_file(&hello, file, file_bytes);
        let answer = match sent {
            Err(StartFailure::Spawn(_)) | Ok(()) => protocol::read_head(&mut client.output),
            Err(e) => return Err(e),
        };
        client.process.clear_deadline();
        match answer {
            Ok((Answer::Opened { pages, title }, 0)) => {
                let title = title.map(one_line).filter(|t| !t.is_empty());
                Ok((client, Opened { pages, title }))
            }
            Ok((Answer::NotOpened(failure), 0)) => Err(StartFailure::Open(failure)),
            Ok((other, _)) => Err(trouble(nonsense(&other))),
            Err(e) => Err(trouble(client.why(&e))),
        }
    }

    /// Sends the first message. An error of the pipe is reported as [`StartFailure::Spawn`]: the
    /// worker may have said why before it went.
    fn send_file(
        &mut self,
        hello: &Hello,
        file: &mut File,
        file_bytes: u64,
    ) -> Result<(), StartFailure> {
        let pipe = StartFailure::Spawn;
        protocol::write_head(&mut self.input, hello, file_bytes).map_err(pipe)?;
        let mut left = file_bytes;
        let mut chunk = vec![0; 1 << 16];
        while left > 0 {
            let want = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let got = match file.read(&mut chunk[..want]) {
                Ok(0) => {
                    // The file has become shorter since it was measured.
                    let e = std::io::Error::from(ErrorKind::UnexpectedEof);
                    return Err(StartFailure::File(e));
                }
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(StartFailure::File(e)),
            };
            std::io::Write::write_all(&mut self.input, &chunk[..got]).map_err(pipe)?;
            left -= got as u64;
        }
        std::io::Write::flush(&mut self.input).map_err(pipe)
    }

    /// Reads a page, counting from 0. The flag says whether the worker is still there.
    pub(crate) fn page(&mut self, index: usize, want: Want) -> Result<PdfPage, (Trouble, bool)> {
        self.process.set_deadline(self.limits.max_seconds_per_page);
        let answer = self.exchange(index, want);
        self.process.clear_deadline();
        match answer {
            Ok((Answer::NoPage(trouble), _)) => Err((trouble, true)),
            Ok((Answer::Page { size, points, text }, pixels)) => {
                checked(size, points, text, pixels, want, &self.limits).map_err(|t| (t, false))
            }
            Ok((other @ (Answer::Opened { .. } | Answer::NotOpened(_)), _)) => {
                Err((nonsense(&other), false))
            }
            Err(e) => Err((self.why(&e), false)),
        }
    }

    fn exchange(&mut self, index: usize, want: Want) -> std::io::Result<(Answer, Vec<u8>)> {
        protocol::write(&mut self.input, &Request::Page { index, want }, &[])?;
        let (answer, blob_bytes) = protocol::read_head(&mut self.output)?;
        let limit = self.limits.max_pixels.saturating_mul(3);
        let blob = protocol::read_blob(&mut self.output, blob_bytes, limit)?;
        Ok((answer, blob))
    }

    /// Why the exchange failed with `error`.
    fn why(&mut self, error: &std::io::Error) -> Trouble {
        if error.kind() == ErrorKind::InvalidData || error.is_json() {
            let found = one_line(error);
            return Trouble::BadAnswer { found };
        }
        self.process.post_mortem(&self.limits)
    }
}

/// Whether an error came from reading JSON, which `serde_json` wraps in other kinds.
trait IsJson {
    fn is_json(&self) -> bool;
}

impl IsJson for std::io::Error {
    fn is_json(&self) -> bool {
        let inner = self.get_ref();
        inner.is_some_and(<dyn std::error::Error + Send + Sync>::is::<serde_json::Error>)
    }
}

/// Checks a page against what was asked for: the worker has read hostile bytes.
fn checked(
    size: Option<(u32, u32)>,
    points: (f32, f32),
    mut text: PageText,
    pixels: Vec<u8>,
    want: Want,
    limits: &Limits,
) -> Result<PdfPage, Trouble> {
    let bad = |found: &str| Trouble::BadAnswer {
        found: found.to_owned(),
    };
    if !(points.0.is_finite() && points.1.is_finite()) {
        return Err(bad("a page without a size"));
    }
    if text.words.len() > limits.max_glyphs_per_page {
        return Err(bad("more words than glyphs"));
    }
    for word in &mut text.words {
        word.bbox = word.bbox.clamped();
    }
    let image = match (want, size) {
        (Want::Text, None) => None,
        (Want::Picture { .. }, Some((width, height))) if width > 0 && height > 0 => Some(
            RgbImage::from_raw(width, height, pixels)
                .filter(|i| i.as_raw().len() as u64 == u64::from(width) * u64::from(height) * 3)
                .ok_or_else(|| bad("pixels that do not fill the page"))?,
        ),
        (Want::Text | Want::Picture { .. }, _) => return Err(bad("a page of another kind")),
    };
    Ok(PdfPage {
        image,
        text,
        points,
    })
}

fn nonsense(answer: &Answer) -> Trouble {
    let found = match answer {
        Answer::Opened { .. } => "it opened the file again",
        Answer::NotOpened(_) => "it did not open the file after all",
        Answer::Page { .. } => "a page nobody asked for",
        Answer::NoPage(_) => "no page where none was asked for",
    };
    Trouble::BadAnswer {
        found: found.to_owned(),
    }
}

fn trouble(trouble: Trouble) -> StartFailure {
    StartFailure::Open(OpenFailure::Trouble(trouble))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_does_not_fit_is_refused() {
        let limits = Limits::default();
        let want = Want::Picture { longest_edge: 2 };
        let check = |size, points, bytes: usize, want| {
            let text = PageText::default();
            checked(size, points, text, vec![0; bytes], want, &limits).is_ok()
        };
        assert!(check(Some((2, 1)), (2.0, 1.0), 6, want));
        assert!(!check(Some((2, 1)), (2.0, 1.0), 5, want));
        assert!(!check(Some((2, 1)), (2.0, 1.0), 7, want));
        assert!(!check(Some((0, 0)), (2.0, 1.0), 0, want));
        assert!(!check(None, (2.0, 1.0), 0, want));
        assert!(!check(Some((2, 1)), (f32::NAN, 1.0), 6, want));
        assert!(check(None, (2.0, 1.0), 0, Want::Text));
    }
}
