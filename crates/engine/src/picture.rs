//! Pictures: those a person gives, and pages drawn again for a generator.

use std::path::Path;

use colibri_document::{Document, Limits, OpenOptions, RenderSize, image_file::decode_image};
pub use image::RgbImage;

use crate::{Error, Result};

/// Reads a picture file of any supported kind.
///
/// # Errors
/// When it cannot be read or decoded.
pub fn open(path: &Path, limits: &Limits) -> Result<RgbImage> {
    let io = |source| Error::Io {
        path: path.to_owned(),
        source,
    };
    let bytes = fs_err::metadata(path).map_err(io)?.len();
    if bytes > limits.max_file_bytes {
        let reason = format!(
            "it has {bytes} bytes, the limit is {}",
            limits.max_file_bytes
        );
        return Err(Error::Picture {
            path: path.to_owned(),
            reason,
        });
    }
    let bytes = fs_err::read(path).map_err(io)?;
    decode_image(&bytes, limits).map_err(|error| Error::Picture {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

/// Draws a page of a document so that its longest edge has `longest_edge` pixels.
///
/// # Errors
/// When the document or the page cannot be read.
pub fn page(
    document: &Path,
    number: u32,
    longest_edge: u32,
    options: &OpenOptions,
) -> Result<RgbImage> {
    let mut document = Document::open(document, options)?;
    Ok(document
        .page(number as usize, &RenderSize { longest_edge })?
        .image)
}

/// Writes a picture as PNG.
///
/// # Errors
/// When the file cannot be written.
pub fn save_png(image: &RgbImage, path: &Path) -> Result<()> {
    let failed = |error: image::ImageError| Error::Io {
        path: path.to_owned(),
        source: std::io::Error::other(error),
    };
    image
        .save_with_format(path, image::ImageFormat::Png)
        .map_err(failed)
}
