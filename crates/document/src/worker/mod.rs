//! PDFs in a process of their own.
//!
//! The parent (`client`) starts a [`WorkerCommand`], whose program does nothing but call
//! [`serve`] on its standard input and output. The two speak a small protocol (`protocol`): the
//! parent sends limits, a password and the file's bytes, the worker answers with the number of
//! pages, and then with the pixels and words of each page asked for. The worker opens no file. It
//! lowers its own resource limits (`confine`) before it looks at the first byte of the file; the
//! parent keeps the wall clock and kills it when a request takes too long.
//!
//! Limits: on systems without `RLIMIT_AS` (Windows, in effect macOS) memory is not bounded, only
//! time is.

pub(crate) mod client;
pub(crate) mod confine;
pub(crate) mod process;
pub(crate) mod protocol;

use std::ffi::OsString;
use std::io::{BufReader, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use hayro_syntax::Pdf;

use crate::error::Trouble;
use crate::limits::Limits;
use crate::pdf::{self, Caches, OpenFailure};
use protocol::{Answer, Hello, PROTOCOL, Request};

/// How to start a worker: a program that calls [`serve`], and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerCommand {
    /// The program, as a rule the running one.
    pub program: PathBuf,
    /// The arguments that make it serve.
    pub args: Vec<OsString>,
}

impl WorkerCommand {
    /// A command of `program` and `args`.
    pub fn new(
        program: impl Into<PathBuf>,
        args: impl IntoIterator<Item = impl Into<OsString>>,
    ) -> Self {
        Self {
            program: program.into(),
            args: args.into_iter().map(Into::into).collect(),
        }
    }
}

/// Nested PDF objects are read recursively; the default 2 MiB of a thread is soon used up.
const STACK_BYTES: usize = 64 << 20;

/// Fonts and glyphs pile up in the caches; starting afresh now and then bounds them.
const PAGES_PER_CACHE: usize = 64;

/// Serves one document over `input` and `output` until the input ends: the whole of a worker
/// process. Hand it [`std::io::stdin`] and [`std::io::stdout`] and return what it returns; nothing
/// else may write to standard output.
pub fn serve(input: impl Read + Send, output: impl Write + Send) -> ExitCode {
    let served = std::thread::scope(|scope| {
        std::thread::Builder::new()
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, || session(input, output))
            .map(std::thread::ScopedJoinHandle::join)
    });
    match served {
        Ok(Ok(Ok(()))) => ExitCode::SUCCESS,
        Ok(Ok(Err(_)) | Err(_)) | Err(_) => ExitCode::FAILURE,
    }
}

fn session(input: impl Read, mut output: impl Write) -> std::io::Result<()> {
    let mut input = BufReader::new(input);
    let (hello, rest): (Hello, _) = protocol::read_head(&mut input)?;
    if hello.protocol != PROTOCOL {
        let found = format!("protocol {} for {PROTOCOL}", hello.protocol);
        let failure = OpenFailure::Trouble(Trouble::BadAnswer { found });
        return protocol::write(&mut output, &Answer::NotOpened(failure), &[]);
    }
    let limits = hello.limits;
    if let Err(e) = confine::confine(limits.worker_memory_bytes.saturating_add(rest)) {
        let how = format!("its limits could not be set: {e}");
        let failure = OpenFailure::Trouble(Trouble::Crashed { how });
        return protocol::write(&mut output, &Answer::NotOpened(failure), &[]);
    }
    confine::allow_seconds(limits.max_seconds_per_page);
    let bytes = protocol::read_blob(&mut input, rest, limits.max_file_bytes)?;
    let pdf = match pdf::open(bytes, hello.password.as_deref()) {
        Ok(pdf) => pdf,
        Err(failure) => return protocol::write(&mut output, &Answer::NotOpened(failure), &[]),
    };
    let opened = Answer::Opened {
        pages: pdf.pages().len(),
        title: pdf::title(&pdf),
    };
    protocol::write(&mut output, &opened, &[])?;
    pages(&pdf, &limits, &mut input, &mut output)
}

fn pages(
    pdf: &Pdf,
    limits: &Limits,
    input: &mut impl Read,
    output: &mut impl Write,
) -> std::io::Result<()> {
    let mut caches = Caches::new();
    let mut pages_cached = 0;
    while let Some(request) = protocol::read_request(input)? {
        let Request::Page { index, want } = request;
        confine::allow_seconds(limits.max_seconds_per_page);
        if pages_cached == PAGES_PER_CACHE {
            caches = Caches::new();
            pages_cached = 0;
        }
        pages_cached += 1;
        match pdf::read_page(pdf, &caches, index, want, limits) {
            Ok(page) => {
                let size = page.image.as_ref().map(image::RgbImage::dimensions);
                let answer = Answer::Page {
                    size,
                    points: page.points,
                    text: page.text,
                };
                let pixels = page.image.as_ref().map_or(&[][..], |i| i.as_raw());
                protocol::write(output, &answer, pixels)?;
            }
            Err(trouble) => {
                // A panic may have left a cache half written.
                caches = Caches::new();
                protocol::write(output, &Answer::NoPage(trouble), &[])?;
            }
        }
    }
    Ok(())
}
