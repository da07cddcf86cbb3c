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

/// How a picture is written for a browser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// PNG.
    Png,
    /// WebP without loss.
    WebP,
}

impl Format {
    /// The media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::WebP => "image/webp",
        }
    }
}

/// The file of a picture, made smaller where its longest edge has more than `longest_edge` pixels.
///
/// # Errors
/// When the format cannot hold it.
pub fn encode(image: &RgbImage, longest_edge: u32, format: Format) -> Result<Vec<u8>> {
    let longest = image.width().max(image.height());
    let shrunk = (longest > longest_edge).then(|| {
        let scaled = |side: u32| {
            let side = u64::from(side) * u64::from(longest_edge) / u64::from(longest);
            (side as u32).max(1)
        };
        let (width, height) = (scaled(image.width()), scaled(image.height()));
        image::imageops::thumbnail(image, width, height)
    });
    let format = match format {
        Format::Png => image::ImageFormat::Png,
        Format::WebP => image::ImageFormat::WebP,
    };
    let mut bytes = std::io::Cursor::new(Vec::new());
    shrunk
        .as_ref()
        .unwrap_or(image)
        .write_to(&mut bytes, format)
        .map_err(|error| Error::Io {
            path: "a picture".into(),
            source: std::io::Error::other(error),
        })?;
    Ok(bytes.into_inner())
}

/// Decodes a picture from the bytes of a file; `name` is for the message.
///
/// # Errors
/// When it cannot be decoded, or costs more than `limits` allow.
pub fn decode(name: &str, bytes: &[u8], limits: &Limits) -> Result<RgbImage> {
    decode_image(bytes, limits).map_err(|error| Error::Picture {
        path: name.into(),
        reason: error.to_string(),
    })
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
