//! PDF pages through hayro: drawing ([`draw`]) and text ([`glyphs`]) under the same transform.
//!
//! Everything here runs in the process that calls it: in the worker process for files that are
//! not trusted, in the caller's where no worker was asked for. Panics of the PDF library are
//! caught; endless loops and blow-ups are the worker's matter.

mod draw;
mod glyphs;
mod strings;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use hayro::RenderCache;
use hayro::hayro_interpret::InterpreterCache;
use hayro_syntax::{DecryptionError, LoadPdfError, Pdf};
use image::RgbImage;
use serde::{Deserialize, Serialize};

use crate::error::{Trouble, one_line};
use crate::layout;
use crate::limits::Limits;
use crate::text::{PageText, TextLayer};

/// Why a PDF could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum OpenFailure {
    /// A password is asked for and none was given.
    Encrypted,
    /// The password given is not the right one.
    WrongPassword,
    /// Encryption of an unknown kind.
    UnsupportedEncryption(String),
    /// The structure cannot be read.
    Corrupt,
    /// The library, or the worker around it, failed.
    Trouble(Trouble),
}

/// What is wanted of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Want {
    /// Words only.
    Text,
    /// Words, and the picture with this longest edge in pixels.
    Picture {
        /// Pixels of the longer edge.
        longest_edge: u32,
    },
}

/// What was read of a page.
#[derive(Debug)]
pub(crate) struct PdfPage {
    /// The picture, where it was wanted.
    pub(crate) image: Option<RgbImage>,
    /// The words.
    pub(crate) text: PageText,
    /// Size as displayed, in points.
    pub(crate) points: (f32, f32),
}

/// Fonts and colour spaces kept between the pages of a file.
pub(crate) struct Caches<'a> {
    render: RenderCache<'a>,
    text: InterpreterCache<'a>,
}

impl Caches<'_> {
    /// Empty caches.
    pub(crate) fn new() -> Self {
        Self {
            render: RenderCache::new(),
            text: InterpreterCache::new(),
        }
    }
}

/// Opens a PDF, with the empty password first and then the one given.
pub(crate) fn open(bytes: Vec<u8>, password: Option<&str>) -> Result<Pdf, OpenFailure> {
    let bytes = Arc::new(bytes);
    let load = |password: &str| {
        let bytes = Arc::clone(&bytes);
        catch_unwind(AssertUnwindSafe(|| Pdf::new_with_password(bytes, password))).map_err(
            |payload| {
                OpenFailure::Trouble(Trouble::Panicked {
                    message: panic_message(payload.as_ref()),
                })
            },
        )
    };
    let mut loaded = load("")?;
    let refused = LoadPdfError::Decryption(DecryptionError::PasswordProtected);
    if let (Some(password), true) = (password, loaded.as_ref().err() == Some(&refused)) {
        loaded = load(password)?;
    }
    loaded.map_err(|e| match e {
        LoadPdfError::Invalid => OpenFailure::Corrupt,
        LoadPdfError::Decryption(DecryptionError::PasswordProtected) if password.is_some() => {
            OpenFailure::WrongPassword
        }
        LoadPdfError::Decryption(DecryptionError::PasswordProtected) => OpenFailure::Encrypted,
        LoadPdfError::Decryption(
            e @ (DecryptionError::MissingIDEntry
            | DecryptionError::InvalidEncryption
            | DecryptionError::UnsupportedAlgorithm),
        ) => OpenFailure::UnsupportedEncryption(format!("{e:?}")),
    })
}

/// The title in the document information dictionary, if it says anything.
pub(crate) fn title(pdf: &Pdf) -> Option<String> {
    const LONGEST_TITLE: usize = 512;
    let title = strings::decode(pdf.metadata().title.as_deref()?);
    let words: Vec<&str> = title.split_whitespace().collect();
    let title: String = words.join(" ").chars().take(LONGEST_TITLE).collect();
    (!title.is_empty()).then_some(title)
}

/// Reads one page, `index` counting from 0.
pub(crate) fn read_page<'a>(
    pdf: &'a Pdf,
    caches: &Caches<'a>,
    index: usize,
    want: Want,
    limits: &Limits,
) -> Result<PdfPage, Trouble> {
    let Some(page) = pdf.pages().get(index) else {
        return Err(Trouble::BadAnswer {
            found: format!("there is no page {}", index + 1),
        });
    };
    let points = page.render_dimensions();
    let usable = |v: f32| v.is_finite() && v > 0.0;
    if !usable(points.0) || !usable(points.1) {
        return Err(Trouble::BadSize {
            width: points.0.to_string(),
            height: points.1.to_string(),
        });
    }
    let image = match want {
        Want::Text => None,
        Want::Picture { longest_edge } => {
            let size = draw::pixel_size(points, longest_edge, limits.max_pixels);
            let drawn = catch_unwind(AssertUnwindSafe(|| {
                draw::draw(page, &caches.render, points, size)
            }));
            Some(drawn.map_err(|payload| Trouble::Panicked {
                message: panic_message(payload.as_ref()),
            })?)
        }
    };
    // The picture is worth having without the words, so a failure here is only noted.
    let text = catch_unwind(AssertUnwindSafe(|| {
        let found = glyphs::collect(page, &caches.text, points, limits.max_glyphs_per_page);
        layout::page_text(found, points)
    }))
    .unwrap_or_else(|_| PageText {
        words: Vec::new(),
        layer: TextLayer::Failed,
    });
    Ok(PdfPage {
        image,
        text,
        points,
    })
}

/// The message of a panic, on one line and of bounded length.
pub(crate) fn panic_message(payload: &(dyn Any + Send)) -> String {
    let message = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("panic without a message");
    one_line(message)
}
