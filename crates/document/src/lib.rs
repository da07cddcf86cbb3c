//! Files to pages: an RGB picture of each page, and the words on it with their boxes.
//!
//! A [`Document`] is a PDF, a picture, or a multi-page TIFF, told apart by its first bytes
//! ([`sniff`]). A [`Page`] carries an [`image::RgbImage`] (alpha composited on white, rotation and
//! crop box applied) and a [`PageText`]: the file's own text layer in reading order, with boxes in
//! fractions of the page as displayed. Nothing here knows a model, an index or another crate of
//! this workspace.
//!
//! PDFs are hostile input: they are opened in a worker process ([`WorkerCommand`], [`worker`])
//! with limits on memory, processor time and wall-clock time, so that a panic, an endless loop or
//! a blow-up costs one page or one file and not the run. Pictures are decoded in this process,
//! bounded by [`Limits`].
//!
//! Limits: no OCR (a scan without a text layer has no words), no AVIF, HEIC or SVG, right-to-left
//! text is put into logical order word by word without the full bidirectional algorithm.

mod document;
mod error;
mod layout;
mod limits;
mod pdf;
mod sniff;
mod text;

pub mod image_file;
pub mod video;
pub mod walk;
pub mod worker;

pub use document::{Document, OpenOptions, Page};
pub use error::{Error, ImageError, Result, Trouble};
pub use limits::{Limits, RenderSize};
pub use sniff::{Kind, SNIFF_BYTES, sniff};
pub use text::{BBox, PageText, TextLayer, Word};
pub use worker::WorkerCommand;
